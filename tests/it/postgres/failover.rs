//! Who is primary, and what becomes of sessions when that changes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pilotfish_harness::postgres::{self, Pg, PgCluster, PgConf, PgError, PgServer};
use pilotfish_harness::sidecar::Sidecar;
use pilotfish_harness::wait;
use pilotfish_harness::writer::Ledger;

use super::{
    INTERVAL, LONG, assert_sound, cluster, connect, row, settle_accounts, shop, start, target,
    wait_state, writers,
};
use crate::support::GRACE;

/// Promotes a standby. Returns when it said itself that it is primary, which is sooner than whoever asked
/// for it is told.
fn promote(node: &PgServer) -> Result<Instant> {
    let mut witness = node.connect()?;
    std::thread::scope(|scope| {
        let watching = scope.spawn(move || -> Result<Instant> {
            while witness.query("SELECT pg_is_in_recovery()")? == [["t"]] {}
            Ok(Instant::now())
        });
        node.promote()?;
        watching.join().ok().context("a panic")?
    })
}

/// From the promotion to the first acknowledged row that is on the new primary, over all writers.
fn print_first_row(ledgers: &[Ledger], promoted: Instant, new: &PgServer) -> Result<()> {
    let mut best = None;
    for ledger in ledgers {
        let missing = postgres::missing(ledger, new)?;
        let first = ledger.first_lasting_ack_after(promoted, &missing);
        let took = first.map(|write| write.ended.duration_since(promoted));
        best = best.min(took).or(best).or(took);
    }
    println!(
        "first row {:?} after the promotion; the contract says {:?}",
        best.context("no row")?,
        INTERVAL + GRACE
    );
    Ok(())
}

/// How often each server was asked so far.
fn probes(sidecar: &Sidecar) -> Result<f64> {
    sidecar.metric("probe_seconds_count", &[("service", "shop")])
}

#[test]
fn a_standby_is_promoted_after_the_primary_was_killed() -> Result<()> {
    let cluster = cluster(1)?;
    let sidecar = start(shop(&cluster.addrs())?)?;
    let writers = writers(&sidecar)?;
    cluster.node(0).kill()?;
    let promoted = promote(cluster.node(1))?;
    sidecar.wait_primary("shop", cluster.addr(1), LONG)?;
    for writer in &writers {
        writer.wait_ack_after(promoted, LONG)?;
    }
    let ledgers = settle_accounts(writers, promoted, cluster.node(1), None)?;
    print_first_row(&ledgers, promoted, cluster.node(1))?;
    connect(&sidecar)?.query(&row("last", 1))?;
    assert_sound(&sidecar)
}

/// The old primary is alive, writable, and has no idea.
#[test]
fn of_two_primaries_the_one_on_the_newer_timeline_gets_everything_at_once() -> Result<()> {
    let cluster = cluster(1)?;
    let sidecar = start(shop(&cluster.addrs())?)?;
    let log = sidecar.follow_log()?;
    let writers = writers(&sidecar)?;
    let promoted = promote(cluster.node(1))?;
    let before = probes(&sidecar)?;
    sidecar.wait_primary("shop", cluster.addr(1), LONG)?;
    let asked = probes(&sidecar)? - before;
    // The first question after the promotion tells it; each of the two may have been asked once more
    // until we saw that.
    ensure!(asked <= 4.0, "{asked} questions until the switch");
    let new = cluster.addr(1).to_string();
    let published = wait::until("the switch in the log", LONG, || {
        let lines = log.lines().into_iter();
        let mut found = lines.filter(|(_, l)| l.contains("new primary") && l.contains(&new));
        Ok(found.next().map(|(at, _)| at))
    })?;
    println!("published {:?} after the promotion", published - promoted);
    wait_state(&sidecar, "shop", "degraded", "timeline 2 has begun")?;
    let later = Instant::now();
    for writer in &writers {
        writer.wait_ack_after(later, LONG)?;
    }
    // From the switch on everything goes to the new one, and nothing to the old one.
    let old = Some(cluster.node(0));
    let ledgers = settle_accounts(writers, published, cluster.node(1), old)?;
    print_first_row(&ledgers, promoted, cluster.node(1))?;
    ensure!(
        cluster.node(0).query(&row("direct", 1)).is_ok(),
        "it is writable"
    );
    assert_sound(&sidecar)
}

