//! MariaDB with asynchronous replication.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pilotfish_harness::mariadb::{DATABASE, MariaConf, MariaDb, PROBE, ROOT, SHOP};
use pilotfish_harness::resp::Target;
use pilotfish_harness::sidecar::{Config, Service, Sidecar, Until};
use pilotfish_harness::sql::Conn;
use pilotfish_harness::wait;
use pilotfish_harness::writer::{LEDGER_TABLE, Writer};

use super::{GOING_ON, break_midway, ensure_all_once, ensure_dry_run, failover, wait_holding};
use crate::kit::{LONG, binary};
use crate::support::assert_sound;

const PRIVILEGES: &str =
    "READ_ONLY ADMIN, CONNECTION ADMIN, REPLICATION SLAVE ADMIN, PROCESS, RELOAD";

struct Trio {
    nodes: Vec<MariaDb>,
    sidecar: Sidecar,
}

fn follow(replica: &MariaDb, primary: &MariaDb) -> Result<()> {
    let port = primary.addr.port();
    replica.query(&format!(
        "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='{}', \
         MASTER_PASSWORD='', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1",
        ROOT.user
    ))?;
    replica.query("START SLAVE")?;
    replica.set_global("read_only", "ON")
}

/// What the replica has applied.
fn wait_caught_up(replica: &MariaDb, primary: &MariaDb) -> Result<()> {
    let gtid = primary.value("SELECT @@gtid_binlog_pos")?;
    let waited = replica.value(&format!("SELECT MASTER_GTID_WAIT('{gtid}', 30)"))?;
    ensure!(waited == "0", "{} does not catch up", replica.name());
    Ok(())
}

impl Trio {
    /// A primary and `replicas`; the account of the probes may do what is in `grant`.
    fn start(replicas: u32, grant: &str) -> Result<Self> {
        let one = MariaDb::start(&MariaConf::default().replicating(1))?;
        let mut nodes = vec![one];
        for id in 2..replicas + 2 {
            let replica = MariaDb::start(&MariaConf::default().replicating(id))?;
            follow(&replica, &nodes[0])?;
            nodes.push(replica);
        }
        nodes[0].query(LEDGER_TABLE)?;
        if !grant.is_empty() {
            nodes[0].query(&format!("GRANT {grant} ON *.* TO '{}'@'%'", PROBE.user))?;
        }
        for replica in &nodes[1..] {
            wait_caught_up(replica, &nodes[0])?;
        }
        let addrs: Vec<_> = nodes.iter().map(|node| node.addr).collect();
        let service = Service::mysql("shop", "mysql", &addrs)?
            .discover("max_lag", "5s")
            .discover("interval", "100ms")
            .set("hold_timeout", "30s");
        let config = Config::new()?.line("workers = 1").service(service);
        let sidecar = Sidecar::start(binary(), config, Until::Healthy)?;
        let trio = Self { nodes, sidecar };
        trio.wait_ready()?;
        Ok(trio)
    }

    /// All replicas are known as fit.
    fn wait_ready(&self) -> Result<()> {
        wait::until_true("the replicas to be fit", LONG, || {
            let body = self.sidecar.admin("GET", "/v1/services/shop", "")?.body;
            let status: serde_json::Value = serde_json::from_str(&body)?;
            let endpoints = status["endpoints"].as_array().cloned().unwrap_or_default();
            let fit = |it: &&serde_json::Value| it["up"] == true && it["detail"].is_null();
            Ok(endpoints.iter().filter(fit).count() == self.nodes.len())
        })
        .with_context(|| self.sidecar.server().log_tail())
    }

    fn writers(&self, direct_to: usize) -> Result<Vec<Writer>> {
        let direct = self.nodes[direct_to].addr;
        super::writers(&self.sidecar, direct, &format!("-{direct_to}"))
    }

    /// Ends the writers. Every row that anybody was told is there is on `node`, once.
    fn ensure_nothing_lost(&self, writers: Vec<Writer>, node: usize) -> Result<()> {
        for writer in writers {
            let ledger = writer.stop();
            let counted = ledger.count_in(&mut self.nodes[node].conn()?)?;
            let label = &ledger.label;
            println!(
                "{label}: {} acknowledged, {} missing, {} errors, longest pause {:?}",
                ledger.acked().count(),
                counted.missing.len(),
                ledger.errors().count(),
                ledger.longest_gap().map(|(_, gap)| gap),
            );
            ensure_all_once(&ledger, &counted, self.nodes[node].name())?;
        }
        Ok(())
    }

    fn is_closed(&self, node: usize) -> Result<bool> {
        Ok(self.nodes[node].variable("read_only")? == "ON")
    }

    fn ensure_follows(&self, replica: usize, primary: usize) -> Result<()> {
        wait_caught_up(&self.nodes[replica], &self.nodes[primary])?;
        let mut conn = self.nodes[replica].conn()?;
        let rows = conn.query("SHOW SLAVE STATUS")?;
        let port = self.nodes[primary].addr.port().to_string();
        let row = rows.first().context("it is no replica")?;
        ensure!(row.iter().flatten().any(|cell| *cell == port), "{row:?}");
        Ok(())
    }
}

