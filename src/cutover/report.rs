//! What `region status`, `plan` and `history` say; the command line reads the same types.

use serde::{Deserialize, Serialize};

use super::gate::{Says, Verdict};
use super::journal::Run;
use super::machine::{Finish, Phase, State};
use super::plan::Plan;

/// `region status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionStatus {
    /// The region that the records lead to; `None`: to none that is configured, or it is not known.
    pub active: Option<String>,
    /// What the provider holds, a line per set, or why that is not known.
    pub records: Vec<String>,
    pub problem: Option<String>,
    pub regions: Vec<String>,
    pub provider: String,
    pub zone: String,
    /// Who has the lock.
    pub lock: Option<String>,
    /// What runs, or waits for `resume` or `rollback`.
    pub run: Option<RunReport>,
    /// Whether it runs right now, in this process.
    pub running: bool,
    /// The newest run that is over.
    pub last: Option<RunReport>,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    pub run: String,
    pub way: String,
    pub from: Option<String>,
    pub to: String,
    /// A rollback is under way, or was.
    pub back: bool,
    pub phase: String,
    /// `done`, `rolled-back`, `refused`, `failed` …; `None`: not over.
    pub outcome: Option<String>,
    pub why: Option<String>,
    pub begun: String,
    pub since: String,
    pub epoch: Option<u64>,
    pub sidecar: String,
    pub uid: Option<u32>,
    pub reason: Option<String>,
    pub overrides: Vec<String>,
    pub finish: Finish,
    pub verdicts: Vec<Verdict>,
    pub notes: Vec<String>,
}

impl RunReport {
    pub fn of(run: &Run) -> Self {
        let State { order, plan, .. } = &run.state;
        let state = &run.state;
        Self {
            run: run.id.clone(),
            way: order.way.as_str().to_owned(),
            from: plan.as_ref().and_then(|plan| plan.from.clone()),
            to: order.to.clone(),
            back: state.back,
            phase: state.phase.as_str().to_owned(),
            outcome: state.end.map(|end| end.as_str().to_owned()),
            why: state.why.clone(),
            begun: state.begun.clone(),
            since: state.since.clone(),
            epoch: plan.as_ref().map(|plan| plan.epoch),
            sidecar: state.sidecar.clone(),
            uid: order.by.map(|by| by.uid),
            reason: order.reason.clone(),
            overrides: order.overrides.clone(),
            finish: state.finish.clone(),
            verdicts: state.verdicts.clone(),
            notes: state.notes.clone(),
        }
    }
}

/// `region plan`: what would be done, and whether it would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    pub plan: Plan,
    pub verdicts: Vec<Verdict>,
    /// The records lead there already.
    pub idle: bool,
    /// Gates that stand in the way.
    pub stopped_by: Vec<String>,
}

impl Preview {
    pub fn new(plan: Plan, verdicts: Vec<Verdict>) -> Self {
        let stops = verdicts.iter().filter(|verdict| verdict.stops());
        Self {
            idle: plan.is_idle(),
            stopped_by: stops.map(|verdict| verdict.gate.clone()).collect(),
            plan,
            verdicts,
        }
    }
}

/// Why an unfinished run matters, in a line.
pub fn trouble(run: &Run) -> Option<String> {
    let state = &run.state;
    if state.is_over() {
        return None;
    }
    let to = &state.order.to;
    let what = match state.phase {
        Phase::NeedsHuman => format!(
            "the cutover to {to} needs a human: {}",
            state.why.as_deref().unwrap_or("it was interrupted")
        ),
        phase => format!("the cutover to {to} is unfinished, at {}", phase.as_str()),
    };
    Some(format!("{what}; `pilotfish region resume` or `rollback`"))
}

/// The same for everybody who counts: 0 pass, 1 warn, 2 fail.
pub fn gauge(says: Says) -> f64 {
    match says {
        Says::Pass => 0.0,
        Says::Warn => 1.0,
        Says::Fail => 2.0,
    }
}
