//! One service: its sessions, its monitor and its listeners, wired together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{AppError, CLOSE_WITHIN, Common, DRAIN_LOOK};
use crate::addr::Addr;
use crate::admin::controls::ServiceControl;
use crate::clock::Seldom;
use crate::data::admit::{Admission, Limit};
use crate::data::metrics::{RoleMetrics, ServiceMetrics};
use crate::data::table::Table;
use crate::data::{Door, Service, listener};
use crate::drain::{Drain, Phase};
use crate::gate::Gate;
use crate::monitor::metrics::SharedMetrics;
use crate::monitor::run::Publisher;
use crate::monitor::{Outlet, Report};
use crate::net::dial::Dialer;
use crate::net::inherit::Inherited;
use crate::net::listen::{Bound, ListenOptions, ThreadSocket};
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
    /// To be opened.
    doors: Vec<Opening>,
    pub stop_accepting: CancellationToken,
    /// The accept loops.
    accepting: TaskTracker,
    pub control: ServiceControl,
    /// The monitor's.
    metrics: SharedMetrics,
    /// Ends the monitor.
    done: CancellationToken,
}

/// A service that can be started: everything that may fail has been done.
pub struct Prepared {
    spec: ServiceSpec,
    wire: Arc<dyn Wire>,
    dialer: Dialer,
    doors: Vec<PreparedDoor>,
}

/// An address, and its sockets for the data threads.
struct PreparedDoor {
    role: Role,
    addr: Addr,
    /// With the thread that accepts from it.
    sockets: Vec<(usize, ThreadSocket)>,
    /// `None`: it is bound already, by a service that will give it away.
    fresh: Option<Bound>,
}

/// A door with its lock still shut.
struct Opening {
    door: Arc<Door>,
    socket: ThreadSocket,
}

/// Addresses that are bound already.
pub type Pool = BTreeMap<Addr, Bound>;

/// Does what may fail: reads files, binds addresses that are not in `bound` or `inherited`. Changes
/// nothing that runs.
///
/// # Errors
/// When a file or an address cannot be had.
pub fn prepare(
    spec: &ServiceSpec,
    common: &Common,
    bound: &BTreeMap<&Addr, &Bound>,
    inherited: &mut Inherited,
) -> Result<Prepared, AppError> {
    let wire = protocol(spec.protocol).bind(spec);
    let wire = wire.map_err(|source| AppError::Wire {
        service: spec.name.clone(),
        source,
    })?;
    let listeners = [
        (Role::Primary, &spec.listen.primary),
        (Role::Replica, &spec.listen.replica),
    ];
    let mut doors = Vec::new();
    for (role, addrs) in listeners {
        for addr in addrs {
            let fresh = match bound.contains_key(addr) {
                true => None,
                false => Some(Bound::open(addr, listen_options(spec, common), inherited)?),
            };
            let source = fresh.as_ref().or_else(|| bound.get(addr).copied());
            let sockets = source.map(|bound| bound.for_threads(common.threads.count()));
            doors.push(PreparedDoor {
                role,
                addr: addr.clone(),
                sockets: sockets.transpose()?.unwrap_or_default(),
                fresh,
            });
        }
    }
    Ok(Prepared {
        dialer: dialer(spec, common, wire.logs_in())?,
        spec: spec.clone(),
        wire,
        doors,
    })
}

fn listen_options(spec: &ServiceSpec, common: &Common) -> ListenOptions {
    ListenOptions {
        keepalive: spec.limits.tcp_keepalive,
        socket_mode: spec.listen.socket_mode,
        threads: common.threads.count(),
    }
}

/// Watches, and holds all its addresses; those that it did not bind itself are taken out of `pool`.
/// Nobody is served before [`Running::open`].
pub fn start(prepared: Prepared, common: &Common, pool: &mut Pool) -> Running {
    let Prepared {
        spec,
        wire,
        dialer,
        doors,
    } = prepared;
    let (name, clock) = (spec.name.clone(), common.clock);
    let signal = Signal::new(common.crossings.clone());
    let (writer, topology) = cell::cell(signal.clone(), clock.now());
    let (hints, hint_receiver) = mpsc::channel(64);
    let (pin_sender, pinned) = watch::channel(common.pins.of(&name));
    let (report_sender, report) = watch::channel(Arc::new(Report::empty(clock.now())));
    let links = Links {
        wire: wire.clone(),
        signal,
        topology,
        dialer: dialer.clone(),
        hints,
    };
    let service = Arc::new(assemble(&spec, common, links));
    let metrics = SharedMetrics::new(&common.registry, &name);
    let publisher = Publisher {
        service: name.clone(),
        writer,
        gate: service.gate.clone(),
        report: report_sender,
        metrics: metrics.clone(),
        events: common.events.clone(),
        pin: pinned,
        pinned: false,
        by_hand: false,
    };
    let outlet = Outlet {
        service: name,
        clock,
        dialer,
        hints: hint_receiver,
        publisher,
    };
    let done = CancellationToken::new();
    let watching = wire.watcher().watch(outlet);
    let supervisor = &common.supervisor;
    supervisor.essential_until(done.clone(), "monitor", watching);
    let control = ServiceControl {
        gate: service.gate.clone(),
        pin: pin_sender,
    };
    let mut running = Running {
        view: view(&spec, &service, report),
        control,
        service,
        bound: Vec::new(),
        doors: Vec::new(),
        stop_accepting: CancellationToken::new(),
        accepting: TaskTracker::new(),
        metrics,
        done,
    };
    hang_doors(&mut running, &spec, common, (doors, pool));
    running
}

