//! Real clients of MySQL at a real MariaDB.

use std::path::PathBuf;
use std::process::Command;

use pilotfish_harness::certs::Certs;
use pilotfish_harness::mariadb::{DATABASE, MariaConf, MariaDb, SHOP};
use pilotfish_harness::resp::Target;
use pilotfish_harness::sidecar::{Service, Sidecar};
use pilotfish_harness::wait;

use crate::kit::{self, LONG, Talk};
use crate::mysql_wire::{fixed, mariadb, verified};
use crate::support::assert_sound;

fn server(extra: &[&str]) -> MariaDb {
    MariaDb::start(&MariaConf::with(extra)).unwrap()
}

fn at(servers: &[&MariaDb]) -> Service {
    let nodes: Vec<_> = servers.iter().map(|it| it.addr).collect();
    kit::patient(fixed(&nodes))
}

/// A script of `tests/it/php` that may read local files and hold large values.
fn php(script: &str, target: &Target) -> Command {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/php");
    let mut command = kit::program("php");
    command.args(["-d", "mysqli.allow_local_infile=1", "-d", "memory_limit=1G"]);
    command.arg(path.join(script));
    match target {
        Target::Tcp(addr) => command
            .arg(addr.ip().to_string())
            .arg(addr.port().to_string()),
        Target::Unix(path) => command.arg(path),
    };
    command
}

fn sql(target: &Target, more: &[&str], statement: &str) -> String {
    let mut command = mariadb(target, SHOP.password);
    let command = command.args(more).arg(DATABASE).args(["-e", statement]);
    kit::run(command, b"")
}

/// Bytes of memory that no session of large values may need.
const LITTLE: u64 = 48 << 20;

#[test]
fn mysqli_and_pdo_over_tcp_and_unix() {
    let server = server(&["max_allowed_packet = 128M"]);
    let sidecar = kit::start(at(&[&server]));
    let before = sidecar.server().rss().unwrap();
    for target in kit::targets(&sidecar) {
        for script in ["mysqli.php", "pdo.php"] {
            let said = kit::run(&mut php(script, &target), b"");
            assert_eq!(said, "done\n", "{script} at {target}");
        }
    }
    let grown = sidecar.server().rss().unwrap().saturating_sub(before);
    assert!(grown < LITTLE, "{grown} bytes more than before");
    kit::wait_no_sessions(&sidecar);
    assert_eq!(quits(&sidecar), 6.0);
    assert_sound(&sidecar).unwrap();
}

/// Sessions that a client ended: server and client hang up together then, and either may be first.
fn quits(sidecar: &Sidecar) -> f64 {
    kit::ends(sidecar, "client-closed") + kit::ends(sidecar, "upstream-closed")
}

#[test]
fn the_mariadb_client() {
    let server = server(&[]);
    let sidecar = kit::start(at(&[&server]));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "1\n2\n3\n").unwrap();
    let load = format!(
        "CREATE OR REPLACE TABLE t (n INT); LOAD DATA LOCAL INFILE '{}' INTO TABLE t; SELECT SUM(n) FROM t",
        file.path().display()
    );
    for target in kit::targets(&sidecar) {
        assert_eq!(sql(&target, &["--local-infile"], &load), "6\n");
        assert_eq!(
            sql(&target, &["--compress"], "SELECT REPEAT('x', 3)"),
            "xxx\n"
        );
        let mut piped = mariadb(&target, SHOP.password);
        let input: String = (0..500).map(|n| format!("SELECT {n};\n")).collect();
        let said = kit::run(&mut piped, input.as_bytes());
        assert_eq!(said.lines().count(), 500);
    }
    kit::wait_no_sessions(&sidecar);
    assert_eq!(quits(&sidecar), 6.0);
}

fn with_tls(certs: &Certs) -> MariaDb {
    let conf = MariaConf::with(&["max_allowed_packet = 128M", "require_secure_transport = ON"]);
    let server = MariaDb::start(&conf.tls(certs)).unwrap();
    for statement in [
        "INSTALL SONAME 'auth_ed25519'",
        "CREATE USER 'curve'@'%' IDENTIFIED VIA ed25519 USING PASSWORD('shop-s3cret')",
        "GRANT ALL ON shop.* TO 'curve'@'%'",
    ] {
        server.query(statement).unwrap();
    }
    server
}

const CIPHER: &str = "SHOW STATUS LIKE 'Ssl_cipher'";

#[test]
fn tls_to_the_server_and_plaintext_clients() {
    let certs = Certs::make(&["127.0.0.1"]).unwrap();
    let server = with_tls(&certs);
    let sidecar = kit::start(at(&[&server]).section(&verified(&certs)));
    for target in kit::targets(&sidecar) {
        for script in ["mysqli.php", "pdo.php"] {
            let said = kit::run(&mut php(script, &target), b"");
            assert_eq!(said, "done\n", "{script} at {target}");
        }
        for user in ["--user=shop", "--user=curve"] {
            let said = sql(&target, &[user], CIPHER);
            assert!(said.starts_with("Ssl_cipher\tTLS_"), "{user}: {said:?}");
        }
    }
    assert_sound(&sidecar).unwrap();
}

