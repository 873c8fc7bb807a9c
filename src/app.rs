//! The composition root: everything is made and wired here, top to bottom.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::addr::Addr;
use crate::admin::server::Admin;
use crate::clock::Clock;
use crate::config::Config;
use crate::data::admit::{Admission, Limit};
use crate::data::metrics::{RoleMetrics, ServiceMetrics};
use crate::data::{Door, Service, listener};
use crate::drain::{Drain, Phase};
use crate::gate::Gate;
use crate::monitor::metrics::MonitorMetrics;
use crate::monitor::run::Publisher;
use crate::monitor::{Outlet, Report};
use crate::net::dial::Dialer;
use crate::net::fds;
use crate::net::listen::{Bound, ListenError, ListenOptions, control_listener};
use crate::net::resolve::Resolver;
use crate::net::tls::{Connector, TlsError};
use crate::proto::spec::ServiceSpec;
use crate::proto::{WireError, protocol};
use crate::runtime::DataThreads;
use crate::signal::{Crossings, Signal, crossings};
use crate::supervise::Supervisor;
use crate::telemetry::http;
use crate::telemetry::metrics::{Registry, UPKEEP};
use crate::telemetry::surface::{Identity, Shown, Surface};
use crate::telemetry::view::ServiceView;
use crate::topology::Role;
use crate::topology::cell;

