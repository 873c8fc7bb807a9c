//! Telling servers, each time on a connection of its own: a step may be dropped in the middle of an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::sleep;

use super::facts::{Facts, Flavor, VARIABLES, brief};
use super::gtid;
use crate::addr::Addr;
use crate::net::dial::Dialer;
use crate::proto::mysql::probe::client::{Access, AskError, Connection};
use crate::proto::mysql::probe::table::Table;
use crate::proto::mysql::watch::SqlWatcher;
use crate::proto::spec::NodeSpec;

/// Between two looks.
pub const LOOK: Duration = Duration::from_millis(10);
/// For how long locks of others may be in the way before they are ended, in seconds.
const LOCKS: u32 = 2;
/// So many sessions are looked at together.
const AT_ONCE: usize = 500;
/// "Lock wait timeout exceeded", "Unknown thread id".
const LOCKED: u16 = 1205;
const NO_THREAD: u16 = 1094;

/// The servers of one service.
pub struct Servers {
    access: Access,
    nodes: BTreeMap<Addr, NodeSpec>,
}

/// A connection to one of them.
pub struct Server {
    connection: Connection,
    pub flavor: Flavor,
    addr: Addr,
    user: String,
}

impl Servers {
    pub fn of(watcher: &SqlWatcher, dialer: &Dialer) -> Self {
        let nodes = watcher.nodes().into_iter();
        Self {
            access: watcher.access(dialer),
            nodes: nodes.map(|node| (node.addr.clone(), node)).collect(),
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &Addr> {
        self.nodes.keys()
    }

    /// What another server needs to copy from `addr`.
    pub fn login(&self) -> (&str, &str) {
        let credentials = &self.access.credentials;
        let password = credentials.password.as_ref().map_or("", |p| p.expose());
        (&credentials.username, password)
    }

    pub fn with_tls(&self) -> bool {
        self.access.tls.is_some()
    }

    /// # Errors
    /// When it is not reached, or does not let us in.
    pub async fn open(&self, addr: &Addr) -> Result<Server, String> {
        let plain = || NodeSpec {
            addr: addr.clone(),
            server_name: None,
            region: None,
        };
        let node = self.nodes.get(addr).cloned().unwrap_or_else(plain);
        let opened = Connection::open(&self.access, &node).await;
        let connection = opened.map_err(|error| format!("{addr}: {error}"))?;
        Ok(Server {
            flavor: Flavor::of(&connection.version),
            connection,
            addr: addr.clone(),
            user: self.access.credentials.username.clone(),
        })
    }
}

impl Server {
    async fn ask(&mut self, statement: &str) -> Result<Table, AskError> {
        self.connection.run(statement).await
    }

    /// Runs one statement.
    ///
    /// # Errors
    /// Names the server, and its reason, and not the statement: that may have a password in it.
    pub async fn run(&mut self, statement: &str) -> Result<Table, String> {
        let ran = self.ask(statement).await;
        ran.map_err(|error| format!("{}: {}", self.addr, brief(&error.to_string())))
    }

    async fn value(&mut self, question: &str) -> Result<String, String> {
        let table = self.run(question).await?;
        let first = table.rows.into_iter().next();
        let first = first.and_then(|row| row.into_iter().next());
        Ok(first.flatten().unwrap_or_default())
    }

    /// # Errors
    /// When it cannot be asked, or may not.
    pub async fn facts(&mut self) -> Result<Facts, String> {
        let variables = self.run(VARIABLES).await?;
        let status = self.run(self.flavor.status()).await?;
        let grants = self.run("SHOW GRANTS").await?;
        Ok(Facts::read(self.flavor, &variables, &status, &grants))
    }

    async fn set(&mut self, question: &'static str) -> Result<String, String> {
        let set = self.value(question).await?;
        match gtid::is_gtid_set(&set) {
            true => Ok(set),
            false => Err(format!("{}: its transaction ids make no sense", self.addr)),
        }
    }

    /// What was committed on it, as a primary.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn written(&mut self) -> Result<String, String> {
        self.set(self.flavor.written()).await
    }

    /// What it has applied, as a replica.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn applied(&mut self) -> Result<String, String> {
        self.set(self.flavor.applied()).await
    }

    /// Whether it has applied all of `want`.
    ///
    /// # Errors
    /// When it cannot be asked, or these are no transaction ids.
    pub async fn has(&mut self, want: &str) -> Result<bool, String> {
        if let Flavor::MySql { .. } = self.flavor {
            let question = format!("SELECT GTID_SUBSET('{want}', @@GLOBAL.gtid_executed)");
            return Ok(self.value(&question).await? == "1");
        }
        let have = self.set(self.flavor.applied()).await?;
        let nonsense = || format!("{}: its transaction ids make no sense", self.addr);
        gtid::covers(&have, want).ok_or_else(nonsense)
    }

    /// Closes it to writers. Returns how many sessions were ended for that: where somebody's locks are in the
    /// way, and on MariaDB, where those who may administer a server write to it all the same.
    ///
    /// # Errors
    /// When it cannot be done.
    pub async fn close(&mut self) -> Result<usize, String> {
        let mut ended = 0;
        self.run(&format!("SET SESSION lock_wait_timeout = {LOCKS}"))
            .await?;
        loop {
            match self.ask(self.flavor.close()).await {
                Ok(_) => break,
                Err(AskError::Refused(error)) if error.code == LOCKED => {
                    ended += self.end_sessions().await?;
                }
                Err(error) => return Err(format!("{}: {error}", self.addr)),
            }
        }
        if let Flavor::MariaDb(..) = self.flavor {
            ended += self.end_sessions().await?;
        }
        Ok(ended)
    }

    /// The sessions that may write, up to number `last`: all but replication's, the server's own, and probes.
    async fn sessions(&mut self, last: u64) -> Result<Vec<u64>, String> {
        let user = quoted(&self.user);
        let list = format!(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <= {last} \
             AND USER NOT IN ('system user', 'event_scheduler', {user}) \
             AND COMMAND NOT LIKE 'Binlog Dump%' AND COMMAND <> 'Daemon' LIMIT {AT_ONCE}"
        );
        let list = self.run(&list).await?;
        let ids = list.rows.iter().filter_map(|row| row.first()?.as_deref());
        Ok(ids.filter_map(|id| id.parse().ok()).collect())
    }

    /// Ends them, and waits until they are gone: what one was about to commit is there or will never be.
    /// Whoever comes later finds the server closed.
    async fn end_sessions(&mut self) -> Result<usize, String> {
        let newest = "SELECT MAX(ID) FROM information_schema.PROCESSLIST";
        let last = self.value(newest).await?.parse().unwrap_or(u64::MAX);
        let mut ended = BTreeSet::new();
        loop {
            let there = self.sessions(last).await?;
            if there.is_empty() {
                return Ok(ended.len());
            }
            for id in there {
                if !ended.insert(id) {
                    continue;
                }
                match self.ask(&format!("KILL {id}")).await {
                    Ok(_) => {}
                    Err(AskError::Refused(error)) if error.code == NO_THREAD => {}
                    Err(error) => return Err(format!("{}: {error}", self.addr)),
                }
            }
            sleep(LOOK).await;
        }
    }
}

/// A text in SQL, as long as a backslash means what it does by default.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!(quoted("it's \\ 'x'"), "'it''s \\\\ ''x'''");
    }
}
