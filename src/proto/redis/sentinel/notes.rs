//! Lines for the log, not more than a person can read: a sentinel can say as many things as it
//! likes.

use std::time::Duration;

use crate::clock::Moment;
use crate::monitor::Trouble;

/// Lines at once.
const BURST: u64 = 20;
/// And then one more in this time.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Bucket {
    left: u64,
    filled: Moment,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            left: BURST,
            filled: Moment::default(),
        }
    }
}

impl Bucket {
    fn take(&mut self, now: Moment) -> bool {
        let due = now.since(self.filled).as_secs() / EVERY.as_secs();
        if due > 0 {
            self.left = BURST.min(self.left.saturating_add(due));
            self.filled = now;
        }
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }
}

/// Notes that wait to be taken.
#[derive(Debug, Default)]
pub struct Notes {
    bucket: Bucket,
    lines: Vec<String>,
    suppressed: u64,
}

impl Notes {
    pub fn push(&mut self, now: Moment, line: String) {
        if self.bucket.take(now) {
            self.tell_suppressed();
            self.lines.push(line);
        } else {
            self.suppressed += 1;
        }
    }

    /// A line that is there for every switch, and bounded as those are.
    pub fn always(&mut self, line: String) {
        self.lines.push(line);
    }

    fn tell_suppressed(&mut self) {
        if self.suppressed > 0 {
            let count = std::mem::take(&mut self.suppressed);
            self.lines.push(format!("{count} lines suppressed"));
        }
    }

    pub fn take(&mut self, now: Moment) -> Vec<String> {
        if self.suppressed > 0 && self.bucket.take(now) {
            self.tell_suppressed();
        }
        std::mem::take(&mut self.lines)
    }
}

/// Troubles become lines when they come and when they go, so they may not change all the time
/// either.
#[derive(Debug, Default)]
pub struct Damper {
    bucket: Bucket,
    shown: Vec<Trouble>,
}

impl Damper {
    /// `troubles`, or those that were shown last when there were too many changes.
    pub fn damp(&mut self, now: Moment, troubles: Vec<Trouble>) -> Vec<Trouble> {
        if troubles != self.shown && self.bucket.take(now) {
            self.shown = troubles;
        }
        self.shown.clone()
    }
}
