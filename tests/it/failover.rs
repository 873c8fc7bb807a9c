//! The master goes, in every way there is, while clients write 200 times a second.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pilotfish_harness::redis::{Announcement, Options, Role};
use pilotfish_harness::wait;
use pilotfish_harness::writer::Write;

use crate::support::{
    HOLD, LONG, PhpOver, Plot, Stage, assert_sound, hurry, keys_of, sets, until, wait_switch,
};

/// A returned master says `master` for four of these.
const PACE: Duration = Duration::from_millis(1000);

/// Waits until the sentinels have demoted the returned old master, and everybody writes.
fn wait_demoted(stage: &Stage, t: Instant) -> Result<()> {
    let demoted = |event: &Announcement| event.at > t && event.channel == "+convert-to-slave";
    let event = stage
        .announcements
        .wait_event("the demotion", LONG, demoted)?;
    stage.settle(event.at)
}

/// Primaries that health showed after `t`.
fn primaries_after(stage: &Stage, t: Instant) -> Vec<Option<String>> {
    let changes = stage.health.changes().into_iter();
    let later = changes.filter(|change| change.at > t);
    later.map(|change| change.primary).collect()
}

#[test]
fn a_killed_master_is_replaced_and_gets_nothing_when_it_returns() -> Result<()> {
    let mut stage = Stage::set(Plot {
        haproxy: true,
        ..Plot::default()
    })?;
    let t0 = Instant::now();
    stage.cluster.node(0).server().kill()?;
    let killed = Instant::now();
    let (first, new) = wait_switch(&stage, t0, 0)?;
    stage.settle(first)?;

    hurry(&stage.cluster, PACE)?;
    let back = Instant::now();
    stage.cluster.restart_node(0)?;
    let mut seen = 0;
    until("the old master to be demoted", || {
        let old = stage.cluster.node(0);
        let ours = keys_of(old, "pilotfish")?;
        if old.role()? != Role::Master {
            return Ok(true);
        }
        ensure!(ours == 0, "{ours} writes went to the returned master");
        seen = seen.max(keys_of(old, "haproxy")?);
        Ok(false)
    })?;
    // The recipe did send it writes meanwhile: so there was time to be wrong.
    ensure!(seen > 0, "nobody wrote to the returned master");
    ensure!(sets(stage.cluster.node(0))? > 0);
    stage.settle(Instant::now())?;
    let named = stage.addr(new).to_string();
    let primaries = primaries_after(&stage, back);
    let stayed = primaries.iter().all(|it| it.as_deref() == Some(&*named));
    ensure!(stayed, "{named}, then {primaries:?}");

    let (stage, outcome) = stage.close(new, first)?;
    outcome.assert_followed()?;
    outcome.assert_none_refused()?;
    outcome.assert_rivals_lost()?;
    // What was on its way when the master died may fail; whoever came later was held and served.
    let refused = outcome.ours[0].errors_after(killed);
    ensure!(refused.is_empty(), "{refused:?}");
    assert_sound(&stage.sidecar)
}

#[test]
fn a_frozen_master_is_replaced_and_gets_nothing_when_it_thaws() -> Result<()> {
    let stage = Stage::set(Plot {
        php: PhpOver::Tcp,
        haproxy: true,
        ..Plot::default()
    })?;
    let t0 = Instant::now();
    let old = stage.cluster.node(0);
    old.server().freeze()?;
    let (first, new) = wait_switch(&stage, t0, 0)?;
    stage.settle(first)?;
    hurry(&stage.cluster, PACE)?;
    old.server().thaw()?;
    let thawed = Instant::now();
    until("the old master to return as a master", || {
        Ok(old.role()? == Role::Master)
    })?;
    wait_demoted(&stage, thawed)?;
    let named = stage.addr(new).to_string();
    let primaries = primaries_after(&stage, thawed);
    let stayed = primaries.iter().all(|it| it.as_deref() == Some(&*named));
    ensure!(stayed, "{named}, then {primaries:?}");
    let (stage, outcome) = stage.close(new, first)?;
    outcome.assert_followed()?;
    outcome.assert_none_refused()?;
    outcome.assert_rivals_lost()?;
    assert_sound(&stage.sidecar)
}

