//! PostgreSQL with streaming replication.

use std::time::Instant;

use anyhow::{Result, ensure};
use pilotfish_harness::postgres::{self as pg, Mode, Pg, PgCluster, PgError, RowWriter};
use pilotfish_harness::sidecar::{Service, Sidecar};
use pilotfish_harness::wait;

use super::{GOING_ON, PATIENCE, break_midway, ensure_dry_run, failover};
use crate::postgres::{
    LONG, assert_sound, cluster, connect, row, shop, start, wait_state, writers,
};

fn read_only(cluster: &PgCluster, node: usize) -> Result<bool> {
    let value = cluster
        .node(node)
        .value("SHOW default_transaction_read_only")?;
    Ok(value == "on")
}

/// Somebody who does not know of the sidecar, on the primary.
fn direct(cluster: &PgCluster) -> Result<RowWriter> {
    let target = cluster.node(0).target();
    RowWriter::start("direct", &target, (Mode::Kept, 2), PATIENCE)
}

/// Ends the writers. Every row that anybody was told is there is on `node`.
fn ensure_nothing_lost(writers: Vec<RowWriter>, cluster: &PgCluster, node: usize) -> Result<()> {
    for writer in writers {
        let ledger = writer.stop();
        let missing = pg::missing(&ledger, cluster.node(node))?;
        println!(
            "{}: {} acknowledged, {} missing, {} errors, longest pause {:?}",
            ledger.label,
            ledger.acked().count(),
            missing.len(),
            ledger.errors().count(),
            ledger.longest_gap().map(|(_, gap)| gap),
        );
        ensure!(missing.is_empty(), "{}: {missing:?}", ledger.label);
        ensure!(
            ledger.acked().next().is_some(),
            "{:?}",
            ledger.error_counts()
        );
    }
    Ok(())
}

fn ready(cluster: &PgCluster, service: Service) -> Result<Sidecar> {
    let sidecar = start(service)?;
    wait_ready(&sidecar, cluster)?;
    Ok(sidecar)
}

/// All standbys are known as fit.
fn wait_ready(sidecar: &Sidecar, cluster: &PgCluster) -> Result<()> {
    wait::until_true("the standbys to be fit", LONG, || {
        let body = sidecar.admin("GET", "/v1/services/shop", "")?.body;
        let status: serde_json::Value = serde_json::from_str(&body)?;
        let endpoints = status["endpoints"].as_array().cloned().unwrap_or_default();
        let fit = |it: &&serde_json::Value| it["up"] == true && it["detail"].is_null();
        Ok(endpoints.iter().filter(fit).count() == cluster.addrs().len())
    })
}

#[test]
fn nothing_that_was_acknowledged_is_lost() -> Result<()> {
    let cluster = cluster(1)?;
    let sidecar = ready(&cluster, shop(&cluster.addrs())?)?;
    let mut all = writers(&sidecar)?;
    all.push(direct(&cluster)?);
    all[2].wait_ack_after(Instant::now(), LONG)?;
    ensure_dry_run(&sidecar, &["fence", "catch-up", "promote"])?;
    ensure!(!read_only(&cluster, 0)? && cluster.node(1).is_standby()?);
    let told = failover(&sidecar, &[])?;
    told.ensure(0, "done", "")?;
    told.print("postgres");
    ensure!(told.text("to") == cluster.addr(1).to_string());
    ensure!(sidecar.primary("shop")? == Some(cluster.addr(1)));
    for writer in &all[..2] {
        writer.wait_ack_after(Instant::now() + GOING_ON, LONG)?;
    }
    // The old one is closed, for whoever goes there, and is no primary any more.
    let mut old = cluster.node(0).connect()?;
    let refused = old.query(&row("stray", 1)).err();
    let refused = refused.as_ref().and_then(PgError::of);
    ensure!(
        refused.is_some_and(|e| e.sqlstate == "25006"),
        "{refused:?}"
    );
    wait_state(&sidecar, "shop", "degraded", "timeline 2 has begun")?;
    ensure_nothing_lost(all, &cluster, 1)?;
    assert_sound(&sidecar)
}

