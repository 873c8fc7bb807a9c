//! The long life of a session: bytes both ways until somebody leaves or the primary moves.
//!
//! While all is well there are no timers, no locks and no allocations here; a wake-up reads what has
//! arrived and writes it on.

mod buffer;
mod half;
mod splice;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

pub use buffer::Chunk;
use half::{Current, Free, Half, Stop};

use super::{Door, EndReason};
use crate::net::Stream;
use crate::topology::pick::{Standing, standing};
use crate::topology::{Occupied, Role};

/// How long the rest of a half-closed session may be silent.
const LINGER: Duration = Duration::from_secs(30);

/// What set-up hands over: everything a session needs from now on, and nothing else.
#[derive(Debug)]
pub struct Linked {
    pub client: Stream,
    pub upstream: Stream,
    pub place: Occupied,
    /// The signal's version when the endpoint was picked.
    pub version: u64,
    /// Read from the client before, and sent to nobody yet.
    pub pending: Option<Chunk>,
}

/// How a relay ends.
#[derive(Debug)]
pub enum Outcome {
    Ended(EndReason),
    /// Not one byte reached the server, so the client can go to another.
    Unlinked {
        client: Stream,
        pending: Option<Chunk>,
        why: Unlink,
    },
}

/// Why an untouched session looks for another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlink {
    Switched,
    UpstreamLost,
}

/// What a look at gate and topology says.
enum Look {
    Flow,
    Pause,
    Move,
    Leave(EndReason),
}

struct Relay<'a> {
    door: &'a Arc<Door>,
    client: Stream,
    upstream: Stream,
    place: Occupied,
    version: u64,
    /// Client to server, and back.
    up: Half,
    down: Half,
    /// The server does not take any more; what it still sends is passed on.
    up_broken: bool,
    paused: bool,
    timer: Option<Timer>,
}

/// Only for sessions with an idle limit, or half closed.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    limit: Duration,
    reason: EndReason,
}

/// Relays until the end of the session.
pub async fn run(linked: Linked, door: &Arc<Door>) -> Outcome {
    let mut relay = Relay::new(linked, door);
    loop {
        let signal = &door.service.signal;
        let mut rung = pin!(signal.rung());
        match relay.look() {
            Look::Flow => relay.paused = false,
            Look::Pause => relay.paused = true,
            Look::Move => return relay.unlink(Unlink::Switched),
            Look::Leave(reason) => return relay.leave(reason).await,
        }
        let version = relay.version;
        let event = signal
            .unless_rung(rung.as_mut(), version, |cx| relay.poll(cx))
            .await;
        match event {
            None => {}
            Some(EndReason::UpstreamClosed | EndReason::UpstreamError) if relay.is_untouched() => {
                return relay.unlink(Unlink::UpstreamLost);
            }
            Some(reason) => return relay.leave(reason).await,
        }
    }
}

impl<'a> Relay<'a> {
    fn new(linked: Linked, door: &'a Arc<Door>) -> Self {
        let idle = door.service.limits.idle_timeout;
        Self {
            door,
            client: linked.client,
            upstream: linked.upstream,
            place: linked.place,
            version: linked.version,
            up: Half::with(linked.pending),
            down: Half::default(),
            up_broken: false,
            paused: false,
            timer: idle.map(|limit| Timer::start(limit, EndReason::IdleTimeout)),
        }
    }

    /// Judges the session by the newest gate and topology.
    fn look(&mut self) -> Look {
        let service = &self.door.service;
        // The version first, then what it stands for: a change in between is noticed at the next
        // write. The gate before the topology: a fence is lifted only after the publishing.
        self.version = service.signal.version();
        if service.drain.is_closing() {
            return Look::Leave(EndReason::Drained);
        }
        let open = service.gate.is_open();
        let topology = service.topology.load();
        let endpoint = self.place.endpoint();
        match standing(&topology, endpoint, self.door.role, service.fallback) {
            Standing::Wrong if self.is_untouched() => Look::Move,
            Standing::Wrong => Look::Leave(EndReason::Switched),
            Standing::Unproven => Look::Pause,
            // Reads from a replica go on while writes are held.
            Standing::Right if open => Look::Flow,
            Standing::Right if self.door.role == Role::Primary => Look::Pause,
            Standing::Right if topology.primary_addr() == Some(&endpoint.addr) => Look::Pause,
            Standing::Right => Look::Flow,
        }
    }

