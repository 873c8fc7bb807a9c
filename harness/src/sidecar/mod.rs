//! The real `pilotfish run`, with a written configuration, seen through its health, metrics and log.

mod config;
mod follow;
mod http;
mod watch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;

pub use config::{Config, Service, quoted};
pub use follow::LogFollow;
pub use http::{Response, request};
pub use watch::{Change, HealthWatch};

use crate::process::{Launch, Server};
use crate::resp::{Conn, Target};
use crate::{scratch, wait};

/// How long it may take to start, and to answer.
const START: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(2);

/// What to wait for at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The process runs; it may be about to refuse its configuration.
    Started,
    /// `/livez` says 200.
    Live,
    /// `/healthz` says 200: every required service was proven.
    Healthy,
}

/// The binary under test: `PILOTFISH_BIN`, which is set by the Makefile.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::var_os("PILOTFISH_BIN")
        .context("PILOTFISH_BIN does not say where the binary is")?;
    let path = PathBuf::from(path);
    if !path.is_file() {
        bail!(
            "PILOTFISH_BIN names {}, which does not exist: build it first",
            path.display()
        );
    }
    path.canonicalize().context("PILOTFISH_BIN")
}

/// A running sidecar. Its directory has the configuration, sockets, secrets and log.
pub struct Sidecar {
    config: Config,
    server: Server,
    binary: PathBuf,
    dir: scratch::Dir,
}

fn launch(binary: &Path, dir: &scratch::Dir) -> Result<Server> {
    let mut launch = Launch::new("pilotfish", binary, &dir.join("pilotfish.log"))?;
    let file = dir.join("proxy.toml");
    launch.command().arg("run").arg("-c").arg(file);
    launch.command().env("STATE_DIRECTORY", dir.join("state"));
    launch.start()
}

impl Sidecar {
    pub fn start(binary: &Path, config: Config, until: Until) -> Result<Self> {
        let dir = scratch::Dir::new()?;
        let file = dir.join("proxy.toml");
        std::fs::write(&file, config.render(dir.path())?).context("writing proxy.toml")?;
        let sidecar = Self {
            config,
            server: launch(binary, &dir)?,
            binary: binary.to_owned(),
            dir,
        };
        if until != Until::Started {
            sidecar.wait_status("/livez", 200, START)?;
        }
        if until == Until::Healthy {
            sidecar.wait_status("/healthz", 200, START)?;
        }
        Ok(sidecar)
    }

    /// Starts it again after it ended, in the same directory.
    pub fn restart(&mut self) -> Result<()> {
        self.server = launch(&self.binary, &self.dir)?;
        self.wait_status("/livez", 200, START)
    }

    /// The process: signals, CPU time, memory, descriptors, log.
    pub fn server(&self) -> &Server {
        &self.server
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.join("proxy.toml")
    }

    pub fn admin_socket(&self) -> PathBuf {
        config::admin_socket(self.dir.path())
    }

    /// Replaces the file; what the daemon makes of it takes SIGHUP.
    pub fn rewrite_config(&mut self, config: Config) -> Result<()> {
        std::fs::write(self.config_file(), config.render(self.dir.path())?)
            .context("writing proxy.toml")?;
        self.config = config;
        Ok(())
    }

    /// Where clients of a service connect over TCP.
    pub fn tcp(&self, service: &str) -> Result<SocketAddr> {
        let found = self.service(service)?.tcp.first().copied();
        found.with_context(|| format!("service {service} has no TCP listener"))
    }

    /// The Unix socket of a service.
    pub fn unix(&self, service: &str) -> Result<PathBuf> {
        let name = self.service(service)?.unix.as_ref();
        Ok(self
            .dir
            .join(name.with_context(|| format!("service {service} has no Unix socket"))?))
    }

    /// A client of a service over TCP.
    pub fn client(&self, service: &str, timeout: Duration) -> Result<Conn> {
        Conn::connect(&Target::from(self.tcp(service)?), timeout)
    }

    fn service(&self, name: &str) -> Result<&Service> {
        let found = self
            .config
            .services
            .iter()
            .find(|service| service.name == name);
        found.with_context(|| format!("there is no service {name} in the configuration"))
    }

