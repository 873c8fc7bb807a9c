//! Sentinels that lie, say nothing, or are not there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pilotfish_harness::redis::{MASTER_NAME, Options, RedisCluster, Role};
use pilotfish_harness::resp::{Auth, Value};
use pilotfish_harness::sidecar::{Config, Service, Sidecar, Until};

use crate::support::{
    Fake, LONG, Lie, Plot, Stage, assert_sound, binary, cache, hurry, status, status_json, until,
    wait_state, wait_switch,
};

const PACE: Duration = Duration::from_millis(500);

fn start(services: impl IntoIterator<Item = Service>, until: Until) -> Result<Sidecar> {
    let mut config = Config::new()?;
    config.services.extend(services);
    Sidecar::start(binary(), config, until)
}

/// The service as `pilotfish status --json` shows it.
fn shown(sidecar: &Sidecar, service: &str) -> Result<serde_json::Value> {
    let all: serde_json::Value = serde_json::from_str(&status_json(sidecar)?)?;
    let services = all["services"].as_array().context("no services")?;
    let found = services.iter().find(|it| it["name"] == service);
    Ok(found.context("not in status")?.clone())
}

/// What a client of `service` is answered.
fn answer(sidecar: &Sidecar, service: &str) -> Result<Value> {
    sidecar.client(service, LONG)?.command(&["SET", "k", "v"])
}

fn ensure_refused(sidecar: &Sidecar, service: &str) -> Result<()> {
    let answer = answer(sidecar, service)?;
    let refused = matches!(&answer, Value::Error(text) if text.starts_with("LOADING"));
    ensure!(refused, "{service}: {answer:?}");
    Ok(())
}

fn ensure_served(sidecar: &Sidecar, service: &str) -> Result<()> {
    let answer = answer(sidecar, service)?;
    ensure!(
        answer == Value::Simple("OK".into()),
        "{service}: {answer:?}"
    );
    Ok(())
}

/// One sentinel misses a failover, and is then the only one in reach, while the old master is back and
/// says `master` too: all that a client of Sentinel would ask for.
fn missed_a_failover(
    miss: impl FnOnce(&mut RedisCluster) -> Result<()>,
    back: impl FnOnce(&mut RedisCluster) -> Result<()>,
) -> Result<Stage> {
    let mut stage = Stage::set(Plot::default())?;
    miss(&mut stage.cluster)?;
    let t0 = Instant::now();
    stage.cluster.node(0).server().freeze()?;
    let (first, new) = wait_switch(&stage, t0, 0)?;
    stage.settle(first)?;
    stage.cluster.stop_sentinel(1)?;
    stage.cluster.stop_sentinel(2)?;
    wait_state(&stage.sidecar, "cache", "degraded", "none of 3")?;
    let alone = Instant::now();
    stage.cluster.node(0).server().thaw()?;
    until("the old master to return as a master", || {
        Ok(stage.cluster.node(0).role()? == Role::Master)
    })?;
    back(&mut stage.cluster)?;
    wait_state(&stage.sidecar, "cache", "degraded", "1 of 3")?;
    stage.settle(Instant::now() + Duration::from_secs(2))?;
    let changes = stage.health.changes().into_iter();
    let strayed = changes
        .filter(|change| change.at > alone)
        .find(|change| change.primary != Some(stage.addr(new).to_string()));
    ensure!(strayed.is_none(), "{strayed:?}");
    let (stage, outcome) = stage.close(new, first)?;
    outcome.assert_followed()?;
    outcome.assert_none_refused()?;
    assert_sound(&stage.sidecar)?;
    Ok(stage)
}

#[test]
fn a_sentinel_that_was_away_during_the_failover_is_not_believed() -> Result<()> {
    let back = |cluster: &mut RedisCluster| {
        cluster.start_sentinel(0)?;
        // It takes the new master for a stray replica, and would demote it after four of these.
        until("the liar to answer", || {
            let quiet = ["SENTINEL", "DEBUG", "PUBLISH-PERIOD", "60000"];
            Ok(cluster.sentinel(0).command(&quiet).is_ok())
        })
    };
    let stage = missed_a_failover(|cluster| cluster.stop_sentinel(0), back)?;
    let (liar, old) = (stage.cluster.sentinel(0), stage.addr(0));
    ensure!(liar.master_addr()? == old, "it did not lie");
    ensure!(stage.cluster.node(0).role()? == Role::Master);
    let page = status(&stage.sidecar)?;
    ensure!(page.contains(&format!("{old} at epoch 0")), "{page}");
    Ok(())
}

