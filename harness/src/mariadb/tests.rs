use super::*;
use crate::sql::Login;
use crate::sql::sql_error;

#[test]
fn a_server_is_killed_and_keeps_what_it_has() {
    let mut server = MariaDb::start(&MariaConf::default()).unwrap();
    let login = SHOP.login().into_db(DATABASE);
    let mut conn = Conn::connect(&Target::Tcp(server.addr), &login, ANSWER).unwrap();
    conn.query("CREATE TABLE t (k VARCHAR(40) PRIMARY KEY, n INT)")
        .unwrap();
    conn.query("INSERT INTO t VALUES ('a', NULL), ('b', 7)")
        .unwrap();
    let rows = conn.query("SELECT k, n FROM t ORDER BY k").unwrap();
    let text = |it: &str| Some(it.to_owned());
    assert_eq!(rows, [vec![text("a"), None], vec![text("b"), text("7")]]);
    let twice = conn.query("INSERT INTO t VALUES ('a', 1)").unwrap_err();
    assert_eq!(sql_error(&twice).map(|it| it.code), Some(1062));
    assert!(conn.is_usable());
    assert_eq!(server.sessions_of(SHOP.user).unwrap().len(), 1);

    server.server().kill().unwrap();
    assert!(!conn.is_usable());
    server.restart().unwrap();
    assert_eq!(server.value("SELECT COUNT(*) FROM shop.t").unwrap(), "2");
    let wrong = Login::new(SHOP.user, "wrong");
    let refused = Conn::connect(&Target::Tcp(server.addr), &wrong, ANSWER);
    assert_eq!(
        sql_error(&refused.err().unwrap()).map(|it| it.code),
        Some(1045)
    );
    let probe = Conn::connect(&Target::Tcp(server.addr), &PROBE.login(), ANSWER);
    probe.unwrap().query("SHOW SLAVE STATUS").unwrap();
    server.stop().unwrap();
}

#[test]
fn a_cluster_loses_a_node_and_gets_it_back() {
    let mut cluster = GaleraCluster::start(3).unwrap();

    cluster
        .node(0)
        .query("CREATE TABLE shop.t (k INT PRIMARY KEY)")
        .unwrap();
    cluster
        .node(1)
        .query("INSERT INTO shop.t VALUES (1)")
        .unwrap();
    cluster.node(0).server().kill().unwrap();
    cluster.wait_synced(&[1, 2], 2).unwrap();
    cluster
        .node(2)
        .query("INSERT INTO shop.t VALUES (2)")
        .unwrap();

    cluster.rejoin(0).unwrap();

    assert_eq!(
        cluster
            .node(0)
            .value("SELECT COUNT(*) FROM shop.t")
            .unwrap(),
        "2"
    );

    cluster.isolate(2, true).unwrap();
    let alone = cluster
        .wait_state(2, START, |it| it.cluster_status == "non-Primary")
        .unwrap();
    assert!(!alone.ready);
    cluster.isolate(2, false).unwrap();
    cluster.wait_all_synced().unwrap();

    for node in cluster.nodes() {
        node.server().kill().unwrap();
    }
    cluster.restart_all(1).unwrap();
    assert_eq!(
        cluster
            .node(0)
            .value("SELECT COUNT(*) FROM shop.t")
            .unwrap(),
        "2"
    );
}
