//! A Galera cluster: nobody is promoted, another node comes first.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pilotfish_harness::mariadb::{DATABASE, GaleraCluster, SHOP};
use pilotfish_harness::resp::Target;
use pilotfish_harness::sidecar::{Config, Service, Sidecar, Until};
use pilotfish_harness::sql::Conn;
use pilotfish_harness::wait;
use pilotfish_harness::writer::{LEDGER_TABLE, Writer};

use super::{GOING_ON, break_midway, ensure_all_once, ensure_dry_run, failover};
use crate::kit::{LONG, binary};
use crate::support::assert_sound;

fn sidecar(cluster: &GaleraCluster) -> Result<Sidecar> {
    let service = Service::mysql("shop", "galera", &cluster.addrs())?
        // No node takes over by itself here.
        .discover("failback_after", "1h")
        .set("hold_timeout", "30s");
    let config = Config::new()?.line("workers = 1").service(service);
    Sidecar::start(binary(), config, Until::Healthy)
}

fn connect(sidecar: &Sidecar) -> Result<Conn> {
    let login = SHOP.login().into_db(DATABASE);
    Conn::connect(&Target::Tcp(sidecar.tcp("shop")?), &login, LONG)
}

/// The third on a node of its own: every node takes writes.
fn writers(sidecar: &Sidecar, cluster: &GaleraCluster) -> Result<Vec<Writer>> {
    super::writers(sidecar, cluster.node(0).addr, "")
}

fn ensure_nothing_lost(writers: Vec<Writer>, cluster: &GaleraCluster) -> Result<()> {
    for writer in writers {
        let ledger = writer.stop();
        let label = &ledger.label;
        println!(
            "{label}: {} acknowledged, {} errors, longest pause {:?}",
            ledger.acked().count(),
            ledger.errors().count(),
            ledger.longest_gap().map(|(_, gap)| gap),
        );
        for node in cluster.nodes() {
            let mut conn = node.conn()?;
            conn.query("SET SESSION wsrep_sync_wait = 1")?;
            let counted = ledger.count_in(&mut conn)?;
            ensure_all_once(&ledger, &counted, node.name())?;
        }
    }
    Ok(())
}

#[test]
fn another_node_comes_first_and_sessions_leave_at_a_boundary() -> Result<()> {
    let cluster = GaleraCluster::start(3)?;
    cluster.node(0).query(LEDGER_TABLE)?;
    let addr = |node: usize| cluster.node(node).addr;
    let (one, other) = (sidecar(&cluster)?, sidecar(&cluster)?);
    one.wait_primary("shop", addr(0), LONG)?;
    other.wait_primary("shop", addr(0), LONG)?;
    ensure_dry_run(&one, &["catch-up", "prefer"])?;

    // To the next in the order, under load.
    let all = writers(&one, &cluster)?;
    let told = failover(&one, &[])?;
    told.ensure(0, "done", "")?;
    told.print("galera");
    ensure!(one.primary("shop")? == Some(addr(1)));
    let prefer = told.step("prefer")?.to_string();
    ensure!(
        prefer.contains("every other sidecar has to be told"),
        "{prefer}"
    );
    for writer in &all {
        writer.wait_ack_after(Instant::now() + GOING_ON, LONG)?;
    }
    ensure_nothing_lost(all, &cluster)?;
    // It stays so, and is shown; the other sidecar was not told.
    ensure!(other.primary("shop")? == Some(addr(0)));
    let status = one.admin("GET", "/v1/services/shop", "")?.body;
    ensure!(status.contains("it comes first"), "{status}");
    let target = addr(1).to_string();
    failover(&other, &["--to", &target])?.ensure(0, "done", "")?;
    ensure!(other.primary("shop")? == Some(addr(1)));

    // A transaction on the former writer may end; the failover does not wait for ever for it.
    let (mut idle, mut busy) = (connect(&one)?, connect(&one)?);
    busy.query("BEGIN")?;
    busy.query("INSERT INTO ledger (writer, seq) VALUES ('boundary', 1)")?;
    let target = addr(2).to_string();
    failover(&one, &["--to", &target, "--timeout", "6s"])?.ensure(0, "done", "")?;
    ensure!(one.primary("shop")? == Some(addr(2)));
    let gone = |conn: &mut Conn| {
        let what = "a session to be closed";
        wait::until_true(what, Duration::from_secs(5), || Ok(!conn.is_usable()))
    };
    gone(&mut idle)?;
    busy.query("INSERT INTO ledger (writer, seq) VALUES ('boundary', 2)")?;
    busy.query("COMMIT").context("the end of a transaction")?;
    gone(&mut busy)?;

    what_is_not_safe_is_refused(&one, &cluster)?;
    what_cannot_be_finished_is_put_back(&one, &cluster)?;

    // And home again.
    let target = addr(0).to_string();
    failover(&one, &["--to", &target])?.ensure(0, "done", "")?;
    ensure!(one.primary("shop")? == Some(addr(0)));
    assert_sound(&one)?;
    assert_sound(&other)
}

/// A target that is not fit; a writer that is said to be gone.
fn what_is_not_safe_is_refused(one: &Sidecar, cluster: &GaleraCluster) -> Result<()> {
    let (node, writer) = (cluster.node(1), one.primary("shop")?);
    let target = node.addr.to_string();
    node.set_global("wsrep_reject_queries", "ALL")?;
    failover(one, &["--to", &target])?.ensure(3, "refused", "unfit-target")?;
    node.set_global("wsrep_reject_queries", "NONE")?;
    failover(one, &["--old-primary-gone"])?.ensure(3, "refused", "old-primary-alive")?;
    ensure!(one.primary("shop")? == writer);
    wait_fit(one, 3)
}

/// The target freezes after the checks; it is the first in the order, which is node 0.
fn what_cannot_be_finished_is_put_back(one: &Sidecar, cluster: &GaleraCluster) -> Result<()> {
    let writer = one.primary("shop")?;
    let mut busy = connect(one)?;
    busy.query("BEGIN")?;
    busy.query("INSERT INTO ledger (writer, seq) VALUES ('boundary', 3)")?;
    let server = cluster.node(0).server();
    let told = break_midway(one, busy, || server.freeze());
    server.thaw()?;
    told?.ensure(1, "failed", "timeout")?;
    ensure!(one.primary("shop")? == writer);
    cluster.wait_all_synced()?;
    wait_fit(one, 3)
}

/// All nodes are known as fit.
fn wait_fit(sidecar: &Sidecar, count: usize) -> Result<()> {
    wait::until_true("all nodes to be fit", LONG, || {
        let body = sidecar.admin("GET", "/v1/services/shop", "")?.body;
        let status: serde_json::Value = serde_json::from_str(&body)?;
        let none = status["troubles"].as_array().is_none_or(Vec::is_empty);
        let endpoints = status["endpoints"].as_array().map_or(0, Vec::len);
        Ok(none && endpoints == count)
    })
}
