//! Large values from socket to socket through a pipe, without copying them into the process.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;

use crate::net::Stream;
use crate::net::fds::PIPES_PER_THREAD;

/// Asked of the kernel; what it grants may be less, and counts pages, not bytes.
const PIPE_SIZE: usize = 256 * 1024;

thread_local! {
    /// Pipes that are in use on this thread.
    static LENT: Cell<usize> = const { Cell::new(0) };
    static STORE: RefCell<Vec<(OwnedFd, OwnedFd)>> = const { RefCell::new(Vec::new()) };
}

/// A pipe and the bytes in it. Lent to one direction of one session while a large value passes.
#[derive(Debug)]
pub struct Pipe {
    /// Read end, write end; only `None` while being dropped.
    ends: Option<(OwnedFd, OwnedFd)>,
    held: usize,
}

impl Pipe {
    /// `None` when this thread has no more pipes to lend: then bytes are copied.
    pub fn take() -> Option<Self> {
        if LENT.get() >= PIPES_PER_THREAD {
            return None;
        }
        let ends = STORE.with_borrow_mut(Vec::pop).or_else(|| {
            let ends = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
            // Without the larger size it only takes more turns.
            let _ = fcntl_setpipe_size(&ends.1, PIPE_SIZE);
            Some(ends)
        })?;
        LENT.set(LENT.get() + 1);
        Some(Self {
            ends: Some(ends),
            held: 0,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves what has arrived on `from` into the empty pipe, at most `most` bytes, which is not 0; 0 is
    /// the end of the stream.
    pub fn poll_fill(
        &mut self,
        from: &Stream,
        most: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let most = usize::try_from(most).map_or(PIPE_SIZE, |most| most.min(PIPE_SIZE));
        let (Some(fd), Some((_, into))) = (from.plain_fd(), &self.ends) else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        loop {
            ready!(from.poll_read_ready(cx))?;
            let moved = from.try_io(Interest::READABLE, || move_bytes(fd, into, most));
            match moved {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
                Ok(n) => {
                    self.held += n;
                    return Poll::Ready(Ok(n));
                }
            }
        }
    }

    /// One try to move what the pipe holds to `to`. `WouldBlock`: see [`Stream::poll_write_ready`].
    pub fn try_empty(&mut self, to: &Stream) -> io::Result<usize> {
        let (Some(fd), Some((from, _))) = (to.plain_fd(), &self.ends) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let held = self.held;
        let moved = to.try_io(Interest::WRITABLE, || move_bytes(from, fd, held))?;
        self.held -= moved.min(held);
        Ok(moved)
    }
}

fn move_bytes(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    Ok(splice(from, None, to, None, most, flags)?)
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // At thread exit the counts may be gone before the last session.
        let _ = LENT.try_with(|lent| lent.set(lent.get().saturating_sub(1)));
        // A pipe with bytes in it would leak them into another session.
        if self.held > 0 {
            return;
        }
        if let Some(ends) = self.ends.take() {
            let _ = STORE.try_with(|store| store.borrow_mut().push(ends));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_lends_so_many_pipes_and_takes_them_back() {
        let lent: Vec<_> = (0..PIPES_PER_THREAD)
            .map(|_| Pipe::take().unwrap())
            .collect();
        assert!(Pipe::take().is_none(), "the rest is copied");
        drop(lent);
        assert_eq!(STORE.with_borrow(Vec::len), PIPES_PER_THREAD);
        let again = Pipe::take().unwrap();
        assert!(again.is_empty() && STORE.with_borrow(Vec::len) == PIPES_PER_THREAD - 1);
    }
}
