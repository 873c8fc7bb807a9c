//! Ends that nobody planned: whoever asked leaves, somebody else asks too, the service changes.

use pilotfish_harness::process::Signal;
use pilotfish_harness::sidecar::Sidecar;

use super::{assert_goes_on, begin, end, failover, stall, unstall, wait_event};
use crate::kit::{self, LONG};

fn scene() -> (
    pilotfish_harness::redis::RedisServer,
    pilotfish_harness::redis::RedisServer,
    Sidecar,
) {
    let master = kit::redis();
    let replica = kit::replica_of(&master);
    let nodes = [master.addr, replica.addr];
    let sidecar = kit::start(kit::patient(kit::cache(&nodes)));
    sidecar
        .wait_health("the replica to be known", LONG, |_| {
            let status = kit::status(&sidecar);
            let endpoints = status["endpoints"].as_array().unwrap();
            endpoints.iter().any(|e| e["role"] == "replica")
        })
        .unwrap();
    (master, replica, sidecar)
}

#[test]
fn one_at_a_time_and_it_ends_with_whoever_asked() {
    let (master, replica, sidecar) = scene();
    stall(&replica, &master);
    let mut running = begin(&sidecar, &["--timeout", "60s"]);
    wait_event(&sidecar, "failover-step", "pause-writes: done");
    assert_eq!(
        kit::status(&sidecar)["held"],
        serde_json::json!(["failover"])
    );
    let (code, account) = failover(&sidecar, &[]);
    assert_eq!((code, &account["reason"]), (3, &"in-progress".into()));
    running.kill().unwrap();
    running.wait().unwrap();
    let failed = wait_event(&sidecar, "failover-failed", "cancelled");
    assert_eq!(failed["by"]["uid"], rustix::process::getuid().as_raw());
    assert_goes_on(&sidecar, &master);
    unstall(&replica);
    // And the next one may begin.
    let (code, account) = failover(&sidecar, &[]);
    assert_eq!((code, &account["outcome"]), (0, &"done".into()));
    assert_goes_on(&sidecar, &replica);
}

/// Every sidecar of a fleet can be told to; one of them does it.
#[test]
fn another_sidecar_is_not_let_in_at_the_same_time() {
    let (master, replica, sidecar) = scene();
    let other = kit::start(kit::patient(kit::cache(&[master.addr, replica.addr])));
    other
        .wait_health("the replica to be known", LONG, |_| {
            kit::status(&other)["endpoints"]
                .to_string()
                .contains("\"replica\"")
        })
        .unwrap();
    stall(&replica, &master);
    let running = begin(&sidecar, &["--timeout", "5s"]);
    wait_event(&sidecar, "failover-step", "pause-writes: done");
    for args in [&["--dry-run"][..], &[]] {
        let (code, account) = failover(&other, args);
        assert_eq!((code, &account["reason"]), (3, &"in-progress".into()));
    }
    let (code, account) = end(running);
    assert_eq!((code, &account["reason"]), (1, &"timeout".into()));
    unstall(&replica);
    let (code, account) = failover(&other, &[]);
    assert_eq!((code, &account["outcome"]), (0, &"done".into()));
    for sidecar in [&sidecar, &other] {
        sidecar.wait_primary("cache", replica.addr, LONG).unwrap();
        assert_goes_on(sidecar, &replica);
    }
}

/// The process ends: what was done is put back first.
#[test]
fn a_shutdown_calls_it_off() {
    let (master, replica, sidecar) = scene();
    stall(&replica, &master);
    let running = begin(&sidecar, &["--timeout", "60s"]);
    wait_event(&sidecar, "failover-step", "pause-writes: done");
    sidecar.server().signal(Signal::TERM).unwrap();
    let (code, account) = end(running);
    assert_eq!((code, &account["reason"]), (1, &"cancelled".into()));
    assert_eq!(master.command(&["SET", "a", "1"]).unwrap(), kit::ok());
}

/// What a failover works on is replaced under it.
#[test]
fn a_reload_that_changes_the_service_calls_it_off() {
    let (master, replica, mut sidecar) = scene();
    stall(&replica, &master);
    let running = begin(&sidecar, &["--timeout", "60s"]);
    wait_event(&sidecar, "failover-step", "pause-writes: done");
    let mut config = sidecar.config().clone();
    config.services[0].lines = vec!["hold_timeout = \"50s\"".into()];
    sidecar.rewrite_config(config).unwrap();
    let (code, said) = kit::control(&sidecar, &["reload"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, account) = end(running);
    assert_eq!((code, &account["reason"]), (1, &"cancelled".into()));
    sidecar.wait_primary("cache", master.addr, LONG).unwrap();
    assert_goes_on(&sidecar, &master);
}

/// An operator's pause is nobody else's to lift.
#[test]
fn a_paused_service_stays_paused() {
    let (_master, replica, sidecar) = scene();
    kit::control(&sidecar, &["pause", "cache"]);
    let (code, account) = failover(&sidecar, &[]);
    assert_eq!((code, &account["outcome"]), (0, &"done".into()));
    assert_eq!(
        kit::status(&sidecar)["held"],
        serde_json::json!(["operator"])
    );
    kit::control(&sidecar, &["resume", "cache"]);
    assert_goes_on(&sidecar, &replica);
}
