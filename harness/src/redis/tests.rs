use std::time::Instant;

use super::*;
use crate::certs::Certs;

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_killed_master_is_replaced_and_comes_back() {
    let mut cluster = RedisCluster::start(Options::default()).unwrap();
    assert_eq!(cluster.masters_by_role(), [0]);
    assert_eq!(cluster.master_by_majority(), Some(0));
    let announcements = cluster.announcements().unwrap();
    let t0 = Instant::now();
    cluster.node(0).server().kill().unwrap();
    let first = announcements.wait_announcement(t0, LONG).unwrap();
    let new = cluster.wait_new_master(0, LONG).unwrap();
    assert_eq!(cluster.index_of(first.switch_to().unwrap()), Some(new));
    cluster.restart_node(0).unwrap();
    assert_eq!(cluster.node(0).role().unwrap(), Role::Master);
    assert_eq!(cluster.masters_by_role().len(), 2);
    assert_eq!(cluster.wait_healed(2 * LONG).unwrap(), new);
}

#[test]
fn planned_failover_with_passwords_and_users() {
    let auth = |user: Option<&str>| {
        Some(Auth {
            user: user.map(Into::into),
            password: "s3cret".into(),
        })
    };
    for user in [None, Some("shop")] {
        let options = Options {
            auth: auth(user),
            sentinel_auth: auth(user),
            ..Options::default()
        };
        let cluster = RedisCluster::start(options).unwrap();
        let announcements = cluster.announcements().unwrap();
        let t0 = Instant::now();
        cluster.failover(1).unwrap();
        announcements.wait_announcement(t0, LONG).unwrap();
        assert_ne!(cluster.wait_new_master(0, LONG).unwrap(), 0);
        assert!(
            Conn::connect(&Target::from(cluster.node(0).addr), ANSWER)
                .unwrap()
                .command(&["GET", "x"])
                .unwrap()
                .ok()
                .is_err()
        );
    }
}

#[test]
fn recreated_sentinels_begin_at_epoch_zero() {
    let mut cluster = RedisCluster::start(Options::default()).unwrap();
    cluster.failover(0).unwrap();
    let new = cluster.wait_new_master(0, LONG).unwrap();
    assert!(cluster.sentinel(0).config_epoch().unwrap() > 0);
    cluster.wait_healed(2 * LONG).unwrap();
    cluster.recreate_sentinels(cluster.node(new).addr).unwrap();
    assert_eq!(cluster.sentinel(0).config_epoch().unwrap(), 0);
    assert_eq!(cluster.master_by_majority(), Some(new));
}

#[test]
fn a_server_alone() {
    let mut server = RedisServer::start(&RedisConf::default()).unwrap();
    server.command(&["SET", "key", "value"]).unwrap();
    assert_eq!(server.info("replication", "role").unwrap(), "master");
    server.server().kill().unwrap();
    assert!(server.conn().is_err());
    server.restart().unwrap();
    assert_eq!(server.command(&["GET", "key"]).unwrap(), Value::Nil);
}

#[test]
fn everything_over_tls() {
    let certs = Certs::make(&["127.0.0.1", "localhost"]).unwrap();
    let options = Options {
        tls: Some(Tls::from(&certs)),
        ..Options::default()
    };
    let cluster = RedisCluster::start(options).unwrap();
    assert_ne!(cluster.node(0).addr, cluster.node(0).control);
    // Not a Redis reply to a plaintext client.
    let mut plain = Conn::connect(&Target::from(cluster.node(0).addr), ANSWER).unwrap();
    assert!(plain.command(&["PING"]).is_err());
    let announcements = cluster.announcements().unwrap();
    let t0 = Instant::now();
    cluster.failover(2).unwrap();
    let first = announcements.wait_announcement(t0, LONG).unwrap();
    let new = cluster.wait_new_master(0, LONG).unwrap();
    assert_eq!(first.switch_to(), Some(cluster.node(new).addr));
}
