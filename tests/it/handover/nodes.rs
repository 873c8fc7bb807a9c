//! Without sentinels.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pilotfish_harness::redis::{RedisServer, Role};
use pilotfish_harness::writer::Mode;

use super::{
    Restless, assert_goes_on, assert_nothing_missing, begin, end, failover, stall, step, steps,
    wait_replicas,
};
use crate::kit::{self, LONG};
use crate::support::{KEPT, write_to};

fn addrs(nodes: &[&RedisServer]) -> Vec<SocketAddr> {
    nodes.iter().map(|node| node.addr).collect()
}

#[test]
fn the_master_moves_there_and_back_and_nobody_loses_a_write() {
    let one = kit::redis();
    let (two, three) = (kit::replica_of(&one), kit::replica_of(&one));
    let service = kit::patient(kit::cache(&addrs(&[&one, &two, &three])));
    let sidecar = kit::start(service);
    let php = write_to("php", sidecar.tcp("cache").unwrap(), Mode::PerRequest).unwrap();
    let kept = write_to("kept", sidecar.tcp("cache").unwrap(), KEPT).unwrap();
    let direct = write_to("direct", one.addr, Mode::PerRequest).unwrap();
    let begun = Instant::now() + Duration::from_millis(300);
    for writer in [&php, &kept, &direct] {
        writer.wait_ack_after(begun, LONG).unwrap();
    }
    for (from, to, other) in [(&one, &two, &three), (&two, &one, &three)] {
        wait_replicas(&sidecar, 2);
        let name = to.addr.to_string();
        let (code, account) = failover(&sidecar, &["--to", &name]);
        assert_eq!((code, &account["to"]), (0, &name.as_str().into()));
        let expected = [
            "hold",
            "quiet",
            "pause-writes",
            "catch-up",
            "promote",
            "demote",
            "switch",
            "follow",
        ];
        assert_eq!(steps(&account), expected);
        assert_eq!(account["clean"], true, "{account:#}");
        assert_eq!(to.role().unwrap(), Role::Master);
        kit::wait_follows(from, to.addr);
        kit::wait_follows(other, to.addr);
        php.wait_ack_after(Instant::now(), LONG).unwrap();
        assert_goes_on(&sidecar, to);
    }
    let php = php.stop();
    assert!(php.error_counts().is_empty(), "{:?}", php.error_counts());
    for ledger in [php, kept.stop(), direct.stop()] {
        assert_nothing_missing(&ledger, &one);
    }
}

/// The target dies when it is to catch up.
#[test]
fn a_target_that_dies_on_the_way_leaves_the_master_as_it_was() {
    let master = kit::redis();
    let replica = kit::replica_of(&master);
    let sidecar = kit::start(kit::patient(kit::cache(&addrs(&[&master, &replica]))));
    wait_replicas(&sidecar, 1);
    stall(&replica, &master);
    let running = begin(&sidecar, &["--timeout", "4s"]);
    super::wait_event(&sidecar, "failover-step", "pause-writes: done");
    replica.server().kill().unwrap();
    let (code, account) = end(running);
    assert_eq!((code, &account["reason"]), (1, &"timeout".into()));
    assert_eq!(
        step(&account, "pause-writes")["put_back"]["outcome"],
        "done"
    );
    assert_eq!(master.role().unwrap(), Role::Master);
    assert_goes_on(&sidecar, &master);
}

/// Who listens to something that never ends is not waited for as if it were a request.
#[test]
fn a_session_that_never_rests_holds_nobody_up() {
    let master = kit::redis();
    let replica = kit::replica_of(&master);
    let sidecar = kit::start(kit::patient(kit::cache(&addrs(&[&master, &replica]))));
    wait_replicas(&sidecar, 1);
    let noise = Restless::start(&sidecar, &master);
    let (code, account) = failover(&sidecar, &[]);
    assert_eq!((code, &account["outcome"]), (0, &"done".into()));
    let quiet = step(&account, "quiet");
    assert!(
        quiet["what"].as_str().unwrap().contains("may be cut off"),
        "{quiet}"
    );
    // A third of the time would be 10 s.
    assert!(quiet["took_ms"].as_f64().unwrap() < 5000.0, "{quiet}");
    drop(noise);
    assert_goes_on(&sidecar, &replica);
}

#[test]
fn what_is_not_safe_is_refused() {
    let (master, stranger) = (kit::redis(), pilotfish_harness::ports::free().unwrap());
    let sidecar = kit::start(kit::cache(&[master.addr, stranger]));
    let to = |addr: SocketAddr| addr.to_string();
    let (primary, down) = (to(master.addr), to(stranger));
    for (args, reason) in [
        (&[][..], "no-replica"),
        (&["--dry-run"], "no-replica"),
        (&["--to", &primary], "already-primary"),
        (&["--to", &down], "unfit-target"),
        (&["--to", "10.255.255.1:1"], "unknown-target"),
        (&["--old-primary-gone", "--to", &down], "old-primary-alive"),
    ] {
        let (code, account) = failover(&sidecar, args);
        assert_eq!((code, &account["reason"]), (3, &reason.into()), "{args:?}");
        assert_eq!(account["outcome"], "refused");
    }
    let (code, said) = kit::control(&sidecar, &["failover", "cahce"]);
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = kit::control(&sidecar, &["failover", "cache", "--timeout", "soon"]);
    assert_eq!(code, Some(2), "{said}");
    kit::control(&sidecar, &["pin", "cache", &primary]);
    let (code, account) = failover(&sidecar, &[]);
    assert_eq!((code, &account["reason"]), (3, &"pinned".into()));
    // What programs see.
    let answer = sidecar
        .admin("POST", "/v1/services/cache/failover", "{\"dry_run\": true}")
        .unwrap();
    assert_eq!(answer.status, 409);
    let problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["type"], "urn:pilotfish:failover-refused");
    assert_eq!(problem["reason"], "pinned");
    let answer = sidecar
        .admin("POST", "/v1/services/cache/failover", "{\"dryrun\": true}")
        .unwrap();
    assert_eq!(answer.status, 400, "{}", answer.body);
    let events = sidecar.admin("GET", "/v1/events", "").unwrap().body;
    assert!(events.contains("failover-refused") && events.contains("\"uid\""));
}

#[test]
fn a_dead_master_is_succeeded_when_somebody_says_that_it_is_dead() {
    let master = kit::redis();
    let replica = kit::replica_of(&master);
    let sidecar = kit::start(kit::patient(kit::cache(&addrs(&[&master, &replica]))));
    wait_replicas(&sidecar, 1);
    let to = replica.addr.to_string();
    let (code, account) = failover(&sidecar, &["--old-primary-gone", "--to", &to]);
    assert_eq!((code, &account["reason"]), (3, &"old-primary-alive".into()));
    master.server().kill().unwrap();
    kit::wait_bereft(&sidecar);
    let (code, account) = failover(&sidecar, &["--old-primary-gone", "--to", &to]);
    assert_eq!((code, &account["outcome"]), (0, &"done".into()));
    assert_goes_on(&sidecar, &replica);
}
