//! One service: its sessions, its monitor and its listeners, wired together.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{AppError, Common};
use crate::addr::Addr;
use crate::clock::Seldom;
use crate::data::admit::{Admission, Limit};
use crate::data::metrics::{RoleMetrics, ServiceMetrics};
use crate::data::{Door, Service, listener};
use crate::gate::Gate;
use crate::monitor::metrics::MonitorMetrics;
use crate::monitor::run::Publisher;
use crate::monitor::{Outlet, Report};
use crate::net::dial::Dialer;
use crate::net::listen::{Bound, ListenOptions};
use crate::net::tls::Connector;
use crate::proto::spec::ServiceSpec;
use crate::proto::{Wire, protocol};
use crate::signal::Signal;
use crate::telemetry::view::ServiceView;
use crate::topology::Role;
use crate::topology::cell::{self, TopologyReader};

/// A service that runs.
pub struct Running {
    pub service: Arc<Service>,
    pub view: ServiceView,
    /// Closed, and Unix sockets removed, when this goes.
    bound: Vec<Bound>,
    pub stop_accepting: CancellationToken,
}

/// Listens and watches. Clients that come before the first proof are held.
pub fn start(spec: &ServiceSpec, common: &Common) -> Result<Running, AppError> {
    let name = spec.name.clone();
    let wire = protocol(spec.protocol)
        .bind(spec)
        .map_err(|source| AppError::Wire {
            service: name.clone(),
            source,
        })?;
    // A protocol that logs in does its own TLS, in the middle of that.
    let tls = match wire.logs_in() {
        true => Ok(Connector::PLAIN),
        false => Connector::build(&spec.tls),
    }
    .map_err(|source| AppError::Tls {
        service: name.clone(),
        source,
    })?;
    let dialer = Dialer {
        resolver: common.resolver.clone(),
        tls,
        keepalive: spec.limits.tcp_keepalive,
    };
    let signal = Signal::new(common.crossings.clone());
    let (writer, topology) = cell::cell(signal.clone(), common.clock.now());
    let (hints, hint_receiver) = mpsc::channel(64);
    let (report_sender, report) = watch::channel(Arc::new(Report::empty(common.clock.now())));
    let links = Links {
        wire: wire.clone(),
        signal,
        topology,
        dialer: dialer.clone(),
        hints,
    };
    let service = Arc::new(assemble(spec, common, links));
    let publisher = Publisher {
        service: name.clone(),
        writer,
        gate: service.gate.clone(),
        report: report_sender,
        metrics: MonitorMetrics::new(&common.registry, &name),
    };
    let outlet = Outlet {
        service: name,
        clock: common.clock,
        dialer,
        hints: hint_receiver,
        publisher,
    };
    let watching = wire.watcher().watch(outlet);
    common.supervisor.essential("monitor", watching);
    let mut running = Running {
        view: view(spec, &service, report),
        service,
        bound: Vec::new(),
        stop_accepting: CancellationToken::new(),
    };
    open_doors(&mut running, spec, common)?;
    Ok(running)
}

/// What a service is wired to.
struct Links {
    wire: Arc<dyn Wire>,
    signal: Arc<Signal>,
    topology: TopologyReader,
    dialer: Dialer,
    hints: mpsc::Sender<Addr>,
}

fn assemble(spec: &ServiceSpec, common: &Common, links: Links) -> Service {
    let limits = spec.limits.clone();
    Service {
        name: spec.name.clone(),
        wire: links.wire,
        topology: links.topology,
        gate: Arc::new(Gate::new(links.signal.clone())),
        signal: links.signal,
        drain: common.drain.clone(),
        fallback: spec.listen.replica_fallback,
        dialer: links.dialer,
        clock: common.clock,
        hints: links.hints,
        admission: Admission {
            sessions: Limit::new(limits.max_connections),
            held: Limit::new(limits.max_held),
            refusing: common.refusing.clone(),
            process: common.process.clone(),
        },
        connecting: Semaphore::new(limits.max_connecting),
        metrics: ServiceMetrics::new(&common.registry, &spec.name),
        login_failures: Seldom::default(),
        limits,
    }
}

fn view(
    spec: &ServiceSpec,
    service: &Service,
    report: watch::Receiver<Arc<Report>>,
) -> ServiceView {
    ServiceView {
        name: spec.name.clone(),
        protocol: spec.protocol.as_str(),
        discovery: spec.discovery.as_str(),
        required: spec.required,
        topology: service.topology.clone(),
        report,
        gate: service.gate.clone(),
        sessions: service.admission.sessions.clone(),
        held: service.admission.held.clone(),
    }
}

fn open_doors(running: &mut Running, spec: &ServiceSpec, common: &Common) -> Result<(), AppError> {
    for (role, addrs) in [
        (Role::Primary, &spec.listen.primary),
        (Role::Replica, &spec.listen.replica),
    ] {
        if addrs.is_empty() {
            continue;
        }
        let doors: Vec<Arc<Door>> = (0..common.threads.count())
            .map(|thread| {
                let metrics = RoleMetrics::new(&common.registry, &spec.name, role);
                Arc::new(Door {
                    service: running.service.clone(),
                    role,
                    thread,
                    metrics,
                })
            })
            .collect();
        for addr in addrs {
            running.bound.push(open_door(
                addr,
                &doors,
                running,
                common,
                spec.listen.socket_mode,
            )?);
        }
    }
    Ok(())
}

/// Listens on `addr` on all data threads.
fn open_door(
    addr: &Addr,
    doors: &[Arc<Door>],
    running: &Running,
    common: &Common,
    mode: u32,
) -> Result<Bound, AppError> {
    let spec = &running.service;
    let options = ListenOptions {
        keepalive: spec.limits.tcp_keepalive,
        socket_mode: mode,
        threads: doors.len(),
    };
    let bound = Bound::bind(addr, options)?;
    for (thread, door) in doors.iter().enumerate() {
        let socket = bound.for_thread(thread)?;
        let (door, stop) = (door.clone(), running.stop_accepting.clone());
        common.threads.spawn_on(thread, async move {
            match socket.into_listener() {
                Ok(listener) => listener::accept_loop(listener, door, stop).await,
                Err(error) => warn!(service = %door.service.name, %error, "cannot listen"),
            }
        });
    }
    info!(event = "listening", service = %spec.name, %addr, role = doors[0].role.as_str(), "listening");
    Ok(bound)
}