/// Why the sidecar cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("cannot start: {0}")]
    Runtime(#[from] io::Error),
    #[error("service '{service}': {source}")]
    Wire {
        service: Arc<str>,
        source: WireError,
    },
    #[error("service '{service}': TLS: {source}")]
    Tls { service: Arc<str>, source: TlsError },
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// How often a drain looks whether all sessions have ended.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// What closed sessions get to end by themselves.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Runs until a signal ends it.
///
/// # Errors
/// When something that the config names cannot be had: an address, a file, a thread.
pub fn run(config: Config) -> Result<(), AppError> {
    let control = crate::runtime::control()?;
    control.block_on(async {
        let app = App::build(config)?;
        app.serve().await
    })
}

/// What all services share.
struct Common {
    clock: Clock,
    drain: Arc<Drain>,
    registry: Registry,
    resolver: Resolver,
    supervisor: Supervisor,
    threads: DataThreads,
    crossings: Crossings,
    /// Sessions of all services, as many as the file descriptors allow.
    process: Arc<Limit>,
}

struct Running {
    service: Arc<Service>,
    view: ServiceView,
    /// Closed, and Unix sockets removed, when this goes.
    bound: Vec<Bound>,
    stop_accepting: CancellationToken,
}

struct App {
    config: Config,
    common: Common,
    services: Vec<Running>,
    /// Control listeners; closed when this goes.
    control: Vec<Bound>,
}

impl App {
    fn build(config: Config) -> Result<Self, AppError> {
        let clock = Clock::start();
        let descriptors = fds::raise_limit();
        let threads = DataThreads::start(config.workers)?;
        let registry = Registry::new();
        registry.describe(crate::data::metrics::DESCRIBED);
        registry.describe(crate::monitor::metrics::DESCRIBED);
        let common = Common {
            clock,
            drain: Arc::new(Drain::default()),
            registry,
            resolver: Resolver::from_system(),
            supervisor: Supervisor::default(),
            crossings: crossings(threads.count()),
            threads,
            process: Limit::new(fds::session_budget(descriptors)),
        };
        let services = config
            .services
            .iter()
            .map(|spec| start_service(spec, &common));
        let services = services.collect::<Result<Vec<_>, _>>()?;
        let mut app = Self {
            config,
            common,
            services,
            control: Vec::new(),
        };
        app.open_control()?;
        Ok(app)
    }

    /// Health, metrics and admin: on the control thread, with listeners of their own.
    fn open_control(&mut self) -> Result<(), AppError> {
        let Common {
            clock,
            drain,
            registry,
            supervisor,
            ..
        } = &self.common;
        let identity = Identity {
            name: self.config.name.clone().unwrap_or_else(host_name),
            region: self.config.region.clone(),
        };
        let shown = Shown {
            services: self
                .services
                .iter()
                .map(|running| running.view.clone())
                .collect(),
            unhealthy_after: self.config.http.unhealthy_after,
        };
        let surface = Surface::new(identity, *clock, drain.clone(), registry.clone(), shown);
        for &addr in &self.config.http.listen {
            let (bound, listener) = control_listener(&Addr::Ip(addr), 0)?;
            info!(event = "listening", http = %addr, "listening");
            supervisor.spawn(
                "http",
                http::serve(listener, surface.clone(), supervisor.stop().clone()),
            );
            self.control.push(bound);
        }
        let spec = &self.config.admin;
        let admin = Admin::bind(&spec.socket, spec.mode, &spec.allow_groups)?;
        supervisor.spawn("admin", admin.serve(surface, supervisor.stop().clone()));
        Ok(())
    }

    async fn serve(self) -> Result<(), AppError> {
        let mut signals = Signals::new()?;
        let registry = self.common.registry.clone();
        self.common
            .supervisor
            .keep("metrics-upkeep", move || upkeep(registry.clone()));
        info!(
            event = "started",
            version = env!("CARGO_PKG_VERSION"),
            pid = std::process::id(),
            threads = self.common.threads.count(),
            services = self.services.len(),
            "Pilotfish runs"
        );
        signals.stop().await;
        self.shut_down(signals).await;
        Ok(())
    }

    /// Health first, then patience, then the rest. A second signal ends the patience.
    async fn shut_down(self, mut signals: Signals) {
        // The control listeners stay open to the end: that is where the drain shows.
        let Self {
            config,
            common,
            services,
            control: _control,
        } = self;
        common.drain.set(Phase::Draining);
        let sessions = common.process.taken();
        let patience = config.drain_timeout;
        info!(event = "draining", sessions, ?patience, "draining");
        let ended = async {
            while common.process.taken() > 0 {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        let impatient = tokio::select! {
            () = ended => false,
            () = tokio::time::sleep(patience) => false,
            () = signals.stop() => true,
        };
        for running in &services {
            running.stop_accepting.cancel();
        }
        common.drain.set(Phase::Closing);
        for running in &services {
            running.service.signal.ring();
        }
        info!(
            event = "closing",
            sessions = common.process.taken(),
            impatient,
            "closing"
        );
        let closed = async {
            while common.process.taken() > 0 {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        if !impatient {
            let _ = tokio::time::timeout(CLOSE_WITHIN, closed).await;
        }
        common.supervisor.shut_down().await;
        common.threads.stop();
        info!(event = "stopped", "stopped");
    }
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

async fn upkeep(registry: Registry) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        registry.upkeep();
    }
}

/// Listens and watches. Clients that come before the first proof are held.
fn start_service(spec: &ServiceSpec, common: &Common) -> Result<Running, AppError> {
    let name = spec.name.clone();
    let wire = protocol(spec.protocol).bind(spec);
    let wire = wire.map_err(|source| AppError::Wire {
        service: name.clone(),
        source,
    })?;
    let tls = Connector::build(&spec.tls);
    let tls = tls.map_err(|source| AppError::Tls {
        service: name.clone(),
        source,
    })?;
    let dialer = Dialer {
        resolver: common.resolver.clone(),
        tls,
        keepalive: spec.limits.tcp_keepalive,
    };
    let signal = Signal::new(common.crossings.clone());
    let gate = Arc::new(Gate::new(signal.clone()));
    let (writer, topology) = cell::cell(signal.clone(), common.clock.now());
    let (hints, hint_receiver) = mpsc::channel(64);
    let (report_sender, report) = watch::channel(Arc::new(Report::empty(common.clock.now())));
    let limits = spec.limits.clone();
    let service = Arc::new(Service {
        name: name.clone(),
        wire: wire.clone(),
        topology: topology.clone(),
        gate: gate.clone(),
        signal,
        drain: common.drain.clone(),
        fallback: spec.listen.replica_fallback,
        dialer: dialer.clone(),
        clock: common.clock,
        hints,
        admission: Admission {
            sessions: Limit::new(limits.max_connections),
            held: Limit::new(limits.max_held),
            refusing: Limit::new(limits.max_held),
            process: common.process.clone(),
        },
        connecting: Semaphore::new(limits.max_connecting),
        metrics: ServiceMetrics::new(&common.registry, &name),
        limits,
    });
    let view = ServiceView {
        name: name.clone(),
        protocol: spec.protocol.as_str(),
        discovery: spec.discovery.as_str(),
        required: spec.required,
        topology,
        report,
        gate: gate.clone(),
        sessions: service.admission.sessions.clone(),
        held: service.admission.held.clone(),
    };
    let metrics = MonitorMetrics::new(&common.registry, &name);
    let publisher = Publisher {
        service: name.clone(),
        writer,
        gate,
        report: report_sender,
        metrics,
    };
    let outlet = Outlet {
        service: name,
        clock: common.clock,
        dialer,
        hints: hint_receiver,
        publisher,
    };
    common
        .supervisor
        .spawn("monitor", wire.watcher().watch(outlet));
    let mut running = Running {
        service,
        view,
        bound: Vec::new(),
        stop_accepting: CancellationToken::new(),
    };
    open_doors(&mut running, spec, common)?;
    Ok(running)
}

fn open_doors(running: &mut Running, spec: &ServiceSpec, common: &Common) -> Result<(), AppError> {
    for (role, addrs) in [
        (Role::Primary, &spec.listen.primary),
        (Role::Replica, &spec.listen.replica),
    ] {
        if addrs.is_empty() {
            continue;
        }
        let metrics = RoleMetrics::new(&common.registry, &spec.name, role);
        let doors: Vec<Arc<Door>> = (0..common.threads.count())
            .map(|thread| {
                let (service, metrics) = (running.service.clone(), metrics.clone());
                Arc::new(Door {
                    service,
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

/// The process' signals.
struct Signals {
    terminate: UnixSignal,
    interrupt: UnixSignal,
    hangup: UnixSignal,
    takeover: UnixSignal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            takeover: signal(SignalKind::user_defined2())?,
        })
    }

    /// SIGTERM or SIGINT. What later versions will do on SIGHUP and SIGUSR2 must not end this one.
    async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => warn!("SIGHUP: this version cannot reload, restart it"),
                _ = self.takeover.recv() => warn!("SIGUSR2: this version cannot be taken over"),
            }
        }
    }
}
