//! Telling servers, each time on a connection of its own: a step may be dropped in the middle of an answer.
//!
//! Sources: "System Administration Functions", "The Cumulative Statistics System" and "ALTER SYSTEM" in the
//! PostgreSQL documentation.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;

use crate::addr::Addr;
use crate::net::dial::Dialer;
use crate::net::tls::Connector;
use crate::proto::postgres::client::{Kept, Refusal, Target};
use crate::proto::postgres::watch::targets;
use crate::proto::spec::PostgresSpec;

/// Between two looks.
pub const LOOK: Duration = Duration::from_millis(10);
/// For how long a server itself waits for its own promotion, in seconds. The failover's own time is shorter.
const PROMOTE_WITHIN: u32 = 3600;

/// Since when a session may be kept from being ended: those that began after ours have read-only transactions.
const END_OLDER: &str = "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(pid)) \
    FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend' \
    AND pid <> pg_catalog.pg_backend_pid() AND backend_start <= (SELECT backend_start \
    FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid())";

/// The servers of one service.
pub struct Servers {
    targets: BTreeMap<Addr, Target>,
}

/// A connection to one of them.
pub struct Server {
    kept: Kept,
    addr: Addr,
}

/// Where a server stands in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub in_recovery: bool,
    pub paused: bool,
    /// In bytes of the log; of a primary how far it is written.
    pub replayed: u64,
    /// What a standby has on its disk.
    pub received: u64,
}

impl Servers {
    pub fn of(spec: &PostgresSpec, tls: &Connector, dialer: &Dialer) -> Self {
        Self {
            targets: targets(spec, tls, dialer),
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &Addr> {
        self.targets.keys()
    }

    /// # Errors
    /// When it is not reached, or does not let us in.
    pub async fn open(&self, addr: &Addr) -> Result<Server, String> {
        let target = self.targets.get(addr);
        let target = target.ok_or_else(|| format!("{addr} is not in the configuration"))?;
        let kept = Kept::connect(target).await;
        let kept = kept.map_err(|why| format!("{addr}: {why}"))?;
        let addr = addr.clone();
        Ok(Server { kept, addr })
    }

    /// Closes the primary at `addr`, ends the sessions that are older than that, and says how many these were
    /// and where the log ends that others have to follow.
    ///
    /// # Errors
    /// When it cannot be done, or not to everybody.
    pub async fn close(&self, addr: &Addr) -> Result<(usize, u64), String> {
        self.set_read_only(addr, true).await?;
        let mut server = self.open_after(addr, "on").await?;
        let mut ended = 0;
        loop {
            match server.number(END_OLDER).await? {
                0 => break,
                // Asked twice, each counts once.
                found => ended = ended.max(found),
            }
            sleep(LOOK).await;
        }
        // What was committed without waiting for the disk gets there with this.
        server
            .run("SET default_transaction_read_only = off")
            .await?;
        server.run("SET synchronous_commit = local").await?;
        server
            .run("SELECT pg_catalog.pg_logical_emit_message(true, 'pilotfish', 'closed')")
            .await?;
        let end = "SELECT pg_catalog.pg_current_wal_flush_lsn() - '0/0'";
        let goal = server.number(end).await?;
        Ok((usize::try_from(ended).unwrap_or(usize::MAX), goal))
    }

    /// # Errors
    /// When it cannot be done.
    pub async fn reopen(&self, addr: &Addr) -> Result<(), String> {
        self.set_read_only(addr, false).await?;
        self.open_after(addr, "off").await.map(drop)
    }

    async fn set_read_only(&self, addr: &Addr, on: bool) -> Result<(), String> {
        let mut server = self.open(addr).await?;
        server
            .run("SET default_transaction_read_only = off")
            .await?;
        server
            .run(match on {
                true => "ALTER SYSTEM SET default_transaction_read_only = on",
                false => "ALTER SYSTEM RESET default_transaction_read_only",
            })
            .await?;
        server.run("SELECT pg_catalog.pg_reload_conf()").await?;
        Ok(())
    }

    /// The first session that begins with this setting: all that begin later have it too.
    async fn open_after(&self, addr: &Addr, setting: &str) -> Result<Server, String> {
        const QUESTION: &str = "SELECT pg_catalog.current_setting('default_transaction_read_only')";
        loop {
            let mut server = self.open(addr).await?;
            if server.run(QUESTION).await?.first() == Some(&Some(setting.to_owned())) {
                return Ok(server);
            }
            sleep(LOOK).await;
        }
    }
}

impl Server {
    /// Runs one statement; the first row.
    ///
    /// # Errors
    /// Names the server, and its reason.
    pub async fn run(&mut self, statement: &str) -> Result<Vec<Option<String>>, String> {
        let ran = self.kept.run(statement).await;
        ran.map_err(|refusal| format!("{}: {}", self.addr, refusal.why))
    }

    pub async fn number(&mut self, question: &str) -> Result<u64, String> {
        let row = self.run(question).await?;
        let first = row.first().and_then(Option::as_deref);
        let number = first.and_then(|text| text.parse().ok());
        number.ok_or_else(|| format!("{}: an answer that makes no sense", self.addr))
    }

    /// # Errors
    /// When it cannot be asked.
    pub async fn place(&mut self) -> Result<Place, String> {
        const QUESTION: &str = "SELECT r, r AND pg_catalog.pg_is_wal_replay_paused(), \
            CASE WHEN r THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END - '0/0', \
            pg_catalog.pg_last_wal_receive_lsn() - '0/0' \
            FROM (SELECT pg_catalog.pg_is_in_recovery() AS r OFFSET 0) AS asked";
        let row = self.run(QUESTION).await?;
        let text = |n: usize| row.get(n).and_then(Option::as_deref);
        let number = |n| {
            text(n)
                .and_then(|text| text.parse().ok())
                .unwrap_or_default()
        };
        Ok(Place {
            in_recovery: text(0) == Some("t"),
            paused: text(1) == Some("t"),
            replayed: number(2),
            received: number(3),
        })
    }

    /// Whether it is the primary when this returns.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn promote(&mut self) -> Result<bool, Refusal> {
        let order = format!("SELECT pg_catalog.pg_promote(true, {PROMOTE_WITHIN})");
        let row = self.kept.run(&order).await?;
        Ok(row.first() == Some(&Some("t".to_owned())))
    }
}
