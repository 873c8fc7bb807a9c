//! A process to look at, for tests: no sockets, no monitors.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::metrics::Registry;
use super::surface::{Identity, Shown, Sources, Surface};
use super::view::ServiceView;
use crate::addr::Addr;
use crate::clock::Clock;
use crate::data::admit::Limit;
use crate::data::table::Table;
use crate::drain::Drain;
use crate::events::Events;
use crate::gate::Gate;
use crate::monitor::Report;
use crate::signal::{Signal, crossings};
use crate::supervise::Supervisor;
use crate::topology::cell::{TopologyWriter, cell};
use crate::topology::reduce::Conclusion;
use crate::topology::{Cause, Term};

pub struct Sample {
    pub surface: Arc<Surface>,
    pub drain: Arc<Drain>,
    pub gate: Arc<Gate>,
    pub report: watch::Sender<Arc<Report>>,
    writer: TopologyWriter,
}

impl Sample {
    /// One required service, `cache`, of which nothing is known.
    pub fn unproven() -> Self {
        let clock = Clock::start();
        let signal = Signal::new(crossings(1));
        let (writer, topology) = cell(signal.clone(), clock.now());
        let (report, reports) = watch::channel(Arc::new(Report::empty(clock.now())));
        let gate = Arc::new(Gate::new(signal));
        let view = ServiceView {
            name: "cache".into(),
            protocol: "redis",
            discovery: "sentinel",
            required: true,
            topology,
            report: reports,
            gate: gate.clone(),
            sessions: Limit::new(10),
            held: Limit::new(10),
            table: Table::new(1),
        };
        let identity = Identity {
            name: "app-01".into(),
            region: None,
        };
        let shown = Shown {
            services: vec![view],
            unhealthy_after: Duration::from_secs(15),
        };
        let drain = Arc::new(Drain::default());
        let sources = Sources {
            clock,
            drain: drain.clone(),
            events: Events::new(clock),
            registry: Registry::new(),
            supervisor: Supervisor::default(),
        };
        Self {
            surface: Surface::new(identity, sources, shown),
            drain,
            gate,
            report,
            writer,
        }
    }

    pub fn publish(&mut self, primary: Option<Addr>, cause: Cause) {
        let conclusion = Conclusion {
            leaving: None,
            primary,
            term: Some(Term(7)),
            cause,
            replicas: vec![],
        };
        let now = self.surface.clock.now();
        self.writer.publish(&conclusion, now).unwrap();
    }

    /// One that has a primary, `10.0.0.1:6379`.
    pub fn proven() -> Self {
        let mut sample = Self::unproven();
        sample.publish(Some("10.0.0.1:6379".parse().unwrap()), Cause::Proven);
        sample
    }
}