#[test]
fn a_planned_failover_loses_nothing_at_all() -> Result<()> {
    let stage = Stage::set(Plot {
        haproxy: true,
        discovery: vec![("fence", "failover")],
        ..Plot::default()
    })?;
    let t0 = Instant::now();
    stage.cluster.failover(0)?;
    let (first, new) = wait_switch(&stage, t0, 0)?;
    hurry(&stage.cluster, PACE)?;
    wait_demoted(&stage, first)?;
    let (stage, outcome) = stage.close(new, first)?;
    outcome.assert_followed()?;
    outcome.assert_rivals_lost()?;
    outcome.assert_lossless()?;
    assert_sound(&stage.sidecar)
}

#[test]
fn a_switch_on_promotion_is_hardly_felt() -> Result<()> {
    let stage = Stage::set(Plot {
        php: PhpOver::Tcp,
        discovery: vec![("switch_on", "promotion")],
        ..Plot::default()
    })?;
    let t0 = Instant::now();
    stage.cluster.failover(1)?;
    let (first, new) = wait_switch(&stage, t0, 0)?;
    stage.settle(Instant::now())?;
    let changes = stage.health.changes();
    let (stage, outcome) = stage.close(new, first)?;
    outcome.assert_followed()?;
    outcome.assert_lossless()?;
    let named = stage.addr(new).to_string();
    let served = |primary: &Option<String>| primary.as_deref() == Some(&*named);
    let switched = changes.iter().find(|change| served(&change.primary));
    let switched = switched.context("no switch was seen")?.at;
    println!(
        "switched {:?} after the order, {:?} before the first announcement",
        switched - t0,
        first.saturating_duration_since(switched)
    );
    ensure!(switched < first, "the switch did not wait for anybody");
    // What is usual on this machine at this time: the slowest write of the same sidecar's other service.
    let usual = outcome.usual(t0);
    let slowest = outcome.ours[0].ledger.slowest().map(Write::took);
    let slowest = slowest.context("no write at all")?;
    let noise = outcome.noise(t0);
    println!("slowest write {slowest:?}, usual {usual:?}, noise {noise:?}");
    ensure!(
        slowest <= usual + Duration::from_millis(150) + noise,
        "{slowest:?}, but usually {usual:?}"
    );
    assert_sound(&stage.sidecar)
}

/// Waits until a sentinel tells a replica to become master; which one, and when.
fn wait_promoting(stage: &Stage, t: Instant) -> Result<(Instant, usize)> {
    let channel = "+failover-state-send-slaveof-noone";
    let wanted = |event: &Announcement| event.at >= t && event.channel == channel;
    let event = stage.announcements.wait_event(channel, LONG, wanted)?;
    // slave IP:PORT IP PORT @ NAME IP PORT
    let addr = event.payload.split(' ').nth(1).context("no replica")?;
    let addr = addr.parse().context("the replica's address")?;
    let node = stage.cluster.index_of(addr).context("an unknown replica")?;
    Ok((event.at, node))
}

/// A failover whose leader is killed when the replica is a master and before anybody says so. `None`: it
/// was too fast for us.
fn lose_the_leader(stage: &Stage) -> Result<Option<usize>> {
    let t0 = Instant::now();
    stage.cluster.failover(0)?;
    let (_, promoted) = wait_promoting(stage, t0)?;
    until("the replica to be a master", || {
        Ok(stage.cluster.node(promoted).role()? == Role::Master)
    })?;
    stage.cluster.stop_sentinel(0)?;
    // Dead, so this is all that it ever said; the others had it from nobody else.
    let told = stage.cluster.sentinel(0).server().log()?;
    let told = told.contains("+promoted-slave");
    Ok((!told).then_some(promoted))
}

/// When the sidecar logged a line that contains both.
fn logged(stage: &Stage, one: &str, other: &str) -> Result<jiff::Timestamp> {
    let line = wait::until(&format!("a line with {one:?} and {other:?}"), LONG, || {
        let lines = stage.sidecar.log_lines(one)?;
        Ok(lines.into_iter().find(|line| line.contains(other)))
    })?;
    let time = line.split(' ').next().unwrap_or_default();
    time.parse()
        .with_context(|| format!("the time in {line:?}"))
}