#[test]
fn clients_that_bring_tls_of_their_own() {
    let certs = Certs::make(&["127.0.0.1"]).unwrap();
    let server = with_tls(&certs);
    let sidecar = kit::start(at(&[&server]));
    let [target, _] = kit::targets(&sidecar);
    let ca = format!("--ssl-ca={}", certs.ca.display());
    let said = sql(&target, &["--ssl", "--ssl-verify-server-cert", &ca], CIPHER);
    assert!(said.starts_with("Ssl_cipher\tTLS_"), "{said:?}");
    // In plaintext the server does not want them.
    let mut plain = kit::php("mysqli-login.php", &target);
    let said = kit::run(&mut plain, b"");
    assert!(said.starts_with("1045 Access denied"), "{said}");
    kit::wait_ends(&sidecar, "login-refused", 1.0);
}

#[test]
fn a_full_server_says_so_itself() {
    let server = server(&["max_connections = 10", "extra_max_connections = 1"]);
    let sidecar = kit::start(at(&[&server]));
    let [target, unix] = kit::targets(&sidecar);
    let mut kept = Vec::new();
    for _ in 0..9 {
        let mut php = Talk::start(&mut kit::php("wpdb.php", &target));
        assert_eq!(php.hear(), "ready");
        kept.push(php);
    }
    // The harness has the tenth, and the probes come and go.
    for target in [&target, &unix] {
        let refused = wait::until("the server to be full", LONG, || {
            let said = kit::run(&mut kit::php("mysqli-login.php", target), b"");
            Ok((said == "1040 Too many connections\n").then_some(()))
        });
        refused.unwrap();
    }
    for php in &mut kept {
        php.say("SELECT 7");
        assert_eq!(php.hear(), "7 after 1");
    }
    assert_sound(&sidecar).unwrap();
}

fn asleep(server: &MariaDb) {
    let sleeps = "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User sleep'";
    wait::until_true("a statement to run", LONG, || {
        Ok(server.value(sleeps)? == "1")
    })
    .unwrap();
}

/// PHP at the first of two servers, with a statement before and one running when that dies.
fn cut(in_flight: &str) -> (MariaDb, Sidecar, Talk) {
    let (old, new) = (server(&[]), server(&[]));
    for server in [&old, &new] {
        server.query("CREATE TABLE shop.t (n INT)").unwrap();
    }
    let service = at(&[&old, &new]).set("in_flight", in_flight);
    let sidecar = kit::start(service);
    let [target, _] = kit::targets(&sidecar);
    let mut php = Talk::start(&mut kit::php("wpdb.php", &target));
    assert_eq!(php.hear(), "ready");
    php.say("SELECT 1");
    assert_eq!(php.hear(), "1 after 1");
    php.say("INSERT INTO t SELECT SLEEP(2)");
    asleep(&old);
    old.server().kill().unwrap();
    sidecar.wait_primary("cache", new.addr, LONG).unwrap();
    (new, sidecar, php)
}

#[test]
fn a_statement_that_was_cut_is_not_sent_again_when_it_hears_an_error() {
    let (new, sidecar, mut php) = cut("error");
    assert_eq!(php.hear(), "error 1053 after 1");
    php.say("SELECT 2");
    assert_eq!(php.hear(), "2 after 2");
    assert_eq!(new.value("SELECT COUNT(*) FROM shop.t").unwrap(), "0");
    assert_sound(&sidecar).unwrap();
}

/// What WordPress does by itself, and why the other way exists.
#[test]
fn a_statement_that_was_cut_is_sent_again_when_its_connection_just_ends() {
    let (new, sidecar, mut php) = cut("close");
    assert_eq!(php.hear(), "ok after 2");
    assert_eq!(new.value("SELECT COUNT(*) FROM shop.t").unwrap(), "1");
    assert_sound(&sidecar).unwrap();
}

#[test]
fn an_idle_session_hears_only_its_end() {
    for (in_flight, way) in [("error", 0), ("close", 1)] {
        let (old, new) = (server(&[]), server(&[]));
        let sidecar = kit::start(at(&[&old, &new]).set("in_flight", in_flight));
        let target = &kit::targets(&sidecar)[way];
        let mut php = Talk::start(&mut kit::php("wpdb.php", target));
        assert_eq!(php.hear(), "ready");
        php.say("SELECT 1");
        assert_eq!(php.hear(), "1 after 1");
        old.server().kill().unwrap();
        sidecar.wait_primary("cache", new.addr, LONG).unwrap();
        kit::wait_no_sessions(&sidecar);
        php.say("SELECT 2");
        assert_eq!(php.hear(), "2 after 2");
    }
}