    fn is_untouched(&self) -> bool {
        !self.up.wrote && !self.down.wrote && !self.up.is_finished() && self.down.pending.is_none()
    }

    /// `None`: look again.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<EndReason>> {
        let up = self.poll_up(cx);
        if up.is_ready() {
            return up;
        }
        let down = self.poll_down(cx);
        if down.is_ready() {
            return down;
        }
        self.poll_timer(cx)
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Option<EndReason>> {
        if self.paused || self.up_broken || self.up.is_finished() {
            return Poll::Pending;
        }
        let service = &self.door.service;
        let permit = Current {
            signal: &service.signal,
            crossing: service.signal.crossing(self.door.thread),
            version: self.version,
        };
        let count = &self.door.metrics.bytes_up;
        let ends = (&mut self.client, &mut self.upstream);
        let Poll::Ready(stop) = self.up.poll(cx, ends, &permit, count) else {
            return Poll::Pending;
        };
        match stop {
            Stop::Denied => Poll::Ready(None),
            Stop::ReadFailed => Poll::Ready(Some(EndReason::ClientError)),
            Stop::WriteFailed if self.is_untouched() => Poll::Ready(Some(EndReason::UpstreamError)),
            Stop::WriteFailed => {
                // What it said before it closed is still to be read.
                self.up_broken = true;
                Poll::Pending
            }
            // Closing says the rest.
            Stop::Finished if self.down.is_finished() => Poll::Ready(Some(EndReason::ClientClosed)),
            Stop::Finished => {
                ready!(self.up.poll_shut(cx, &mut self.upstream));
                Poll::Pending
            }
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Option<EndReason>> {
        if self.down.is_finished() {
            return Poll::Pending;
        }
        let count = &self.door.metrics.bytes_down;
        let ends = (&mut self.upstream, &mut self.client);
        let Poll::Ready(stop) = self.down.poll(cx, ends, &Free, count) else {
            return Poll::Pending;
        };
        match stop {
            Stop::Denied => Poll::Ready(None),
            Stop::ReadFailed => Poll::Ready(Some(EndReason::UpstreamError)),
            Stop::WriteFailed => Poll::Ready(Some(EndReason::ClientError)),
            // The client must not hear an end that may yet become another server's beginning.
            Stop::Finished if self.is_untouched() => Poll::Ready(Some(EndReason::UpstreamClosed)),
            Stop::Finished if self.up.is_finished() => Poll::Ready(Some(EndReason::ClientClosed)),
            Stop::Finished => {
                ready!(self.down.poll_shut(cx, &mut self.client));
                self.after_server_end(cx)
            }
        }
    }

    fn after_server_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<EndReason>> {
        if self.up_broken || !self.door.service.wire.server_half_closes() {
            return Poll::Ready(Some(EndReason::UpstreamClosed));
        }
        self.timer = Some(Timer::start(LINGER, EndReason::UpstreamClosed));
        self.poll_timer(cx)
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Option<EndReason>> {
        let Some(timer) = &mut self.timer else {
            return Poll::Pending;
        };
        let moved = std::mem::take(&mut self.up.moved) | std::mem::take(&mut self.down.moved);
        if moved {
            timer.sleep.as_mut().reset(Instant::now() + timer.limit);
        }
        timer.sleep.as_mut().poll(cx).map(|()| Some(timer.reason))
    }

    fn unlink(self, why: Unlink) -> Outcome {
        Outcome::Unlinked {
            client: self.client,
            pending: self.up.pending,
            why,
        }
    }

    /// The client hears the end as FIN: nothing of what it sent is left unread, which would make the
    /// kernel send RST and destroy what is still on its way to it.
    async fn leave(&mut self, reason: EndReason) -> Outcome {
        if reason != EndReason::ClientClosed {
            poll_fn(|cx| self.down.poll_shut(cx, &mut self.client)).await;
            self.client.discard_received(buffer::CHUNK);
        }
        Outcome::Ended(reason)
    }
}

impl Timer {
    fn start(limit: Duration, reason: EndReason) -> Self {
        Self {
            sleep: Box::pin(sleep(limit)),
            limit,
            reason,
        }
    }
}