#[test]
fn an_old_primary_that_returns_as_it_was_gets_nothing() -> Result<()> {
    let mut cluster = cluster(1)?;
    let sidecar = start(shop(&cluster.addrs())?)?;
    let writers = writers(&sidecar)?;
    cluster.node(0).kill()?;
    cluster.node(1).promote()?;
    sidecar.wait_primary("shop", cluster.addr(1), LONG)?;
    let switched = Instant::now();
    cluster.node_mut(0).restart()?;
    ensure!(!cluster.node(0).is_standby()?, "it returns as a primary");
    ensure!(cluster.node(0).timeline()? < cluster.node(1).timeline()?);
    let refused = format!(
        "{} is refused: it says primary on timeline 1",
        cluster.addr(0)
    );
    wait_state(&sidecar, "shop", "degraded", &refused)?;
    // Even when there is nobody else.
    let back = Instant::now();
    for writer in &writers {
        writer.wait_ack_after(back, LONG)?;
    }
    settle_accounts(writers, switched, cluster.node(1), Some(cluster.node(0)))?;
    cluster.node(1).kill()?;
    wait_state(&sidecar, "shop", "degraded", "no server says")?;
    let waiting = probes(&sidecar)?;
    wait::until_true("more questions", LONG, || {
        Ok(probes(&sidecar)? > waiting + 6.0)
    })?;
    ensure!(sidecar.primary("shop")?.is_none(), "the old one was taken");
    assert_sound(&sidecar)
}

/// One session in a transaction, one in the middle of a query, one idle: all hear the same, and then the
/// end.
#[test]
fn sessions_hear_why_they_end_at_a_switch() -> Result<()> {
    let cluster = cluster(1)?;
    let sidecar = start(shop(&cluster.addrs())?)?;
    let mut open = connect(&sidecar)?;
    open.query("BEGIN")?;
    open.query(&row("open", 1))?;
    ensure!(open.status == b'T');
    let mut asking = connect(&sidecar)?;
    asking.ask("SELECT pg_sleep(60)")?;
    let idle = connect(&sidecar)?;
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
    wait::until_true("the query to run", LONG, || {
        Ok(cluster.node(0).value(sleeping)? == "1")
    })?;
    cluster.node(1).promote()?;
    for mut session in [open, asking, idle] {
        let said = session.rest()?;
        let error = PgError::read(&said[5..]);
        ensure!(said[0] == b'E' && error.sqlstate == "57P01", "{error}");
        ensure!(error.severity == "FATAL");
        let length = u32::from_be_bytes(said[1..5].try_into()?) as usize;
        ensure!(said.len() == length + 1, "and nothing else: {said:?}");
    }
    // What was not committed is nowhere.
    for node in [0, 1] {
        let rows = postgres::rows_of(cluster.node(node), "open")?;
        ensure!(rows.is_empty(), "{rows:?}");
    }
    assert_sound(&sidecar)
}

/// A large answer is on its way, and its client does not read: the end comes in the middle of a message,
/// where no word could be told from data.
#[test]
fn in_the_middle_of_a_message_there_is_only_the_end() -> Result<()> {
    let cluster = cluster(1)?;
    let sidecar = start(shop(&cluster.addrs())?)?;
    let mut session = connect(&sidecar)?;
    session.ask("SELECT repeat('x', 200000000)")?;
    let relayed = || sidecar.metric("bytes_total", &[("direction", "down")]);
    wait::until_true("the answer to begin", LONG, || Ok(relayed()? > 10_000.0))?;
    cluster.node(1).promote()?;
    sidecar.wait_primary("shop", cluster.addr(1), LONG)?;
    let said = session.rest()?;
    ensure!(said.len() < 200_000_000, "it was cut off");
    let tail = &said[said.len().saturating_sub(200)..];
    ensure!(
        tail.iter().all(|&b| b == b'x'),
        "{:?}",
        String::from_utf8_lossy(tail)
    );
    assert_sound(&sidecar)
}

