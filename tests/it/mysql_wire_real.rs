//! Real clients of MySQL at a real MariaDB.

use std::path::PathBuf;
use std::process::Command;

use pilotfish_harness::certs::Certs;
use pilotfish_harness::mariadb::{DATABASE, MariaConf, MariaDb, SHOP};
use pilotfish_harness::resp::{Stream, Target};
use pilotfish_harness::sidecar::{Service, Sidecar, Until};
use pilotfish_harness::wait;

use crate::kit::{self, LONG, Talk};
use crate::mysql_wire::script::{CAPS, Packets, mariadb_response};
use crate::mysql_wire::{client, fixed, mariadb, verified};
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

/// Where the one session stands, as `/v1/sessions` shows it.
fn wait_stage(sidecar: &Sidecar, wanted: &str) {
    let mut last = String::new();
    let waited = wait::until_true("the session's stage", LONG, || {
        let answer = sidecar.admin("GET", "/v1/sessions", "")?;
        let all: serde_json::Value = serde_json::from_str(&answer.body)?;
        last = all["sessions"][0]["state"].to_string();
        Ok(last == format!("\"{wanted}\""))
    });
    waited.unwrap_or_else(|error| panic!("{error:#}: {last}, not {wanted}"));
}

/// Everything PHP does, with mysqli and with PDO; at the end each session is known to be idle.
fn all_of_php(sidecar: &Sidecar) {
    for target in kit::targets(sidecar) {
        for (script, sessions) in [("mysqli.php", 1), ("pdo.php", 2)] {
            let mut talk = Talk::start(&mut php(script, &target));
            for _ in 0..sessions {
                assert_eq!(talk.hear(), "ready", "{script} at {target}");
                wait_stage(sidecar, "idle");
                talk.say("");
            }
            assert_eq!(talk.hear(), "done", "{script} at {target}");
            kit::wait_no_sessions(sidecar);
        }
    }
}

/// Bytes of memory that no session of large values may need.
const LITTLE: u64 = 48 << 20;

