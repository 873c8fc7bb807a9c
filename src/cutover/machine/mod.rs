//! The run of a cutover as a state machine: what happened so far, and what is to be done next. Pure.
//!
//! Everything that happens is an [`Event`], and every event is written to the journal before anything
//! that follows from it is done. So a crash leaves a prefix of the events behind, and [`replay`] of them
//! is where the run stood. What is dangerous to do twice has an event of its own before it.

mod change;
pub mod event;
pub mod phase;
mod turns;

use serde::{Deserialize, Serialize};

pub use event::{Event, Left, Order};
pub use phase::{End, Phase};

use super::gate::Verdict;
use super::plan::{Plan, PlannedSet};
use super::spec::When;
use crate::dns::Receipt;

/// A change is sent so often at most; the records are read in between.
pub const MAX_ATTEMPTS: u32 = 3;

/// The four finish lines, with the times at which they were crossed (RFC 3339).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// The provider has the change, as read back.
    pub accepted: Option<String>,
    /// It says that all its servers have it. Many never say.
    pub deployed: Option<String>,
    /// Every authoritative server answers with it.
    pub served: Option<String>,
    /// The old TTL has passed.
    pub converged: Option<String>,
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub order: Order,
    pub sidecar: String,
    pub phase: Phase,
    /// RFC 3339: of the first and of the last event.
    pub begun: String,
    pub since: String,
    pub plan: Option<Plan>,
    pub verdicts: Vec<Verdict>,
    /// Hooks or promotions that are done in this phase.
    pub index: usize,
    pub attempt: u32,
    /// A change was sent, whatever came of it.
    pub touched: bool,
    /// An attempt of which the outcome was not known.
    pub doubt: bool,
    /// The old region is fenced, or was about to be.
    pub fenced: bool,
    pub promoted: Vec<String>,
    /// A database was promoted.
    pub moved: bool,
    /// It goes back.
    pub back: bool,
    pub receipt: Receipt,
    pub stored: Vec<PlannedSet>,
    pub proxied: Vec<String>,
    pub finish: Finish,
    pub lock_lost: bool,
    /// What did not go as it should, without ending it.
    pub notes: Vec<String>,
    /// Why it ended, or waits for a human.
    pub why: Option<String>,
    /// Where to go on after a human has looked.
    parked_at: Option<Phase>,
    /// How it ends when it has let go of the fence.
    ending: Option<End>,
    pub end: Option<End>,
}

/// What is to be done next. Each ends with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Plan,
    Judge,
    Hook(When, usize),
    /// Write [`Event::Fencing`].
    AnnounceFence,
    Fence,
    Prove,
    AnnouncePromotion(usize),
    Promote(usize),
    Open,
    /// Write [`Event::Sending`].
    AnnounceSending(u32),
    Send,
    Settle,
    AwaitDeployed,
    AwaitServed,
    Release,
    AwaitConverged,
    /// Nothing, until somebody asks for it.
    Rest,
}

/// An event that cannot happen here: the journal is not one of this program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{event}` cannot happen while {phase}")]
pub struct Misfit {
    pub event: &'static str,
    pub phase: &'static str,
}

/// One event and when it happened, RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<'a> {
    pub time: &'a str,
    pub event: &'a Event,
}

/// The state after an event, and what is to be done then.
///
/// # Errors
/// When the event cannot happen in this state.
pub fn step(state: Option<State>, at: &At<'_>) -> Result<(State, Action), Misfit> {
    let next = match (state, at.event) {
        (None, Event::Begun { order, sidecar }) => State::new(order, sidecar, at.time),
        (None, other) => {
            return Err(Misfit {
                event: other.name(),
                phase: "nothing runs",
            });
        }
        (Some(mut state), event) => {
            state.take(event, at.time)?;
            at.time.clone_into(&mut state.since);
            state
        }
    };
    let action = next.action();
    Ok((next, action))
}

/// Where a run stood after these events; `None` of none.
///
/// # Errors
/// When they are not the events of one run.
pub fn replay<'a>(events: impl IntoIterator<Item = At<'a>>) -> Result<Option<State>, Misfit> {
    let mut state = None;
    for at in events {
        state = Some(step(state, &at)?.0);
    }
    Ok(state)
}

impl State {
    fn new(order: &Order, sidecar: &str, time: &str) -> Self {
        Self {
            order: order.clone(),
            sidecar: sidecar.to_owned(),
            phase: Phase::Planning,
            begun: time.to_owned(),
            since: time.to_owned(),
            plan: None,
            verdicts: Vec::new(),
            index: 0,
            attempt: 0,
            touched: false,
            doubt: false,
            fenced: false,
            promoted: Vec::new(),
            moved: false,
            back: false,
            receipt: Receipt::default(),
            stored: Vec::new(),
            proxied: Vec::new(),
            finish: Finish::default(),
            lock_lost: false,
            notes: Vec::new(),
            why: None,
            parked_at: None,
            ending: None,
            end: None,
        }
    }