    pub fn http_get(&self, path: &str) -> Result<Response> {
        request(&Target::from(self.config.http), "GET", path, "", ANSWER)
    }

    /// A request on the admin socket.
    pub fn admin(&self, method: &str, path: &str, body: &str) -> Result<Response> {
        request(
            &Target::from(self.admin_socket().as_path()),
            method,
            path,
            body,
            ANSWER,
        )
    }

    pub fn healthz(&self) -> Result<Json> {
        let response = self.http_get("/healthz")?;
        serde_json::from_str(&response.body)
            .with_context(|| format!("/healthz said {:?}", response.body))
    }

    /// The part of `/healthz` about one service.
    pub fn service_health(&self, service: &str) -> Result<Json> {
        Ok(self.healthz()?["services"][service].clone())
    }

    pub fn primary(&self, service: &str) -> Result<Option<SocketAddr>> {
        Ok(self.service_health(service)?["primary"]
            .as_str()
            .and_then(|text| text.parse().ok()))
    }

    /// Polls `/healthz` until `wanted`; the error shows the last answer and the log's tail.
    pub fn wait_health(
        &self,
        what: &str,
        timeout: Duration,
        wanted: impl Fn(&Json) -> bool,
    ) -> Result<Json> {
        let mut last = Json::Null;
        let outcome = wait::until(what, timeout, || {
            self.server.check_running()?;
            last = self.healthz()?;
            Ok(wanted(&last).then(|| last.clone()))
        });
        outcome.map_err(|error| {
            error.context(format!("/healthz said {last}; {}", self.server.log_tail()))
        })
    }

    pub fn wait_primary(&self, service: &str, addr: SocketAddr, timeout: Duration) -> Result<Json> {
        let addr = addr.to_string();
        self.wait_health(&format!("{service} to be at {addr}"), timeout, |health| {
            health["services"][service]["primary"] == addr.as_str()
        })
    }

    pub fn wait_status(&self, path: &str, status: u16, timeout: Duration) -> Result<()> {
        let mut last = String::new();
        let outcome = wait::until_true(&format!("{path} to say {status}"), timeout, || {
            self.server.check_running()?;
            let response = self.http_get(path)?;
            last = format!("{} {}", response.status, response.body);
            Ok(response.status == status)
        });
        outcome.map_err(|error| {
            error.context(format!("{path} said {last}; {}", self.server.log_tail()))
        })
    }

    /// Every sample of `/metrics` under `name{labels}` as it stands there.
    pub fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        let text = self.http_get("/metrics")?.body;
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(sample)
            .collect())
    }

    /// The sum of all samples of `pilotfish_NAME` that have all of these labels, zero if there is none.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let full = format!("pilotfish_{name}");
        let matches = |key: &str| {
            let (base, rest) = key.split_once('{').unwrap_or((key, ""));
            base == full
                && labels
                    .iter()
                    .all(|(label, value)| rest.contains(&format!("{label}=\"{value}\"")))
        };
        Ok(self
            .metrics()?
            .iter()
            .filter(|(key, _)| matches(key))
            .map(|(_, value)| value)
            .sum())
    }

    /// The log's lines that contain `pattern`.
    pub fn log_lines(&self, pattern: &str) -> Result<Vec<String>> {
        Ok(self
            .server
            .log()?
            .lines()
            .filter(|line| line.contains(pattern))
            .map(Into::into)
            .collect())
    }

    /// Waits for a line that contains `pattern`.
    pub fn wait_log(&self, pattern: &str, timeout: Duration) -> Result<String> {
        let found = wait::until(&format!("a log line with {pattern:?}"), timeout, || {
            Ok(self.log_lines(pattern)?.into_iter().next())
        });
        found.map_err(|error| error.context(self.server.log_tail()))
    }

    /// Begins to record every change of a service's health.
    pub fn watch(&self, service: &str) -> Result<HealthWatch> {
        HealthWatch::start(self.config.http, service)
    }

    /// Begins to record the log, from its first line on (those before now get the time of now).
    pub fn follow_log(&self) -> Result<LogFollow> {
        LogFollow::start(self.server.log_path())
    }
}
