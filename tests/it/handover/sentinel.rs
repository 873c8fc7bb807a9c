//! With sentinels.

use std::time::{Duration, Instant};

use pilotfish_harness::redis::{MASTER_NAME, Options, RedisCluster};
use pilotfish_harness::sidecar::{Config, Sidecar, Until};
use pilotfish_harness::writer::{Mode, Writer};

use super::{
    assert_goes_on, assert_nothing_missing, calls, failover, priority, stall, step, steps,
    wait_replicas,
};
use crate::kit;
use crate::support::{self, HOLD, KEPT, LONG, write_to};

/// Patient sentinels: what is staged here is not the death of a server.
pub fn options(replicas: usize) -> Options {
    Options {
        replicas,
        down_after: Duration::from_secs(20),
        failover_timeout: Duration::from_secs(20),
        ..Options::default()
    }
}

fn sidecar(cluster: &RedisCluster) -> Sidecar {
    let service = support::cache(cluster, HOLD).unwrap();
    let config = Config::new().unwrap().service(service);
    let sidecar = Sidecar::start(support::binary(), config, Until::Healthy).unwrap();
    wait_replicas(&sidecar, cluster.nodes().len() - 1);
    sidecar
}

fn node_of(cluster: &RedisCluster, account: &serde_json::Value) -> usize {
    let to = account["to"].as_str().unwrap();
    let is_it = |node: &pilotfish_harness::redis::RedisServer| node.addr.to_string() == to;
    cluster.nodes().iter().position(is_it).unwrap()
}

#[test]
fn nobody_loses_a_write_and_who_connects_anew_notices_nothing() {
    let cluster = RedisCluster::start(options(2)).unwrap();
    let (ours, other) = (sidecar(&cluster), sidecar(&cluster));
    let tcp = |sidecar: &Sidecar| sidecar.tcp("cache").unwrap();
    let master = cluster.node(0).addr;
    let through = [
        write_to("php", tcp(&ours), Mode::PerRequest).unwrap(),
        write_to("other-php", tcp(&other), Mode::PerRequest).unwrap(),
    ];
    let kept = write_to("kept", tcp(&ours), KEPT).unwrap();
    let direct = vec![
        write_to("direct", master, Mode::PerRequest).unwrap(),
        write_to("direct-kept", master, KEPT).unwrap(),
    ];
    let begun = Instant::now() + Duration::from_millis(500);
    for writer in through.iter().chain(&direct).chain([&kept]) {
        writer.wait_ack_after(begun, LONG).unwrap();
    }
    let (code, account) = failover(&ours, &[]);
    assert_eq!((code, &account["outcome"]), (0, &"done".into()));
    let asked = Instant::now();
    for writer in &through {
        writer.wait_ack_after(asked, LONG).unwrap();
    }
    let new = node_of(&cluster, &account);
    assert_eq!(ours.primary("cache").unwrap(), Some(cluster.node(new).addr));
    kit::wait_follows(cluster.node(0), cluster.node(new).addr);
    let node = cluster.node(new);
    let [php, other_php] = through.map(Writer::stop);
    for ledger in [&php, &other_php] {
        assert_nothing_missing(ledger, node);
    }
    assert!(php.error_counts().is_empty(), "{:?}", php.error_counts());
    // It holds when a sentinel says that it promotes, some 100 ms later: what arrived at the master in
    // between was neither carried out nor answered.
    let cut_off = other_php.error_counts();
    let few = cut_off.values().sum::<usize>() < other_php.writes.len() / 2;
    assert!(few && cut_off.len() <= 1, "{cut_off:?}");
    for writer in direct.into_iter().chain([kept]) {
        assert_nothing_missing(&Writer::stop(writer), node);
    }
    assert_eq!(account["from"], master.to_string());
    let expected = [
        "hold",
        "quiet",
        "pause-writes",
        "catch-up",
        "ask-sentinel",
        "switch",
        "demote",
    ];
    assert_eq!(steps(&account), expected);
    assert_eq!(account["clean"], true, "{account:#}");
    assert_eq!(
        step(&account, "pause-writes")["put_back"]["outcome"],
        "done"
    );
    assert_goes_on(&ours, node);
    support::assert_sound(&ours).unwrap();
    support::assert_sound(&other).unwrap();
}

