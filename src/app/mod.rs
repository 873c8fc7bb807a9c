//! The composition root: everything is made and wired here, top to bottom.

mod control;
mod cutover;
mod departure;
mod front;
pub mod look;
mod manager;
mod reload;
mod service;
mod signals;
mod succession;
mod takeover;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tracing::info;

use self::control::Counters;
use self::manager::Manager;
use self::service::{Pool, Prepared, Running};
use self::signals::{Asked, Signals};
use self::succession::Successions;
use self::takeover::Estate;
use self::takeover::heir::{self, Heir, HeirError, Legacy};
use crate::admin::controls::{Controls, ReloadWish};
use crate::admin::pins::Pins;
use crate::clock::Clock;
use crate::config::{self, Config, Loaded};
use crate::data::Service;
use crate::data::admit::Limit;
use crate::drain::Drain;
use crate::events::{Entry, Events};
use crate::gate::HoldReason;
use crate::handover::run::Handovers;
use crate::net::fds;
use crate::net::inherit::Inherited;
use crate::net::listen::ListenError;
use crate::net::resolve::Resolver;
use crate::net::tls::TlsError;
use crate::proto::WireError;
use crate::runtime::DataThreads;
use crate::signal::{Crossings, crossings};
use crate::supervise::Supervisor;
use crate::telemetry::metrics::{Registry, UPKEEP};
use crate::telemetry::surface::{Identity, Shown, Sources, Surface};

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
    #[error("cannot take over: {0}")]
    Heir(#[from] HeirError),
    /// It worked before, so this process is not ready.
    #[error("cannot take over: no primary of {0} could be proven, and the process before has one")]
    Unproven(String),
    #[error("told to stop before it took over")]
    Stopped,
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
    // Before there are threads: it changes the environment.
    let given = Inherited::from_service_manager();
    let control = crate::runtime::control()?;
    control.block_on(async {
        // Before anybody could send one: they would end it.
        let signals = Signals::new()?;
        fds::raise_limit();
        match heir::receive().await? {
            None => {
                let app = App::build(loaded, given, None)?;
                app.serve(signals, None).await
            }
            Some(legacy) => run_as_heir(loaded, legacy, signals).await,
        }
    })
}

async fn run_as_heir(loaded: Loaded, legacy: Legacy, signals: Signals) -> Result<(), AppError> {
    let Legacy {
        heir,
        inherited,
        estate,
    } = legacy;
    match App::build(loaded, inherited, Some(estate)) {
        Ok(app) => app.serve(signals, Some(heir)).await,
        Err(error) => {
            heir.sorry(error.to_string()).await;
            Err(error)
        }
    }
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
    counters: Counters,
    manager: Arc<Manager>,
    successions: Successions,
    /// What was open already and is not in the config; closed when this process serves.
    unwanted: Inherited,
}

impl App {
    /// Everything but the opening: nobody is accepted before [`App::open`].
    fn build(
        loaded: Loaded,
        inherited: Inherited,
        estate: Option<Estate>,
    ) -> Result<Self, AppError> {
        let Loaded {
            path, text, config, ..
        } = loaded;
        let common = common(&config)?;
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
            freeze: Arc::default(),
            handovers: handovers(&common),
            services: ArcSwap::default(),
            reload,
            cutover: cutover.as_ref().map(|opened| opened.desk.clone()),
        });
        if let Some(opened) = &cutover {
            opened.connect(&controls);
        }
        let receiver = cutover.and_then(|opened| opened.receiver);
        let mut unwanted = inherited;
        let stop = common.supervisor.stop().child_token();
        let mut app = Self {
            counters: Counters::bind(&config, &mut unwanted, receiver, stop)?,
            path,
            config,
            common,
            services: Vec::new(),
            retired: Vec::new(),
            surface,
            controls,
            reloads,
            manager: Manager::from_environment(),
            successions: Successions::new(),
            unwanted,
        };
        let paused = app.inherit(estate);
        app.start_services()?;
        app.pause(&paused);
        Ok(app)
    }

    /// What the process before hands over; from one that has ended there is nothing. Returns which services
    /// are paused.
    fn inherit(&self, estate: Option<Estate>) -> Vec<String> {
        let Some(estate) = estate else {
            self.tell_of_lost_pins();
            return Vec::new();
        };
        if estate.draining {
            self.common.drain.begin();
        }
        self.common.pins.inherit(estate.pins);
        self.common.events.inherit(estate.history);
        estate.paused
    }

    /// An operator's word is lost; the operator has to hear of it where the next one will look.
    fn tell_of_lost_pins(&self) {
        let pins = &self.common.pins;
        if let Some(why) = pins.unreadable() {
            let file = pins.file().display();
            let message = format!("{file} cannot be read, so nothing is pinned: {why}");
            let entry = Entry::new("pins-unreadable", message);
            self.common.events.record(entry);
        }
    }

    fn pause(&self, names: &[String]) {
        let named = |r: &&Running| names.iter().any(|name| **name == *r.view.name);
        for running in self.services.iter().filter(named) {
            running.control.gate.hold(HoldReason::Operator);
        }
    }

    fn start_services(&mut self) -> Result<(), AppError> {
        let specs = self.config.services.iter();
        let (common, unwanted) = (&self.common, &mut self.unwanted);
        let prepared: Vec<Prepared> = specs
            .map(|spec| service::prepare(spec, common, &BTreeMap::new(), unwanted))
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

    async fn serve(mut self, mut signals: Signals, heir: Option<Heir>) -> Result<(), AppError> {
        match heir {
            None => self.open(),
            Some(heir) => {
                self.await_turn(&heir, &mut signals).await?;
                self.succeed(heir).await;
            }
        }
        self.begin();
        loop {
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Stop => break,
                    Asked::TakeOver => self.begin_succession(),
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
                outcome = self.successions.outcome() => match outcome {
                    Ok(successor) => {
                        self.give_way(successor, signals).await;
                        return Ok(());
                    }
                    Err(why) => self.stay(&why),
                },
                name = self.common.supervisor.lost() => return Err(AppError::Ended(name)),
            }
        }
        self.successions.abandon();
        self.shut_down(signals).await;
        Ok(())
    }

    /// Clients are served from here on.
    fn begin(&mut self) {
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
        self.settle();
    }
}

fn handovers(common: &Common) -> Arc<Handovers> {
    let (events, supervisor) = (common.events.clone(), common.supervisor.clone());
    Handovers::new(common.clock, events, supervisor, &common.registry)
}

/// What all services are going to share.
fn common(config: &Config) -> Result<Common, AppError> {
    let clock = Clock::start();
    let descriptors = fds::raise_limit();
    let threads = DataThreads::start(config.workers)?;
    let registry = Registry::new();
    registry.describe(crate::data::metrics::DESCRIBED);
    registry.describe(crate::monitor::metrics::DESCRIBED);
    registry.describe(crate::handover::run::DESCRIBED);
    Ok(Common {
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
    })
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