#[test]
fn a_promotion_whose_leader_dies_is_not_served_for_long() -> Result<()> {
    let set = || {
        Stage::set(Plot {
            discovery: vec![("switch_on", "promotion")],
            ..Plot::default()
        })
    };
    let mut tries = 3;
    let (mut stage, promoted) = loop {
        let stage = set()?;
        if let Some(promoted) = lose_the_leader(&stage)? {
            break (stage, promoted);
        }
        tries -= 1;
        ensure!(
            tries > 0,
            "the leader always spoke before it could be killed"
        );
    };
    // With two of three the others could agree at once. Without a majority nobody can: it must be held.
    stage.cluster.stop_sentinel(1)?;
    let replica = stage.addr(promoted).to_string();
    let held = stage
        .sidecar
        .wait_health("the service to be held", LONG, |health| {
            health["services"]["cache"]["primary"].is_null()
                && health["services"]["cache"]["reason"]
                    .as_str()
                    .is_some_and(|why| why.contains("not confirmed"))
        })?;
    println!("held: {}", held["services"]["cache"]["reason"]);
    until("clients to be held", || {
        Ok(stage
            .sidecar
            .metric("held_clients", &[("service", "cache")])?
            > 0.0)
    })?;
    let served = logged(&stage, &format!("primary={replica} "), "cause=promoted")?;
    let left = logged(&stage, "no primary, holding", "cause=unconfirmed")?;
    let (served, limit) = (left.duration_since(served), Duration::from_secs(3));
    println!("served for {served:?}");
    // The judge looks every 25 ms; a busy machine makes it late.
    ensure!(served.unsigned_abs() <= limit + Duration::from_millis(500));

    let again = Instant::now();
    stage.cluster.start_sentinel(1)?;
    stage.settle(again)?;
    let health = stage
        .sidecar
        .wait_health("all to be well", LONG, |health| {
            health["services"]["cache"]["status"] == "ok"
        })?;
    let agreed = stage.cluster.master_by_majority();
    let agreed = agreed.context("the sentinels do not agree")?;
    ensure!(health["services"]["cache"]["primary"] == stage.addr(agreed).to_string());
    assert_sound(&stage.sidecar)
}

/// The only replica freezes before it can obey, so that the failover comes to nothing.
fn failover_in_vain(failover_timeout: Duration, hold: &'static str) -> Result<(Stage, Instant)> {
    let stage = Stage::set(Plot {
        options: Options {
            replicas: 1,
            // The frozen replica must be taken for alive.
            down_after: Duration::from_secs(20),
            failover_timeout,
            ..Options::default()
        },
        hold,
        ..Plot::default()
    })?;
    stage.cluster.node(1).server().freeze()?;
    let t0 = Instant::now();
    stage.cluster.failover(0)?;
    let (fenced, _) = wait_promoting(&stage, t0)?;
    Ok((stage, fenced))
}

#[test]
fn an_aborted_failover_gives_the_writes_back() -> Result<()> {
    let (stage, fenced) = failover_in_vain(Duration::from_millis(1500), HOLD)?;
    let abort = |event: &Announcement| event.channel.starts_with("-failover-abort");
    let aborted = stage.announcements.wait_event("the abort", LONG, abort)?;
    stage.settle(aborted.at)?;
    // It obeys now, and is no master for all that.
    let thawed = Instant::now();
    stage.cluster.node(1).server().thaw()?;
    stage.settle(thawed)?;
    let (stage, outcome) = stage.close(0, aborted.at)?;
    let fence = fenced + Duration::from_millis(100);
    for lane in &outcome.ours {
        let ledger = &lane.ledger;
        ensure!(lane.missing.is_empty(), "{} lost writes", ledger.label);
        let errors = ledger.error_counts();
        ensure!(errors.is_empty(), "{}: {errors:?}", ledger.label);
        let passed = ledger.acked();
        let passed = passed.filter(|write| write.ended > fence && write.ended < aborted.at);
        let passed = passed.count();
        ensure!(passed == 0, "{passed} writes passed the fence");
    }
    // No announcement, so no promise of how soon: the writers go on, which `settle` waited for.
    outcome.assert_nothing_late_is_lost()?;
    assert_sound(&stage.sidecar)
}

#[test]
fn a_fence_ends_with_the_hold_timeout() -> Result<()> {
    let (stage, fenced) = failover_in_vain(Duration::from_secs(30), "1s")?;
    // Long before the sentinels give up.
    let back = wait::until("writes after the fence", LONG, || {
        let ledger = stage.lanes[0].snapshot();
        let after = fenced + Duration::from_millis(500);
        Ok(ledger.first_ack_after(after).map(|write| write.ended))
    })?;
    println!("the fence held for {:?}", back - fenced);
    ensure!(back - fenced >= Duration::from_millis(900), "no fence");
    let aborts = stage.announcements.events_after(fenced);
    let abort = aborts
        .iter()
        .find(|event| event.channel.starts_with("-failover-abort"));
    ensure!(abort.is_none(), "{abort:?}");
    stage.settle(Instant::now())?;
    ensure!(stage.sidecar.primary("cache")? == Some(stage.addr(0)));
    assert_sound(&stage.sidecar)
}
