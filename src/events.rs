//! What happened and when, for operators: the newest events in memory, whoever looks and whenever.
//!
//! The log says the same to whoever collects it; this is what `pilotfish events` shows on a server at
//! three in the morning.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock::{Clock, Moment};

/// How many are kept.
pub const KEPT: usize = 10_000;
/// Of a message; it may quote a server.
const LONGEST: usize = 500;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// One more for each event since the process began.
    pub seq: u64,
    /// RFC 3339.
    pub time: String,
    /// A word for programs: `primary`, `no-primary`, `trouble`, `trouble-over`, `paused`, ...
    pub event: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    pub message: String,
    /// Who asked for it, where somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
}

/// An operator, as the kernel knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    pub uid: u32,
    /// `None`: the process lives in another pid namespace.
    pub pid: Option<i32>,
}

/// What is recorded of an event; the rest is added.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    pub event: &'static str,
    pub service: Option<&'a str>,
    pub message: String,
    pub by: Option<By>,
}

impl<'a> Entry<'a> {
    /// Of the process.
    pub fn new(event: &'static str, message: impl Into<String>) -> Self {
        Self {
            event,
            service: None,
            message: message.into(),
            by: None,
        }
    }

    /// Of one service.
    pub fn of(service: &'a str, event: &'static str, message: impl Into<String>) -> Self {
        Self {
            service: Some(service),
            ..Self::new(event, message)
        }
    }

    pub fn by(self, by: By) -> Self {
        Self {
            by: Some(by),
            ..self
        }
    }
}

#[derive(Debug, Default)]
struct Ring {
    next: u64,
    events: VecDeque<Kept>,
}

#[derive(Debug)]
struct Kept {
    when: Moment,
    /// How old it was then: more than nothing for what the process before knew.
    age: Duration,
    event: Arc<Event>,
}

/// An event on its way to the next process, whose clock begins anew.
#[derive(Debug, Serialize, Deserialize)]
pub struct Aged {
    pub age_ms: u64,
    pub event: Event,
}

/// The newest events, for the next process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Oldest first.
    pub events: Vec<Aged>,
    /// The number after the last.
    pub next: u64,
}

/// The newest events.
#[derive(Debug)]
pub struct Events {
    clock: Clock,
    ring: Mutex<Ring>,
    grown: watch::Sender<u64>,
}

