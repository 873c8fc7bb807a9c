//! Metrics that nobody counts: what stands now, as of the moment somebody asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::Gauge;

use super::health::{self, Circumstances, Status};
use super::metrics::{Described, Kind, Registry};
use super::surface::Snapshot;
use crate::gate::HoldReason;

/// Names and meanings, for the text output and the documentation.
pub const DESCRIBED: &[Described] = &[
    Described(
        "pilotfish_service_status",
        Kind::Gauge,
        "The service's own state: 0 ok, 1 degraded, 3 failing",
    ),
    Described(
        "pilotfish_service_required",
        Kind::Gauge,
        "1 when the service counts for /healthz, else 0",
    ),
    Described(
        "pilotfish_hold_active",
        Kind::Gauge,
        "1 while clients are held for this reason, besides there being no primary",
    ),
    Described(
        "pilotfish_trouble",
        Kind::Gauge,
        "How many troubles of this kind stand; what they are is in the status",
    ),
    Described(
        "pilotfish_sessions_limit",
        Kind::Gauge,
        "The service's max_connections",
    ),
    Described(
        "pilotfish_held_limit",
        Kind::Gauge,
        "The service's max_held",
    ),
];

/// The gauges of one service.
struct Gauges {
    status: Gauge,
    required: Gauge,
    sessions_limit: Gauge,
    held_limit: Gauge,
    holds: Vec<(HoldReason, Gauge)>,
    troubles: BTreeMap<&'static str, Gauge>,
}

/// What was shown, so that it can be taken back when its service goes.
pub struct Derived {
    registry: Registry,
    shown: Mutex<BTreeMap<Arc<str>, Gauges>>,
}

impl Derived {
    pub fn new(registry: &Registry) -> Self {
        registry.describe(DESCRIBED);
        Self {
            registry: registry.clone(),
            shown: Mutex::default(),
        }
    }

    /// Shows these services, and no others.
    pub fn show(&self, snapshots: &[Snapshot<'_>], given: &Circumstances) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for snapshot in snapshots {
            let name = &snapshot.view.name;
            let gauges = shown
                .entry(name.clone())
                .or_insert_with(|| Gauges::new(&self.registry, name));
            gauges.set(&self.registry, snapshot, given);
        }
        let named = |name: &Arc<str>| snapshots.iter().any(|s| s.view.name == *name);
        shown.retain(|name, gauges| {
            let kept = named(name);
            if !kept {
                gauges.take_back();
            }
            kept
        });
    }
}

impl Gauges {
    fn new(registry: &Registry, service: &str) -> Self {
        let label = [("service", service)];
        let hold = |reason: HoldReason| {
            let labels = [label[0], ("reason", reason.as_str())];
            (reason, registry.gauge("pilotfish_hold_active", &labels))
        };
        Self {
            status: registry.gauge("pilotfish_service_status", &label),
            required: registry.gauge("pilotfish_service_required", &label),
            sessions_limit: registry.gauge("pilotfish_sessions_limit", &label),
            held_limit: registry.gauge("pilotfish_held_limit", &label),
            holds: HoldReason::ALL.into_iter().map(hold).collect(),
            troubles: BTreeMap::new(),
        }
    }

    fn set(&mut self, registry: &Registry, snapshot: &Snapshot<'_>, given: &Circumstances) {
        let view = snapshot.view;
        let (status, _) = health::judge(&snapshot.facts(), given);
        self.status.set(status.gauge());
        self.required.set(f64::from(u8::from(view.required)));
        self.sessions_limit.set(float(view.sessions.most()));
        self.held_limit.set(float(view.held.most()));
        for (reason, gauge) in &self.holds {
            gauge.set(f64::from(u8::from(view.gate.holds(*reason))));
        }
        let mut standing: BTreeMap<&'static str, usize> = BTreeMap::new();
        for trouble in &snapshot.report.troubles {
            *standing.entry(trouble.kind()).or_default() += 1;
        }
        for kind in standing.keys() {
            let labels = [("service", &*view.name), ("kind", *kind)];
            let gauge = || registry.gauge("pilotfish_trouble", &labels);
            self.troubles.entry(kind).or_insert_with(gauge);
        }
        for (kind, gauge) in &self.troubles {
            gauge.set(float(standing.get(kind).copied().unwrap_or(0)));
        }
    }

    /// A service that is gone must not look as if it were in trouble.
    fn take_back(&self) {
        self.status.set(Status::Ok.gauge());
        let plain = [&self.required, &self.sessions_limit, &self.held_limit];
        let holds = self.holds.iter().map(|(_, gauge)| gauge);
        for gauge in plain.into_iter().chain(holds).chain(self.troubles.values()) {
            gauge.set(0.0);
        }
    }
}

/// Limits and counts, which stay far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn float(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::{Report, Trouble};
    use crate::telemetry::sample::Sample;
    use crate::telemetry::surface::Shown;

    fn said(sample: &Sample, lines: &[&str]) {
        let text = sample.surface.metrics();
        for line in lines {
            assert!(text.contains(&format!("\n{line}\n")), "{line}:\n{text}");
        }
    }

    #[test]
    fn what_stands_is_shown_and_taken_back() {
        let sample = Sample::proven();
        said(
            &sample,
            &[
                "pilotfish_service_status{service=\"cache\"} 0",
                "pilotfish_service_required{service=\"cache\"} 1",
                "pilotfish_sessions_limit{service=\"cache\"} 10",
                "pilotfish_hold_active{service=\"cache\",reason=\"operator\"} 0",
                "pilotfish_config_stale 0",
                "pilotfish_panics_total 0",
            ],
        );
        sample.gate.hold(HoldReason::Operator);
        sample.surface.set_config_error(Some("no".into()));
        let troubles = vec![Trouble::Minority { count: 1, of: 3 }];
        sample.report.send_modify(|report| {
            *report = Arc::new(Report {
                troubles,
                ..(**report).clone()
            });
        });
        said(
            &sample,
            &[
                "pilotfish_service_status{service=\"cache\"} 1",
                "pilotfish_hold_active{service=\"cache\",reason=\"operator\"} 1",
                "pilotfish_trouble{service=\"cache\",kind=\"minority\"} 1",
                "pilotfish_config_stale 1",
            ],
        );
        let unhealthy_after = std::time::Duration::from_secs(15);
        let services = vec![];
        sample.surface.show(Shown {
            services,
            unhealthy_after,
        });
        said(
            &sample,
            &[
                "pilotfish_service_required{service=\"cache\"} 0",
                "pilotfish_hold_active{service=\"cache\",reason=\"operator\"} 0",
                "pilotfish_trouble{service=\"cache\",kind=\"minority\"} 0",
            ],
        );
    }
}
