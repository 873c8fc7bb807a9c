//! What a run says while it runs, for whoever looks on: lines in memory, the newest kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::machine::Finish;

/// How many lines are kept.
const KEPT: usize = 2000;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub seq: u64,
    /// RFC 3339.
    pub time: String,
    pub run: String,
    pub phase: String,
    /// For people.
    pub text: String,
    /// What it waits for right now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
    /// How long it has waited, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_ms: Option<u64>,
    /// Only on the last line of a run, or of what was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Outcome>,
}

/// How it came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// `done`, `rolled-back`, `refused`, `failed`, `needs-human` …
    pub outcome: String,
    /// For the command line: 0 done, 1 failed, 3 refused by a safety rule.
    pub exit: u8,
    pub why: Option<String>,
    pub finish: Finish,
    #[serde(default)]
    pub notes: Vec<String>,
}

#[derive(Debug, Default)]
struct Ring {
    next: u64,
    lines: VecDeque<Arc<Line>>,
}

/// The newest lines.
#[derive(Debug)]
pub struct Feed {
    ring: Mutex<Ring>,
    grown: watch::Sender<u64>,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            ring: Mutex::default(),
            grown: watch::channel(0).0,
        }
    }
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line, and gives it its number.
    pub fn say(&self, mut line: Line) {
        let mut ring = self.lock();
        line.seq = ring.next;
        ring.next += 1;
        if ring.lines.len() == KEPT {
            ring.lines.pop_front();
        }
        ring.lines.push_back(Arc::new(line));
        let next = ring.next;
        drop(ring);
        self.grown.send_replace(next);
    }

    /// Those from number `seq` on, and the number after the last.
    pub fn from(&self, seq: u64) -> (Vec<Arc<Line>>, u64) {
        let ring = self.lock();
        let fresh = ring.lines.iter().filter(|line| line.seq >= seq);
        (fresh.cloned().collect(), ring.next)
    }

    /// The number of the next line.
    pub fn next(&self) -> u64 {
        self.lock().next
    }

    /// The newest line.
    pub fn last(&self) -> Option<Arc<Line>> {
        self.lock().lines.back().cloned()
    }

    /// Told whenever there is one more.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.grown.subscribe()
    }
}
