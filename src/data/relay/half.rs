//! One direction of a session: read, write, back-pressure, end of stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::buffer::{CHUNK, Chunk};
use super::splice::Pipe;
use crate::net::Stream;
use crate::proto::Omen;
use crate::proto::track::{Direction, Tracker};
use crate::signal::{Crossing, Signal};
use crate::telemetry::metrics::Tally;

/// What goes with the bytes of one direction.
pub struct Passage<'a, P> {
    pub permit: P,
    /// Gets the bytes written.
    pub count: &'a Tally,
    /// Is shown them.
    pub tracker: Option<&'a mut Box<dyn Tracker>>,
    pub direction: Direction,
    /// Looks at the beginning of each read.
    pub omen: Option<Omen>,
}

impl<P> Passage<'_, P> {
    /// Shows the tracker what passed. Returns how much of what follows it need not see, after the
    /// `blind` bytes that it had allowed before.
    fn show(&mut self, bytes: &[u8], blind: u64) -> u64 {
        let Some(tracker) = &mut self.tracker else {
            return u64::MAX;
        };
        let unseen = usize::try_from(blind).map_or(bytes.len(), |b| b.min(bytes.len()));
        if unseen > 0 {
            tracker.skip(self.direction, unseen as u64);
        }
        match &bytes[unseen..] {
            [] => blind - unseen as u64,
            rest => tracker.see(self.direction, rest),
        }
    }

    /// The same for `n` bytes that passed unseen.
    fn hide(&mut self, n: usize, blind: u64) -> u64 {
        if let Some(tracker) = &mut self.tracker {
            tracker.skip(self.direction, n as u64);
        }
        blind.saturating_sub(n as u64)
    }
}

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
    /// The last read filled its chunk: more is likely to wait.
    burst: bool,
    /// How many of the next bytes may pass without being shown to the tracker.
    blind: u64,
    ended: bool,
    ominous: bool,
    shut: bool,
    /// Bytes written so far.
    pub total: u64,
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

    /// Moves what can be moved. `Pending` registers for whatever is missing.
    pub fn poll<P: Permit>(
        &mut self,
        cx: &mut Context<'_>,
        ends: (&mut Stream, &mut Stream),
        mut passage: Passage<'_, P>,
    ) -> Poll<Stop> {
        let (from, to) = ends;
        loop {
            match ready!(self.poll_write(cx, to, &mut passage)) {
                Ok(()) => {}
                Err(stop) => return Poll::Ready(stop),
            }
            if self.ended {
                return Poll::Ready(Stop::Finished);
            }
            if ready!(self.poll_read(cx, from, to)).is_err() {
                return Poll::Ready(Stop::ReadFailed);
            }
            self.look_at_read(passage.omen);
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &Stream,
    ) -> Poll<io::Result<()>> {
        self.choose_way(from, to);
        if let Some(pipe) = &mut self.pipe {
            match pipe.poll_fill(from, self.blind, cx)? {
                Poll::Ready(0) => self.ended = true,
                Poll::Ready(_) => {}
                Poll::Pending => {
                    // The burst is over: the pipe is for others now.
                    self.pipe = None;
                    self.burst = false;
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
        self.burst = chunk.is_full();
        self.pending = Some(chunk);
        Poll::Ready(Ok(()))
    }

    /// A handful of bytes of each read that is not in a pipe: this is on every small request's way.
    fn look_at_read(&mut self, omen: Option<Omen>) {
        if let (Some(omen), Some(chunk)) = (omen, &self.pending) {
            self.ominous |= omen(chunk.rest());
        }
    }

    /// Whether a read began with what the omen is for, since the last call.
    pub fn take_omen(&mut self) -> bool {
        std::mem::take(&mut self.ominous)
    }

    /// Whether the next bytes go through a pipe: many of them, that nobody has to see.
    fn choose_way(&mut self, from: &Stream, to: &Stream) {
        if self.blind == 0 {
            self.pipe = None;
        } else if self.pipe.is_none()
            && self.burst
            && self.blind >= CHUNK as u64
            && from.plain_fd().is_some()
            && to.plain_fd().is_some()
        {
            self.pipe = Pipe::take().map(Box::new);
        }
    }

    fn poll_write<P: Permit>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut Stream,
        passage: &mut Passage<'_, P>,
    ) -> Poll<Result<(), Stop>> {
        while let Some(chunk) = &mut self.pending {
            let write = || Pin::new(&mut *to).poll_write(cx, chunk.rest());
            let written = passage.permit.attempt(write);
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
            self.blind = passage.show(&chunk.rest()[..n], self.blind);
            chunk.advance(n);
            if chunk.is_empty() {
                self.pending = None;
            }
            self.note_written(n, passage.count);
        }
        // TLS may have bytes of its own in hand, and they are the client's.
        if to.plain_fd().is_none() {
            match passage.permit.attempt(|| Pin::new(&mut *to).poll_flush(cx)) {
                None => return Poll::Ready(Err(Stop::Denied)),
                Some(flushed) => {
                    if ready!(flushed).is_err() {
                        return Poll::Ready(Err(Stop::WriteFailed));
                    }
                }
            }
        }
        while let Some(pipe) = self.pipe.as_mut().filter(|p| !p.is_empty()) {
            if ready!(to.poll_write_ready(cx)).is_err() {
                return Poll::Ready(Err(Stop::WriteFailed));
            }
            let Some(moved) = passage.permit.attempt(|| pipe.try_empty(to)) else {
                return Poll::Ready(Err(Stop::Denied));
            };
            match moved {
                Ok(n) => {
                    self.blind = passage.hide(n, self.blind);
                    self.note_written(n, passage.count);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(Err(Stop::WriteFailed)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn note_written(&mut self, n: usize, count: &Tally) {
        self.total += n as u64;
        count.add(n as u64);
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
