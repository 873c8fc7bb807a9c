//! Real Redis servers: one alone ([`RedisServer`]), or a master with replicas and sentinels ([`RedisCluster`]).

mod announcements;
mod cluster;
mod conf;
mod sentinels;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use announcements::{Announcement, Announcements};
pub use cluster::{Options, RedisCluster};
pub use conf::{RedisConf, Tls};
pub use sentinels::Sentinel;

use crate::process::{Launch, Server, find_program};
use crate::resp::{Auth, Conn, Target, Value};
use crate::{ports, scratch, wait};

/// What the sentinels call the master.
pub const MASTER_NAME: &str = "mymaster";

/// How long a server may take to start, and a question to be answered.
const START: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_millis(500);

/// What `ROLE` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    Master,
    Replica { master: SocketAddr, link_up: bool },
}

/// One `redis-server`.
pub struct RedisServer {
    /// What clients and sentinels use: the TLS port where there is one.
    pub addr: SocketAddr,
    /// Always plaintext, for the harness.
    pub control: SocketAddr,
    name: String,
    auth: Option<Auth>,
    conf: PathBuf,
    log: PathBuf,
    server: Server,
    /// Only of a server that stands alone. Dropped last.
    _dir: Option<scratch::Dir>,
}

impl RedisServer {
    /// A server without Sentinel, answering when this returns.
    pub fn start(conf: &RedisConf) -> Result<Self> {
        let dir = scratch::Dir::new()?;
        let mut server = Self::start_in(&dir, "redis", conf)?;
        server._dir = Some(dir);
        server.wait_answering()?;
        Ok(server)
    }

    fn start_in(dir: &scratch::Dir, name: &str, conf: &RedisConf) -> Result<Self> {
        let control = ports::free()?;
        let addr = if conf.tls.is_some() {
            ports::free()?
        } else {
            control
        };
        let home = dir.join(name);
        std::fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
        let path = dir.join(&format!("{name}.conf"));
        std::fs::write(&path, conf.render(control, addr, &home)).context("writing redis.conf")?;
        let log = dir.join(&format!("{name}.log"));
        let server = launch(name, &path, &log, false)?;
        let auth = conf.auth.clone();
        Ok(Self {
            addr,
            control,
            name: name.into(),
            auth,
            conf: path,
            log,
            server,
            _dir: None,
        })
    }

    fn wait_answering(&self) -> Result<()> {
        wait::until_true(&format!("{} to answer", self.name), START, || {
            self.server.check_running()?;
            Ok(self.conn()?.command(&["PING"])? == Value::Simple("PONG".into()))
        })
    }

    /// The process, to kill, freeze, thaw or measure.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Starts it again after it was killed, with the configuration it (or Sentinel) last wrote: a killed master comes
    /// back as a master.
    pub fn restart(&mut self) -> Result<()> {
        self.server.kill()?;
        self.server = launch(&self.name, &self.conf, &self.log, false)?;
        self.wait_answering()
    }

    /// A logged-in plaintext connection.
    pub fn conn(&self) -> Result<Conn> {
        Conn::connect_auth(&Target::from(self.control), self.auth.as_ref(), ANSWER)
    }

    pub fn command(&self, args: &[&str]) -> Result<Value> {
        self.conn()?.command(args)?.ok()
    }

    pub fn role(&self) -> Result<Role> {
        let reply = self.command(&["ROLE"])?;
        let items = reply.array().context("ROLE gave no array")?;
        let word = |index: usize| items.get(index).and_then(Value::text).unwrap_or_default();
        match word(0).as_str() {
            "master" => Ok(Role::Master),
            "slave" => {
                let Some(Value::Int(port)) = items.get(2) else {
                    bail!("ROLE gave no port")
                };
                let master = format!("{}:{port}", word(1))
                    .parse()
                    .context("the master's address in ROLE")?;
                Ok(Role::Replica {
                    master,
                    link_up: word(3) == "connected",
                })
            }
            other => bail!("ROLE says {other:?}"),
        }
    }

    /// A line of INFO.
    pub fn info(&self, section: &str, key: &str) -> Result<String> {
        let text = self
            .command(&["INFO", section])?
            .text()
            .context("INFO gave no text")?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        Ok(line
            .with_context(|| format!("INFO {section} has no {key}"))?
            .trim()
            .to_owned())
    }
}

fn launch(
    name: &str,
    conf: &std::path::Path,
    log: &std::path::Path,
    sentinel: bool,
) -> Result<Server> {
    let mut launch = Launch::new(name, &find_program("redis-server")?, log)?;
    launch.command().arg(conf);
    if sentinel {
        launch.command().arg("--sentinel");
    }
    launch.start()
}

#[cfg(test)]
mod tests;
