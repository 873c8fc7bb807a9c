//! When running requests are over: what sessions say of themselves, and what their bytes say where the
//! protocol does not tell.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Moment;

/// One session on the primary, as it is right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    pub id: u64,
    pub state: State,
    /// Passed on so far, both ways.
    pub bytes: u64,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for us, or stands at a boundary.
    Idle,
    /// An answer is owed, or a transaction is open.
    Busy,
    /// The protocol does not say.
    Unknown,
}

/// A session that cannot be read and on which nothing has moved for so long has its answer, or waits for
/// something that we cannot wait for (BLPOP).
pub const STILL: Duration = Duration::from_millis(25);

/// Who is not at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// They say so themselves, and are worth waiting for.
    pub busy: usize,
    /// Bytes moved just now. It may be a request, or something that never ends (SUBSCRIBE, MONITOR).
    pub moving: usize,
}

/// Looks at sessions again and again. Pure: time comes in.
#[derive(Debug, Default)]
pub struct Quiet {
    seen: BTreeMap<u64, (u64, Moment)>,
}

impl Quiet {
    /// How many are still at it.
    pub fn look(&mut self, now: Moment, sessions: &[Live]) -> Running {
        let mut seen = BTreeMap::new();
        let mut running = Running::default();
        for live in sessions {
            let since = match self.seen.get(&live.id) {
                Some((bytes, since)) if *bytes == live.bytes => *since,
                _ => now,
            };
            seen.insert(live.id, (live.bytes, since));
            match live.state {
                State::Busy => running.busy += 1,
                State::Unknown if now.since(since) < STILL => running.moving += 1,
                State::Idle | State::Unknown => {}
            }
        }
        self.seen = seen;
        running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_is_who_says_so_or_moves() {
        let mut quiet = Quiet::default();
        let at = Moment::from_millis;
        let live = |id, state, bytes| Live { id, state, bytes };
        for (now, sessions, busy, moving) in [
            (0, vec![], 0, 0),
            (1, vec![live(1, State::Idle, 5)], 0, 0),
            (2, vec![live(1, State::Busy, 5)], 1, 0),
            // Never seen before: it may have moved just now.
            (10, vec![live(2, State::Unknown, 5)], 0, 1),
            (20, vec![live(2, State::Unknown, 5)], 0, 1),
            (34, vec![live(2, State::Unknown, 9)], 0, 1),
            (58, vec![live(2, State::Unknown, 9)], 0, 1),
            (59, vec![live(2, State::Unknown, 9)], 0, 0),
            (
                60,
                vec![live(2, State::Unknown, 9), live(3, State::Unknown, 0)],
                0,
                1,
            ),
            // Who comes back is new.
            (61, vec![], 0, 0),
            (200, vec![live(2, State::Unknown, 9)], 0, 1),
        ] {
            let expected = Running { busy, moving };
            assert_eq!(quiet.look(at(now), &sessions), expected, "at {now}");
        }
    }
}