#[test]
fn a_sentinel_that_slept_through_the_failover_is_not_believed() -> Result<()> {
    let miss = |cluster: &mut RedisCluster| {
        let liar = cluster.sentinel(0);
        // Else it notices that it slept, and calls its own word doubtful (TILT) for half a minute.
        liar.command(&["SENTINEL", "DEBUG", "TILT-TRIGGER", "600000"])?;
        liar.server().freeze()
    };
    // What the others told it meanwhile lies in its sockets, so it does not lie for long.
    let back = |cluster: &mut RedisCluster| cluster.sentinel(0).server().thaw();
    missed_a_failover(miss, back).map(|_| ())
}

#[test]
fn without_any_sentinel_the_primary_stays() -> Result<()> {
    let mut stage = Stage::set(Plot::default())?;
    let t0 = Instant::now();
    for index in 0..3 {
        stage.cluster.stop_sentinel(index)?;
    }
    wait_state(&stage.sidecar, "cache", "degraded", "none of 3 sentinels")?;
    let page = status(&stage.sidecar)?;
    ensure!(page.contains("none of 3 sentinels in reach"), "{page}");
    stage.settle(Instant::now() + Duration::from_secs(2))?;
    stage.sidecar.wait_status("/healthz", 200, LONG)?;
    for index in 0..3 {
        stage.cluster.start_sentinel(index)?;
    }
    wait_state(&stage.sidecar, "cache", "ok", "")?;
    stage.settle(Instant::now())?;
    let primary = stage.addr(0).to_string();
    for change in stage.health.changes() {
        ensure!(change.primary.as_ref() == Some(&primary), "{change:?}");
    }
    let (stage, outcome) = stage.close(0, t0)?;
    for lane in &outcome.ours {
        let (label, errors) = (&lane.ledger.label, lane.ledger.error_counts());
        ensure!(errors.is_empty(), "{label}: {errors:?}");
        ensure!(lane.missing.is_empty(), "{label} lost writes");
    }
    assert_sound(&stage.sidecar)
}

#[test]
fn one_of_three_at_the_start_is_a_matter_of_taste() -> Result<()> {
    let cluster = RedisCluster::start(Options::default())?;
    cluster.stop_sentinel(1)?;
    cluster.stop_sentinel(2)?;
    let began = Instant::now();
    let service = |hold: &str, minority: &str| {
        Ok::<_, anyhow::Error>(cache(&cluster, hold)?.discover("minority", minority))
    };
    let bold = start([service("20s", "serve")?], Until::Live)?;
    let shy = start([service("1s", "hold")?], Until::Live)?;
    // Held until the minority is believed.
    ensure_served(&bold, "cache")?;
    let waited = began.elapsed();
    println!("a minority is served after {waited:?}");
    ensure!(waited >= Duration::from_secs(3), "{waited:?}");
    let health = wait_state(&bold, "cache", "degraded", "1 of 3 sentinels")?;
    ensure!(health["services"]["cache"]["primary"] == cluster.node(0).addr.to_string());
    bold.wait_status("/healthz", 200, LONG)?;

    wait_state(&shy, "cache", "failing", "1 of 3 sentinels")?;
    ensure_refused(&shy, "cache")?;
    ensure!(shy.http_get("/healthz")?.status == 503);
    ensure!(shy.primary("cache")?.is_none());
    ensure!(shown(&shy, "cache")?["primary"].is_null());
    assert_sound(&bold)?;
    assert_sound(&shy)
}

#[test]
fn a_name_nobody_knows_is_said() -> Result<()> {
    let cluster = RedisCluster::start(Options::default())?;
    let service = Service::new("cache", "redis")?
        .set("hold_timeout", "1s")
        .discover("kind", "sentinel")
        .discover("master", "theirmaster")
        .discover_all("sentinels", &cluster.sentinel_addrs());
    let sidecar = start([service], Until::Live)?;
    let said = "no sentinel knows a master named 'theirmaster'";
    wait_state(&sidecar, "cache", "failing", said)?;
    ensure!(sidecar.http_get("/healthz")?.status == 503);
    let page = status(&sidecar)?;
    ensure!(page.contains(said), "{page}");
    ensure!(page.contains("does not know the master's name"), "{page}");
    sidecar.wait_log(said, LONG)?;
    ensure_refused(&sidecar, "cache")?;
    assert_sound(&sidecar)
}

