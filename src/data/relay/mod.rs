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

use tokio::time::{Instant, Sleep, sleep, sleep_until};

pub use buffer::Chunk;
use half::{Current, Free, Half, Passage, Stop};

use super::table::{Entry, Stage};
use super::{Door, EndReason, refuse};
use crate::clock::Moment;
use crate::gate::HoldReason;
use crate::monitor::hints::Evidence;
use crate::net::Stream;
use crate::proto::track::{Direction, Farewell, SessionState, Tracker};
use crate::topology::pick::{Standing, standing};
use crate::topology::{Occupied, Role};

/// How long the rest of a half-closed session may be silent.
const LINGER: Duration = Duration::from_secs(30);

/// What set-up hands over: everything a session needs from now on, and nothing else.
pub struct Linked {
    pub client: Stream,
    pub upstream: Stream,
    pub place: Occupied,
    /// The signal's version when the endpoint was picked.
    pub version: u64,
    /// Read from the client before, and sent to nobody yet.
    pub pending: Option<Chunk>,
    /// Where there was a login.
    pub login: Option<Login>,
}

/// What a login leaves behind.
pub struct Login {
    pub tracker: Box<dyn Tracker>,
    /// Read from the server beyond the login.
    pub early_down: Option<Chunk>,
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
    /// Go on to the next transaction boundary, at most until then.
    Finish(Moment),
    /// Go on to the next transaction boundary, and wait there.
    Wind,
    Move,
    Leave(EndReason),
}

struct Relay<'a> {
    door: &'a Arc<Door>,
    entry: &'a Entry,
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
    /// Where the session stands, if the protocol can tell.
    tracker: Option<Box<dyn Tracker>>,
    /// It ends at its next transaction boundary, or then.
    finishing: Option<Pin<Box<Sleep>>>,
    /// It waits from its next transaction boundary on.
    winding: bool,
}

/// Only for sessions with an idle limit, or half closed.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    limit: Duration,
    reason: EndReason,
    /// Bytes passed when it was last set.
    seen: u64,
}