    /// One that has got as far as this plan: what programs of the operator are told before there is a run.
    pub fn planned(order: &Order, sidecar: &str, plan: &Plan) -> Self {
        Self {
            plan: Some(plan.clone()),
            ..Self::new(order, sidecar, &plan.made)
        }
    }

    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// What is to be done in this state.
    pub fn action(&self) -> Action {
        match self.phase {
            Phase::Planning => Action::Plan,
            Phase::Gates => Action::Judge,
            Phase::HooksBefore => Action::Hook(When::BeforeApply, self.index),
            Phase::Fencing if self.fenced => Action::Fence,
            Phase::Fencing => Action::AnnounceFence,
            Phase::Proving => Action::Prove,
            Phase::Promoting if self.promoted.len() > self.index => Action::Promote(self.index),
            Phase::Promoting => Action::AnnouncePromotion(self.index),
            Phase::Opening => Action::Open,
            Phase::Applying => Action::AnnounceSending(self.attempt + 1),
            Phase::Sending => Action::Send,
            Phase::Settling => Action::Settle,
            Phase::Deploying => Action::AwaitDeployed,
            Phase::Serving => Action::AwaitServed,
            Phase::Releasing => Action::Release,
            Phase::Converging => Action::AwaitConverged,
            Phase::HooksAfter => Action::Hook(self.hooks_after(), self.index),
            Phase::NeedsHuman | Phase::Over => Action::Rest,
        }
    }

    fn take(&mut self, event: &Event, time: &str) -> Result<(), Misfit> {
        if self.is_over() {
            return Err(self.misfit(event));
        }
        match event {
            Event::Resumed { .. } => self.resume(),
            Event::RollbackAsked { reason, .. } => self.turn_back(reason.as_deref()),
            Event::GivenUp { reason, .. } => {
                self.why = Some(reason.clone());
                self.finish_as(End::GivenUp);
            }
            Event::LockLost { why } => self.lose_lock(why),
            Event::Refused { why, rule } if !self.touched => {
                let end = if *rule { End::Refused } else { End::Failed };
                self.leave(end, why);
            }
            _ => match self.phase {
                Phase::Planning
                | Phase::Gates
                | Phase::HooksBefore
                | Phase::Fencing
                | Phase::Proving
                | Phase::Promoting
                | Phase::Opening => self.before_change(event)?,
                _ => self.change(event, time)?,
            },
        }
        Ok(())
    }

    /// Nothing was sent yet.
    fn before_change(&mut self, event: &Event) -> Result<(), Misfit> {
        match (self.phase, event) {
            (Phase::Planning, Event::Planned { plan }) => {
                self.plan = Some(plan.clone());
                self.phase = Phase::Gates;
            }
            (Phase::Planning, Event::Idle) => self.finish_as(End::Idle),
            (Phase::Gates, Event::Judged { verdicts }) => {
                self.verdicts.clone_from(verdicts);
                let stops = verdicts.iter().filter(|verdict| verdict.stops());
                let stops: Vec<&str> = stops.map(|verdict| verdict.gate.as_str()).collect();
                match stops.is_empty() {
                    true => self.go(Phase::HooksBefore),
                    false => {
                        self.leave(End::Refused, &format!("gates failed: {}", stops.join(", ")))
                    }
                }
            }
            (Phase::HooksBefore, Event::HookRan { ok: true, .. }) => {
                self.index += 1;
                self.skip_empty();
            }
            (Phase::HooksBefore, Event::HookRan { why, .. }) => {
                self.leave(End::Failed, &format!("a hook before-apply failed: {why}"));
            }
            (Phase::Fencing, Event::Fencing) => self.fenced = true,
            (Phase::Fencing, Event::Fenced { ok, why }) => {
                if !ok {
                    self.notes.push(format!("the fence failed: {why}"));
                }
                self.go(Phase::Proving);
            }
            (Phase::Proving, Event::Proved { verdict }) => {
                self.verdicts.retain(|one| one.gate != verdict.gate);
                self.verdicts.push(verdict.clone());
                match verdict.stops() {
                    true => self.leave(End::Refused, &format!("{}: {}", verdict.gate, verdict.why)),
                    false => self.go(Phase::Promoting),
                }
            }
            (Phase::Promoting, Event::Promoting { service }) => self.promoted.push(service.clone()),
            (Phase::Promoting, Event::Promoted { ok: true, .. }) => {
                self.moved = true;
                self.index += 1;
                self.skip_empty();
            }
            (Phase::Promoting, Event::Promoted { service, why, .. }) => {
                let why = format!("the database of {service} was not promoted: {why}");
                self.park(Phase::Promoting, why);
                // The announcement stands for an attempt, and there will be another one.
                self.promoted.truncate(self.index);
            }
            (Phase::Opening, Event::Opened { ok: true, .. }) => {
                self.index += 1;
                self.skip_empty();
            }
            (Phase::Opening, Event::Opened { why, .. }) => {
                self.leave(End::Failed, &format!("the target holds its clients: {why}"));
            }
            _ => return Err(self.misfit(event)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