#[test]
fn wrong_passwords_are_said_and_never_shown() -> Result<()> {
    let auth = |password: &str| Auth {
        user: None,
        password: password.into(),
    };
    let (right, wrong) = ("open-sesame-redis", "open-barley-redis");
    let (right_s, wrong_s) = ("open-sesame-sentinel", "open-barley-sentinel");
    let cluster = RedisCluster::start(Options {
        auth: Some(auth(right)),
        sentinel_auth: Some(auth(right_s)),
        ..Options::default()
    })?;
    let service = |name: &str, redis: &str, sentinel: &str| -> Result<Service> {
        Ok(Service::new(name, "redis")?
            .set("hold_timeout", "1s")
            .discover("kind", "sentinel")
            .discover("master", MASTER_NAME)
            .discover_all("sentinels", &cluster.sentinel_addrs())
            .login("", Some(&auth(redis)))
            .login("sentinel_", Some(&auth(sentinel))))
    };
    let services = [
        service("good", right, right_s)?,
        service("redis", wrong, right_s)?,
        service("sentinel", right, wrong_s)?,
    ];
    let sidecar = start(services, Until::Live)?;
    wait_state(&sidecar, "good", "ok", "")?;
    wait_state(&sidecar, "redis", "failing", "WRONGPASS")?;
    wait_state(&sidecar, "sentinel", "failing", "WRONGPASS")?;
    ensure!(sidecar.http_get("/healthz")?.status == 503);
    // The application logs in itself; ours are for the monitor.
    ensure_refused(&sidecar, "redis")?;
    ensure_refused(&sidecar, "sentinel")?;
    let mut client = sidecar.client("good", LONG)?;
    client.command(&["AUTH", right])?.ok()?;
    client.command(&["SET", "k", "v"])?.ok()?;

    let (page, json) = (status(&sidecar)?, status_json(&sidecar)?);
    ensure!(page.contains("WRONGPASS"), "{page}");
    sidecar.wait_log("WRONGPASS", LONG)?;
    let (health, metrics) = (
        sidecar.http_get("/healthz")?.body,
        sidecar.http_get("/metrics")?.body,
    );
    let log = sidecar.server().log()?;
    for (place, text) in [
        ("status", &page),
        ("status --json", &json),
        ("/healthz", &health),
        ("/metrics", &metrics),
        ("the log", &log),
    ] {
        for secret in [right, wrong, right_s, wrong_s] {
            ensure!(!text.contains(secret), "{secret} in {place}");
        }
    }
    assert_sound(&sidecar)
}

/// One service for each lie, told by `fakes` beside so many true sentinels.
fn lied_to(cluster: &RedisCluster, fakes: &[(Lie, Fake)], truths: usize) -> Result<Vec<Service>> {
    let service = |(lie, fake): &(Lie, Fake)| -> Result<Service> {
        let mut sentinels: Vec<SocketAddr> = cluster.sentinel_addrs();
        sentinels.truncate(truths);
        // The same liar under three names, where it is alone: 127.0.0.2 is loopback too.
        let names = [[127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 3]];
        let missing = names.iter().take(3 - truths);
        sentinels.extend(missing.map(|ip| SocketAddr::from((*ip, fake.addr.port()))));
        let name = format!("{}-{}", lie.name(), 3 - truths);
        Ok(Service::new(&name, "redis")?
            .set("hold_timeout", if truths > 0 { "20s" } else { "1s" })
            .line("required = false")
            .discover("kind", "sentinel")
            .discover("master", MASTER_NAME)
            .discover_all("sentinels", &sentinels))
    };
    fakes.iter().map(service).collect()
}

