//! What a monitor counts and shows of one service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Gauge, Histogram};

use super::Verdict;
use super::report::{NodeReport, SourceReport};
use crate::addr::Addr;
use crate::telemetry::metrics::{Described, Kind, Registry};
use crate::topology::{Cause, Generation};

/// Names and meanings, for the text output and the documentation.
pub const DESCRIBED: &[Described] = &[
    Described(
        "pilotfish_switches_total",
        Kind::Counter,
        "Times a primary was published, by cause",
    ),
    Described(
        "pilotfish_switch_seconds",
        Kind::Histogram,
        "From the first evidence of a new primary to its publication",
    ),
    Described(
        "pilotfish_probe_seconds",
        Kind::Histogram,
        "Asking one endpoint for its role",
    ),
    Described(
        "pilotfish_generation",
        Kind::Gauge,
        "One more at each published change",
    ),
    Described(
        "pilotfish_primary_info",
        Kind::Gauge,
        "1 for the endpoint that is the primary, 0 for those that were",
    ),
    Described(
        "pilotfish_endpoint_up",
        Kind::Gauge,
        "1 when the endpoint's last probe was answered, else 0",
    ),
    Described(
        "pilotfish_endpoint_lag_bytes",
        Kind::Gauge,
        "How far the endpoint is behind the primary; NaN when not known",
    ),
    Described(
        "pilotfish_endpoint_lag_seconds",
        Kind::Gauge,
        "How far the endpoint is behind the primary; NaN when not known",
    ),
    Described(
        "pilotfish_sentinels_connected",
        Kind::Gauge,
        "Sentinels that answer",
    ),
];

/// The causes that come with a primary. Their counters begin at 0, so that the first one shows in
/// a rate.
const SWITCHES: [Cause; 9] = [
    Cause::Proven,
    Cause::Announced,
    Cause::Promoted,
    Cause::EpochReset,
    Cause::Majority,
    Cause::Returned,
    Cause::Reachable,
    Cause::Successor,
    Cause::Preferred,
];

/// Servers of a cluster that renews itself come with ever new addresses, and a metric never
/// forgets one: the rest share a label.
const MAX_ENDPOINTS: usize = 256;
const OTHER: &str = "other";

/// One service's metrics. What is shown of endpoints goes to 0 with it.
pub struct MonitorMetrics {
    pub switch_seconds: Histogram,
    pub probe_seconds: Histogram,
    generation: Gauge,
    registry: Registry,
    service: Arc<str>,
    /// Addresses with a label of their own.
    labelled: BTreeSet<Addr>,
    /// Label of the endpoint that `primary_info` is 1 for.
    primary: Option<String>,
    endpoints: BTreeMap<String, Shown>,
    sentinels: Option<(Gauge, usize)>,
}

/// The metrics of a monitor, until they are ended: a service that is replaced must not go on telling, nor
/// take back what its successor says.
#[derive(Clone)]
pub struct SharedMetrics {
    pub probe_seconds: Histogram,
    shared: Arc<Mutex<Option<MonitorMetrics>>>,
}

impl SharedMetrics {
    pub fn new(registry: &Registry, service: &str) -> Self {
        let metrics = MonitorMetrics::new(registry, service);
        Self {
            probe_seconds: metrics.probe_seconds.clone(),
            shared: Arc::new(Mutex::new(Some(metrics))),
        }
    }

    /// Does nothing once they have ended.
    pub fn with(&self, tell: impl FnOnce(&mut MonitorMetrics)) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.as_mut().map(tell);
    }

    /// Shows that nothing is watched any more, and nothing after that.
    pub fn end(&self) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.take();
    }
}

/// What was last shown under one label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    up: bool,
    lag: Lag,
}

/// In bytes, and in seconds: whatever the database counts.
type Lag = [Option<u64>; 2];

const LAGS: [&str; 2] = [
    "pilotfish_endpoint_lag_bytes",
    "pilotfish_endpoint_lag_seconds",
];

struct Shown {
    seen: Seen,
    up: Gauge,
    /// Made when there is something to show.
    lag: [Option<Gauge>; 2],
}

impl MonitorMetrics {
    pub fn new(registry: &Registry, service: &str) -> Self {
        let label = [("service", service)];
        for cause in SWITCHES {
            let labels = [label[0], ("cause", cause.as_str())];
            registry
                .counter("pilotfish_switches_total", &labels)
                .increment(0);
        }
        Self {
            switch_seconds: registry.histogram("pilotfish_switch_seconds", &label),
            probe_seconds: registry.histogram("pilotfish_probe_seconds", &label),
            generation: registry.gauge("pilotfish_generation", &label),
            registry: registry.clone(),
            service: service.into(),
            labelled: BTreeSet::new(),
            primary: None,
            endpoints: BTreeMap::new(),
            sentinels: None,
        }
    }