#[test]
fn waiting_clients_are_refused_only_when_their_time_is_up() -> Result<()> {
    let cluster = cluster(1)?;
    let hold = Duration::from_millis(1500);
    let mut service = shop(&cluster.addrs())?;
    service.lines.clear();
    let service = service.set("hold_timeout", "1500ms");
    let sidecar = start(service)?;
    cluster.node(0).kill()?;
    wait_state(&sidecar, "shop", "degraded", "no server says")?;
    let began = Instant::now();
    let refused = Pg::connect(&target(&sidecar)?, LONG)
        .err()
        .context("refused")?;
    let waited = began.elapsed();
    let error = PgError::of(&refused).context("a server's word")?;
    ensure!(
        error.sqlstate == "57P03" && error.severity == "FATAL",
        "{error}"
    );
    ensure!(error.message.contains("no primary for 'shop'"), "{error}");
    ensure!(waited >= hold, "{waited:?}");
    // As libpq begins: it asks for TLS first.
    let mut stream = pilotfish_harness::resp::Stream::connect(&target(&sidecar)?, LONG)?;
    std::io::Write::write_all(&mut stream, &[0, 0, 0, 8, 4, 210, 22, 47])?;
    std::io::Write::write_all(&mut stream, &postgres::startup(&[("user", "postgres")]))?;
    let mut said = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut said)?;
    ensure!(said[..2] == *b"NE" && PgError::read(&said[6..]).sqlstate == "57P03");
    // Who waits when the standby is promoted is served.
    std::thread::scope(|scope| -> Result<()> {
        let waiting = scope.spawn(|| connect(&sidecar)?.query("SELECT pg_is_in_recovery()"));
        let held = || sidecar.metric("held_clients", &[("service", "shop")]);
        wait::until_true("a client to wait", LONG, || Ok(held()? == 1.0))?;
        cluster.node(1).promote()?;
        let answer = waiting.join().ok().context("a panic")??;
        ensure!(answer == [["f"]], "{answer:?}");
        Ok(())
    })?;
    assert_sound(&sidecar)
}

/// The server takes connections and says nothing: who came before that was noticed waits no longer than
/// the others.
#[test]
fn a_login_on_a_frozen_server_is_held_like_any_other() -> Result<()> {
    let cluster = cluster(1)?;
    let mut service = shop(&cluster.addrs())?;
    service.lines.clear();
    let sidecar = start(service.set("hold_timeout", "3s"))?;
    cluster.node(0).freeze()?;
    let refused = connect(&sidecar).err().context("refused")?;
    let error = PgError::of(&refused).with_context(|| format!("{refused:#}"))?;
    ensure!(error.sqlstate == "57P03", "{error}");
    // And is served where there is somebody.
    std::thread::scope(|scope| -> Result<()> {
        let waiting = scope.spawn(|| connect(&sidecar)?.query("SELECT 1"));
        cluster.node(1).promote()?;
        let answer = waiting.join().ok().context("a panic")??;
        ensure!(answer == [["1"]], "{answer:?}");
        Ok(())
    })?;
    assert_sound(&sidecar)
}