#[test]
fn mysqli_and_pdo_over_tcp_and_unix() {
    let server = server(&["max_allowed_packet = 128M"]);
    let sidecar = kit::start(at(&[&server]));
    let before = sidecar.server().rss().unwrap();
    all_of_php(&sidecar);
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
    all_of_php(&sidecar);
    for target in kit::targets(&sidecar) {
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
fn where_a_session_stands() {
    let server = server(&[]);
    server.query("CREATE TABLE shop.t (n INT)").unwrap();
    let sidecar = kit::start(at(&[&server]));
    for target in kit::targets(&sidecar) {
        let mut php = Talk::start(&mut kit::php("wpdb.php", &target));
        assert_eq!(php.hear(), "ready");
        wait_stage(&sidecar, "idle");
        for (statement, said, stage) in [
            ("BEGIN", "ok after 1", "in-transaction"),
            ("INSERT INTO t VALUES (1)", "ok after 1", "in-transaction"),
            ("NONSENSE", "error 1064 after 1", "in-transaction"),
            ("COMMIT", "ok after 1", "idle"),
            ("SET autocommit = 0", "ok after 1", "idle"),
            ("INSERT INTO t VALUES (2)", "ok after 1", "in-transaction"),
            ("ROLLBACK", "ok after 1", "idle"),
            ("SELECT SLEEP(1.5)", "0 after 1", "idle"),
        ] {
            php.say(statement);
            if statement.contains("SLEEP") {
                asleep(&server);
                wait_stage(&sidecar, "in-flight");
            }
            assert_eq!(php.hear(), said, "{statement}");
            wait_stage(&sidecar, stage);
        }
        drop(php);
        kit::wait_no_sessions(&sidecar);
        let mut plain = mariadb(&target, SHOP.password);
        let mut talk = Talk::start(plain.args(["--unbuffered", "-n"]));
        talk.say("SELECT 4;");
        assert_eq!(talk.hear(), "4");
        wait_stage(&sidecar, "idle");
        drop(talk);
        kit::wait_no_sessions(&sidecar);
        let mut compressed = mariadb(&target, SHOP.password);
        compressed.args(["--compress", "--unbuffered", "-n"]);
        let mut talk = Talk::start(&mut compressed);
        talk.say("SELECT 5;");
        assert_eq!(talk.hear(), "5");
        wait_stage(&sidecar, "pinned-compressed");
        drop(talk);
        kit::wait_no_sessions(&sidecar);
    }
}

type Raw = Packets<Stream>;

fn ask(raw: &mut Raw, command: u8, rest: &[u8]) -> Vec<u8> {
    raw.restart();
    raw.send(&[&[command], rest].concat()).unwrap();
    let answer = raw.recv().unwrap();
    assert_ne!(answer[0], 0xff, "{}", answer.escape_ascii());
    answer
}

/// Everything after a result's head, up to the OK that ends it; how many packets.
fn result(raw: &mut Raw) -> usize {
    (1..)
        .find(|_| raw.recv().unwrap()[0] == 0xfe)
        .unwrap_or_default()
}

/// Capabilities that neither PHP nor Debian's client has: nothing ends columns, and what a prepared
/// statement returns is described once.
#[test]
fn results_as_newer_clients_want_them() {
    const LONG_PASSWORD: u32 = 1;
    const PROGRESS_AND_CACHE: u32 = 1 | 1 << 4;
    let server = server(&[]);
    server
        .query("CREATE USER 'shop'@'127.0.0.1' IDENTIFIED BY ''")
        .unwrap();
    let sidecar = kit::start(at(&[&server]));
    for target in kit::targets(&sidecar) {
        let mut raw = client(&target);
        raw.recv().unwrap();
        let caps = CAPS & !LONG_PASSWORD;
        let response = mariadb_response(caps, PROGRESS_AND_CACHE, b"", "mysql_native_password");
        raw.send(&response).unwrap();
        assert_eq!(raw.recv().unwrap()[0], 0);
        assert_eq!(ask(&mut raw, 3, b"BEGIN")[0], 0);
        wait_stage(&sidecar, "in-transaction");
        assert_eq!(ask(&mut raw, 3, b"SELECT 1 UNION SELECT 2"), [1, 1]);
        assert_eq!(result(&mut raw), 4, "a column, two rows, the end");
        let prepared = ask(&mut raw, 0x16, b"SELECT 7 WHERE 1 = ?");
        let id = &prepared[1..5];
        assert_eq!(prepared[5..9], [1, 0, 1, 0]);
        raw.recv().unwrap();
        raw.recv().unwrap();
        let one = [id, &[0, 1, 0, 0, 0, 0, 1, 3, 0, 1, 0, 0, 0]].concat();
        assert_eq!(ask(&mut raw, 0x17, &one), [1, 0], "not described again");
        assert_eq!(result(&mut raw), 2, "a row, the end");
        let cursor = [id, &[1, 1, 0, 0, 0, 0, 1, 3, 0, 1, 0, 0, 0]].concat();
        let described = ask(&mut raw, 0x17, &cursor)[1];
        assert_eq!(result(&mut raw), 1 + usize::from(described), "no row yet");
        let mut fetched = ask(&mut raw, 0x1c, &[id, &[9, 0, 0, 0]].concat());
        assert_eq!(fetched[0], 0, "a row");
        while fetched[0] != 0xfe {
            fetched = raw.recv().unwrap();
        }
        raw.restart();
        raw.send(&[&[0x19], id].concat()).unwrap();
        wait_stage(&sidecar, "in-transaction");
        assert_eq!(ask(&mut raw, 3, b"COMMIT")[0], 0);
        wait_stage(&sidecar, "idle");
        assert_eq!(ask(&mut raw, 0x1f, b"")[0], 0, "RESET_CONNECTION");
        wait_stage(&sidecar, "idle");
        drop(raw);
        kit::wait_no_sessions(&sidecar);
    }
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
fn a_statement_hears_that_the_proxy_goes() {
    let server = server(&[]);
    let service = at(&[&server]).set("in_flight", "error");
    let config = kit::config(service).line("drain_timeout = \"300ms\"");
    let sidecar = Sidecar::start(kit::binary(), config, Until::Healthy).unwrap();
    let [busy, idle] = kit::targets(&sidecar);
    let mut busy = Talk::start(&mut kit::php("wpdb.php", &busy));
    let mut idle = Talk::start(&mut kit::php("wpdb.php", &idle));
    assert_eq!((busy.hear(), idle.hear()), ("ready".into(), "ready".into()));
    busy.say("SELECT SLEEP(20)");
    asleep(&server);
    sidecar.server().terminate(LONG).unwrap();
    assert_eq!(busy.hear(), "error 1053 after 1");
    // Nobody is there any more, and that is all that it hears.
    idle.say("SELECT 1");
    assert_eq!(idle.hear(), "error 2002 after 1");
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
