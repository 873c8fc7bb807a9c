//! What a cutover counts.

use std::sync::Mutex;
use std::sync::PoisonError;

use metrics::Gauge;

use super::gate::Verdict;
use super::machine::{End, Phase};
use super::report::gauge;
use crate::telemetry::metrics::{Described, Kind, Registry};

/// Names and meanings, for the text output and the documentation.
pub const DESCRIBED: &[Described] = &[
    Described(
        "pilotfish_cutover_phase",
        Kind::Gauge,
        "1 for the phase that a run is in, 0 for those it was in before",
    ),
    Described(
        "pilotfish_cutover_runs_total",
        Kind::Counter,
        "Runs that ended, by outcome",
    ),
    Described(
        "pilotfish_cutover_gate",
        Kind::Gauge,
        "What a gate said last: 0 pass, 1 warn, 2 fail",
    ),
    Described(
        "pilotfish_cutover_unfinished",
        Kind::Gauge,
        "1 while a run waits for resume or rollback",
    ),
    Described(
        "pilotfish_cutover_last_done_seconds",
        Kind::Gauge,
        "When the last run changed records, in seconds since 1970",
    ),
];

/// Handles; labels are of closed sets, and operators' gates are bounded by the config.
pub struct CutoverMetrics {
    registry: Registry,
    phase: Mutex<Option<Gauge>>,
    unfinished: Gauge,
    last_done: Gauge,
}

impl CutoverMetrics {
    pub fn new(registry: &Registry) -> Self {
        registry.describe(DESCRIBED);
        Self {
            phase: Mutex::default(),
            unfinished: registry.gauge("pilotfish_cutover_unfinished", &[]),
            last_done: registry.gauge("pilotfish_cutover_last_done_seconds", &[]),
            registry: registry.clone(),
        }
    }

    pub fn phase(&self, phase: Phase) {
        let labels = [("phase", phase.as_str())];
        let now = self.registry.gauge("pilotfish_cutover_phase", &labels);
        let mut before = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = before.replace(now.clone()) {
            before.set(0.0);
        }
        now.set(1.0);
    }

    pub fn ended(&self, end: End) {
        let labels = [("outcome", end.as_str())];
        self.registry
            .counter("pilotfish_cutover_runs_total", &labels)
            .increment(1);
    }

    pub fn gates(&self, verdicts: &[Verdict]) {
        for verdict in verdicts {
            let labels = [("gate", verdict.gate.as_str())];
            let gate = self.registry.gauge("pilotfish_cutover_gate", &labels);
            gate.set(gauge(verdict.says));
        }
    }

    pub fn unfinished(&self, is: bool) {
        self.unfinished.set(if is { 1.0 } else { 0.0 });
    }

    /// Seconds since 1970.
    #[allow(clippy::cast_precision_loss)]
    pub fn last_done(&self, at: i64) {
        self.last_done.set(at as f64);
    }
}
