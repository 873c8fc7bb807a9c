//! With sentinels, under conditions that are not the usual ones.

use std::time::{Duration, Instant};

use pilotfish_harness::certs::Certs;
use pilotfish_harness::redis::{Options, RedisCluster, Tls};
use pilotfish_harness::resp::Auth;
use pilotfish_harness::sidecar::{Config, Service, Sidecar, Until};
use pilotfish_harness::wait;
use pilotfish_harness::writer::{Mode, Writer};

use super::sentinel::options;
use super::{
    assert_goes_on, assert_nothing_missing, begin, failover, priority, stall, step, wait_event,
    wait_replicas,
};
use crate::kit::{self, LONG};
use crate::support::{self, KEPT, write_to};

fn start(service: Service, replicas: usize) -> Sidecar {
    let config = Config::new().unwrap().service(service);
    let sidecar = Sidecar::start(support::binary(), config, Until::Healthy).unwrap();
    wait_replicas(&sidecar, replicas);
    sidecar
}

/// Writers through the sidecar and beside it, while the master moves; nothing that was acknowledged to
/// anybody is missing afterwards.
fn move_under_load(cluster: &RedisCluster, sidecar: &Sidecar) -> serde_json::Value {
    let master = cluster.node(0).addr;
    let php = write_to("php", sidecar.tcp("cache").unwrap(), Mode::PerRequest).unwrap();
    let direct = write_to("direct", master, KEPT).unwrap();
    let begun = Instant::now() + Duration::from_millis(300);
    for writer in [&php, &direct] {
        writer.wait_ack_after(begun, LONG).unwrap();
    }
    let (code, account) = failover(sidecar, &[]);
    assert_eq!((code, &account["outcome"]), (0, &"done".into()));
    php.wait_ack_after(Instant::now(), LONG).unwrap();
    let to: std::net::SocketAddr = account["to"].as_str().unwrap().parse().unwrap();
    let new = cluster.node(cluster.index_of(to).unwrap());
    kit::wait_follows(cluster.node(0), new.addr);
    let [php, direct] = [php, direct].map(Writer::stop);
    assert!(php.error_counts().is_empty(), "{:?}", php.error_counts());
    for ledger in [&php, &direct] {
        assert_nothing_missing(ledger, new);
    }
    account
}

/// The promoted replica is published by its own word, before any sentinel speaks of it.
#[test]
fn a_switch_at_the_promotion_loses_nothing_either() {
    let cluster = RedisCluster::start(options(2)).unwrap();
    let service = support::cache(&cluster, "20s").unwrap();
    let sidecar = start(service.discover("switch_on", "promotion"), 2);
    let account = move_under_load(&cluster, &sidecar);
    assert_eq!(account["clean"], true, "{account:#}");
    let said = step(&account, "switch")["what"].to_string();
    assert!(said.contains("promoted"), "{said}");
}

/// They take a server for dead after half a second, and a paused one is silent to them.
#[test]
fn impatient_sentinels_do_not_begin_a_failover_of_their_own() {
    let cluster = RedisCluster::start(Options {
        down_after: Duration::from_millis(500),
        ..options(2)
    })
    .unwrap();
    let sidecar = start(support::cache(&cluster, "20s").unwrap(), 2);
    let announcements = cluster.announcements().unwrap();
    let began = Instant::now();
    move_under_load(&cluster, &sidecar);
    let events = announcements.events_after(began);
    let tries = events.iter().filter(|e| e.channel == "+try-failover");
    assert_eq!(tries.count(), 1, "{events:?}");
}

/// The replica does not obey the sentinel, which waits for its `failover-timeout`: until it gives up nobody
/// can say who will be master.
fn promotion_in_vain(failover_timeout: Duration) -> (RedisCluster, Sidecar, serde_json::Value) {
    let cluster = RedisCluster::start(Options {
        failover_timeout,
        ..options(1)
    })
    .unwrap();
    let sidecar = start(support::cache(&cluster, "40s").unwrap(), 1);
    let deny = ["ACL", "SETUSER", "default", "-replicaof", "-slaveof"];
    cluster.node(1).command(&deny).unwrap();
    let (code, account) = failover(&sidecar, &["--timeout", "2s"]);
    assert_eq!((code, &account["reason"]), (1, &"timeout".into()));
    assert_eq!(step(&account, "switch")["outcome"], "failed");
    assert_eq!(step(&account, "hold")["put_back"]["outcome"], "done");
    // The monitor may still have its own reason.
    let held = kit::status(&sidecar)["held"].to_string();
    assert!(!held.contains("failover"), "{held}");
    (cluster, sidecar, account)
}

