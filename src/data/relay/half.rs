//! One direction of a session: read, write, back-pressure, end of stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::buffer::Chunk;
use super::splice::Pipe;
use crate::net::Stream;
use crate::signal::{Crossing, Signal};

/// Leave to write.
pub trait Permit {
    /// Runs `write` if it may happen now; `None` if it may not.
    fn attempt<R>(&self, write: impl FnOnce() -> R) -> Option<R>;
}

/// To the client: always.
pub struct Free;

impl Permit for Free {
    fn attempt<R>(&self, write: impl FnOnce() -> R) -> Option<R> {
        Some(write())
    }
}

/// To the server: only while what the session knows is the newest there is. Whoever changes it waits
/// for the write to end, see [`Signal::ring`].
pub struct Current<'a> {
    pub signal: &'a Signal,
    pub crossing: &'a Crossing,
    pub version: u64,
}

impl Permit for Current<'_> {
    fn attempt<R>(&self, write: impl FnOnce() -> R) -> Option<R> {
        let _crossing = self.crossing.enter();
        (self.signal.version() == self.version).then(write)
    }
}

/// Why a direction stopped for now or for good.
#[derive(Debug)]
pub enum Stop {
    /// The source ended, and everything it sent was passed on.
    Finished,
    /// The permit was refused.
    Denied,
    ReadFailed,
    WriteFailed,
}

/// What one direction has in hand.
#[derive(Debug, Default)]
pub struct Half {
    pub pending: Option<Chunk>,
    pipe: Option<Box<Pipe>>,
    ended: bool,
    shut: bool,
    /// Whether a byte was ever written.
    pub wrote: bool,
    /// Whether one was written since this was last reset.
    pub moved: bool,
}

impl Half {
    /// Starts with bytes that were read before.
    pub fn with(pending: Option<Chunk>) -> Self {
        Self {
            pending,
            ..Self::default()
        }
    }

    /// Whether the source has ended and the target was told.
    pub fn is_finished(&self) -> bool {
        self.shut
    }

    /// Moves what can be moved. `Pending` registers for whatever is missing. `count` gets the bytes
    /// written.
    pub fn poll<P: Permit>(
        &mut self,
        cx: &mut Context<'_>,
        ends: (&mut Stream, &mut Stream),
        permit: &P,
        count: &metrics::Counter,
    ) -> Poll<Stop> {
        let (from, to) = ends;
        loop {
            match ready!(self.poll_write(cx, to, permit, count)) {
                Ok(()) => {}
                Err(stop) => return Poll::Ready(stop),
            }
            if self.ended {
                return Poll::Ready(Stop::Finished);
            }
            if ready!(self.poll_read(cx, from, to)).is_err() {
                return Poll::Ready(Stop::ReadFailed);
            }
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &Stream,
    ) -> Poll<io::Result<()>> {
        if let Some(pipe) = &mut self.pipe {
            match pipe.poll_fill(from, cx)? {
                Poll::Ready(0) => self.ended = true,
                Poll::Ready(_) => {}
                Poll::Pending => {
                    // The burst is over: the pipe is for others now.
                    self.pipe = None;
                    return Poll::Pending;
                }
            }
            return Poll::Ready(Ok(()));
        }
        let chunk = ready!(Chunk::poll_read(from, cx))?;
        if chunk.is_empty() {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        if chunk.is_full() && from.plain_fd().is_some() && to.plain_fd().is_some() {
            self.pipe = Pipe::take().map(Box::new);
        }
        self.pending = Some(chunk);
        Poll::Ready(Ok(()))
    }

    fn poll_write<P: Permit>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut Stream,
        permit: &P,
        count: &metrics::Counter,
    ) -> Poll<Result<(), Stop>> {
        while let Some(chunk) = &mut self.pending {
            let written = permit.attempt(|| Pin::new(&mut *to).poll_write(cx, chunk.rest()));
            let Some(written) = written else {
                return Poll::Ready(Err(Stop::Denied));
            };
            let written = ready!(written).and_then(|n| {
                if n == 0 {
                    Err(io::ErrorKind::WriteZero.into())
                } else {
                    Ok(n)
                }
            });
            let n = match written {
                Ok(n) => n,
                Err(_) => return Poll::Ready(Err(Stop::WriteFailed)),
            };
            chunk.advance(n);
            if chunk.is_empty() {
                self.pending = None;
            }
            self.note_written(n, count);
        }
        // TLS may have bytes of its own in hand; on a plain socket this is nothing.
        if ready!(Pin::new(&mut *to).poll_flush(cx)).is_err() {
            return Poll::Ready(Err(Stop::WriteFailed));
        }
        while let Some(pipe) = self.pipe.as_mut().filter(|p| !p.is_empty()) {
            if ready!(to.poll_write_ready(cx)).is_err() {
                return Poll::Ready(Err(Stop::WriteFailed));
            }
            let Some(moved) = permit.attempt(|| pipe.try_empty(to)) else {
                return Poll::Ready(Err(Stop::Denied));
            };
            match moved {
                Ok(n) => self.note_written(n, count),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(Err(Stop::WriteFailed)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn note_written(&mut self, n: usize, count: &metrics::Counter) {
        self.wrote = true;
        self.moved = true;
        count.increment(n as u64);
    }

    /// Tells the target that nothing more will come.
    pub fn poll_shut(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<()> {
        if !self.shut {
            // A target that is already gone needs no FIN.
            let _ = ready!(Pin::new(to).poll_shutdown(cx));
            self.shut = true;
        }
        Poll::Ready(())
    }
}