#[test]
fn the_target_is_the_operators_choice() -> Result<()> {
    let cluster = cluster(2)?;
    let sidecar = ready(&cluster, shop(&cluster.addrs())?)?;
    let addrs: Vec<String> = cluster.addrs().iter().map(ToString::to_string).collect();
    failover(&sidecar, &["--to", &addrs[0]])?.ensure(3, "refused", "already-primary")?;
    failover(&sidecar, &["--to", "127.0.0.1:1"])?.ensure(3, "refused", "unknown-target")?;
    let told = failover(&sidecar, &["--to", &addrs[2]])?;
    told.ensure(0, "done", "")?;
    ensure!(sidecar.primary("shop")? == Some(cluster.addr(2)));
    ensure!(cluster.node(1).is_standby()?);
    connect(&sidecar)?.query(&row("after", 1))?;
    assert_sound(&sidecar)
}

/// The standby freezes after the checks: it never gets to the end of the log.
#[test]
fn what_cannot_be_finished_is_put_back() -> Result<()> {
    let cluster = cluster(1)?;
    let sidecar = ready(&cluster, shop(&cluster.addrs())?)?;
    let all = writers(&sidecar)?;
    let mut busy = connect(&sidecar)?;
    busy.query("BEGIN")?;
    busy.query(&row("busy", 1))?;
    let told = break_midway(&sidecar, busy, || cluster.node(1).freeze())?;
    told.ensure(1, "failed", "timeout")?;
    ensure!(told.put_back("fence")? == "done", "{:#}", told.account);
    sidecar.wait_primary("shop", cluster.addr(0), LONG)?;
    ensure!(!read_only(&cluster, 0)?);
    for writer in &all {
        writer.wait_ack_after(Instant::now(), LONG)?;
    }
    ensure_nothing_lost(all, &cluster, 0)?;
    // And the next try is a new one.
    cluster.node(1).thaw()?;
    wait_ready(&sidecar, &cluster)?;
    failover(&sidecar, &[])?.ensure(0, "done", "")?;
    ensure!(sidecar.primary("shop")? == Some(cluster.addr(1)));
    assert_sound(&sidecar)
}

#[test]
fn what_is_not_safe_is_refused_and_changes_nothing() -> Result<()> {
    let cluster = cluster(1)?;
    let sidecar = ready(&cluster, shop(&cluster.addrs())?)?;
    cluster.node(1).query("SELECT pg_wal_replay_pause()")?;
    let target = cluster.addr(1).to_string();
    let told = failover(&sidecar, &["--to", &target])?;
    told.ensure(3, "refused", "unfit-target")?;
    cluster.node(1).query("SELECT pg_wal_replay_resume()")?;
    wait_ready(&sidecar, &cluster)?;
    // Somebody whom the fence would not stop.
    cluster.node(0).query("CREATE ROLE other LOGIN")?;
    cluster
        .node(0)
        .query("ALTER ROLE other SET default_transaction_read_only = off")?;
    let told = failover(&sidecar, &[])?;
    told.ensure(3, "refused", "unable")?;
    ensure!(
        told.text("message").contains("of its own"),
        "{:#}",
        told.account
    );
    cluster.node(0).query("ALTER ROLE other RESET ALL")?;
    // The old one is said to be gone, and is not.
    failover(&sidecar, &["--old-primary-gone"])?.ensure(3, "refused", "old-primary-alive")?;
    // An account that may not do it.
    let mut service = shop(&cluster.addrs())?;
    service.discovery.retain(|line| !line.starts_with("user"));
    let small = ready(&cluster, service.discover("user", "other"))?;
    let told = failover(&small, &["--dry-run"])?;
    told.ensure(3, "refused", "unable")?;
    ensure!(!read_only(&cluster, 0)? && cluster.node(1).is_standby()?);
    ensure!(sidecar.primary("shop")? == Some(cluster.addr(0)));
    assert_sound(&sidecar)
}