/// A server of another cluster under one of the addresses: writable, and none of ours.
#[test]
fn a_foreign_cluster_is_refused_and_named() -> Result<()> {
    let cluster = cluster(1)?;
    let foreign = PgServer::start(&PgConf::default())?;
    let nodes = [cluster.addr(0), cluster.addr(1), foreign.addr];
    let sidecar = start(shop(&nodes)?)?;
    ensure!(sidecar.primary("shop")? == Some(cluster.addr(0)));
    let named = format!(
        "{} is refused: it belongs to another cluster: its system identifier is {}, not {}",
        foreign.addr,
        foreign.system_identifier()?,
        cluster.node(0).system_identifier()?
    );
    wait_state(&sidecar, "shop", "degraded", &named)?;
    cluster.node(0).kill()?;
    wait_state(&sidecar, "shop", "degraded", "no server says")?;
    cluster.node(1).promote()?;
    sidecar.wait_primary("shop", cluster.addr(1), LONG)?;
    assert_sound(&sidecar)
}

/// Two that are primary on the same timeline: nobody can tell, so nobody gets anything.
#[test]
fn two_primaries_on_one_timeline_hold() -> Result<()> {
    let cluster = cluster(2)?;
    let sidecar = start(shop(&cluster.addrs())?)?;
    cluster.node(0).freeze()?;
    wait_state(&sidecar, "shop", "degraded", "no answer")?;
    cluster.node(1).promote()?;
    cluster.node(2).promote()?;
    ensure!(cluster.node(1).timeline()? == cluster.node(2).timeline()?);
    wait_state(&sidecar, "shop", "degraded", "several masters")?;
    let none = |health: &serde_json::Value| health["services"]["shop"]["primary"].is_null();
    sidecar.wait_health("nobody to be primary", LONG, none)?;
    cluster.node(2).stop()?;
    sidecar.wait_primary("shop", cluster.addr(1), LONG)?;
    cluster.node(0).thaw()?;
    wait_state(&sidecar, "shop", "degraded", "timeline 2 has begun")?;
    ensure!(sidecar.primary("shop")? == Some(cluster.addr(1)));
    assert_sound(&sidecar)
}

/// It has no connection to spare for a new client, and is as good a primary as before.
#[test]
fn a_full_server_is_still_the_primary() -> Result<()> {
    let conf = PgConf {
        lines: vec!["max_connections = 12".into()],
        ..PgConf::default()
    };
    let setup = vec![postgres::TABLE.to_owned()];
    let cluster = PgCluster::start(&postgres::Options {
        standbys: 0,
        conf,
        setup,
    })?;
    let sidecar = start(shop(&[cluster.addr(0)])?)?;
    let mut all = Vec::new();
    let full = loop {
        match connect(&sidecar) {
            Ok(session) => all.push(session),
            Err(error) => break error,
        }
    };
    let error = PgError::of(&full).context("a server's word")?;
    ensure!(error.sqlstate == "53300", "the server's own word: {error}");
    let asked = probes(&sidecar)?;
    wait::until_true("more questions", LONG, || {
        Ok(probes(&sidecar)? > asked + 4.0)
    })?;
    ensure!(sidecar.primary("shop")? == Some(cluster.addr(0)));
    ensure!(all.len() > 5 && all[0].query("SELECT 1").is_ok());
    assert_sound(&sidecar)
}

