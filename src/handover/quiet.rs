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

/// Looks at sessions again and again. Pure: time comes in.
#[derive(Debug, Default)]
pub struct Quiet {
    seen: BTreeMap<u64, (u64, Moment)>,
}

impl Quiet {
    /// How many are still at it.
    pub fn look(&mut self, now: Moment, sessions: &[Live]) -> usize {
        let mut seen = BTreeMap::new();
        let mut busy = 0;
        for live in sessions {
            let since = match self.seen.get(&live.id) {
                Some((bytes, since)) if *bytes == live.bytes => *since,
                _ => now,
            };
            seen.insert(live.id, (live.bytes, since));
            let at_it = match live.state {
                State::Idle => false,
                State::Busy => true,
                State::Unknown => now.since(since) < STILL,
            };
            busy += usize::from(at_it);
        }
        self.seen = seen;
        busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_who_says_so_or_moves() {
        let mut quiet = Quiet::default();
        let at = Moment::from_millis;
        let live = |id, state, bytes| Live { id, state, bytes };
        for (now, sessions, busy) in [
            (0, vec![], 0),
            (1, vec![live(1, State::Idle, 5)], 0),
            (2, vec![live(1, State::Busy, 5)], 1),
            // Never seen before: it may have moved just now.
            (10, vec![live(2, State::Unknown, 5)], 1),
            (20, vec![live(2, State::Unknown, 5)], 1),
            (34, vec![live(2, State::Unknown, 9)], 1),
            (58, vec![live(2, State::Unknown, 9)], 1),
            (59, vec![live(2, State::Unknown, 9)], 0),
            (
                60,
                vec![live(2, State::Unknown, 9), live(3, State::Unknown, 0)],
                1,
            ),
            // Who comes back is new.
            (61, vec![], 0),
            (200, vec![live(2, State::Unknown, 9)], 1),
        ] {
            assert_eq!(quiet.look(at(now), &sessions), busy, "at {now}");
        }
    }
}