/// With what an account needs that is no superuser, as the documentation says.
#[test]
fn an_account_with_few_privileges_can_do_it() -> Result<()> {
    let cluster = cluster(1)?;
    for sql in [
        "CREATE ROLE pilotfish LOGIN",
        "GRANT pg_monitor, pg_signal_backend TO pilotfish",
        "GRANT ALTER SYSTEM ON PARAMETER default_transaction_read_only TO pilotfish",
        "GRANT EXECUTE ON FUNCTION pg_reload_conf(), pg_promote(boolean, integer) TO pilotfish",
        "CREATE ROLE app LOGIN",
        "GRANT pg_monitor TO app",
    ] {
        cluster.node(0).query(sql)?;
    }
    cluster.node(1).wait_caught_up(cluster.node(0))?;
    let mut service = shop(&cluster.addrs())?;
    service.discovery.retain(|line| !line.starts_with("user"));
    let sidecar = ready(&cluster, service.discover("user", "pilotfish"))?;
    // A superuser's session cannot be ended by it: the answer says so, and all is as it was.
    let mut superior = cluster.node(0).connect()?;
    let told = failover(&sidecar, &["--timeout", "5s"])?;
    told.ensure(1, "failed", "step-failed")?;
    ensure!(told.put_back("fence")? == "done", "{:#}", told.account);
    superior.query(&row("superior", 1))?;
    drop(superior);
    sidecar.wait_primary("shop", cluster.addr(0), LONG)?;
    wait_no_superior(&cluster)?;
    // It may not promote any more by the time that it wants to: nobody was told, so the fence is undone.
    let app = [("user", "app"), ("database", "postgres")];
    let mut busy = Pg::connect_with(&crate::postgres::target(&sidecar)?, LONG, &app)?;
    busy.query("BEGIN")?;
    let told = break_midway(&sidecar, busy, || {
        cluster
            .node(0)
            .query("REVOKE EXECUTE ON FUNCTION pg_promote(boolean, integer) FROM pilotfish")?;
        wait_no_superior(&cluster)
    })?;
    told.ensure(1, "failed", "step-failed")?;
    ensure!(
        told.step("promote")?["outcome"] == "failed",
        "{:#}",
        told.account
    );
    ensure!(told.put_back("fence")? == "done", "{:#}", told.account);
    sidecar.wait_primary("shop", cluster.addr(0), LONG)?;
    ensure!(!read_only(&cluster, 0)? && cluster.node(1).is_standby()?);
    cluster
        .node(0)
        .query("GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO pilotfish")?;
    cluster.node(1).wait_caught_up(cluster.node(0))?;
    wait_no_superior(&cluster)?;
    failover(&sidecar, &[])?.ensure(0, "done", "")?;
    ensure!(sidecar.primary("shop")? == Some(cluster.addr(1)));
    assert_sound(&sidecar)
}

/// Nobody is on the primary whom an ordinary account could not send away.
fn wait_no_superior(cluster: &PgCluster) -> Result<()> {
    wait::until_true("the superuser's sessions to end", LONG, || {
        let app = [("user", "app"), ("database", "postgres")];
        let mut pg = Pg::connect_with(&cluster.node(0).target(), LONG, &app)?;
        let count = "SELECT count(*) FROM pg_stat_activity \
            WHERE usename = 'postgres' AND backend_type = 'client backend'";
        Ok(pg.query(count)? == [["0"]])
    })
}

#[test]
fn a_dead_primary_is_succeeded_by_who_has_most() -> Result<()> {
    let cluster = cluster(2)?;
    let sidecar = ready(&cluster, shop(&cluster.addrs())?)?;
    connect(&sidecar)?.query(&row("before", 1))?;
    for node in [1, 2] {
        cluster.node(node).wait_caught_up(cluster.node(0))?;
    }
    cluster.node(0).kill()?;
    wait_state(&sidecar, "shop", "degraded", "no server says")?;
    failover(&sidecar, &[])?.ensure(3, "refused", "no-primary")?;
    let told = failover(&sidecar, &["--old-primary-gone"])?;
    told.ensure(0, "done", "")?;
    let new = sidecar.primary("shop")?;
    ensure!(new.is_some() && new != Some(cluster.addr(0)));
    ensure!(connect(&sidecar)?.query("SELECT count(*) FROM ledger")? == [["1"]]);
    assert_sound(&sidecar)
}
