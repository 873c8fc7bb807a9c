//! The cutover's wiring: its tools, and what it wants of the rest of the process.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use super::{AppError, Common};
use crate::addr::Addr;
use crate::admin::client;
use crate::admin::command::Command;
use crate::admin::controls::Controls;
use crate::admin::status::{ServiceStatus, Status, status};
use crate::cutover::BoxFuture;
use crate::cutover::auto::Starter;
use crate::cutover::auto::serve::{Means, Receiver};
use crate::cutover::desk::{Desk, Wish};
use crate::cutover::feed::Feed;
use crate::cutover::gate::judge::ServiceFact;
use crate::cutover::lock::{self, Lock};
use crate::cutover::look::{Eyes, Finding};
use crate::cutover::metrics::CutoverMetrics;
use crate::cutover::plan::Way;
use crate::cutover::spec::CutoverSpec;
use crate::cutover::tools::Tools;
use crate::cutover::world::{Told, World};
use crate::dns::verify::Verifier;
use crate::dns::{self, Env, Provider};
use crate::events::By;
use crate::gate::HoldReason;
use crate::handover::account::Outcome;
use crate::telemetry::surface::Surface;

/// What there is of the cutover in this process.
pub(super) struct Opened {
    pub desk: Arc<Desk>,
    /// Alertmanager's, where it may ask. It listens with the other counters.
    pub receiver: Option<Arc<Receiver>>,
    here: Arc<Here>,
}

impl Opened {
    /// Whom promotions go through, once they are there.
    pub fn connect(&self, controls: &Arc<Controls>) {
        // It is called once.
        let _ = self.here.controls.set(Arc::downgrade(controls));
    }
}

/// Makes the desk, and lets it work.
///
/// # Errors
/// When the config names files that cannot be used, or the system has no random numbers.
pub(super) fn open(
    spec: &CutoverSpec,
    common: &Common,
    surface: &Arc<Surface>,
) -> Result<Opened, AppError> {
    let env = Env {
        clock: common.clock,
        resolver: common.resolver.clone(),
    };
    let failed = |why: String| AppError::Cutover(why);
    let Askers {
        provider,
        verifier,
        lock,
    } = Askers::new(spec, &env).map_err(failed)?;
    let here = Arc::new(Here {
        surface: surface.clone(),
        controls: OnceLock::new(),
    });
    let tools = Tools {
        spec: spec.clone(),
        env,
        provider,
        verifier,
        lock,
        world: here.clone(),
        sidecar: surface.name.clone(),
        region: surface.region.clone(),
        events: common.events.clone(),
        feed: Arc::new(Feed::default()),
        metrics: CutoverMetrics::new(&common.registry),
    };
    let (desk, works) = Desk::new(tools);
    // A run that panics is like a crash: health and data go on, and a restart shows where it stood.
    common.supervisor.spawn("cutover", desk.clone().work(works));
    let auto = spec.auto.as_ref();
    let receiver = auto.map(|auto| {
        let hand = Hand(desk.clone(), here.clone());
        let means = Means {
            clock: common.clock,
            events: common.events.clone(),
            registry: common.registry.clone(),
            starter: Arc::new(hand),
        };
        Receiver::new(auto, means)
    });
    let receiver = receiver
        .transpose()
        .map_err(|error| failed(error.to_string()))?;
    Ok(Opened {
        desk,
        receiver,
        here,
    })
}

/// Whom a cutover asks: made for a run of the process, or for one look.
struct Askers {
    provider: Box<dyn Provider>,
    verifier: Verifier,
    lock: Option<Box<dyn Lock>>,
}

impl Askers {
    fn new(spec: &CutoverSpec, env: &Env) -> Result<Self, String> {
        let verify = spec.verify_with(&system_resolvers());
        let lock = spec.lock.as_ref().map(|spec| lock::lock(spec, env));
        Ok(Self {
            provider: dns::provider(&spec.dns, env).map_err(|error| error.to_string())?,
            verifier: Verifier::new(verify, env.clone()).map_err(|error| error.to_string())?,
            lock: lock.transpose().map_err(|error| format!("lock: {error}"))?,
        })
    }
}

/// What everything that `[cutover]` names says, admin sockets of other sidecars too.
pub(super) async fn look(spec: &CutoverSpec, env: &Env) -> Vec<Finding> {
    let askers = match Askers::new(spec, env) {
        Ok(askers) => askers,
        Err(why) => return vec![("config".to_owned(), Err(why))],
    };
    let eyes = Eyes {
        spec,
        env,
        provider: askers.provider.as_ref(),
        verifier: &askers.verifier,
        lock: askers.lock.as_deref(),
    };
    let mut findings = eyes.look().await;
    for admin in spec.regions.iter().flat_map(|region| &region.admin) {
        let says = remote(admin).await.map(|status| status.name);
        findings.push((admin.display().to_string(), says));
    }
    findings
}

/// The name servers that this host asks; none where that cannot be read.
fn system_resolvers() -> Vec<SocketAddr> {
    let read = hickory_resolver::system_conf::read_system_conf();
    let Ok((config, _)) = read else {
        return Vec::new();
    };
    let servers = config.name_servers().iter();
    servers
        .map(|server| SocketAddr::new(server.ip, 53))
        .collect()
}