#[test]
fn nothing_that_was_acknowledged_is_lost_there_and_back() -> Result<()> {
    let trio = Trio::start(2, &format!("{PRIVILEGES}, REPLICATION SLAVE"))?;
    let addrs: Vec<String> = trio
        .nodes
        .iter()
        .map(|node| node.addr.to_string())
        .collect();
    ensure_dry_run(
        &trio.sidecar,
        &["fence", "catch-up", "stop-replication", "open", "follow"],
    )?;
    ensure!(!trio.is_closed(0)? && trio.is_closed(1)? && trio.is_closed(2)?);
    for (old, new) in [(0, 2), (2, 0)] {
        let writers = trio.writers(old)?;
        let told = failover(&trio.sidecar, &["--to", &addrs[new]])?;
        told.ensure(0, "done", "")?;
        told.print("mysql");
        ensure!(told.account["clean"] == true, "{:#}", told.account);
        ensure!(trio.sidecar.primary("shop")? == Some(trio.nodes[new].addr));
        for writer in &writers[..2] {
            writer.wait_ack_after(Instant::now() + GOING_ON, LONG)?;
        }
        ensure!(trio.is_closed(old)? && !trio.is_closed(new)?);
        trio.ensure_nothing_lost(writers, new)?;
        // Everybody follows the new one.
        trio.ensure_follows(old, new)?;
        trio.ensure_follows(1, new)?;
        trio.wait_ready()?;
    }
    assert_sound(&trio.sidecar)
}

/// Without REPLICATION SLAVE nobody can be told to follow: the old one is left closed, and that is said.
#[test]
fn an_old_primary_that_cannot_follow_is_left_read_only() -> Result<()> {
    let trio = Trio::start(1, PRIVILEGES)?;
    let told = failover(&trio.sidecar, &[])?;
    told.ensure(0, "done", "")?;
    let follow = told.step("follow")?.to_string();
    ensure!(
        follow.contains("is read-only and follows nobody"),
        "{follow}"
    );
    ensure!(told.account["clean"] == false, "{:#}", told.account);
    ensure!(trio.is_closed(0)? && !trio.is_closed(1)?);
    ensure!(trio.sidecar.primary("shop")? == Some(trio.nodes[1].addr));
    assert_sound(&trio.sidecar)
}

/// Somebody's lock keeps the replica from applying what it gets.
#[test]
fn what_cannot_be_finished_is_put_back() -> Result<()> {
    let trio = Trio::start(1, PRIVILEGES)?;
    let writers = trio.writers(0)?;
    let mut locker = trio.nodes[1].conn()?;
    let login = SHOP.login().into_db(DATABASE);
    let mut busy = Conn::connect(&Target::Tcp(trio.sidecar.tcp("shop")?), &login, LONG)?;
    busy.query("BEGIN")?;
    busy.query("INSERT INTO ledger (writer, seq) VALUES ('busy', 1)")?;
    let told = std::thread::scope(|scope| {
        let told = scope.spawn(|| failover(&trio.sidecar, &["--timeout", "6s"]));
        wait_holding(&trio.sidecar, 0)?;
        locker.query("LOCK TABLES shop.ledger WRITE")?;
        busy.query("COMMIT")?;
        told.join().ok().context("a panic")?
    })?;
    told.ensure(1, "failed", "timeout")?;
    ensure!(
        told.step("catch-up")?["outcome"] == "failed",
        "{:#}",
        told.account
    );
    ensure!(told.put_back("fence")? == "done", "{:#}", told.account);
    trio.sidecar
        .wait_primary("shop", trio.nodes[0].addr, LONG)?;
    ensure!(!trio.is_closed(0)? && trio.is_closed(1)?);
    for writer in &writers {
        writer.wait_ack_after(Instant::now(), LONG)?;
    }
    locker.query("UNLOCK TABLES")?;
    trio.ensure_nothing_lost(writers, 0)?;
    trio.ensure_follows(1, 0)?;
    trio.wait_ready()?;
    failover(&trio.sidecar, &[])?.ensure(0, "done", "")?;
    assert_sound(&trio.sidecar)
}

/// A lock on the primary is no reason to wait for ever.
#[test]
fn who_holds_a_lock_on_the_old_primary_is_ended() -> Result<()> {
    let trio = Trio::start(1, PRIVILEGES)?;
    let login = SHOP.login().into_db(DATABASE);
    let mut locker = Conn::connect(&trio.nodes[0].addr.into(), &login, LONG)?;
    locker.query("LOCK TABLES ledger WRITE")?;
    failover(&trio.sidecar, &[])?.ensure(0, "done", "")?;
    let ended = Duration::from_secs(5);
    wait::until_true("the locker to be ended", ended, || Ok(!locker.is_usable()))?;
    assert_sound(&trio.sidecar)
}

