//! Real MariaDB servers: one alone ([`MariaDb`]), or a Galera cluster of some ([`GaleraCluster`]).

mod base;
mod conf;
mod galera;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

pub use base::{Account, CHECK, PROBE, RIVAL, ROOT, SHOP};
pub use conf::MariaConf;
pub use galera::{GaleraCluster, NodeState};

use self::base::Base;
use crate::process::{Launch, Server, find_program};
use crate::resp::Target;
use crate::sql::{Conn, Rows};
use crate::{ports, wait};

/// The database that the accounts of [`SHOP`] may use.
pub const DATABASE: &str = "shop";

/// How long a server may take to start or to stop, and a question to be answered.
const START: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(5);

/// One `mariadbd`.
pub struct MariaDb {
    /// What clients use.
    pub addr: SocketAddr,
    pub socket: PathBuf,
    name: String,
    home: PathBuf,
    conf: MariaConf,
    server: Server,
    /// Logged in as root. It stays when the server takes no new connections.
    keeper: Mutex<Option<Conn>>,
    /// Dropped last.
    _base: Arc<Base>,
}

impl MariaDb {
    /// A server of its own, answering when this returns.
    pub fn start(conf: &MariaConf) -> Result<Self> {
        Self::launch("mariadb", conf, &[])?.answering()
    }

    fn launch(name: &str, conf: &MariaConf, first: &[&str]) -> Result<Self> {
        let base = Base::shared()?;
        let home = base.home(name)?;
        let addr = ports::free()?;
        let server = spawn(name, conf, &home, addr, first)?;
        Ok(Self {
            addr,
            socket: home.join("s"),
            name: name.into(),
            home,
            conf: conf.clone(),
            server,
            keeper: Mutex::new(None),
            _base: base,
        })
    }

    fn answering(self) -> Result<Self> {
        self.wait_answering()?;
        Ok(self)
    }

    /// Waits until root can log in through the Unix socket.
    pub fn wait_answering(&self) -> Result<()> {
        wait::until_true(&format!("{} to answer", self.name), START, || {
            self.server.check_running()?;
            *self.lock() = Some(self.conn()?);
            Ok(true)
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process, to kill, freeze, thaw or measure.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// SIGTERM: clients are disconnected, what is committed is on disk. Returns when it has ended.
    pub fn stop(&self) -> Result<()> {
        *self.lock() = None;
        self.server.terminate(START)?;
        Ok(())
    }

    /// Starts it again after it was killed or stopped, with what is on its disk.
    pub fn restart(&mut self) -> Result<()> {
        self.respawn(&[])?;
        self.wait_answering()
    }

    fn respawn(&mut self, first: &[&str]) -> Result<()> {
        *self.lock() = None;
        self.server.kill()?;
        self.server = spawn(&self.name, &self.conf, &self.home, self.addr, first)?;
        Ok(())
    }

    /// A new connection as root, through the Unix socket.
    pub fn conn(&self) -> Result<Conn> {
        Conn::connect(&Target::Unix(self.socket.clone()), &ROOT.login(), ANSWER)
    }

    /// Runs a statement as root on the kept connection.
    pub fn query(&self, sql: &str) -> Result<Rows> {
        let mut keeper = self.lock();
        let kept = keeper
            .take()
            .and_then(|mut conn| conn.is_usable().then_some(conn));
        let mut conn = match kept {
            Some(conn) => conn,
            None => self.conn()?,
        };
        let rows = conn
            .query(sql)
            .with_context(|| format!("{}: {sql}", self.name));
        *keeper = Some(conn);
        rows
    }

    /// The first value of the first row.
    pub fn value(&self, sql: &str) -> Result<String> {
        let rows = self.query(sql)?;
        let first = rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next());
        first
            .flatten()
            .with_context(|| format!("{}: no value: {sql}", self.name))
    }

    /// A status variable. Answered also while a Galera node is not ready.
    pub fn status(&self, name: &str) -> Result<String> {
        self.named("STATUS", name)
    }

    /// A global variable. Answered also while a Galera node is not ready.
    pub fn variable(&self, name: &str) -> Result<String> {
        self.named("VARIABLES", name)
    }

    fn named(&self, what: &str, name: &str) -> Result<String> {
        let rows = self.query(&format!("SHOW GLOBAL {what} LIKE '{name}'"))?;
        let value = rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().nth(1));
        value
            .flatten()
            .with_context(|| format!("{}: no {name}", self.name))
    }

    /// `SET GLOBAL name = value`; the value as SQL.
    pub fn set_global(&self, name: &str, value: &str) -> Result<()> {
        self.query(&format!("SET GLOBAL {name} = {value}"))
            .map(drop)
    }

    /// Connections of `user` now: where they come from.
    pub fn sessions_of(&self, user: &str) -> Result<Vec<String>> {
        let rows = self.query("SHOW FULL PROCESSLIST")?;
        let is_of =
            |row: &Vec<Option<String>>| row.get(1).cloned().flatten().as_deref() == Some(user);
        let host = |row: Vec<Option<String>>| row.into_iter().nth(2).flatten().unwrap_or_default();
        Ok(rows.into_iter().filter(is_of).map(host).collect())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Conn>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(
    name: &str,
    conf: &MariaConf,
    home: &std::path::Path,
    addr: SocketAddr,
    first: &[&str],
) -> Result<Server> {
    let file = conf.write(home, addr)?;
    if let Some(owner) = base::owner()? {
        owner.take(home).context("giving the files to the server")?;
    }
    let log = home.join("log");
    let mut launch = Launch::new(name, &find_program("mariadbd")?, &log)?;
    launch
        .command()
        .arg(format!("--defaults-file={}", file.display()))
        .args(first)
        .current_dir(home);
    launch.start()
}

impl Drop for MariaDb {
    /// Its files are not needed once it has ended.
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = fs::remove_dir_all(&self.home);
    }
}

#[cfg(test)]
mod tests;
