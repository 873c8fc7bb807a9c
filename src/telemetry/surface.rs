//! All that may be seen of the process: what health, metrics and the admin socket answer from.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use metrics::Gauge;
use metrics_process::Collector;

use super::derived::Derived;
use super::health::{self, Circumstances, Facts, Health, ServiceHealth, Status};
use super::log;
use super::metrics::{Described, Kind, Registry};
use super::view::ServiceView;
use crate::clock::Clock;
use crate::drain::Drain;
use crate::events::Events;
use crate::monitor::Report;
use crate::supervise::Supervisor;
use crate::topology::Topology;

/// Names and meanings, for the text output and the documentation.
pub const DESCRIBED: &[Described] = &[
    Described(
        "pilotfish_health_status",
        Kind::Gauge,
        "0 ok, 1 degraded, 2 draining, 3 failing",
    ),
    Described(
        "pilotfish_build_info",
        Kind::Gauge,
        "Always 1; the version is in the label",
    ),
    Described(
        "pilotfish_config_stale",
        Kind::Gauge,
        "1 while the newest state of the config's file is not followed, else 0",
    ),
    Described(
        "pilotfish_panics_total",
        Kind::Counter,
        "Panics; each ended one session or one task",
    ),
    Described(
        "pilotfish_task_restarts_total",
        Kind::Counter,
        "Tasks of the control side that ended when they should not, and were made anew",
    ),
];

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a reload may replace. Nobody keeps it longer than an answer takes.
#[derive(Clone)]
pub struct Shown {
    pub services: Vec<ServiceView>,
    /// How long a required service may be without primary before health says 503.
    pub unhealthy_after: Duration,
}

/// Read by everybody who answers questions; only the app changes what is shown.
pub struct Surface {
    pub name: String,
    pub region: Option<String>,
    pub clock: Clock,
    pub events: Arc<Events>,
    drain: Arc<Drain>,
    shown: ArcSwap<Shown>,
    /// The config's text, without secrets.
    config_text: ArcSwap<String>,
    /// Why the last reload was not followed.
    config_error: ArcSwapOption<String>,
    /// What is unfinished about the regional cutover.
    cutover_trouble: ArcSwapOption<String>,
    registry: Registry,
    process: Collector,
    health_status: Gauge,
    config_stale: Gauge,
    derived: Derived,
    supervisor: Supervisor,
}

/// Which sidecar this is.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: String,
    pub region: Option<String>,
}

/// What the rest of the process tells it by.
pub struct Sources {
    pub clock: Clock,
    pub drain: Arc<Drain>,
    pub events: Arc<Events>,
    pub registry: Registry,
    pub supervisor: Supervisor,
}

impl Surface {
    pub fn new(identity: Identity, sources: Sources, shown: Shown) -> Arc<Self> {
        let Sources {
            clock,
            drain,
            events,
            registry,
            supervisor,
        } = sources;
        let process = Collector::default();
        registry.describe(DESCRIBED);
        registry.describe_process(&process);
        registry
            .gauge("pilotfish_build_info", &[("version", VERSION)])
            .set(1.0);
        let derived = Derived::new(&registry);
        let config_stale = registry.gauge("pilotfish_config_stale", &[]);
        let health_status = registry.gauge("pilotfish_health_status", &[]);
        Arc::new(Self {
            name: identity.name,
            region: identity.region,
            clock,
            events,
            drain,
            shown: ArcSwap::from_pointee(shown),
            config_text: ArcSwap::default(),
            config_error: ArcSwapOption::empty(),
            cutover_trouble: ArcSwapOption::empty(),
            registry,
            process,
            health_status,
            config_stale,
            derived,
            supervisor,
        })
    }

    /// Shows other services from now on.
    pub fn show(&self, shown: Shown) {
        self.shown.store(Arc::new(shown));
    }

    /// Shows another config, whose secrets have been blotted out.
    pub fn set_config_text(&self, masked: String) {
        self.config_text.store(Arc::new(masked));
    }

    pub fn config_text(&self) -> Arc<String> {
        self.config_text.load_full()
    }

    /// Shows why the file's newest state is not followed; `None`: it is.
    pub fn set_config_error(&self, why: Option<String>) {
        self.config_error.store(why.map(Arc::new));
    }

    pub fn config_error(&self) -> Option<Arc<String>> {
        self.config_error.load_full()
    }

    /// Shows what is unfinished about the regional cutover; `None`: nothing.
    pub fn set_cutover_trouble(&self, why: Option<String>) {
        self.cutover_trouble.store(why.map(Arc::new));
    }

    pub fn cutover_trouble(&self) -> Option<Arc<String>> {
        self.cutover_trouble.load_full()
    }

    pub fn shown(&self) -> Arc<Shown> {
        self.shown.load_full()
    }

    pub fn circumstances(&self, shown: &Shown) -> Circumstances {
        Circumstances {
            now: self.clock.now(),
            phase: self.drain.phase(),
            unhealthy_after: shown.unhealthy_after,
            unfinished: self.cutover_trouble.load().is_some(),
        }
    }

    pub fn health(&self) -> Health {
        let shown = self.shown();
        let snapshots: Vec<Snapshot> = shown.services.iter().map(Snapshot::of).collect();
        let facts: Vec<Facts<'_>> = snapshots.iter().map(Snapshot::facts).collect();
        // After the snapshots: a topology that is newer than `now` would look ageless.
        let given = self.circumstances(&shown);
        let region = self.region.as_deref();
        let health = health::evaluate(&self.name, region, &facts, &given, &self.clock);
        Health {
            reason: self.cutover_trouble().map(|why| why.to_string()),
            ..health
        }
    }

    /// `None` when there is no such service.
    pub fn service_health(&self, name: &str) -> Option<ServiceHealth> {
        let shown = self.shown();
        let view = shown.services.iter().find(|view| *view.name == *name)?;
        let snapshot = Snapshot::of(view);
        let given = self.circumstances(&shown);
        Some(health::service(&snapshot.facts(), &given, &self.clock))
    }

    pub fn status(&self) -> Status {
        self.health().status
    }

    /// The Prometheus text, with what is derived as of now.
    pub fn metrics(&self) -> String {
        self.health_status.set(self.status().gauge());
        let stale = self.config_error().is_some();
        self.config_stale.set(f64::from(u8::from(stale)));
        let shown = self.shown();
        let snapshots: Vec<Snapshot> = shown.services.iter().map(Snapshot::of).collect();
        self.derived.show(&snapshots, &self.circumstances(&shown));
        let registry = &self.registry;
        let panics = registry.counter("pilotfish_panics_total", &[]);
        panics.absolute(log::panics());
        for (task, restarts) in self.supervisor.restarts() {
            let counter = registry.counter("pilotfish_task_restarts_total", &[("task", task)]);
            counter.absolute(restarts);
        }
        self.registry.render(&self.process)
    }
}

/// One service, as of one moment.
pub struct Snapshot<'a> {
    pub view: &'a ServiceView,
    pub topology: Arc<Topology>,
    pub report: Arc<Report>,
}

impl<'a> Snapshot<'a> {
    pub fn of(view: &'a ServiceView) -> Self {
        Self {
            view,
            topology: view.topology.load(),
            report: view.report.borrow().clone(),
        }
    }

    pub fn facts(&self) -> Facts<'_> {
        Facts {
            name: &self.view.name,
            required: self.view.required,
            topology: &self.topology,
            report: &self.report,
        }
    }
}
