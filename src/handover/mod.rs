//! Forced failover: an operator wants another primary, and the database is asked for it.
//!
//! Nobody here tells the data side what the primary is. A handover holds the service, waits for what
//! runs, has the database change its primary, waits until *the monitor* publishes that, and lets the
//! clients go. Whatever happens on the way, what was done is put back in reverse order, and the answer
//! lists every step.
//!
//! - [`judge`] (pure): whether it may begin at all, and whom to hand over to
//! - [`course`] (pure): which step comes next, what has to be put back, and when it is over
//! - [`run`]: does what [`course`] says, one handover per service at a time
//! - `promote`: a new primary when the former one is gone
//! - [`quiet`]: when running requests are over
//! - [`command`]: the operator's own command in place of ours
//! - [`account`]: the answer's shape
//!
//! # Adding a kind
//!
//! In `proto/NAME/failover.rs` (see `proto/redis/failover`, the model):
//!
//! 1. A closed enum of steps, each with its name, its [`Phase`] and its [`Restore`]: `impl Step`.
//!    `Phase::Ready` is what clients need not wait for, `Phase::Held` runs while they wait,
//!    `Phase::After` when the monitor has published the new primary and clients go on: only what cannot
//!    fail the switch any more (follow the new primary, tidy up). The runner adds `hold`, `quiet`,
//!    `switch` and the release itself.
//! 2. A struct that can take the steps and put them back: `impl Script`. One value per handover, made by
//!    step 3; it may keep what it found (offsets, former settings) between the steps.
//! 3. `impl Handover` for what knows the service's config: `prepare` runs ALL checks, changes NOTHING on
//!    any server, and either refuses with a [`Reason`] or returns `scripted(script)`. A dry run ends there.
//!    [`judge::choose`] picks the target, by `--to` or by lag.
//! 4. `Wire::handover` returns it. `Wire::watcher` is called on the same value, so the two can share
//!    state where the monitor itself has to be told something (Galera's order of preference).
//!
//! Rules: `take` may be dropped at any await (time is up, whoever asked has left) and is then put back as
//! if it had been done, so [`Script::put_back`] looks before it acts, and opens connections anew. A step
//! that waits waits for ever: the runner has the clock. A server's error text goes through something
//! like `brief` before it gets into an answer. What stops other clients from writing must end by itself
//! after a while wherever the database can do that, in case this process dies.
//!
//! # Promotion without a predecessor
//!
//! [`Old::Gone`] asks for the same with a former primary that is dead or fenced: no catching up, no
//! demotion. `prepare` must refuse with [`Reason::OldAlive`] when anybody still answers as primary.
//! [`run::Handovers::promote`] is the way in for a regional cutover.

pub mod account;
pub mod command;
pub mod course;
pub mod judge;
mod promote;
pub mod quiet;
pub mod run;

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub use futures_util::future::BoxFuture;

use crate::addr::Addr;
use crate::clock::{Clock, Moment};
use crate::net::dial::Dialer;
pub use course::{Phase, Restore, Restored};
pub use judge::Known;

/// What becomes of the primary that there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Old {
    /// It is there, and loses nothing that it acknowledged.
    #[default]
    Serves,
    /// It is dead or fenced: another server takes over with what it has.
    Gone,
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// `None`: whoever is best.
    pub to: Option<Addr>,
    /// For everything up to the switch. What is done after it, or to put things back, has its own bounds.
    pub timeout: Duration,
    /// Check everything and change nothing.
    pub dry_run: bool,
    pub old: Old,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            to: None,
            timeout: Duration::from_secs(30),
            dry_run: false,
            old: Old::Serves,
        }
    }
}

/// Why a handover does not begin. Nothing has been changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The service has no way to be asked: say how with `[service.failover] command`.
    NoWay,
    /// One is under way already, here or (Sentinel) somewhere else.
    InProgress,
    /// An operator's pin rules; a switch of the database would not be followed.
    Pinned,
    /// There is no primary to take over from.
    NoPrimary,
    /// The monitor is not sure of what it sees.
    Uncertain,
    /// No replica is fit.
    NoReplica,
    UnknownTarget,
    UnfitTarget,
    /// It is the primary already.
    AlreadyPrimary,
    /// The target is too far behind to catch up in time.
    Behind,
    /// A server that is needed for it cannot be asked from here, or does not let us.
    Unreachable,
    /// The database cannot do it, by its version or its settings.
    Unable,
    /// The former primary was said to be gone, and answers.
    OldAlive,
    /// The process is about to end.
    ShuttingDown,
}

