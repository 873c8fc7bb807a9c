//! A primary and a replica of real MariaDB, promoted by hand.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pilotfish_harness::certs::Certs;
use pilotfish_harness::mariadb::{DATABASE, MariaConf, MariaDb, PROBE, ROOT, SHOP};
use pilotfish_harness::resp::Target;
use pilotfish_harness::sidecar::{Config, Service, Sidecar, Until};
use pilotfish_harness::sql::Conn;
use pilotfish_harness::wait;

use crate::kit::{LONG, binary, pilotfish};
use crate::support::assert_sound;

struct Pair {
    one: MariaDb,
    two: MariaDb,
    sidecar: Sidecar,
}

fn follow(replica: &MariaDb, primary: &MariaDb) -> Result<()> {
    let port = primary.addr.port();
    replica.query("STOP SLAVE")?;
    replica.query(&format!(
        "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='{}', \
         MASTER_PASSWORD='', MASTER_USE_GTID=current_pos, MASTER_CONNECT_RETRY=1",
        ROOT.user
    ))?;
    replica.query("START SLAVE")?;
    replica.set_global("read_only", "ON")
}

impl Pair {
    fn start() -> Result<Self> {
        let one = MariaDb::start(&MariaConf::default().replicating(1))?;
        let two = MariaDb::start(&MariaConf::default().replicating(2))?;
        follow(&two, &one)?;
        let service = Service::mysql("shop", "mysql", &[one.addr, two.addr])?
            .discover("max_lag", "2s")
            .discover("interval", "100ms")
            .line(&format!(
                "replica_listen = [\"{}\"]",
                pilotfish_harness::ports::free()?
            ))
            .set("replica_fallback", "refuse")
            .set("hold_timeout", "30s");
        let config = Config::new()?.line("workers = 1").service(service);
        let sidecar = Sidecar::start(binary(), config, Until::Healthy)?;
        Ok(Self { one, two, sidecar })
    }

    fn client(&self) -> Result<Conn> {
        let login = SHOP.login().into_db(DATABASE);
        Conn::connect(&Target::Tcp(self.sidecar.tcp("shop")?), &login, LONG)
    }

    /// The port of the server that a new client gets.
    fn port(&self) -> Result<String> {
        self.client()?.value("SELECT @@port")
    }

    fn status(&self) -> Result<serde_json::Value> {
        let answer = self.sidecar.admin("GET", "/v1/services/shop", "")?;
        Ok(serde_json::from_str(&answer.body)?)
    }

    fn wait_reason(&self, text: &str) -> Result<()> {
        let what = format!("a trouble with {text:?}");
        wait::until_true(&what, LONG, || {
            Ok(self.status()?["troubles"].to_string().contains(text))
        })
        .with_context(|| self.sidecar.server().log_tail())
    }

    /// What status says of the second server.
    fn wait_endpoint(&self, what: &str, is: impl Fn(&serde_json::Value) -> bool) -> Result<()> {
        let mut last = serde_json::Value::Null;
        wait::until_true(what, LONG, || {
            last = self.status()?["endpoints"][1].clone();
            Ok(is(&last))
        })
        .with_context(|| last.to_string())
    }
}

#[test]
fn the_server_that_can_be_written_to_is_the_primary() -> Result<()> {
    let pair = Pair::start()?;
    let (one, two) = (pair.one.addr, pair.two.addr);
    pair.sidecar.wait_primary("shop", one, LONG)?;
    pair.wait_endpoint("the replica to follow", |it| it["lag_seconds"] == 0)?;
    ensure!(pair.port()? == one.port().to_string());

    // Two can be written to: the present one stays, and it is said.
    pair.two.set_global("read_only", "OFF")?;
    pair.wait_reason("several masters")?;
    ensure!(pair.sidecar.primary("shop")? == Some(one));
    pair.two.set_global("read_only", "ON")?;
    pair.wait_endpoint("the replica to be one again", |it| it["role"] == "replica")?;

    // Promoted by hand; who waits gets the new one.
    let mut kept = pair.client()?;
    kept.query("CREATE TABLE orders (id INT AUTO_INCREMENT PRIMARY KEY, n INT)")?;
    kept.query("INSERT INTO orders (n) VALUES (1)")?;
    pair.one.set_global("read_only", "ON")?;
    let waiting = std::thread::scope(|scope| -> Result<String> {
        let port = scope.spawn(|| {
            wait::until_true("the primary to be given up", LONG, || {
                Ok(pair.sidecar.primary("shop")?.is_none())
            })?;
            pair.port()
        });
        let gtid = pair.one.value("SELECT @@gtid_current_pos")?;
        let sql = format!("SELECT MASTER_GTID_WAIT('{gtid}', 20)");
        ensure!(
            pair.two.value(&sql)? == "0",
            "the replica does not catch up"
        );
        pair.two.query("STOP SLAVE")?;
        pair.two.query("RESET SLAVE ALL")?;
        pair.two.set_global("read_only", "OFF")?;
        port.join().expect("no panic in a client")
    })?;
    ensure!(
        waiting == two.port().to_string(),
        "the waiting client got {waiting}"
    );
    pair.sidecar.wait_primary("shop", two, LONG)?;
    wait::until_true(
        "the old sessions to be closed",
        Duration::from_secs(5),
        || Ok(!kept.is_usable()),
    )?;
    ensure!(pair.client()?.value("SELECT COUNT(*) FROM orders")? == "1");
    follow(&pair.one, &pair.two)?;
    assert_sound(&pair.sidecar)
}

