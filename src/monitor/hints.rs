//! What sessions tell the monitor: reasons to ask a server at once, and never a verdict.
//!
//! However many clients meet the same trouble, it is one question: what waits is taken together, server
//! by server, and not more often than every [`PAUSE`]. Nothing that was told is lost by that, it is only
//! asked a little later. [`super::urgency`] bounds the questions themselves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::addr::Addr;
use crate::clock::{Clock, Moment};
use crate::events::{Entry, Events};

/// Between two looks at what sessions told.
const PAUSE: Duration = Duration::from_millis(5);
/// How many may wait; who comes when there are more has been spoken for, or will say it again.
const WAITING: usize = 64;
/// Between two events about one server, and about any.
const SAME: Duration = Duration::from_secs(10);
const ANY: Duration = Duration::from_secs(1);

/// What a session met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A connection that failed.
    Connect,
    /// A login that the server failed.
    Login,
    /// An answer that only a server gives which is not the primary.
    Answer,
}

impl Evidence {
    pub const ALL: [Self; 3] = [Self::Connect, Self::Login, Self::Answer];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Login => "login",
            Self::Answer => "answer",
        }
    }
}

/// The sessions' end.
#[derive(Clone, Debug)]
pub struct Teller(mpsc::Sender<(Addr, Option<Evidence>)>);

impl Teller {
    /// Never waits.
    pub fn tell(&self, addr: &Addr, evidence: Evidence) {
        self.send(addr, Some(evidence));
    }

    /// Has `addr` asked at once for another reason: something is under way there. Never waits.
    pub fn ask(&self, addr: &Addr) {
        self.send(addr, None);
    }

    fn send(&self, addr: &Addr, evidence: Option<Evidence>) {
        // A full channel means that the monitor has been told often enough.
        let _ = self.0.try_send((addr.clone(), evidence));
    }
}

/// The monitor's end.
#[derive(Debug)]
pub struct Hints {
    told: mpsc::Receiver<(Addr, Option<Evidence>)>,
    /// Taken, and not yet passed on.
    taken: BTreeSet<Addr>,
    /// Nothing is taken before.
    next: Moment,
    clock: Clock,
    diary: Diary,
}

/// Tells operators of it, now and then.
#[derive(Debug)]
struct Diary {
    service: Arc<str>,
    events: Arc<Events>,
    last: Option<(Addr, Moment)>,
}

/// Both ends, for one service.
pub fn channel(service: Arc<str>, clock: Clock, events: Arc<Events>) -> (Teller, Hints) {
    let (teller, told) = mpsc::channel(WAITING);
    let diary = Diary {
        service,
        events,
        last: None,
    };
    let hints = Hints {
        told,
        taken: BTreeSet::new(),
        next: Moment::default(),
        clock,
        diary,
    };
    (Teller(teller), hints)
}

impl Hints {
    /// The next server to be asked at once; `None` when there are no sessions any more. Cancel safe.
    pub async fn recv(&mut self) -> Option<Addr> {
        if let Some(addr) = self.taken.pop_first() {
            return Some(addr);
        }
        tokio::time::sleep_until(self.clock.instant(self.next)).await;
        let first = self.told.recv().await?;
        let now = self.clock.now();
        self.next = now + PAUSE;
        self.take(first, now);
        // At most as many as there is room for: others may go on telling.
        for _ in 0..WAITING {
            let Ok(more) = self.told.try_recv() else {
                break;
            };
            self.take(more, now);
        }
        self.taken.pop_first()
    }

    fn take(&mut self, (addr, evidence): (Addr, Option<Evidence>), now: Moment) {
        if evidence == Some(Evidence::Answer) {
            self.diary.note(&addr, now);
        }
        self.taken.insert(addr);
    }
}

impl Diary {
    fn note(&mut self, addr: &Addr, now: Moment) {
        let quiet =
            |(last, at): &(Addr, Moment)| now.since(*at) < if last == addr { SAME } else { ANY };
        if self.last.as_ref().is_some_and(quiet) {
            return;
        }
        self.last = Some((addr.clone(), now));
        let message = format!(
            "a client heard from {addr} what only a server says that is not the primary: asking it at once"
        );
        self.events
            .record(Entry::of(&self.service, "hint", message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> Addr {
        Addr::Ip(([127, 0, 0, 1], port).into())
    }

    /// Times do not matter here but for the order: a flood is taken in portions.
    #[tokio::test]
    async fn a_flood_is_a_few_questions_and_the_last_word_is_heard() {
        let clock = Clock::start();
        let events = Events::new(clock);
        let (teller, mut hints) = channel("cache".into(), clock, events.clone());
        for _ in 0..1000 {
            teller.tell(&addr(1), Evidence::Answer);
        }
        assert_eq!(hints.recv().await, Some(addr(1)));
        assert!(
            hints.taken.is_empty() && hints.told.is_empty(),
            "all at once"
        );
        let began = clock.now();
        teller.tell(&addr(1), Evidence::Answer);
        teller.ask(&addr(2));
        let both = [hints.recv().await, hints.recv().await];
        assert_eq!(both, [Some(addr(1)), Some(addr(2))]);
        assert!(clock.now() >= began, "after the pause");
        assert_eq!(events.from(0).0.len(), 1, "one event");
        drop(teller);
        assert_eq!(hints.recv().await, None);
    }

    #[test]
    fn events_are_bounded_per_server_and_in_all() {
        let events = Events::new(Clock::start());
        let mut diary = Diary {
            service: "cache".into(),
            events: events.clone(),
            last: None,
        };
        let mut after = |port, ms| {
            diary.note(&addr(port), Moment::from_millis(ms));
            events.from(0).0.len()
        };
        assert_eq!(after(1, 0), 1);
        assert_eq!(after(1, 9_999), 1);
        assert_eq!(after(2, 999), 1);
        assert_eq!(after(2, 1_000), 2);
        assert_eq!(after(2, 10_999), 2);
        assert_eq!(after(2, 11_000), 3);
    }
}