#[test]
fn what_is_not_safe_is_refused_and_changes_nothing() -> Result<()> {
    let trio = Trio::start(1, "")?;
    let target = trio.nodes[1].addr.to_string();
    let told = failover(&trio.sidecar, &[])?;
    told.ensure(3, "refused", "unable")?;
    ensure!(
        told.text("message").contains("READ_ONLY ADMIN"),
        "{:#}",
        told.account
    );
    trio.nodes[0].query(&format!(
        "GRANT {PRIVILEGES} ON *.* TO '{}'@'%'",
        PROBE.user
    ))?;
    wait_caught_up(&trio.nodes[1], &trio.nodes[0])?;
    failover(&trio.sidecar, &["--dry-run"])?.ensure(0, "planned", "")?;
    failover(&trio.sidecar, &["--old-primary-gone"])?.ensure(3, "refused", "old-primary-alive")?;
    trio.nodes[1].query("STOP SLAVE SQL_THREAD")?;
    let told = failover(&trio.sidecar, &["--to", &target])?;
    told.ensure(3, "refused", "unfit-target")?;
    trio.nodes[1].query("STOP SLAVE")?;
    trio.nodes[1].query("CHANGE MASTER TO MASTER_DELAY = 3600")?;
    trio.nodes[1].query("START SLAVE")?;
    wait::until_true("a delay to be refused", LONG, || {
        let told = failover(&trio.sidecar, &["--to", &target])?;
        Ok(told.code == Some(3) && told.text("message").contains("on purpose"))
    })?;
    ensure!(!trio.is_closed(0)? && trio.is_closed(1)?);
    ensure!(trio.sidecar.primary("shop")? == Some(trio.nodes[0].addr));
    assert_sound(&trio.sidecar)
}

#[test]
fn a_dead_primary_is_succeeded_by_who_has_everything() -> Result<()> {
    let trio = Trio::start(2, PRIVILEGES)?;
    let [one, two, three] = &trio.nodes[..] else {
        anyhow::bail!("three servers")
    };
    // The first of them has not heard of the last row.
    two.query("STOP SLAVE IO_THREAD")?;
    one.query("INSERT INTO shop.ledger (writer, seq) VALUES ('last', 1)")?;
    wait_caught_up(three, one)?;
    one.server().kill()?;
    let gone = |health: &serde_json::Value| health["services"]["shop"]["primary"].is_null();
    trio.sidecar
        .wait_health("the primary to be given up", LONG, gone)?;
    failover(&trio.sidecar, &[])?.ensure(3, "refused", "no-primary")?;
    let target = two.addr.to_string();
    let told = failover(&trio.sidecar, &["--old-primary-gone", "--to", &target])?;
    told.ensure(3, "refused", "behind")?;
    ensure!(trio.is_closed(1)? && trio.is_closed(2)?);
    let told = failover(&trio.sidecar, &["--old-primary-gone"])?;
    told.ensure(0, "done", "")?;
    ensure!(trio.sidecar.primary("shop")? == Some(three.addr));
    ensure!(!trio.is_closed(2)? && trio.is_closed(1)?);
    trio.ensure_follows(1, 2)?;
    ensure!(two.value("SELECT COUNT(*) FROM shop.ledger WHERE writer = 'last'")? == "1");
    assert_sound(&trio.sidecar)
}

/// Every step is taken but the last, for which a privilege is missing by then.
#[test]
fn what_fails_late_is_put_back_all_the_way() -> Result<()> {
    let trio = Trio::start(1, PRIVILEGES)?;
    let writers = trio.writers(0)?;
    let login = SHOP.login().into_db(DATABASE);
    let mut busy = Conn::connect(&Target::Tcp(trio.sidecar.tcp("shop")?), &login, LONG)?;
    busy.query("BEGIN")?;
    busy.query("INSERT INTO ledger (writer, seq) VALUES ('busy', 1)")?;
    let change = |what: &str| -> Result<()> {
        let mut replica = trio.nodes[1].conn()?;
        replica.query("SET SESSION sql_log_bin = 0")?;
        replica.query(&what.replace("ACCOUNT", &format!("'{}'@'%'", PROBE.user)))?;
        Ok(())
    };
    let told = break_midway(&trio.sidecar, busy, || {
        change("REVOKE READ_ONLY ADMIN ON *.* FROM ACCOUNT")
    })?;
    told.ensure(1, "failed", "step-failed")?;
    ensure!(
        told.step("open")?["outcome"] == "failed",
        "{:#}",
        told.account
    );
    for step in ["fence", "stop-replication", "open", "hold"] {
        ensure!(told.put_back(step)? == "done", "{step}: {:#}", told.account);
    }
    trio.sidecar
        .wait_primary("shop", trio.nodes[0].addr, LONG)?;
    ensure!(!trio.is_closed(0)? && trio.is_closed(1)?);
    for writer in &writers {
        writer.wait_ack_after(Instant::now(), LONG)?;
    }
    trio.ensure_nothing_lost(writers, 0)?;
    trio.ensure_follows(1, 0)?;
    change("GRANT READ_ONLY ADMIN ON *.* TO ACCOUNT")?;
    trio.wait_ready()?;
    failover(&trio.sidecar, &[])?.ensure(0, "done", "")?;
    assert_sound(&trio.sidecar)
}