#[test]
fn a_wish_is_honoured_by_priorities_that_are_put_back() {
    let cluster = RedisCluster::start(options(2)).unwrap();
    support::hurry(&cluster, Duration::from_millis(200)).unwrap();
    let sidecar = sidecar(&cluster);
    for wanted in [2, 1] {
        let to = cluster.node(wanted).addr.to_string();
        let (code, account) = failover(&sidecar, &["--to", &to]);
        assert_eq!((code, &account["to"]), (0, &to.as_str().into()));
        assert_eq!(steps(&account)[0], "prefer");
        assert_eq!(account["clean"], true, "{account:#}");
        for node in cluster.nodes() {
            assert_eq!(priority(node), "100");
        }
        assert_goes_on(&sidecar, cluster.node(wanted));
        // The others are known as its replicas before the next round.
        for other in (0..3).filter(|n| *n != wanted) {
            kit::wait_follows(cluster.node(other), cluster.node(wanted).addr);
        }
        sidecar
            .wait_health("two replicas", LONG, |_| {
                let status = kit::status(&sidecar);
                let endpoints = status["endpoints"].as_array().unwrap();
                let fit = |e: &&serde_json::Value| e["role"] == "replica" && e["detail"].is_null();
                endpoints.iter().filter(fit).count() == 2 && cluster.sentinels().iter().all(quiet)
            })
            .unwrap();
    }
}

/// Whether a sentinel has no failover under way and sees two good replicas.
fn quiet(sentinel: &pilotfish_harness::redis::Sentinel) -> bool {
    let Ok(replicas) = sentinel.command(&["SENTINEL", "REPLICAS", MASTER_NAME]) else {
        return false;
    };
    let master = sentinel
        .command(&["SENTINEL", "MASTER", MASTER_NAME])
        .unwrap();
    let good = |r: &pilotfish_harness::resp::Value| {
        r.field("flags").as_deref() == Some("slave")
            && r.field("slave-priority").as_deref() == Some("100")
    };
    let replicas = replicas.array().unwrap().iter().filter(|r| good(r)).count();
    master.field("flags").as_deref() == Some("master") && replicas == 2
}

