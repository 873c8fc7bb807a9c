//! One service: its sessions, its monitor and its listeners, wired together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::front::Front;
use super::{AppError, CLOSE_WITHIN, Common, DRAIN_LOOK};
use crate::addr::Addr;
use crate::admin::controls::ServiceControl;
use crate::clock::Seldom;
use crate::data::admit::{Admission, Limit};
use crate::data::metrics::{RoleMetrics, ServiceMetrics};
use crate::data::table::{Entry, Stage, Table};
use crate::data::{Door, Service};
use crate::drain::{Drain, Phase};
use crate::gate::Gate;
use crate::handover::Handover;
use crate::handover::command::OwnCommand;
use crate::handover::quiet::{Live, State};
use crate::handover::run::Subject;
use crate::monitor::hints::{self, Teller};
use crate::monitor::metrics::SharedMetrics;
use crate::monitor::pin::PinReceiver;
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
    pub front: Front,
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
    let (hints, hint_receiver) = hints::channel(name.clone(), clock, common.events.clone());
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
        subject: subject(&spec, &service, &report, pin_sender.subscribe()),
        pin: pin_sender,
    };
    let mut running = Running {
        view: view(&spec, &service, report),
        control,
        service,
        front: Front::default(),
        metrics,
        done,
    };
    hang_doors(&mut running, &spec, common, (doors, pool));
    running
}

/// What a forced failover gets to see of a service, and its way.
fn subject(
    spec: &ServiceSpec,
    service: &Service,
    report: &watch::Receiver<Arc<Report>>,
    pin: PinReceiver,
) -> Subject {
    Subject {
        service: service.name.clone(),
        gate: service.gate.clone(),
        signal: service.signal.clone(),
        topology: service.topology.clone(),
        report: report.clone(),
        pin,
        hints: service.hints.clone(),
        dialer: service.dialer.clone(),
        sessions: sessions(service),
        how: handover(spec, &*service.wire),
    }
}

/// The operator's own way, or the database's.
fn handover(spec: &ServiceSpec, wire: &dyn Wire) -> Option<Arc<dyn Handover>> {
    let Some(own) = spec.failover.clone() else {
        return wire.handover();
    };
    Some(Arc::new(OwnCommand {
        argv: own.command,
        timeout: own.timeout,
        dry_run: own.dry_run,
    }))
}

/// The sessions on a service's primary. Holds on to them alone: a service that was retired has to end.
fn sessions(service: &Service) -> Arc<dyn Fn() -> Vec<Live> + Send + Sync> {
    let (table, topology) = (service.table.clone(), service.topology.clone());
    Arc::new(move || {
        let primary = topology.load().primary_addr().cloned();
        let there = |entry: &Arc<Entry>| {
            let endpoint = entry.endpoint()?;
            let (up, down) = entry.bytes();
            (Some(&endpoint.addr) == primary.as_ref()).then(|| Live {
                id: entry.id,
                state: state(entry.stage()),
                bytes: up + down,
            })
        };
        table.list().iter().filter_map(there).collect()
    })
}

fn state(stage: Stage) -> State {
    match stage {
        // Who logs in has asked for nothing yet, and does not get further while everybody is held.
        Stage::Waiting | Stage::LoggingIn | Stage::Idle => State::Idle,
        Stage::InFlight | Stage::InTransaction => State::Busy,
        Stage::Relaying
        | Stage::PinnedCompressed
        | Stage::PinnedEncrypted
        | Stage::PinnedUnknown => State::Unknown,
    }
}

impl Running {
    /// Gives its addresses away; whoever calls ends its accept loops, which is waited for. The clients it has
    /// are served, and watched over, until they leave, at most for `patience`; the monitor ends with them.
    pub fn retire(mut self, common: &Common, patience: Duration, pool: &mut Pool) -> Arc<Service> {
        self.metrics.end();
        for bound in self.front.bound.drain(..) {
            pool.insert(bound.addr.clone(), bound);
        }
        let service = self.service.clone();
        let name = service.name.clone();
        let leaving = async move {
            // Who is accepted by a loop that has not heard of it yet needs this monitor like everybody else.
            self.front.stopped().await;
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

/// By the tickets, which are given out before a session has done anything, so that none is overlooked.
async fn emptied(service: &Service) {
    while service.admission.sessions.taken() > 0 {
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
    hints: Teller,
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
                omen: running.service.wire.omen(role),
                metrics: RoleMetrics::new(&common.registry, &spec.name, role, thread),
            });
            running.front.hang(door, socket);
        }
        let bound = fresh.or_else(|| pool.remove(&addr));
        if let Some(bound) = &bound {
            bound.adjust(listen_options(spec, common));
        }
        running.front.bound.extend(bound);
        let (service, role) = (&spec.name, role.as_str());
        info!(event = "listening", %service, %addr, role, "listening");
    }
}
