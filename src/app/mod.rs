//! The composition root: everything is made and wired here, top to bottom.

mod cutover;
pub mod look;
mod reload;
mod service;
mod signals;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tracing::info;

use self::service::{Pool, Prepared, Running};
use self::signals::{Asked, Signals};
use crate::addr::Addr;
use crate::admin::controls::{Controls, ReloadWish};
use crate::admin::pins::Pins;
use crate::admin::server::Admin;
use crate::clock::Clock;
use crate::config::{self, Config, Loaded};
use crate::data::Service;
use crate::data::admit::Limit;
use crate::drain::{Drain, Phase};
use crate::events::{Entry, Events};
use crate::handover::run::Handovers;
use crate::net::fds;
use crate::net::listen::{Bound, ListenError, control_listener};
use crate::net::resolve::Resolver;
use crate::net::tls::TlsError;
use crate::proto::WireError;
use crate::runtime::DataThreads;
use crate::signal::{Crossings, crossings};
use crate::supervise::Supervisor;
use crate::telemetry::metrics::{Registry, UPKEEP};
use crate::telemetry::surface::{Identity, Shown, Sources, Surface};
use crate::telemetry::{agent, http};

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
    #[error("[cutover]: {0}")]
    Cutover(String),
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
pub fn run(loaded: Loaded) -> Result<(), AppError> {
    let control = crate::runtime::control()?;
    control.block_on(async {
        let app = App::build(loaded)?;
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
    /// Where the config came from.
    path: PathBuf,
    /// What runs.
    config: Config,
    common: Common,
    services: Vec<Running>,
    /// Services as they were before a reload, while they still have clients.
    retired: Vec<Weak<Service>>,
    surface: Arc<Surface>,
    controls: Arc<Controls>,
    reloads: mpsc::Receiver<ReloadWish>,
    /// Control listeners; closed when this goes.
    control: Vec<Bound>,
}

impl App {
    fn build(loaded: Loaded) -> Result<Self, AppError> {
        let Loaded {
            path, text, config, ..
        } = loaded;
        let clock = Clock::start();
        let descriptors = fds::raise_limit();
        let threads = DataThreads::start(config.workers)?;
        let registry = Registry::new();
        registry.describe(crate::data::metrics::DESCRIBED);
        registry.describe(crate::monitor::metrics::DESCRIBED);
        registry.describe(crate::handover::run::DESCRIBED);
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
        let surface = surface(&config, &common);
        surface.set_config_text(config::mask::passwords(&text));
        let (reload, reloads) = mpsc::channel(8);
        let cutover = config.cutover.as_ref();
        let cutover = cutover
            .map(|spec| cutover::open(spec, &common, &surface))
            .transpose()?;
        let controls = Arc::new(Controls {
            surface: surface.clone(),
            drain: common.drain.clone(),
            events: common.events.clone(),
            pins: common.pins.clone(),
            handovers: Handovers::new(
                clock,
                common.events.clone(),
                common.supervisor.clone(),
                &common.registry,
            ),
            services: ArcSwap::default(),
            reload,
            cutover,
        });
        let mut app = Self {
            path,
            config,
            common,
            services: Vec::new(),
            retired: Vec::new(),
            surface,
            controls,
            reloads,
            control: Vec::new(),
        };
        app.start_services()?;
        app.open_control()?;
        Ok(app)
    }

    fn start_services(&mut self) -> Result<(), AppError> {
        let specs = self.config.services.iter();
        let prepared: Vec<Prepared> = specs
            .map(|spec| service::prepare(spec, &self.common, &BTreeMap::new()))
            .collect::<Result<_, _>>()?;
        for prepared in prepared {
            let mut nothing = Pool::new();
            let running = service::start(prepared, &self.common, &mut nothing);
            self.services.push(running);
        }
        self.show();
        Ok(())
    }

    /// Tells health, status and admin which services there are.
    fn show(&self) {
        self.surface.show(Shown {
            services: self.services.iter().map(|r| r.view.clone()).collect(),
            unhealthy_after: self.config.http.unhealthy_after,
        });
        let controls = self.services.iter();
        let controls = controls.map(|r| (r.view.name.clone(), r.control.clone()));
        self.controls.services.store(Arc::new(controls.collect()));
    }

    /// Health, metrics and admin: on the control thread, with listeners of their own.
    fn open_control(&mut self) -> Result<(), AppError> {
        let supervisor = &self.common.supervisor;
        let (surface, stop) = (&self.surface, supervisor.stop());
        for &addr in &self.config.http.listen {
            let (bound, listener) = control_listener(&Addr::Ip(addr), 0)?;
            info!(event = "listening", http = %addr, "listening");
            let serving = http::serve(listener, surface.clone(), stop.clone());
            supervisor.spawn("http", serving);
            self.control.push(bound);
        }
        if let Some(addr) = self.config.http.agent {
            let (bound, listener) = control_listener(&Addr::Ip(addr), 0)?;
            info!(event = "listening", agent = %addr, "listening");
            let serving = agent::serve(listener, surface.clone(), stop.clone());
            supervisor.spawn("agent", serving);
            self.control.push(bound);
        }
        let spec = &self.config.admin;
        let admin = Admin::bind(&spec.socket, spec.mode, &spec.allow_groups)?;
        supervisor.spawn("admin", admin.serve(self.controls.clone(), stop.clone()));
        Ok(())
    }

    async fn serve(mut self) -> Result<(), AppError> {
        let mut signals = Signals::new()?;
        let registry = self.common.registry.clone();
        self.common
            .supervisor
            .keep("metrics-upkeep", move || upkeep(registry.clone()));
        let version = env!("CARGO_PKG_VERSION");
        let started = Entry::new("started", format!("Pilotfish {version} runs"));
        self.common.events.record(started);
        info!(
            event = "started",
            version,
            pid = std::process::id(),
            threads = self.common.threads.count(),
            services = self.services.len(),
            "Pilotfish runs"
        );
        loop {
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Stop => break,
                    Asked::Reload => {
                        // What came of it is in the log and in the events.
                        let _ = self.reload(None).await;
                    }
                },
                Some(wish) = self.reloads.recv() => {
                    let followed = self.reload(Some(wish.by)).await;
                    // Whoever asked may have left.
                    let _ = wish.answer.send(followed.map_err(|why| why.to_string()));
                }
                name = self.common.supervisor.lost() => return Err(AppError::Ended(name)),
            }
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
            retired,
            controls,
            control: _control,
            ..
        } = self;
        common.drain.set(Phase::Leaving);
        let sessions = common.process.taken();
        let patience = config.drain_timeout;
        let message = format!("shutting down, {sessions} sessions");
        common.events.record(Entry::new("draining", message));
        info!(event = "draining", sessions, ?patience, "draining");
        let ended = async {
            // First of all, so that nobody waits behind a gate that is to open again.
            controls.handovers.close().await;
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
        let current = services.iter().map(|running| running.service.clone());
        for service in current.chain(retired.iter().filter_map(Weak::upgrade)) {
            service.drain.set(Phase::Closing);
            service.signal.ring();
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
        if !impatient {
            let _ = tokio::time::timeout(CLOSE_WITHIN, controls.handovers.close()).await;
        }
        common.supervisor.shut_down().await;
        common.threads.stop();
        info!(event = "stopped", "stopped");
    }
}

fn surface(config: &Config, common: &Common) -> Arc<Surface> {
    let identity = Identity {
        name: config.name.clone().unwrap_or_else(host_name),
        region: config.region.clone(),
    };
    let shown = Shown {
        services: Vec::new(),
        unhealthy_after: config.http.unhealthy_after,
    };
    let sources = Sources {
        clock: common.clock,
        drain: common.drain.clone(),
        events: common.events.clone(),
        registry: common.registry.clone(),
        supervisor: common.supervisor.clone(),
    };
    Surface::new(identity, sources, shown)
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
