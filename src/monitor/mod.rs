//! What watches a service: observations in, one published topology out.
//!
//! A [`Watcher`] is the shell: it owns the connections to whatever knows the primary and reports what
//! it saw. A [`Judge`] is the core: a pure state machine that turns observations and time into a
//! [`Verdict`]. [`run::drive`] is the one task per service in between, and the only caller of
//! [`crate::topology::cell::TopologyWriter`].

pub mod backoff;
pub mod hints;
pub mod metrics;
pub mod pin;
pub mod probers;
pub mod report;
pub mod run;
pub mod urgency;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use crate::addr::Addr;
use crate::clock::Moment;
use crate::topology::reduce::Conclusion;
pub use report::{NodeReport, Report, Trouble};
pub use run::{Outlet, drive};

/// Observes one service until it is dropped.
pub trait Watcher: Send {
    /// Runs for ever. Dropping the future ends the observation and closes its connections; the last
    /// published topology stays.
    fn watch(self: Box<Self>, outlet: Outlet) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Decides who is primary. No clock, no sockets, no randomness.
pub trait Judge {
    /// What the shell can see.
    type Seen;

    /// Takes in one observation.
    fn see(&mut self, now: Moment, seen: Self::Seen);

    /// Judges all that was seen. Called after every observation and whenever [`Verdict::recheck`]
    /// has come; calling it more often must change nothing.
    fn judge(&mut self, now: Moment) -> Verdict;
}

/// What a judge holds to be true, and what it wants done.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub conclusion: Conclusion,
    /// Writes must wait: the primary is being replaced.
    pub fence: bool,
    /// When the first evidence for the present conclusion came in.
    pub evidence_at: Moment,
    /// What is the matter, worst first. Empty: all is well.
    pub troubles: Vec<Trouble>,
    /// What is known of each server.
    pub nodes: Vec<NodeReport>,
    /// What is known of whatever else is asked (sentinels).
    pub sources: Vec<report::SourceReport>,
    /// Which servers to probe, and how eagerly.
    pub probes: BTreeMap<Addr, Pace>,
    /// Ask the sources again at once when this grew.
    pub ask_again: u64,
    /// Judge again then, even if nothing is seen.
    pub recheck: Option<Moment>,
    /// Things worth a line of their own in the log, in order.
    pub notes: Vec<String>,
}

/// How a server is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    pub every: std::time::Duration,
    /// Probe at once when this grew.
    pub urgent: u64,
}