impl Running {
    /// What it listens on.
    pub fn bound(&self) -> impl Iterator<Item = (&Addr, &Bound)> {
        self.bound.iter().map(|bound| (&bound.addr, bound))
    }

    pub fn bound_mut(&mut self) -> impl Iterator<Item = &mut Bound> {
        self.bound.iter_mut()
    }

    /// Serves. Clients that come before the first proof are held.
    pub fn open(&mut self, common: &Common) {
        for Opening { door, socket } in self.doors.drain(..) {
            let stop = self.stop_accepting.clone();
            let thread = door.thread;
            let accepting = self.accepting.track_future(async move {
                match socket.into_listener() {
                    Ok(listener) => listener::accept_loop(listener, door, stop).await,
                    Err(error) => warn!(service = %door.service.name, %error, "cannot listen"),
                }
            });
            common.threads.spawn_on(thread, accepting);
        }
    }

    /// Completes when nobody is accepted any more: some time after it was told to stop.
    pub async fn shut(&self) {
        self.accepting.close();
        self.accepting.wait().await;
    }

    /// Accepts no more, because another process does, in the same sockets.
    pub fn stop_listening(&mut self) {
        self.stop_accepting.cancel();
        self.bound.iter_mut().for_each(|bound| bound.leave(true));
        self.bound.clear();
    }

    /// Gives its addresses away; whoever calls ends its accept loops. The clients it has are served, and
    /// watched over, until they leave, at most for `patience`; the monitor ends with them.
    pub fn retire(mut self, common: &Common, patience: Duration, pool: &mut Pool) -> Arc<Service> {
        self.metrics.end();
        for bound in self.bound.drain(..) {
            pool.insert(bound.addr.clone(), bound);
        }
        let service = self.service.clone();
        let name = service.name.clone();
        let leaving = async move {
            let gone = |limit| timeout(limit, emptied(&self.service));
            if gone(patience).await.is_err() {
                self.service.drain.set(Phase::Closing);
                self.service.signal.ring();
                let _ = gone(CLOSE_WITHIN).await;
            }
            self.done.cancel();
            info!(event = "retired", service = %name, "the service as it was before has ended");
        };
        common.supervisor.spawn("retiring", leaving);
        service
    }
}

async fn emptied(service: &Service) {
    while !service.table.is_empty() {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

/// How its servers are reached. A protocol that logs in does its own TLS, in the middle of that.
fn dialer(spec: &ServiceSpec, common: &Common, logs_in: bool) -> Result<Dialer, AppError> {
    let tls = match logs_in {
        true => Ok(Connector::PLAIN),
        false => Connector::build(&spec.tls),
    };
    let tls = tls.map_err(|source| AppError::Tls {
        service: spec.name.clone(),
        source,
    })?;
    Ok(Dialer {
        resolver: common.resolver.clone(),
        tls,
        keepalive: spec.limits.tcp_keepalive,
    })
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
        drain: Arc::new(Drain::default()),
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
        table: Table::new(common.threads.count()),
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
        table: service.table.clone(),
    }
}

fn hang_doors(
    running: &mut Running,
    spec: &ServiceSpec,
    common: &Common,
    (doors, pool): (Vec<PreparedDoor>, &mut Pool),
) {
    for prepared in doors {
        let PreparedDoor {
            role,
            addr,
            sockets,
            fresh,
        } = prepared;
        for (thread, socket) in sockets {
            let door = Arc::new(Door {
                service: running.service.clone(),
                role,
                thread,
                metrics: RoleMetrics::new(&common.registry, &spec.name, role, thread),
            });
            running.doors.push(Opening { door, socket });
        }
        let bound = fresh.or_else(|| pool.remove(&addr));
        if let Some(bound) = &bound {
            bound.adjust(listen_options(spec, common));
        }
        running.bound.extend(bound);
        let (service, role) = (&spec.name, role.as_str());
        info!(event = "listening", %service, %addr, role, "listening");
    }
}