/// Relays until the end of the session.
pub async fn run(linked: Linked, door: &Arc<Door>, entry: &Entry) -> Outcome {
    let mut relay = Relay::new(linked, door, entry);
    relay.show_stage();
    loop {
        let signal = &door.service.signal;
        let mut rung = pin!(signal.rung());
        relay.winding = false;
        match relay.look() {
            Look::Flow => relay.paused = false,
            Look::Pause => relay.paused = true,
            Look::Finish(until) => relay.finish_until(until),
            Look::Wind => {
                relay.paused = false;
                relay.winding = true;
            }
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
    fn new(linked: Linked, door: &'a Arc<Door>, entry: &'a Entry) -> Self {
        let idle = door.service.limits.idle_timeout;
        let (tracker, early_down) = match linked.login {
            Some(login) => (Some(login.tracker), login.early_down),
            None => (None, None),
        };
        Self {
            door,
            entry,
            client: linked.client,
            upstream: linked.upstream,
            place: linked.place,
            version: linked.version,
            up: Half::with(linked.pending),
            down: Half::with(early_down),
            up_broken: false,
            paused: false,
            timer: idle.map(|limit| Timer::start(limit, EndReason::IdleTimeout)),
            tracker,
            finishing: None,
            winding: false,
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
            Standing::Leaving(_) if self.is_untouched() => Look::Move,
            Standing::Leaving(until) if self.may_finish(until) => Look::Finish(until),
            Standing::Wrong | Standing::Leaving(_) => Look::Leave(EndReason::Switched),
            Standing::Unproven => Look::Pause,
            // Reads from a replica go on while writes are held.
            Standing::Right if open => Look::Flow,
            Standing::Right if self.door.role == Role::Primary => self.hold(),
            Standing::Right if topology.primary_addr() == Some(&endpoint.addr) => self.hold(),
            Standing::Right => Look::Flow,
        }
    }

    /// Behind a gate that is shut. What an operator holds may finish first; a fence is for what must not
    /// be written any more. Without a tracker the request that is on its way is answered all the same:
    /// only the client's side waits.
    fn hold(&self) -> Look {
        let fenced = self.door.service.gate.holds(HoldReason::Fence);
        match self.tracker.is_some() && !fenced && !self.at_boundary() {
            true => Look::Wind,
            false => Look::Pause,
        }
    }

    fn is_untouched(&self) -> bool {
        // Who has logged in on one server is nobody on another.
        self.tracker.is_none()
            && self.up.total == 0
            && self.down.total == 0
            && !self.up.is_finished()
            && self.down.pending.is_none()
    }

    /// Between transactions there is nothing to finish, and after its time there is no more.
    fn may_finish(&self, until: Moment) -> bool {
        self.tracker.is_some() && !self.at_boundary() && self.door.service.clock.now() < until
    }

    fn at_boundary(&self) -> bool {
        let state = self.tracker.as_ref().map(|t| t.state());
        state == Some(SessionState::Idle)
    }

    fn finish_until(&mut self, until: Moment) {
        self.paused = false;
        if self.finishing.is_none() {
            let until = self.door.service.clock.instant(until);
            self.finishing = Some(Box::pin(sleep_until(until)));
        }
    }

    /// `None`: look again.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<EndReason>> {
        let up = self.poll_up(cx);
        if up.is_ready() {
            return up;
        }
        let down = self.poll_down(cx);
        if self.down.take_omen() {
            self.hint();
        }
        self.entry.set_bytes(self.up.total, self.down.total);
        if down.is_ready() {
            return down;
        }
        if self.tracker.is_some() && self.poll_hints(cx).is_ready() {
            return Poll::Ready(Some(EndReason::Switched));
        }
        if self.winding && self.at_boundary() {
            return Poll::Ready(None);
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
        let passage = Passage {
            permit,
            count: &self.door.metrics.bytes_up,
            tracker: self.tracker.as_mut(),
            direction: Direction::Up,
            omen: None,
        };
        let ends = (&mut self.client, &mut self.upstream);
        let Poll::Ready(stop) = self.up.poll(cx, ends, passage) else {
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
        let passage = Passage {
            permit: Free,
            count: &self.door.metrics.bytes_down,
            tracker: self.tracker.as_mut(),
            direction: Direction::Down,
            omen: self.door.omen,
        };
        let ends = (&mut self.upstream, &mut self.client);
        let Poll::Ready(stop) = self.down.poll(cx, ends, passage) else {
            return Poll::Pending;
        };
        match stop {
            Stop::Denied => Poll::Ready(None),
            Stop::ReadFailed => Poll::Ready(Some(EndReason::UpstreamError)),
            Stop::WriteFailed => Poll::Ready(Some(EndReason::ClientError)),
            // The client must not hear an end that may yet become another server's beginning.
            Stop::Finished if self.is_untouched() => Poll::Ready(Some(EndReason::UpstreamClosed)),
            Stop::Finished if self.up.is_finished() => Poll::Ready(Some(EndReason::ClientClosed)),
            Stop::Finished if self.up_broken || !self.door.service.wire.server_half_closes() => {
                Poll::Ready(Some(EndReason::UpstreamClosed))
            }
            Stop::Finished => {
                ready!(self.down.poll_shut(cx, &mut self.client));
                self.after_server_end(cx)
            }
        }
    }

    fn after_server_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<EndReason>> {
        self.timer = Some(Timer::start(LINGER, EndReason::UpstreamClosed));
        self.poll_timer(cx)
    }

    fn show_stage(&self) {
        let stage = self.tracker.as_ref().map(|t| t.state().into());
        self.entry.set_stage(stage.unwrap_or(Stage::Relaying));
    }

    fn hint(&self) {
        let endpoint = self.place.endpoint();
        self.door.service.hint(endpoint, Evidence::Answer);
    }

    /// Passes on what the tracker noticed, and says whether a session that is to leave can.
    fn poll_hints(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.show_stage();
        if self.tracker.as_mut().is_some_and(|t| t.take_hint()) {
            self.hint();
        }
        let at_boundary = self.at_boundary();
        match &mut self.finishing {
            None => Poll::Pending,
            Some(_) if at_boundary => Poll::Ready(()),
            Some(sleep) => sleep.as_mut().poll(cx),
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Option<EndReason>> {
        let Some(timer) = &mut self.timer else {
            return Poll::Pending;
        };
        let total = self.up.total + self.down.total;
        if std::mem::replace(&mut timer.seen, total) != total {
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
            self.say_farewell(reason).await;
            poll_fn(|cx| self.down.poll_shut(cx, &mut self.client)).await;
            self.client.discard_received(buffer::CHUNK);
        }
        Outcome::Ended(reason)
    }

    /// One try: a client that does not read need not be told.
    async fn say_farewell(&mut self, reason: EndReason) {
        let why = match reason {
            EndReason::Switched => Farewell::Switched,
            EndReason::Drained => Farewell::Drained,
            EndReason::IdleTimeout => Farewell::Idle,
            EndReason::UpstreamClosed | EndReason::UpstreamError => Farewell::ServerLost,
            _ => return,
        };
        let words = self.tracker.as_ref().and_then(|t| t.farewell(why));
        if let Some(words) = words.filter(|_| !self.down.is_finished()) {
            refuse::say(&mut self.client, &words).await;
        }
    }
}

impl Timer {
    fn start(limit: Duration, reason: EndReason) -> Self {
        Self {
            sleep: Box::pin(sleep(limit)),
            limit,
            reason,
            seen: 0,
        }
    }
}