#[test]
fn servers_that_are_no_sentinels_do_no_harm() -> Result<()> {
    let cluster = RedisCluster::start(Options::default())?;
    let fakes: Vec<(Lie, Fake)> = Lie::ALL
        .into_iter()
        .map(|lie| Ok((lie, Fake::start(lie)?)))
        .collect::<Result<_>>()?;
    let mut services = lied_to(&cluster, &fakes, 2)?;
    services.extend(lied_to(&cluster, &fakes, 0)?);
    let sidecar = start(services, Until::Live)?;
    let before = sidecar.server().rss()?;
    let each = |suffix: usize| Lie::ALL.map(|lie| format!("{}-{suffix}", lie.name()));

    // Two true ones are a majority: all is well, and status says what is the matter with the third.
    for name in each(1) {
        wait_state(&sidecar, &name, "ok", "")?;
        ensure_served(&sidecar, &name)?;
    }
    // Three liars prove nothing.
    for name in each(3) {
        wait_state(&sidecar, &name, "failing", "no primary was proven yet")?;
    }
    ensure_refused(&sidecar, "garbage-3")?;

    // Long enough for every liar to have been met several times, or to go on without an end.
    let mut most = before;
    until("the liars to have told a lot", || {
        most = most.max(sidecar.server().rss()?);
        let busy = fakes.iter().all(|(lie, fake)| match lie {
            Lie::Silent | Lie::Slow => fake.connections() >= 12,
            _ => fake.connections() >= 40,
        });
        Ok(busy)
    })?;
    let told: u64 = fakes.iter().map(|(_, fake)| fake.bytes()).sum();
    println!("resident {before} bytes before, {most} at most, {told} bytes of lies");
    ensure!(told > 50_000_000, "only {told} bytes of lies");
    // 54 connections to liars at a time, 1 MB each at most, and the allocator's share.
    ensure!(most < before + 100_000_000, "{before} bytes, then {most}");
    let began = Instant::now();
    sidecar.http_get("/healthz")?;
    println!("/healthz took {:?}", began.elapsed());

    cluster.failover(0)?;
    let new = cluster.wait_new_master(0, LONG)?;
    for name in each(1) {
        sidecar.wait_primary(&name, cluster.node(new).addr, LONG)?;
        ensure_served(&sidecar, &name)?;
    }
    for name in each(3) {
        ensure!(sidecar.primary(&name)?.is_none(), "{name}");
    }
    let page = status(&sidecar)?;
    for said in [
        "not a RESP reply",
        "nested deeper",
        "more than 1048576 bytes",
        "no answer within",
    ] {
        ensure!(page.contains(said), "no {said:?} in {page}");
    }
    assert_sound(&sidecar)
}

#[test]
fn sentinels_made_anew_are_followed_from_epoch_zero() -> Result<()> {
    let mut stage = Stage::set(Plot::default())?;
    let t0 = Instant::now();
    stage.cluster.failover(0)?;
    let (_, second) = wait_switch(&stage, t0, 0)?;
    hurry(&stage.cluster, PACE)?;
    stage.cluster.wait_healed(LONG)?;
    let term = stage.sidecar.service_health("cache")?["term"].clone();
    ensure!(term.as_u64() > Some(0), "{term}");

    let anew = Instant::now();
    stage.cluster.recreate_sentinels(stage.addr(second))?;
    wait_state(
        &stage.sidecar,
        "cache",
        "degraded",
        "config-epoch went back",
    )?;
    let page = status(&stage.sidecar)?;
    ensure!(page.contains("config-epoch went back"), "{page}");
    stage
        .sidecar
        .wait_health("the epoch reset", LONG, |health| {
            health["services"]["cache"]["term"] == 0
        })?;
    let adopted = anew.elapsed();
    println!("the low epoch was adopted after {adopted:?}");
    ensure!(adopted >= Duration::from_secs(10), "{adopted:?}");
    stage.sidecar.wait_log("epoch-reset", LONG)?;
    wait_state(&stage.sidecar, "cache", "ok", "")?;
    let here = stage.addr(second).to_string();
    let changes = stage.health.changes().into_iter();
    let strayed = changes
        .filter(|change| change.at > anew)
        .find(|change| change.primary.as_ref() != Some(&here));
    ensure!(strayed.is_none(), "{strayed:?}");

    // Subscribed to the new ones by now; epoch 1 again.
    let t1 = Instant::now();
    stage.cluster.failover(0)?;
    let (first, third) = wait_switch(&stage, t1, second)?;
    stage.settle(first)?;
    let term = &stage.sidecar.service_health("cache")?["term"];
    ensure!(*term == 1, "{term}");
    let (stage, outcome) = stage.close(third, first)?;
    outcome.assert_followed()?;
    for lane in &outcome.ours {
        let (label, missing) = (&lane.ledger.label, lane.missing.len());
        ensure!(missing == 0, "{label} lost {missing}");
    }
    assert_sound(&stage.sidecar)
}