/// This process.
pub(super) struct Here {
    surface: Arc<Surface>,
    /// Known when all of it is made.
    controls: OnceLock<Weak<Controls>>,
}

impl World for Here {
    fn services(&self) -> Vec<ServiceFact> {
        status(&self.surface).services.iter().map(fact).collect()
    }

    fn trouble(&self, why: Option<String>) {
        self.surface.set_cutover_trouble(why);
    }

    fn promote<'a>(
        &'a self,
        service: &'a str,
        to: Option<&'a Addr>,
        limit: Duration,
    ) -> Told<'a, String> {
        Box::pin(async move {
            let services = status(&self.surface).services;
            let found = services.iter().find(|one| one.name == service);
            let found = found.ok_or("there is no such service")?;
            match (found.discovery.as_str(), &found.primary, to) {
                // Every node can be written to.
                ("galera", Some(primary), None) => {
                    return Ok(format!("{primary} can be written to"));
                }
                // Whoever has most may be in the old region.
                (_, _, None) => return Err("`to` names no address for this region".to_owned()),
                _ => {}
            }
            let controls = self.controls.get().and_then(Weak::upgrade);
            let controls = controls.ok_or("it shuts down")?;
            let by = By {
                uid: rustix::process::getuid().as_raw(),
                pid: None,
            };
            let account = controls.promote(service, to.cloned(), limit, by).await;
            let account = account.map_err(|refusal| refusal.to_string())?;
            match account.outcome {
                Outcome::Done => Ok(account.message),
                _ => Err(account.message),
            }
        })
    }

    fn open_services<'a>(&'a self, admin: &'a Path) -> Told<'a, Vec<String>> {
        Box::pin(async move {
            let status = remote(admin).await?;
            let open = status.services.iter().filter(|service| !holds(service));
            Ok(open.map(|service| service.name.clone()).collect())
        })
    }

    fn pause<'a>(&'a self, admin: &'a Path, pause: bool) -> Told<'a, String> {
        Box::pin(async move {
            let status = remote(admin).await?;
            for service in &status.services {
                let name = service.name.clone();
                let command = match pause {
                    true => Command::Pause(name),
                    false => Command::Resume(name),
                };
                let (code, _) = client::ask(admin, &command)
                    .await
                    .map_err(|e| e.to_string())?;
                if code != 200 {
                    return Err(format!("it answered {code} about {}", service.name));
                }
            }
            let (name, count) = (&status.name, status.services.len());
            let word = if pause { "holds" } else { "lets go on" };
            Ok(format!("{name} {word} the clients of {count} services"))
        })
    }
}

async fn remote(admin: &Path) -> Result<Status, String> {
    let (code, body) = client::ask(admin, &Command::Status)
        .await
        .map_err(|e| e.to_string())?;
    match code {
        200 => serde_json::from_slice(&body).map_err(|error| error.to_string()),
        code => Err(format!("it answered {code}")),
    }
}

/// Whether an operator, or a cutover, lets its clients wait.
fn holds(service: &ServiceStatus) -> bool {
    let paused = HoldReason::Operator.as_str();
    service.held.iter().any(|held| held == paused)
}

fn fact(service: &ServiceStatus) -> ServiceFact {
    let replicas = || service.endpoints.iter().filter(|endpoint| endpoint.up);
    ServiceFact {
        name: service.name.clone(),
        required: service.required,
        proven: service.primary.is_some(),
        held: holds(service),
        lag: replicas()
            .filter_map(|one| one.lag_seconds)
            .min()
            .map(Duration::from_secs),
        lag_bytes: replicas().filter_map(|one| one.lag_bytes).min(),
        why: service.reason.clone(),
    }
}

/// What Alertmanager's wishes go through: the same desk as an operator's, without overrides.
struct Hand(Arc<Desk>, Arc<Here>);

impl Starter for Hand {
    fn serving<'a>(&'a self) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(async move {
            let status = self.0.status().await.map_err(|error| error.to_string())?;
            let unknown = || {
                let why = status
                    .problem
                    .as_deref()
                    .unwrap_or("to no region that is known");
                format!("it is not known where the records lead: {why}")
            };
            status.active.clone().ok_or_else(unknown)
        })
    }

    fn start<'a>(&'a self, to: &'a str, reason: &'a str) -> BoxFuture<'a, Result<(), String>> {
        let wish = Wish {
            way: Way::Cutover,
            to: Some(to.to_owned()),
            reason: Some(reason.to_owned()),
            overrides: Vec::new(),
            digest: None,
        };
        Box::pin(async move {
            let controls = self.1.controls.get().and_then(Weak::upgrade);
            let controls = controls.ok_or("it shuts down")?;
            // A run that begins in a process that is about to end would be cut short.
            let at_work = controls.freeze.begin();
            at_work.as_ref().ok_or("another process takes over")?;
            let started = self.0.start(wish, None).await;
            started.map(|_| ()).map_err(|error| error.to_string())
        })
    }
}