#[test]
fn reads_go_to_standbys_that_keep_up() -> Result<()> {
    let cluster = cluster(2)?;
    let replica = pilotfish_harness::ports::free()?;
    let service = shop(&cluster.addrs())?
        .line(&format!("replica_listen = [\"{replica}\"]"))
        .discover("max_lag", "64kB");
    let sidecar = start(service)?;
    let served = || -> Result<String> {
        let mut pg = Pg::connect(&replica.into(), LONG)?;
        let rows = pg.query("SELECT pg_is_in_recovery(), inet_server_port()")?;
        Ok(rows[0].join(" "))
    };
    let port = |node: usize| format!("t {}", cluster.addr(node).port());
    wait::until_true("both standbys to be asked", LONG, || {
        let kept = Pg::connect(&replica.into(), LONG)?;
        let (first, second) = (served()?, served()?);
        drop(kept);
        Ok(first == port(2) || second == port(2))
    })?;
    // One is told to wait with what it receives.
    cluster.node(2).query("SELECT pg_wal_replay_pause()")?;
    sidecar.wait_log("replay is paused", LONG)?;
    cluster
        .node(0)
        .query("CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)")?;
    cluster.node(1).wait_caught_up(cluster.node(0))?;
    let lag = || {
        let endpoint = cluster.addr(2).to_string();
        sidecar.metric("endpoint_lag_bytes", &[("endpoint", &endpoint)])
    };
    wait::until_true("its lag to be seen", LONG, || Ok(lag()? > 64.0 * 1024.0))?;
    let kept = Pg::connect(&replica.into(), LONG)?;
    ensure!(served()? == port(1), "the other one, however busy");
    drop(kept);
    cluster.node(2).query("SELECT pg_wal_replay_resume()")?;
    wait::until_true("it to catch up", LONG, || Ok(lag()? < 64.0 * 1024.0))?;
    // A write has no business there, and the server says so.
    let mut pg = Pg::connect(&replica.into(), LONG)?;
    let error = pg.query(&row("reads", 1)).err().context("read-only")?;
    ensure!(PgError::of(&error).is_some_and(|e| e.sqlstate == "25006"));
    assert_sound(&sidecar)
}

/// Servers are asked once a minute here: it is a session on the standby that hears of its promotion.
#[test]
fn a_session_on_the_standby_tells_of_its_promotion() -> Result<()> {
    let cluster = cluster(1)?;
    let replica = pilotfish_harness::ports::free()?;
    let mut service = shop(&cluster.addrs())?.line(&format!("replica_listen = [\"{replica}\"]"));
    service
        .discovery
        .retain(|line| !line.starts_with("interval"));
    let sidecar = start(service.discover("interval", "60s"))?;
    let mut reads = Pg::connect(&replica.into(), LONG)?;
    ensure!(reads.query("SELECT pg_is_in_recovery()")? == [["t"]]);
    cluster.node(1).promote()?;
    ensure!(reads.query("SELECT pg_is_in_recovery()")? == [["f"]]);
    sidecar.wait_primary("shop", cluster.addr(1), LONG)?;
    assert_sound(&sidecar)
}

/// SIGTERM: who is still there when the time is up hears it in its own words.
#[test]
fn sessions_hear_why_they_end_at_a_shutdown() -> Result<()> {
    let cluster = cluster(0)?;
    let config = super::config(shop(&cluster.addrs())?)?.line("drain_timeout = \"100ms\"");
    let until = pilotfish_harness::sidecar::Until::Healthy;
    let sidecar = Sidecar::start(crate::kit::binary(), config, until)?;
    let mut session = connect(&sidecar)?;
    session.query("BEGIN")?;
    let status = sidecar.server().terminate(LONG)?;
    ensure!(status.success(), "{status}");
    let said = session.rest()?;
    let error = PgError::read(said.get(5..).context("a word")?);
    ensure!(
        error.sqlstate == "57P01" && error.message.contains("shuts down"),
        "{error}"
    );
    Ok(())
}

/// An operator closes the primary, and opens it again.
#[test]
fn a_primary_that_was_made_read_only_is_none() -> Result<()> {
    let cluster = cluster(0)?;
    let sidecar = start(shop(&cluster.addrs())?)?;
    let set = |value: &str| -> Result<()> {
        let sql = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
        let mut pg = cluster.node(0).connect()?;
        pg.query("SET default_transaction_read_only = off")?;
        pg.query(&sql)?;
        pg.query("SELECT pg_reload_conf()")?;
        Ok(())
    };
    set("on")?;
    wait_state(
        &sidecar,
        "shop",
        "degraded",
        "default_transaction_read_only",
    )?;
    set("off")?;
    sidecar.wait_primary("shop", cluster.addr(0), LONG)?;
    assert_sound(&sidecar)
}