impl Reason {
    pub const ALL: [Self; 14] = [
        Self::NoWay,
        Self::InProgress,
        Self::Pinned,
        Self::NoPrimary,
        Self::Uncertain,
        Self::NoReplica,
        Self::UnknownTarget,
        Self::UnfitTarget,
        Self::AlreadyPrimary,
        Self::Behind,
        Self::Unreachable,
        Self::Unable,
        Self::OldAlive,
        Self::ShuttingDown,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoWay => "no-way",
            Self::InProgress => "in-progress",
            Self::Pinned => "pinned",
            Self::NoPrimary => "no-primary",
            Self::Uncertain => "uncertain",
            Self::NoReplica => "no-replica",
            Self::UnknownTarget => "unknown-target",
            Self::UnfitTarget => "unfit-target",
            Self::AlreadyPrimary => "already-primary",
            Self::Behind => "behind",
            Self::Unreachable => "unreachable",
            Self::Unable => "unable",
            Self::OldAlive => "old-primary-alive",
            Self::ShuttingDown => "shutting-down",
        }
    }
}

/// A refusal, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    pub reason: Reason,
    pub why: String,
}

impl Refused {
    pub fn new(reason: Reason, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { reason, why }
    }
}

/// Everything that a kind gets to know about one handover.
#[derive(Clone)]
pub struct Case {
    pub service: Arc<str>,
    pub ask: Ask,
    /// What the monitor published, and admitted.
    pub known: Known,
    pub clock: Clock,
    /// When the time for the switch is over.
    pub deadline: Moment,
    /// As the service's own connections are dialled (plain where the protocol does TLS by itself).
    pub dialer: Dialer,
}

impl Case {
    /// What is left of the time.
    pub fn left(&self) -> Duration {
        self.deadline.since(self.clock.now())
    }
}

/// How the primary of one service is moved on request.
pub trait Handover: Send + Sync {
    /// Runs all checks and says what would be done. Changes nothing. Cancel safe: dropping it closes its
    /// connections.
    fn prepare<'a>(&'a self, case: &'a Case) -> BoxFuture<'a, Result<Box<dyn Act>, Refused>>;
}

/// One step of a kind: a closed enum.
pub trait Step: Copy + Debug + Send + Sync + 'static {
    /// One word, the same in answer, events and documentation.
    fn name(self) -> &'static str;
    fn phase(self) -> Phase;
    fn restore(self) -> Restore;
}

/// How a handover that is being put back, or tidied up after, has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The monitor has published another primary.
    Switched,
    /// It has not, and will not be waited for any more.
    Failed,
}

/// The steps of one handover, prepared.
pub trait Script: Send + 'static {
    type Step: Step;

    /// Whom it is handed over to; `None` when somebody else chooses.
    fn target(&self) -> Option<Addr>;

    /// In the order in which they are taken, within their phases.
    fn steps(&self) -> Vec<Self::Step>;

    /// What a step would do, for a dry run: "pause writes on 10.0.0.1:6379 for at most 60 s".
    fn would(&self, step: Self::Step) -> String;

    /// Takes a step and says what was done. It may be dropped at any await; it is put back then.
    ///
    /// # Errors
    /// The text says why it did not succeed. The step counts as perhaps done, and is put back.
    fn take(&mut self, step: Self::Step) -> impl Future<Output = Result<String, String>> + Send;

    /// Puts a step back that was taken, or tried. Steps of [`Restore::Never`] are not put back. It is
    /// given a bounded time.
    fn put_back(&mut self, step: Self::Step, ended: Ended)
    -> impl Future<Output = Restored> + Send;
}

/// A [`Script`] whatever its steps are, by their index in [`Act::planned`].
pub trait Act: Send {
    fn target(&self) -> Option<Addr>;
    fn planned(&self) -> Vec<course::Planned>;
    fn take(&mut self, index: usize) -> BoxFuture<'_, Result<String, String>>;
    fn put_back(&mut self, index: usize, ended: Ended) -> BoxFuture<'_, Restored>;
}

struct Scripted<S: Script> {
    script: S,
    steps: Vec<S::Step>,
}

/// What [`Handover::prepare`] returns of a script.
pub fn scripted<S: Script + Sync>(script: S) -> Box<dyn Act> {
    let steps = script.steps();
    Box::new(Scripted { script, steps })
}

impl<S: Script> Act for Scripted<S> {
    fn target(&self) -> Option<Addr> {
        self.script.target()
    }

    fn planned(&self) -> Vec<course::Planned> {
        let planned = |step: &S::Step| course::Planned {
            name: step.name(),
            would: self.script.would(*step),
            phase: step.phase(),
            restore: step.restore(),
        };
        self.steps.iter().map(planned).collect()
    }

    fn take(&mut self, index: usize) -> BoxFuture<'_, Result<String, String>> {
        match self.steps.get(index) {
            Some(step) => Box::pin(self.script.take(*step)),
            None => Box::pin(std::future::ready(Err("there is no such step".to_owned()))),
        }
    }

    fn put_back(&mut self, index: usize, ended: Ended) -> BoxFuture<'_, Restored> {
        match self.steps.get(index) {
            Some(step) => Box::pin(self.script.put_back(*step, ended)),
            None => Box::pin(std::future::ready(Restored::Done(String::new()))),
        }
    }
}
