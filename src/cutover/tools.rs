//! What a run works with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::feed::Feed;
use super::lock::Lock;
use super::machine::State;
use super::metrics::CutoverMetrics;
use super::spec::{CommandSpec, CutoverSpec};
use super::world::World;
use crate::command::{self, Command};
use crate::dns::verify::Verifier;
use crate::dns::{Env, Provider};
use crate::events::Events;

/// Made once per config; shared by everything that asks or runs.
pub struct Tools {
    pub spec: CutoverSpec,
    pub env: Env,
    pub provider: Box<dyn Provider>,
    pub verifier: Verifier,
    /// `None`: nobody else moves this site.
    pub lock: Option<Box<dyn Lock>>,
    pub world: Arc<dyn World>,
    /// This sidecar's name and region.
    pub sidecar: String,
    pub region: Option<String>,
    pub events: Arc<Events>,
    pub feed: Arc<Feed>,
    pub metrics: CutoverMetrics,
}

impl Tools {
    pub fn state_dir(&self) -> PathBuf {
        self.spec.state_dir.clone()
    }

    /// What the wall clock says: journals are compared with it over restarts.
    pub fn wall(&self) -> Timestamp {
        self.env.clock.wall_now()
    }

    pub fn time(&self) -> String {
        format!("{:.3}", self.wall())
    }

    /// Runs a program of the operator; its success, and what it said last. Dropping it kills it.
    pub async fn run(&self, spec: &CommandSpec, env: &BTreeMap<String, String>) -> (bool, String) {
        let command = Command {
            argv: spec.argv.clone(),
            timeout: spec.timeout,
        };
        match command::run(&command, env).await {
            Ok(outcome) => {
                let said = outcome
                    .output_tail
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .to_owned();
                let why = match (outcome.success(), said.is_empty()) {
                    (true, true) => "ended well".to_owned(),
                    (true, false) => said,
                    (false, true) => outcome.status.to_string(),
                    (false, false) => format!("{}: {said}", outcome.status),
                };
                (outcome.success(), shortened(&why))
            }
            Err(error) => (false, shortened(&error.to_string())),
        }
    }

    /// What programs of the operator are told.
    pub fn env_for(&self, run: &str, state: &State) -> BTreeMap<String, String> {
        let plan = state.plan.as_ref();
        let from = plan.and_then(|plan| plan.from.clone()).unwrap_or_default();
        let epoch = plan.map_or_else(String::new, |plan| plan.epoch.to_string());
        let digest = plan.map_or_else(String::new, |plan| plan.digest.clone());
        let (from, to) = match state.back {
            true => (state.order.to.clone(), from),
            false => (from, state.order.to.clone()),
        };
        let way = match state.back {
            true => "rollback",
            false => state.order.way.as_str(),
        };
        [
            ("PILOTFISH_RUN", run.to_owned()),
            ("PILOTFISH_WAY", way.to_owned()),
            ("PILOTFISH_FROM", from),
            ("PILOTFISH_TO", to),
            ("PILOTFISH_EPOCH", epoch),
            ("PILOTFISH_DIGEST", digest),
            (
                "PILOTFISH_REASON",
                state.order.reason.clone().unwrap_or_default(),
            ),
            ("PILOTFISH_SIDECAR", self.sidecar.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), value.replace('\0', " ")))
        .into()
    }
}

/// What somebody else said, in a length that fits a line.
pub fn shortened(text: &str) -> String {
    const MOST: usize = 300;
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MOST).map(printable).collect()
}
