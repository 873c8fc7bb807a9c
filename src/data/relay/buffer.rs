//! Read buffers, kept per thread and lent for as long as bytes are on their way.
//!
//! A session that is idle holds none, and a read does not allocate: it takes the buffer that the last
//! one gave back. The store is thread-local because sessions never leave their thread.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::net::Stream;

/// Small enough to stay in the processor's cache, large enough that a bigger message pays for a pipe.
pub const CHUNK: usize = 32 * 1024;

/// Buffers kept for later; the rest is freed.
const KEPT: usize = 32;

thread_local! {
    static STORE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that were read and not yet written.
#[derive(Debug)]
pub struct Chunk {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Chunk {
    fn take() -> Self {
        let kept = STORE.with_borrow_mut(Vec::pop);
        let bytes = kept.unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice());
        Self {
            bytes,
            start: 0,
            end: 0,
        }
    }

    /// Reads once. An empty chunk is the end of the stream.
    pub fn poll_read(from: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<Self>> {
        let mut chunk = Self::take();
        let mut buf = ReadBuf::new(&mut chunk.bytes);
        ready!(Pin::new(from).poll_read(cx, &mut buf))?;
        chunk.end = buf.filled().len();
        Poll::Ready(Ok(chunk))
    }

    /// Bytes that were read in another way; `None` where there are none.
    pub fn from_early(early: &[u8]) -> Option<Self> {
        (!early.is_empty()).then(|| Self {
            start: 0,
            end: early.len(),
            bytes: early.into(),
        })
    }

    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether the read filled it, so that more is likely to wait.
    pub fn is_full(&self) -> bool {
        self.end == self.bytes.len()
    }

    pub fn advance(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // At thread exit the store may be gone before the last session.
        let _ = STORE.try_with(|store| {
            let mut store = store.borrow_mut();
            if store.len() < KEPT && bytes.len() == CHUNK {
                store.push(bytes);
            }
        });
    }
}
