//! The cutover's wiring: its tools, and what it wants of the rest of the process.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{AppError, Common};
use crate::addr::Addr;
use crate::admin::client;
use crate::admin::command::Command;
use crate::admin::status::{ServiceStatus, Status, status};
use crate::cutover::BoxFuture;
use crate::cutover::auto::serve::{Means, Receiver};
use crate::cutover::auto::{AutoSpec, Starter};
use crate::cutover::desk::{Desk, Wish};
use crate::cutover::feed::Feed;
use crate::cutover::gate::judge::ServiceFact;
use crate::cutover::lock;
use crate::cutover::metrics::CutoverMetrics;
use crate::cutover::plan::Way;
use crate::cutover::spec::CutoverSpec;
use crate::cutover::tools::Tools;
use crate::cutover::world::{Told, World};
use crate::dns::verify::Verifier;
use crate::dns::{self, Env};
use crate::gate::HoldReason;
use crate::net::listen::control_listener;
use crate::telemetry::surface::Surface;

/// Makes the desk, and lets it work.
///
/// # Errors
/// When the config names files that cannot be used.
pub(super) fn open(
    spec: &CutoverSpec,
    common: &Common,
    surface: &Arc<Surface>,
) -> Result<Arc<Desk>, AppError> {
    let env = Env {
        clock: common.clock,
        resolver: common.resolver.clone(),
    };
    let failed = |why: String| AppError::Cutover(why);
    let provider = dns::provider(&spec.dns, &env).map_err(|error| failed(error.to_string()))?;
    let verify = spec.verify_with(&system_resolvers());
    let verifier = Verifier::new(verify, env.clone()).map_err(|error| failed(error.to_string()))?;
    let lock = spec
        .lock
        .as_ref()
        .map(|spec| lock::lock(spec, &env))
        .transpose();
    let lock = lock.map_err(|error| failed(format!("lock: {error}")))?;
    let tools = Tools {
        spec: spec.clone(),
        env,
        provider,
        verifier,
        lock,
        world: Arc::new(Here {
            surface: surface.clone(),
        }),
        sidecar: surface.name.clone(),
        region: surface.region.clone(),
        events: common.events.clone(),
        feed: Arc::new(Feed::default()),
        metrics: CutoverMetrics::new(&common.registry),
    };
    let (desk, works) = Desk::new(tools);
    // A run that panics is like a crash: health and data go on, and a restart shows where it stood.
    common.supervisor.spawn("cutover", desk.clone().work(works));
    if let Some(auto) = &spec.auto {
        let home = spec.regions.first().map(|region| region.name.clone());
        let starter = Arc::new(Asks {
            desk: desk.clone(),
            home,
        });
        receive(auto, common, starter).map_err(failed)?;
    }
    Ok(desk)
}

/// Lets Alertmanager in.
fn receive(spec: &AutoSpec, common: &Common, starter: Arc<Asks>) -> Result<(), String> {
    let means = Means {
        clock: common.clock,
        events: common.events.clone(),
        registry: common.registry.clone(),
        starter,
    };
    let receiver = Receiver::new(spec, means).map_err(|error| error.to_string())?;
    let (bound, listener) =
        control_listener(&Addr::Ip(spec.listen), 0).map_err(|error| error.to_string())?;
    let stop = common.supervisor.stop().clone();
    common.supervisor.spawn("alertmanager", async move {
        receiver.serve(listener, stop).await;
        drop(bound);
    });
    Ok(())
}

/// Alertmanager's wishes are wishes like others, without overrides.
struct Asks {
    desk: Arc<Desk>,
    home: Option<String>,
}

impl Starter for Asks {
    fn serving<'a>(&'a self) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(async move {
            let status = self.desk.status().await.map_err(|e| e.to_string())?;
            let problem = status.problem;
            let why = || problem.unwrap_or_else(|| "they lead to no region".to_owned());
            status.active.ok_or_else(why)
        })
    }

    fn start<'a>(&'a self, to: &'a str, reason: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let wish = Wish {
                way: match self.home.as_deref() == Some(to) {
                    true => Way::Failback,
                    false => Way::Cutover,
                },
                to: Some(to.to_owned()),
                reason: Some(reason.to_owned()),
                overrides: Vec::new(),
                digest: None,
            };
            let started = self.desk.start(wish, None).await;
            started.map(drop).map_err(|error| error.to_string())
        })
    }
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
struct Here {
    surface: Arc<Surface>,
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
        _to: Option<&'a Addr>,
        _limit: Duration,
    ) -> Told<'a, String> {
        Box::pin(async move {
            let services = status(&self.surface).services;
            let found = services.iter().find(|one| one.name == service);
            match found.map(|one| (one.protocol.as_str(), one.discovery.as_str(), &one.primary)) {
                // Every node can be written to.
                Some((_, "galera", Some(primary))) => Ok(format!("{primary} can be written to")),
                Some((protocol, ..)) => Err(format!(
                    "this build cannot promote {protocol}; use a hook before-apply"
                )),
                None => Err("there is no such service".to_owned()),
            }
        })
    }

    fn open_services<'a>(&'a self, admin: &'a Path) -> Told<'a, Vec<String>> {
        Box::pin(async move {
            let status = remote(admin).await?;
            let paused = HoldReason::Operator.as_str();
            let open = |service: &&ServiceStatus| !service.held.iter().any(|held| held == paused);
            let open = status.services.iter().filter(open);
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

fn fact(service: &ServiceStatus) -> ServiceFact {
    let replicas = || service.endpoints.iter().filter(|endpoint| endpoint.up);
    ServiceFact {
        name: service.name.clone(),
        required: service.required,
        proven: service.primary.is_some(),
        lag: replicas()
            .filter_map(|one| one.lag_seconds)
            .min()
            .map(Duration::from_secs),
        lag_bytes: replicas().filter_map(|one| one.lag_bytes).min(),
        why: service.reason.clone(),
    }
}