#[test]
fn a_sentinel_that_gives_up_is_waited_for() {
    let (cluster, sidecar, account) = promotion_in_vain(Duration::from_secs(4));
    assert_eq!(account["clean"], true, "{account:#}");
    let back = &step(&account, "ask-sentinel")["put_back"];
    assert!(
        back["what"].as_str().unwrap().contains("has given it up"),
        "{back}"
    );
    assert_goes_on(&sidecar, cluster.node(0));
}

/// While it may still promote somebody, nobody else's writes are let through to be lost.
#[test]
fn a_sentinel_that_does_not_give_up_leaves_the_pause_and_says_so() {
    let (cluster, sidecar, account) = promotion_in_vain(Duration::from_secs(60));
    assert_eq!(account["clean"], false, "{account:#}");
    for name in ["ask-sentinel", "pause-writes"] {
        let back = &step(&account, name)["put_back"];
        assert_eq!(back["outcome"], "left", "{name}: {back}");
    }
    assert!(
        cluster.node(0).command(&["SET", "a", "1"]).is_err(),
        "paused"
    );
    cluster.node(0).command(&["CLIENT", "UNPAUSE"]).unwrap();
    assert_eq!(
        sidecar.primary("cache").unwrap(),
        Some(cluster.node(0).addr)
    );
}

/// The rights that the documentation names, and no more.
#[test]
fn a_user_with_few_rights_behind_tls_is_enough() {
    let certs = Certs::make(&["redis.test"]).unwrap();
    let secret = |user: &str| Auth {
        user: Some(user.into()),
        password: format!("{user}-pass-4711"),
    };
    let mover = secret("mover");
    let rights = "&pilotfish:failover -@all +subscribe +pubsub|numsub +role +info +replicaof +client|pause +client|unpause +client|kill +config|set +config|rewrite";
    let cluster = RedisCluster::start(Options {
        auth: Some(secret("app")),
        sentinel_auth: Some(secret("watch")),
        tls: Some(Tls::from(&certs)),
        extra_redis: vec![format!("user mover on >{} {rights}", mover.password)],
        ..options(2)
    })
    .unwrap();
    support::hurry(&cluster, Duration::from_millis(200)).unwrap();
    let tls = |header: &str| {
        let ca = certs.ca.display();
        format!("[{header}]\nmode = \"verify-ca\"\nca_file = \"{ca}\"")
    };
    let service = Service::new("cache", "redis")
        .unwrap()
        .discover("kind", "sentinel")
        .discover("master", pilotfish_harness::redis::MASTER_NAME)
        .discover_all("sentinels", &cluster.sentinel_addrs())
        .login("", Some(&mover))
        .login("sentinel_", Some(&secret("watch")))
        .set("hold_timeout", "20s")
        .section(&tls("service.discovery.tls"))
        .section(&tls("service.tls"));
    let sidecar = start(service, 2);
    let to = cluster.node(2).addr.to_string();
    let (code, account) = failover(&sidecar, &["--to", &to]);
    assert_eq!((code, &account["to"]), (0, &to.as_str().into()));
    assert_eq!(account["clean"], true, "{account:#}");
    for node in cluster.nodes() {
        assert_eq!(priority(node), "100");
    }
    kit::wait_follows(cluster.node(0), cluster.node(2).addr);
    for secret in ["mover-pass-4711", "watch-pass-4711"] {
        assert!(!account.to_string().contains(secret));
        assert_eq!(sidecar.log_lines(secret).unwrap(), Vec::<String>::new());
    }
}

/// Nobody is left who could put anything back: the pause ends by itself.
#[test]
fn a_sidecar_that_is_killed_in_the_middle_leaves_no_pause_for_ever() {
    let cluster = RedisCluster::start(options(1)).unwrap();
    let mut sidecar = start(support::cache(&cluster, "20s").unwrap(), 1);
    stall(cluster.node(1), cluster.node(0));
    let mut running = begin(&sidecar, &["--timeout", "6s"]);
    wait_event(&sidecar, "failover-step", "pause-writes: done");
    sidecar.server().kill().unwrap();
    running.wait().unwrap();
    assert!(
        cluster.node(0).command(&["SET", "a", "1"]).is_err(),
        "paused"
    );
    wait::until_true("the pause to end", LONG, || {
        Ok(cluster.node(0).command(&["SET", "a", "1"]).is_ok())
    })
    .unwrap();
    sidecar.restart().unwrap();
    sidecar
        .wait_primary("cache", cluster.node(0).addr, LONG)
        .unwrap();
    assert_goes_on(&sidecar, cluster.node(0));
}
