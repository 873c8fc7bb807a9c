//! The turns of a run that are not a straight line: leaving, parking, going on, going back.

use super::super::spec::When;
use super::{End, Event, Finish, Left, MAX_ATTEMPTS, Misfit, Phase, State};

impl State {
    /// The hooks that end this run.
    pub(super) fn hooks_after(&self) -> When {
        match self.back {
            true => When::AfterRollback,
            false => When::AfterDone,
        }
    }

    /// Begins a phase, or the next one that has something to do.
    pub(super) fn go(&mut self, phase: Phase) {
        self.phase = phase;
        self.index = 0;
        self.skip_empty();
    }

    /// Goes on to the next phase while this one has nothing left to do.
    pub(super) fn skip_empty(&mut self) {
        let course = self.plan.as_ref().map(|plan| plan.course.clone());
        let course = course.unwrap_or_default();
        loop {
            let (left, next) = match self.phase {
                Phase::HooksBefore => (course.hooks_before, Phase::Fencing),
                Phase::Fencing => (usize::from(course.fence), Phase::Promoting),
                Phase::Promoting => (course.promote.len(), Phase::Opening),
                Phase::Opening => (usize::from(course.open), Phase::Applying),
                Phase::Releasing => (usize::from(self.fenced), Phase::Converging),
                Phase::HooksAfter if self.back => (course.hooks_rollback, Phase::Over),
                Phase::HooksAfter => (course.hooks_done, Phase::Over),
                _ => return,
            };
            if self.index < left {
                return;
            }
            self.index = 0;
            match next {
                Phase::Over => {
                    let end = if self.back {
                        End::RolledBack
                    } else {
                        End::Done
                    };
                    return self.finish_as(end);
                }
                Phase::Converging => return self.released(),
                next => self.phase = next,
            }
        }
    }

    pub(super) fn finish_as(&mut self, end: End) {
        self.phase = Phase::Over;
        self.end = Some(end);
    }

    /// Ends it without a change of the records: first the fence goes.
    pub(super) fn leave(&mut self, end: End, why: &str) {
        if self.moved {
            let why = format!("{why}; databases were promoted already");
            return self.park(Phase::Planning, why);
        }
        self.why = Some(why.to_owned());
        match self.fenced {
            true => {
                self.ending = Some(end);
                self.phase = Phase::Releasing;
            }
            false => self.finish_as(end),
        }
    }

    pub(super) fn released(&mut self) {
        match self.ending.take() {
            Some(end) => self.finish_as(end),
            // Nothing was sent, so no resolver has anything that could pass.
            None if !self.touched => self.go(Phase::HooksAfter),
            None => self.phase = Phase::Converging,
        }
    }

    /// Stops until a human has looked.
    pub(super) fn park(&mut self, at: Phase, why: impl Into<String>) {
        self.parked_at = Some(at);
        self.why = Some(why.into());
        self.phase = Phase::NeedsHuman;
    }

    /// What a run does that was interrupted, or waits.
    pub(super) fn resume(&mut self) {
        let phase = match self.phase {
            Phase::NeedsHuman => self.parked_at.take().unwrap_or(Phase::Settling),
            phase => phase,
        };
        self.why = None;
        self.lock_lost = false;
        self.attempt = 0;
        self.phase = match phase {
            // What was sent last may have arrived or not.
            Phase::Sending | Phase::Applying if self.touched => Phase::Settling,
            // Everything that was found out is old by now.
            Phase::Planning
            | Phase::Gates
            | Phase::HooksBefore
            | Phase::Fencing
            | Phase::Proving
            | Phase::Promoting
            | Phase::Opening
            | Phase::Applying => {
                self.plan = None;
                self.verdicts.clear();
                self.promoted.clear();
                self.index = 0;
                Phase::Planning
            }
            phase => phase,
        };
    }

    pub(super) fn turn_back(&mut self, reason: Option<&str>) {
        let again = self.back;
        if again {
            return self.resume();
        }
        self.back = true;
        self.parked_at = None;
        self.lock_lost = false;
        self.attempt = 0;
        self.finish = Finish::default();
        self.why = reason.map(ToOwned::to_owned);
        self.ending = None;
        if self.moved {
            let note =
                "databases that were promoted stay so: move them back first, or with `failover`";
            self.notes.push(note.to_owned());
        }
        match (self.touched, self.fenced) {
            (true, _) => self.phase = Phase::Settling,
            (false, true) => self.go(Phase::Releasing),
            (false, false) => self.go(Phase::HooksAfter),
        }
    }

    pub(super) fn lose_lock(&mut self, why: &str) {
        self.lock_lost = true;
        self.notes.push(format!("the lock was lost: {why}"));
        // What was begun is better finished than left half done.
        if !self.touched
            && !matches!(
                self.phase,
                Phase::Releasing | Phase::HooksAfter | Phase::NeedsHuman
            )
        {
            self.leave(End::Failed, &format!("the lock was lost: {why}"));
        }
    }

    /// The last attempt certainly changed nothing.
    pub(super) fn not_sent(&mut self, why: &str, conflict: bool, again: bool) {
        if self.doubt || self.back {
            return self.park(Phase::Settling, why);
        }
        if again && self.attempt < MAX_ATTEMPTS {
            self.notes.push(why.to_owned());
            self.phase = Phase::Settling;
            return;
        }
        self.touched = false;
        self.leave(if conflict { End::Refused } else { End::Failed }, why);
    }

    pub(super) fn settled(&mut self, left: Left, why: &str) {
        match left {
            Left::Conflict => self.park(Phase::Settling, why),
            Left::Unread if self.doubt || self.back => self.park(Phase::Settling, why),
            Left::Unread => {
                self.touched = false;
                self.leave(End::Failed, why);
            }
            // Sending what is done already changes nothing, and publishes where that is a step of its own.
            Left::Nothing if self.attempt <= MAX_ATTEMPTS => self.phase = Phase::Applying,
            Left::Some | Left::All if self.attempt < MAX_ATTEMPTS => self.phase = Phase::Applying,
            Left::Nothing | Left::Some | Left::All => self.park(Phase::Settling, why),
        }
    }

    pub(super) fn misfit(&self, event: &Event) -> Misfit {
        Misfit {
            event: event.name(),
            phase: self.phase.as_str(),
        }
    }
}
