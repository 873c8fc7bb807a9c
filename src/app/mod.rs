//! The composition root: everything is made and wired here, top to bottom.

pub mod look;
mod service;
mod signals;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::info;

use self::service::Running;
use self::signals::Signals;
use crate::addr::Addr;
use crate::admin::controls::Controls;
use crate::admin::pins::Pins;
use crate::admin::server::Admin;
use crate::clock::Clock;
use crate::config::Config;
use crate::data::admit::Limit;
use crate::drain::{Drain, Phase};
use crate::events::{Entry, Events};
use crate::net::fds;
use crate::net::listen::{Bound, ListenError, control_listener};
use crate::net::resolve::Resolver;
use crate::net::tls::TlsError;
use crate::proto::WireError;
use crate::runtime::DataThreads;
use crate::signal::{Crossings, crossings};
use crate::supervise::Supervisor;
use crate::telemetry::http;
use crate::telemetry::metrics::{Registry, UPKEEP};
use crate::telemetry::surface::{Identity, Shown, Surface};

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
    /// Without it the sidecar would go on with what was true once.
    #[error("the {0} ended, and nothing works without it")]
    Ended(&'static str),
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
    events: Arc<Events>,
    pins: Arc<Pins>,
    registry: Registry,
    resolver: Resolver,
    supervisor: Supervisor,
    threads: DataThreads,
    crossings: Crossings,
    /// Sessions of all services, as many as the file descriptors allow.
    process: Arc<Limit>,
    /// Clients of all services that are being told off.
    refusing: Arc<Limit>,
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
            events: Events::new(clock),
            pins: Arc::new(Pins::load(&config.admin.socket)),
            registry,
            resolver: Resolver::from_system(),
            supervisor: Supervisor::default(),
            crossings: crossings(threads.count()),
            process: Limit::new(fds::session_budget(descriptors, threads.count())),
            refusing: Limit::new(fds::refusal_budget(descriptors, threads.count())),
            threads,
        };
        let services = config
            .services
            .iter()
            .map(|spec| service::start(spec, &common));
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
        let controls = Controls {
            surface,
            drain: drain.clone(),
            events: self.common.events.clone(),
            pins: self.common.pins.clone(),
            services: ArcSwap::from_pointee(
                self.services
                    .iter()
                    .map(|running| (running.view.name.clone(), running.control.clone()))
                    .collect(),
            ),
        };
        let serving = admin.serve(Arc::new(controls), supervisor.stop().clone());
        supervisor.spawn("admin", serving);
        Ok(())
    }

    async fn serve(self) -> Result<(), AppError> {
        let mut signals = Signals::new()?;
        let registry = self.common.registry.clone();
        self.common
            .supervisor
            .keep("metrics-upkeep", move || upkeep(registry.clone()));
        self.common.events.record(Entry::new(
            "started",
            format!("Pilotfish {} runs", env!("CARGO_PKG_VERSION")),
        ));
        info!(
            event = "started",
            version = env!("CARGO_PKG_VERSION"),
            pid = std::process::id(),
            threads = self.common.threads.count(),
            services = self.services.len(),
            "Pilotfish runs"
        );
        tokio::select! {
            () = signals.stop() => {}
            name = self.common.supervisor.lost() => return Err(AppError::Ended(name)),
        }
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
        common.drain.set(Phase::Leaving);
        let sessions = common.process.taken();
        let patience = config.drain_timeout;
        let message = format!("shutting down, {sessions} sessions");
        common.events.record(Entry::new("draining", message));
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