    /// Counts a switch by its cause.
    pub fn switched(&self, cause: &str) {
        let labels = [("service", &*self.service), ("cause", cause)];
        self.registry
            .counter("pilotfish_switches_total", &labels)
            .increment(1);
    }

    pub fn published(&self, generation: Generation) {
        self.generation.set(float(generation.0));
    }

    /// Shows primary, endpoints and sources. Called many times a second: only what changed is set.
    pub fn show(&mut self, verdict: &Verdict) {
        self.show_primary(verdict.conclusion.primary.as_ref());
        self.show_endpoints(&verdict.nodes);
        self.show_sentinels(&verdict.sources);
    }

    fn show_primary(&mut self, primary: Option<&Addr>) {
        let label = primary.map(|addr| self.label(addr));
        if label == self.primary {
            return;
        }
        if let Some(former) = self.primary.take() {
            self.gauge("pilotfish_primary_info", &former).set(0.0);
        }
        if let Some(label) = &label {
            self.gauge("pilotfish_primary_info", label).set(1.0);
        }
        self.primary = label;
    }

    fn show_endpoints(&mut self, nodes: &[NodeReport]) {
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        for node in nodes {
            let (up, lag) = (node.up, [node.lag_bytes, node.lag_seconds]);
            // The worst lag, of those that share a label.
            let worst = |a: Lag, b: Lag| [a[0].max(b[0]), a[1].max(b[1])];
            let one = |s: &mut Seen| (s.up, s.lag) = (s.up || up, worst(s.lag, lag));
            let label = self.label(&node.address);
            seen.entry(label)
                .and_modify(one)
                .or_insert(Seen { up, lag });
        }
        let gone = self
            .endpoints
            .keys()
            .filter(|label| !seen.contains_key(*label));
        for label in gone.cloned().collect::<Vec<_>>() {
            seen.insert(
                label,
                Seen {
                    up: false,
                    lag: Lag::default(),
                },
            );
        }
        for (label, seen) in seen {
            self.show_endpoint(label, seen);
        }
    }

    fn show_endpoint(&mut self, label: String, seen: Seen) {
        let before = self.endpoints.get(&label).map(|shown| shown.seen);
        if before == Some(seen) {
            return;
        }
        let up = self.gauge("pilotfish_endpoint_up", &label);
        let lag = [0, 1].map(|n| self.gauge_if(seen.lag[n].is_some(), LAGS[n], &label));
        let shown = self.endpoints.entry(label).or_insert(Shown {
            seen,
            up,
            lag: [None, None],
        });
        for (before, now) in shown.lag.iter_mut().zip(lag) {
            *before = now.or(before.take());
        }
        shown.set(seen);
    }

    fn show_sentinels(&mut self, sources: &[SourceReport]) {
        if sources.is_empty() && self.sentinels.is_none() {
            return;
        }
        let connected = sources.iter().filter(|source| source.up).count();
        if self.sentinels.as_ref().map(|(_, shown)| *shown) == Some(connected) {
            return;
        }
        let label = [("service", &*self.service)];
        let gauge = self.registry.gauge("pilotfish_sentinels_connected", &label);
        gauge.set(float(connected as u64));
        self.sentinels = Some((gauge, connected));
    }

    fn label(&mut self, addr: &Addr) -> String {
        let room = self.labelled.len() < MAX_ENDPOINTS;
        if self.labelled.contains(addr) || (room && self.labelled.insert(addr.clone())) {
            addr.to_string()
        } else {
            OTHER.to_owned()
        }
    }

    fn gauge(&self, name: &'static str, endpoint: &str) -> Gauge {
        let labels = [("service", &*self.service), ("endpoint", endpoint)];
        self.registry.gauge(name, &labels)
    }

    fn gauge_if(&self, wanted: bool, name: &'static str, endpoint: &str) -> Option<Gauge> {
        wanted.then(|| self.gauge(name, endpoint))
    }
}

impl Shown {
    fn set(&mut self, seen: Seen) {
        self.seen = seen;
        self.up.set(f64::from(u8::from(seen.up)));
        for (gauge, lag) in self.lag.iter().zip(seen.lag) {
            if let Some(gauge) = gauge {
                // A metric cannot be taken back, and 0 would be a lie.
                gauge.set(lag.map_or(f64::NAN, float));
            }
        }
    }
}

/// A service that is no longer watched must not look as if it were.
impl Drop for MonitorMetrics {
    fn drop(&mut self) {
        self.show_primary(None);
        self.show_endpoints(&[]);
        self.show_sentinels(&[]);
    }
}

/// What is counted here stays far below 2^52, and a lag may be rounded.
#[allow(clippy::cast_precision_loss)]
fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests;