#[test]
fn a_dry_run_changes_nothing() {
    let cluster = RedisCluster::start(options(2)).unwrap();
    let sidecar = sidecar(&cluster);
    let to = cluster.node(1).addr.to_string();
    for args in [&["--dry-run"][..], &["--dry-run", "--to", &to]] {
        let (code, account) = failover(&sidecar, args);
        assert_eq!((code, &account["outcome"]), (0, &"planned".into()));
        let planned = |s: &serde_json::Value| s["outcome"] == "planned";
        assert!(account["steps"].as_array().unwrap().iter().all(planned));
    }
    for node in cluster.nodes() {
        for command in [
            "client|pause",
            "client|unpause",
            "client|kill",
            "config|set",
            "replicaof",
        ] {
            assert_eq!(calls(&node.control.into(), command), 0, "{command}");
        }
    }
    for sentinel in cluster.sentinels() {
        for command in ["sentinel|failover", "sentinel|set"] {
            assert_eq!(calls(&sentinel.control.into(), command), 0, "{command}");
        }
    }
    let events = sidecar.admin("GET", "/v1/events", "").unwrap().body;
    assert!(!events.contains("failover-step"), "{events}");
    assert_goes_on(&sidecar, cluster.node(0));
    // For people.
    let (code, said) = kit::control(&sidecar, &["failover", "cache", "--dry-run"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.lines().all(|line| line.chars().count() <= 100),
        "{said}"
    );
    assert!(
        said.contains("pause-writes") && said.contains("nothing was changed"),
        "{said}"
    );
}

/// It answers, and takes in nothing: the master goes on as if nothing had been.
#[test]
fn a_replica_that_cannot_catch_up_leaves_everything_as_it_was() {
    let cluster = RedisCluster::start(options(1)).unwrap();
    let sidecar = sidecar(&cluster);
    stall(cluster.node(1), cluster.node(0));
    let writer = write_to("php", sidecar.tcp("cache").unwrap(), Mode::PerRequest).unwrap();
    writer.wait_ack_after(Instant::now(), LONG).unwrap();
    let (code, account) = failover(&sidecar, &["--timeout", "4s"]);
    assert_eq!((code, &account["outcome"]), (1, &"failed".into()));
    assert_eq!(account["reason"], "timeout");
    assert_eq!(account["clean"], true, "{account:#}");
    assert_eq!(step(&account, "catch-up")["outcome"], "failed");
    assert_eq!(
        step(&account, "pause-writes")["put_back"]["outcome"],
        "done"
    );
    assert_eq!(step(&account, "hold")["put_back"]["outcome"], "done");
    assert!(
        account["message"]
            .as_str()
            .unwrap()
            .contains("everything was put back")
    );
    assert_goes_on(&sidecar, cluster.node(0));
    writer.wait_ack_after(Instant::now(), LONG).unwrap();
    let ledger = writer.stop();
    assert_nothing_missing(&ledger, cluster.node(0));
    assert!(
        ledger.error_counts().is_empty(),
        "{:?}",
        ledger.error_counts()
    );
    for sentinel in cluster.sentinels() {
        assert_eq!(calls(&sentinel.control.into(), "sentinel|failover"), 0);
    }
    support::assert_sound(&sidecar).unwrap();
}

#[test]
fn sentinels_that_refuse_leave_everything_as_it_was() {
    let cluster = RedisCluster::start(options(2)).unwrap();
    support::hurry(&cluster, Duration::from_millis(200)).unwrap();
    for sentinel in cluster.sentinels() {
        let deny = ["ACL", "SETUSER", "default", "-sentinel|failover"];
        sentinel.command(&deny).unwrap();
    }
    let sidecar = sidecar(&cluster);
    let to = cluster.node(1).addr.to_string();
    let (code, account) = failover(&sidecar, &["--to", &to]);
    assert_eq!((code, &account["reason"]), (1, &"step-failed".into()));
    let asked = step(&account, "ask-sentinel");
    assert!(
        asked["what"].as_str().unwrap().contains("NOPERM"),
        "{asked}"
    );
    for name in ["prefer", "hold", "pause-writes"] {
        assert_eq!(
            step(&account, name)["put_back"]["outcome"],
            "done",
            "{name}"
        );
    }
    for node in cluster.nodes() {
        assert_eq!(priority(node), "100");
    }
    assert_goes_on(&sidecar, cluster.node(0));
}

#[test]
fn a_former_master_that_is_dead_is_succeeded() {
    let cluster = RedisCluster::start(options(1)).unwrap();
    let sidecar = sidecar(&cluster);
    let (code, account) = failover(&sidecar, &["--old-primary-gone"]);
    assert_eq!((code, &account["reason"]), (3, &"old-primary-alive".into()));
    cluster.node(0).server().kill().unwrap();
    kit::wait_bereft(&sidecar);
    let (code, account) = failover(&sidecar, &[]);
    assert_eq!((code, &account["reason"]), (3, &"no-primary".into()));
    let (code, account) = failover(&sidecar, &["--old-primary-gone"]);
    assert_eq!(
        (code, &account["to"]),
        (0, &cluster.node(1).addr.to_string().into())
    );
    assert_goes_on(&sidecar, cluster.node(1));
}