impl Events {
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            clock,
            ring: Mutex::default(),
            grown: watch::channel(0).0,
        })
    }

    /// Adds one, and drops the oldest where there are too many.
    pub fn record(&self, entry: Entry<'_>) {
        let now = self.clock.now();
        let mut message = entry.message;
        if let Some((cut, _)) = message.char_indices().nth(LONGEST) {
            message.truncate(cut);
        }
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Event {
            seq: ring.next,
            time: format!("{:.3}", self.clock.wall(now)),
            event: entry.event.to_owned(),
            service: entry.service.map(ToOwned::to_owned),
            message,
            by: entry.by,
        };
        ring.next += 1;
        if ring.events.len() == KEPT {
            ring.events.pop_front();
        }
        ring.events.push_back(Kept {
            when: now,
            age: Duration::ZERO,
            event: Arc::new(event),
        });
        let next = ring.next;
        drop(ring);
        self.grown.send_replace(next);
    }

    /// Those from number `seq` on, oldest first, and the number after the last.
    pub fn from(&self, seq: u64) -> (Vec<Arc<Event>>, u64) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = ring.events.iter().filter(|kept| kept.event.seq >= seq);
        (fresh.map(|kept| kept.event.clone()).collect(), ring.next)
    }

    /// At most so many, newest first.
    pub fn newest(&self, most: usize) -> Vec<Arc<Event>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = ring.events.iter().rev().take(most);
        newest.map(|kept| kept.event.clone()).collect()
    }

    /// The number of the first event that is at most `age` old, before this process began included.
    pub fn first_within(&self, age: Duration) -> u64 {
        let now = self.clock.now();
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let too_old = |kept: &Kept| now.since(kept.when).saturating_add(kept.age) > age;
        let at = ring.events.partition_point(too_old);
        ring.events.get(at).map_or(ring.next, |kept| kept.event.seq)
    }

    /// The newest events, as many as fit into `most` bytes of JSON.
    pub fn history(&self, most: usize) -> History {
        let now = self.clock.now();
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut events, mut bytes) = (Vec::new(), 0);
        for kept in ring.events.iter().rev() {
            let age = now.since(kept.when).saturating_add(kept.age);
            let aged = Aged {
                age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
                event: (*kept.event).clone(),
            };
            bytes += serde_json::to_string(&aged).map_or(most, |text| text.len() + 1);
            if bytes > most {
                break;
            }
            events.push(aged);
        }
        events.reverse();
        let next = ring.next;
        History { events, next }
    }

    /// Begins with what the process before knew; what it says is bounded as our own events are.
    pub fn inherit(&self, history: History) {
        let now = self.clock.now();
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = history.events.len().saturating_sub(KEPT);
        let mut next = ring.next;
        for Aged { age_ms, mut event } in history.events.into_iter().skip(skip) {
            if event.seq < next {
                continue;
            }
            if let Some((cut, _)) = event.message.char_indices().nth(LONGEST) {
                event.message.truncate(cut);
            }
            next = event.seq.saturating_add(1);
            ring.events.push_back(Kept {
                when: now,
                age: Duration::from_millis(age_ms),
                event: Arc::new(event),
            });
        }
        ring.next = next.max(history.next);
        let next = ring.next;
        drop(ring);
        self.grown.send_replace(next);
    }

    /// Told whenever there is one more.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.grown.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_in_their_order() {
        let events = Events::new(Clock::start());
        let mut told = events.subscribe();
        for n in 0..KEPT + 5 {
            events.record(Entry::of("cache", "note", format!("{n}")));
        }
        assert!(told.has_changed().unwrap());
        assert_eq!(*told.borrow_and_update(), KEPT as u64 + 5);
        let (all, next) = events.from(0);
        assert_eq!((all.len(), next), (KEPT, KEPT as u64 + 5));
        assert_eq!((all[0].seq, all[0].message.as_str()), (5, "5"));
        assert!(all.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
        assert_eq!(events.from(next - 2).0.len(), 2);
        let newest: Vec<u64> = events.newest(2).iter().map(|event| event.seq).collect();
        assert_eq!(newest, [next - 1, next - 2]);
        assert_eq!(events.first_within(Duration::from_secs(3600)), 5);
    }

    #[test]
    fn history_goes_on_in_the_next_process() {
        let old = Events::new(Clock::start());
        for n in 0..KEPT + 5 {
            old.record(Entry::of("cache", "note", format!("{n}")));
        }
        let mut history = old.history(usize::MAX);
        assert_eq!(history.events.len(), KEPT);
        for aged in &mut history.events[..10] {
            aged.age_ms = 3_600_000;
        }
        let new = Events::new(Clock::start());
        new.inherit(history);
        assert_eq!(new.from(0), old.from(0));
        new.record(Entry::new("started", ""));
        let (all, next) = new.from(0);
        assert_eq!((all.len(), next), (KEPT, KEPT as u64 + 6));
        assert_eq!(new.first_within(Duration::from_secs(60)), 15);
        assert_eq!(new.first_within(Duration::from_secs(7200)), 6);

        let short = old.history(2000);
        assert!((10..40).contains(&short.events.len()));
        assert_eq!(short.events.last().unwrap().event.seq, KEPT as u64 + 4);
    }

    #[test]
    fn a_message_has_an_end() {
        let events = Events::new(Clock::start());
        events.record(Entry::new("note", "ä".repeat(10_000)));
        assert_eq!(events.from(0).0[0].message.chars().count(), LONGEST);
    }
}
