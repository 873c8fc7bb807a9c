//! Carries a run out: does what the state machine says, writes down what came of it, and says so.
//!
//! An event is on the disk before anything that follows from it is done. Waiting can be interrupted by an
//! operator; sending cannot.

mod actions;
mod apply;
pub mod lease;
mod say;
mod watch;
mod words;

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::error;

use super::journal::{JournalError, Run, Writer};
use super::lock::LockError;
use super::machine::{Action, At, Event, Misfit, Phase, State, step};
use super::plan::{self, Given};
use super::tools::Tools;
use crate::dns::Observed;
use lease::Lease;

/// Why a run cannot go on. It is unfinished then, and nothing more is done.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    #[error("{0}")]
    Journal(#[from] JournalError),
    #[error("{0}")]
    Misfit(#[from] Misfit),
    #[error("a task failed on the way")]
    Lost,
}

/// One run under way.
pub struct Runner {
    tools: Arc<Tools>,
    /// Away only while it is written to.
    journal: Option<Writer>,
    run: String,
    state: Option<State>,
    lease: Option<Lease>,
    /// What is known of the lock, for its gate.
    lock: Result<Option<String>, String>,
    /// The lock was lost while something was done.
    lost: Option<String>,
    /// As it was planned with.
    observed: Observed,
    /// What was there before.
    history: Vec<Run>,
    /// What an operator says meanwhile.
    words: mpsc::Receiver<Event>,
}

/// What a runner begins with.
pub struct Beginning {
    pub journal: Writer,
    pub run: String,
    /// Where it stood, if it is not new.
    pub state: Option<State>,
    pub history: Vec<Run>,
    pub lease: Option<Lease>,
}

impl Runner {
    pub fn new(tools: Arc<Tools>, begin: Beginning, words: mpsc::Receiver<Event>) -> Self {
        Self {
            tools,
            journal: Some(begin.journal),
            run: begin.run,
            state: begin.state,
            lease: begin.lease,
            lock: Ok(None),
            lost: None,
            observed: Observed::default(),
            history: begin.history,
            words,
        }
    }

    /// Takes `first` in and goes on until the run is over or waits for a human. Dropping it is like a
    /// crash: the journal says where it stood.
    pub async fn run(mut self, first: Event) {
        let driven = self.drive(first).await;
        if let Some(lease) = self.lease.take() {
            lease.release(&self.tools).await;
        }
        // The file is free before anybody hears that it is over.
        drop(self.journal.take());
        match driven {
            Ok(()) => self.ended().await,
            Err(halt) => {
                error!(event = "cutover-halted", run = self.run, "{halt}");
                self.halted(&halt);
            }
        }
    }

    async fn drive(&mut self, first: Event) -> Result<(), Halt> {
        let mut action = self.note(first).await?;
        while action != Action::Rest {
            // What an operator has said meanwhile comes before the next thing to do.
            let event = match self.words.try_recv() {
                Ok(word) => word,
                Err(_) => self.act(&action).await?,
            };
            action = self.note(event).await?;
            if let Some(why) = self.lost.take()
                && action != Action::Rest
            {
                action = self.note(Event::LockLost { why }).await?;
            }
        }
        Ok(())
    }

    /// Writes an event down, and then lets it be true.
    async fn note(&mut self, event: Event) -> Result<Action, Halt> {
        let time = self.tools.time();
        let at = At {
            time: &time,
            event: &event,
        };
        let (next, action) = step(self.state.clone(), &at)?;
        let mut journal = self.journal.take().ok_or(Halt::Lost)?;
        let run = self.run.clone();
        // The disk may be slow, and health must not be.
        let written = tokio::task::spawn_blocking(move || {
            let written = journal.append(&run, &time, &event);
            (journal, written, event)
        });
        let (journal, written, event) = written.await.map_err(|_| Halt::Lost)?;
        self.journal = Some(journal);
        written?;
        self.state = Some(next);
        self.told(&event);
        Ok(action)
    }

    /// Does one thing, and keeps the lock meanwhile.
    async fn act(&mut self, action: &Action) -> Result<Event, Halt> {
        if *action == Action::Plan {
            return Ok(self.plan().await);
        }
        let state = self.state.clone().ok_or(Halt::Lost)?;
        if matches!(action, Action::AnnounceSending(_)) && !state.touched {
            // The lock may have been lost since it was renewed last, or this process have stood still.
            keep(&self.tools, &mut self.lease, &mut self.lost).await;
            if let Some(why) = self.lost.take() {
                return Ok(Event::LockLost { why });
            }
        }
        let patient = matches!(
            state.phase,
            Phase::Settling | Phase::Deploying | Phase::Serving | Phase::Converging
        );
        let tools = self.tools.clone();
        let job = actions::Job {
            tools: &tools,
            run: &self.run,
            state: &state,
            history: &self.history,
            lock: &self.lock,
            observed: &self.observed,
        };
        let doing = job.act(action);
        tokio::pin!(doing);
        loop {
            tokio::select! {
                event = &mut doing => return Ok(event),
                Some(word) = self.words.recv(), if patient => return Ok(word),
                () = lease::due(self.lease.as_ref().map(Lease::due), &tools) => {
                    keep(&tools, &mut self.lease, &mut self.lost).await;
                }
            }
        }
    }

    /// Takes the lock, looks at the records and plans.
    async fn plan(&mut self) -> Event {
        let tools = self.tools.clone();
        let Some(state) = self.state.clone() else {
            return failed("there is nothing to plan");
        };
        let order = &state.order;
        if self.lease.is_none() {
            let purpose = format!("{} to {}", order.way.as_str(), order.to);
            match Lease::acquire(&tools, &purpose, order.digest.as_deref()).await {
                Ok(lease) => {
                    self.lease = Some(lease);
                    self.lock = Ok(None);
                }
                Err(LockError::Busy { holder, .. }) => self.lock = Ok(Some(holder)),
                Err(other) => self.lock = Err(other.to_string()),
            }
        }
        // Others need not be waited for.
        let (read, ()) = tokio::join!(
            async { tools.provider.read(&tools.spec.watched()).await },
            say::notify(&tools, "cutover-started", "begun", &state)
        );
        let observed = match read {
            Ok(observed) => observed,
            Err(error) => return failed(&error.to_string()),
        };
        self.observed = observed;
        let epoch = self.lease.as_ref().and_then(Lease::epoch);
        let planned = plan::plan(&Given {
            spec: &tools.spec,
            way: order.way,
            to: &order.to,
            observed: &self.observed,
            capabilities: tools.provider.capabilities(),
            epoch: epoch.unwrap_or_else(|| next_epoch(&self.history)),
            now: tools.wall(),
        });
        match planned {
            Err(error) => refused(&error.to_string()),
            Ok(plan) if plan.is_idle() => Event::Idle,
            Ok(plan)
                if order
                    .digest
                    .as_ref()
                    .is_some_and(|shown| *shown != plan.digest) =>
            {
                refused("the records have changed since the plan was shown")
            }
            Ok(plan) => Event::Planned { plan },
        }
    }
}

/// Renews the lock, or says that it is lost.
async fn keep(tools: &Tools, lease: &mut Option<Lease>, lost: &mut Option<String>) {
    let Some(held) = lease else { return };
    if let Err(why) = held.renew(tools).await {
        // What is under way ends first, which may take long.
        tracing::warn!(event = "cutover-lock", "the lock was lost: {why}");
        *lease = None;
        *lost = Some(why);
    }
}

/// Where nobody gives one: one more than any before.
pub fn next_epoch(history: &[Run]) -> u64 {
    let epochs = history
        .iter()
        .filter_map(|run| Some(run.state.plan.as_ref()?.epoch));
    epochs.max().unwrap_or(0) + 1
}

fn failed(why: &str) -> Event {
    Event::Refused {
        why: super::tools::shortened(why),
        rule: false,
    }
}

fn refused(why: &str) -> Event {
    Event::Refused {
        why: super::tools::shortened(why),
        rule: true,
    }
}
