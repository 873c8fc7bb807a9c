//! What a run says: in its feed, in the log, in the events and in the metrics.

use tracing::info;

use super::actions::Job;
use super::words::text;
use super::{Halt, Runner};
use crate::cutover::feed::{Line, Outcome};
use crate::cutover::machine::{End, Event, Phase, State};
use crate::cutover::notify::{self, Message};
use crate::cutover::tools::{Tools, shortened};
use crate::events::Entry;

fn line(tools: &Tools, run: &str, state: &State, text: String) -> Line {
    Line {
        seq: 0,
        time: tools.time(),
        run: run.to_owned(),
        phase: state.phase.as_str().to_owned(),
        text,
        waiting_for: Vec::new(),
        waited_ms: None,
        result: None,
    }
}

impl Job<'_> {
    /// Says what is waited for.
    pub(super) fn waiting(&self, text: &str, waiting_for: Vec<String>) {
        let since: Option<jiff::Timestamp> = self.state.since.parse().ok();
        let waited = since.map(|since| self.tools.wall().duration_since(since).unsigned_abs());
        self.tools.feed.say(Line {
            waiting_for,
            waited_ms: waited.map(|waited| u64::try_from(waited.as_millis()).unwrap_or(u64::MAX)),
            ..line(self.tools, self.run, self.state, text.to_owned())
        });
    }
}

impl Runner {
    /// Says what has just become true.
    pub(super) fn told(&self, event: &Event) {
        let Some(state) = &self.state else { return };
        let tools = &self.tools;
        let text = text(event);
        info!(
            event = "cutover",
            run = self.run,
            phase = state.phase.as_str(),
            "{text}"
        );
        let by = match event {
            Event::Begun { order, .. } => order.by,
            Event::Resumed { by } | Event::RollbackAsked { by, .. } | Event::GivenUp { by, .. } => {
                *by
            }
            _ => None,
        };
        tools.events.record(Entry {
            by,
            ..Entry::new("cutover", format!("{}: {text}", state.order.to))
        });
        tools.metrics.phase(state.phase);
        match event {
            Event::Judged { verdicts } => tools.metrics.gates(verdicts),
            Event::Proved { verdict } => tools.metrics.gates(std::slice::from_ref(verdict)),
            _ => {}
        }
        tools.feed.say(line(tools, &self.run, state, text));
    }

    /// It is over, or waits for a human.
    pub(super) async fn ended(self) {
        let Some(state) = &self.state else { return };
        let tools = &self.tools;
        tools.metrics.unfinished(!state.is_over());
        if let Some(end) = state.end {
            tools.metrics.ended(end);
        }
        if state.end.is_some() && state.touched {
            tools.metrics.last_done(tools.wall().as_second());
        }
        let outcome = outcome(state);
        let why = outcome.why.as_deref().unwrap_or_default();
        let word = outcome.outcome.clone();
        info!(
            event = "cutover-ended",
            run = self.run,
            outcome = word,
            "{why}"
        );
        let message = format!("{}: {word} {why}", state.order.to);
        tools.events.record(Entry::new("cutover-ended", message));
        let text = match why {
            "" => word.clone(),
            why => format!("{word}: {why}"),
        };
        tools.feed.say(Line {
            result: Some(outcome),
            ..line(tools, &self.run, state, text.clone())
        });
        notify(tools, &format!("cutover-{word}"), &text, state).await;
    }

    pub(super) fn halted(&self, halt: &Halt) {
        let tools = &self.tools;
        let message = format!("nothing more is done: {halt}");
        tools
            .events
            .record(Entry::new("cutover-halted", message.clone()));
        tools.metrics.unfinished(true);
        let finish = self.state.as_ref().map(|state| state.finish.clone());
        tools.feed.say(Line {
            seq: 0,
            time: tools.time(),
            run: self.run.clone(),
            phase: self
                .state
                .as_ref()
                .map_or("planning", |state| state.phase.as_str())
                .to_owned(),
            text: shortened(&message),
            waiting_for: Vec::new(),
            waited_ms: None,
            result: Some(Outcome {
                outcome: "halted".to_owned(),
                exit: 1,
                why: Some(shortened(&halt.to_string())),
                finish: finish.unwrap_or_default(),
                notes: Vec::new(),
            }),
        });
    }
}

fn outcome(state: &State) -> Outcome {
    let (word, exit) = match (state.end, state.phase) {
        (Some(End::Done), _) => ("done", 0),
        (Some(End::Idle), _) => ("already-there", 0),
        // A rollback that was asked for is what was wanted.
        (Some(End::RolledBack), _) => ("rolled-back", 0),
        (Some(End::GivenUp), _) => ("given-up", 0),
        (Some(End::Refused), _) => ("refused", 3),
        (Some(End::Failed), _) => ("failed", 1),
        (None, Phase::NeedsHuman) => ("needs-human", 1),
        (None, _) => ("unfinished", 1),
    };
    Outcome {
        outcome: word.to_owned(),
        exit,
        why: state.why.clone(),
        finish: state.finish.clone(),
        notes: state.notes.clone(),
    }
}

/// Tells others; bounded in time, and nothing depends on it.
pub(super) async fn notify(tools: &Tools, event: &str, text: &str, state: &State) {
    let Some(spec) = &tools.spec.notify else {
        return;
    };
    let plan = state.plan.as_ref();
    let message = Message {
        text: shortened(&format!(
            "{} to {} from {}: {text}",
            state.order.way.as_str(),
            state.order.to,
            tools.sidecar
        )),
        event: event.to_owned(),
        name: tools.sidecar.clone(),
        from: plan.and_then(|plan| plan.from.clone()),
        to: Some(state.order.to.clone()),
        reason: state.order.reason.clone(),
        plan: plan.map(|plan| plan.digest.clone()),
        epoch: plan.map(|plan| plan.epoch),
        time: tools.time(),
    };
    notify::notify(spec, &message).await;
}
