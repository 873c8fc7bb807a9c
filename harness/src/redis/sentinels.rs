//! One sentinel: its process, and what it says when asked.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{ANSWER, MASTER_NAME, Options, conf, launch};
use crate::process::Server;
use crate::resp::{Auth, Conn, Target, Value};
use crate::{ports, scratch};

/// A `redis-server --sentinel`.
pub struct Sentinel {
    /// What clients use: the TLS port where there is one.
    pub addr: SocketAddr,
    /// Always plaintext, for the harness.
    pub control: SocketAddr,
    name: String,
    auth: Option<Auth>,
    conf: PathBuf,
    home: PathBuf,
    log: PathBuf,
    server: Server,
}

impl Sentinel {
    pub(super) fn start(
        dir: &scratch::Dir,
        number: usize,
        options: &Options,
        monitor: SocketAddr,
    ) -> Result<Self> {
        let control = ports::free()?;
        let addr = if options.tls.is_some() {
            ports::free()?
        } else {
            control
        };
        let name = format!("sentinel-{number}");
        let home = dir.join(&name);
        std::fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
        let path = dir.join(&format!("{name}.conf"));
        let log = dir.join(&format!("{name}.log"));
        std::fs::write(
            &path,
            conf::sentinel(options, (control, addr), &home, monitor),
        )
        .context("sentinel.conf")?;
        let server = launch(&name, &path, &log, true)?;
        let auth = options.sentinel_auth.clone();
        Ok(Self {
            addr,
            control,
            name,
            auth,
            conf: path,
            home,
            log,
            server,
        })
    }

    /// The process, to kill, freeze or thaw.
    pub fn server(&self) -> &Server {
        &self.server
    }

    pub fn stop(&self) -> Result<()> {
        self.server.kill()
    }

    /// Starts it again with what it knew when it was stopped.
    pub fn restart(&mut self) -> Result<()> {
        self.server.kill()?;
        self.server = launch(&self.name, &self.conf, &self.log, true)?;
        Ok(())
    }

    /// Starts it again knowing nothing: a new id, epoch 0, no peers.
    pub(super) fn recreate(&mut self, options: &Options, monitor: SocketAddr) -> Result<()> {
        self.server.kill()?;
        let text = conf::sentinel(options, (self.control, self.addr), &self.home, monitor);
        std::fs::write(&self.conf, text).context("sentinel.conf")?;
        self.server = launch(&self.name, &self.conf, &self.log, true)?;
        Ok(())
    }

    /// A logged-in plaintext connection.
    pub fn conn(&self) -> Result<Conn> {
        Conn::connect_auth(&Target::from(self.control), self.auth.as_ref(), ANSWER)
    }

    pub(super) fn auth(&self) -> Option<Auth> {
        self.auth.clone()
    }

    pub fn command(&self, args: &[&str]) -> Result<Value> {
        self.conn()?.command(args)?.ok()
    }

    /// What it takes for the master.
    pub fn master_addr(&self) -> Result<SocketAddr> {
        let reply = self.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME])?;
        let words: Vec<String> = reply
            .array()
            .unwrap_or_default()
            .iter()
            .filter_map(Value::text)
            .collect();
        words
            .join(":")
            .parse()
            .with_context(|| format!("{} names no master", self.name))
    }

    pub fn config_epoch(&self) -> Result<u64> {
        let reply = self.command(&["SENTINEL", "MASTER", MASTER_NAME])?;
        Ok(reply
            .field("config-epoch")
            .context("no config-epoch")?
            .parse()?)
    }

    /// Knows all its peers and all replicas, each as healthy, so that a failover asked for now finds a good replica.
    pub(super) fn is_ready(&self, peers: usize, replicas: usize) -> Result<bool> {
        let mut conn = self.conn()?;
        let master = conn.command(&["SENTINEL", "MASTER", MASTER_NAME])?.ok()?;
        let count = |key: &str| {
            master
                .field(key)
                .and_then(|text| text.parse::<usize>().ok())
        };
        if count("num-other-sentinels") != Some(peers)
            || master.field("flags").as_deref() != Some("master")
        {
            return Ok(false);
        }
        let listed = conn.command(&["SENTINEL", "REPLICAS", MASTER_NAME])?.ok()?;
        let others = conn
            .command(&["SENTINEL", "SENTINELS", MASTER_NAME])?
            .ok()?;
        let has =
            |value: &Value, key: &str, wanted: &str| value.field(key).as_deref() == Some(wanted);
        let good =
            |value: &&Value| has(value, "flags", "slave") && has(value, "master-link-status", "ok");
        let linked = |value: &&Value| has(value, "flags", "sentinel");
        Ok(listed
            .array()
            .unwrap_or_default()
            .iter()
            .filter(good)
            .count()
            == replicas
            && others
                .array()
                .unwrap_or_default()
                .iter()
                .filter(linked)
                .count()
                == peers)
    }

    /// Peers find each other by what they publish every 2 s. `false` puts the normal pace back.
    pub(super) fn set_hurry(&self, hurry: bool) -> Result<()> {
        let (publish, info) = if hurry {
            ("100", "200")
        } else {
            ("2000", "10000")
        };
        self.command(&[
            "SENTINEL",
            "DEBUG",
            "PUBLISH-PERIOD",
            publish,
            "INFO-PERIOD",
            info,
        ])?;
        Ok(())
    }
}