#[test]
fn a_replica_that_is_behind_gets_no_reads() -> Result<()> {
    let pair = Pair::start()?;
    pair.sidecar.wait_primary("shop", pair.one.addr, LONG)?;
    let fit = |it: &serde_json::Value| it["lag_seconds"] == 0 && it["detail"].is_null();
    pair.wait_endpoint("the replica to follow", fit)?;
    let mut client = pair.client()?;
    client.query("CREATE TABLE t (n INT PRIMARY KEY)")?;

    // It applies, and waits for somebody's lock.
    let gtid = pair.one.value("SELECT @@gtid_current_pos")?;
    ensure!(
        pair.two
            .value(&format!("SELECT MASTER_GTID_WAIT('{gtid}', 20)"))?
            == "0"
    );
    let mut locker = pair.two.conn()?;
    locker.query("LOCK TABLES shop.t WRITE")?;
    client.query("INSERT INTO t VALUES (1)")?;
    pair.wait_reason("s behind")?;
    let lag = pair.sidecar.metric("endpoint_lag_seconds", &[])?;
    ensure!(lag > 2.0, "{lag}");
    locker.query("UNLOCK TABLES")?;
    pair.wait_endpoint("the replica to catch up", fit)?;

    pair.two.query("STOP SLAVE SQL_THREAD")?;
    pair.wait_reason("its replication does not run")?;
    pair.two.query("START SLAVE SQL_THREAD")?;
    pair.wait_endpoint("the replica to go on", fit)?;
    assert_sound(&pair.sidecar)
}

/// TLS begins in the middle of the login, and the account may insist on it.
#[test]
fn probes_over_tls() -> Result<()> {
    let certs = Certs::make(&["127.0.0.1", "db.test"])?;
    let server = MariaDb::start(&MariaConf::default().tls(&certs))?;
    server.query(&format!("ALTER USER '{}'@'%' REQUIRE SSL", PROBE.user))?;
    let sidecar = |mode: &str, name: &str, until| {
        let mut section = format!("[service.tls]\nmode = \"{mode}\"\n");
        if mode != "require" {
            section += &format!("ca_file = \"{}\"\n", certs.ca.display());
        }
        if mode == "verify-full" {
            section += &format!("server_name = \"{name}\"\n");
        }
        let service = Service::mysql("shop", "mysql", &[server.addr])?.section(&section);
        let config = Config::new()?.line("workers = 1").service(service);
        Sidecar::start(binary(), config, until)
    };
    for mode in ["verify-full", "verify-ca", "require"] {
        let sidecar = sidecar(mode, "db.test", Until::Healthy)?;
        let login = SHOP.login().into_db(DATABASE);
        let mut client = Conn::connect(&Target::Tcp(sidecar.tcp("shop")?), &login, LONG)?;
        ensure!(client.value("SELECT 1")? == "1");
    }
    let wrong = sidecar("verify-full", "other.test", Until::Live)?;
    wrong.wait_log("TLS", LONG)?;
    ensure!(wrong.primary("shop")?.is_none());
    Ok(())
}

/// The kept connection is what tells "full" from "down".
#[test]
fn a_full_server_stays_the_primary() -> Result<()> {
    let server = MariaDb::start(&MariaConf::with(&["max_connections = 10"]))?;
    let service = Service::mysql("shop", "mysql", &[server.addr])?.discover("interval", "100ms");
    let config = Config::new()?.line("workers = 1").service(service);
    let sidecar = Sidecar::start(binary(), config, Until::Healthy)?;
    let file = sidecar.config_file().display().to_string();
    let (code, said) = pilotfish(&["check", "--probe", "-c", &file]);
    ensure!(code == Some(0) && said.contains("primary"), "{said}");
    let mut all = Vec::new();
    let refused = loop {
        match Conn::connect(&Target::Tcp(server.addr), &SHOP.login(), LONG) {
            Ok(conn) => all.push(conn),
            Err(error) => break error,
        }
        ensure!(all.len() < 20);
    };
    ensure!(pilotfish_harness::sql::sql_error(&refused).is_some_and(|it| it.code == 1040));
    let probes = || sidecar.metric("probe_seconds_count", &[]);
    let asked = probes()?;
    wait::until_true("ten more answers", LONG, || Ok(probes()? >= asked + 10.0))?;
    ensure!(sidecar.primary("shop")? == Some(server.addr));
    ensure!(sidecar.log_lines("no-primary")?.is_empty());
    // Its death is noticed by the end of that connection.
    drop(all);
    server.server().kill()?;
    let gone = |health: &serde_json::Value| health["services"]["shop"]["primary"].is_null();
    sidecar.wait_health("the primary to be given up", LONG, gone)?;
    assert_sound(&sidecar)
}
