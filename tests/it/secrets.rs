//! No secret is shown anywhere: not where things go well, not where they go wrong.

use std::path::Path;

use pilotfish_harness::certs::Certs;
use pilotfish_harness::mariadb::{MariaConf, MariaDb};
use pilotfish_harness::postgres::{PgConf, PgServer};
use pilotfish_harness::redis::{RedisConf, RedisServer, Tls};
use pilotfish_harness::resp::{Auth, Conn};
use pilotfish_harness::sidecar::{Config, Service, Sidecar, Until};

use crate::kit::{self, LONG};

/// In every password here, right or wrong.
const MARK: &str = "s3same-zkqv";

fn auth(user: Option<&str>, what: &str) -> Auth {
    Auth {
        user: user.map(Into::into),
        password: format!("{what}-{MARK}"),
    }
}

fn optional(name: &str, protocol: &str, kind: &str) -> Service {
    Service::new(name, protocol)
        .unwrap()
        .discover("kind", kind)
        .line("required = false")
}

/// Real servers that want passwords and certificates.
struct Servers {
    redis: RedisServer,
    behind_tls: RedisServer,
    maria: MariaDb,
    postgres: PgServer,
    certs: Certs,
    user: Auth,
}

impl Servers {
    fn start() -> Self {
        let user = auth(Some("app"), "redis");
        let redis = RedisConf {
            auth: Some(user.clone()),
            ..RedisConf::default()
        };
        let certs = Certs::make(&["127.0.0.1"]).unwrap();
        let behind_tls = RedisConf {
            tls: Some(Tls {
                client_certs: true,
                ..Tls::from(&certs)
            }),
            ..RedisConf::default()
        };
        let asked = PgConf {
            hba: vec!["host all pilot 127.0.0.1/32 scram-sha-256".into()],
            ..PgConf::default()
        };
        let postgres = PgServer::start(&asked).unwrap();
        let role = format!("CREATE ROLE pilot LOGIN PASSWORD 'postgres-{MARK}'");
        postgres.query(&role).unwrap();
        let maria = MariaDb::start(&MariaConf::default()).unwrap();
        let account = format!("CREATE USER pilot@'%' IDENTIFIED BY 'maria-{MARK}'");
        maria.query(&account).unwrap();
        maria
            .query("GRANT REPLICA MONITOR ON *.* TO pilot@'%'")
            .unwrap();
        Self {
            redis: RedisServer::start(&redis).unwrap(),
            behind_tls: RedisServer::start(&behind_tls).unwrap(),
            maria,
            postgres,
            certs,
            user,
        }
    }

    /// A service for every key that a secret may stand in, with the right one and with a wrong one.
    fn config(&self) -> Config {
        let wrong = format!("wrong-{MARK}");
        let redis =
            |name: &str| optional(name, "redis", "redis").discover_all("nodes", &[self.redis.addr]);
        let mysql = |name: &str, kind: &str| {
            let service = optional(name, "mysql", kind).discover_all("nodes", &[self.maria.addr]);
            service.discover("user", "pilot")
        };
        let postgres = |name: &str| {
            let service = optional(name, "postgres", "postgres");
            service
                .discover_all("nodes", &[self.postgres.addr])
                .discover("user", "pilot")
        };
        let sentinel = optional("sentinel", "redis", "sentinel")
            .discover("master", "mymaster")
            .discover_all("sentinels", &[self.redis.addr])
            .discover("sentinel_username", "app")
            .discover("sentinel_password", &wrong)
            .discover("username", "app")
            .discover("password", &wrong);
        let file = |key: &str, path: &Path| format!("{key} = \"{}\"\n", path.display());
        let tls = format!(
            "[service.tls]\nmode = \"verify-full\"\nserver_name = \"127.0.0.1\"\n{}{}{}",
            file("ca_file", &self.certs.ca),
            file("cert_file", &self.certs.cert),
            file("key_file", &self.certs.key),
        );
        let services = [
            kit::cache(&[self.redis.addr]).login("", Some(&self.user)),
            redis("redis-wrong")
                .discover("username", "app")
                .discover("password", &wrong),
            sentinel,
            optional("tls", "redis", "redis")
                .discover_all("nodes", &[self.behind_tls.addr])
                .section(&tls),
            mysql("mysql-right", "mysql").discover("password", &format!("maria-{MARK}")),
            mysql("mysql-wrong", "mysql").discover("password", &wrong),
            mysql("galera-wrong", "galera").discover("password", &wrong),
            postgres("postgres-right").discover("password", &format!("postgres-{MARK}")),
            postgres("postgres-wrong").discover("password", &wrong),
        ];
        let config = Config::new().unwrap().line("workers = 1").level("trace");
        services.into_iter().fold(config, Config::service)
    }

    /// A line of the key that only its owner knows.
    fn key(&self) -> String {
        let pem = std::fs::read_to_string(&self.certs.key).unwrap();
        pem.lines().nth(1).unwrap().to_owned()
    }
}

fn assert_none(shown: &[(String, String)], key: &str) {
    for (what, text) in shown {
        assert!(!text.is_empty(), "{what} shows nothing");
        for secret in [MARK, "zkqv", key] {
            let line = text.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{what} shows a secret: {line:?}");
        }
    }
}

/// Waits until those that know the right one are served, and those that do not were told so.
fn wait_for_answers(sidecar: &Sidecar) {
    for right in ["cache", "tls", "mysql-right", "postgres-right"] {
        let proven = |health: &serde_json::Value| health["services"][right]["primary"].is_string();
        sidecar.wait_health(right, LONG, proven).unwrap();
    }
    for refusal in [
        "WRONGPASS",
        "Access denied",
        "password authentication failed",
    ] {
        sidecar.wait_log(refusal, LONG).unwrap();
    }
}

/// Everything that says anything, by name.
fn everything(sidecar: &Sidecar) -> Vec<(String, String)> {
    let mut shown = Vec::new();
    for path in ["/healthz", "/metrics", "/", "/page/updates"] {
        shown.push((path.to_owned(), sidecar.http_get(path).unwrap().body));
    }
    for path in [
        "/v1/status",
        "/v1/config",
        "/v1/sessions",
        "/v1/events",
        "/v1/services/tls",
    ] {
        let answer = sidecar.admin("GET", path, "").unwrap();
        shown.push((path.to_owned(), answer.body));
    }
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["events"],
        &["sessions"],
        &["reload"],
    ] {
        shown.push((args.join(" "), kit::control(sidecar, args).1));
    }
    let file = sidecar.config_file();
    let file = file.to_str().unwrap();
    for args in [&["check"][..], &["check", "--probe"]] {
        let args = [args, &["-c", file]].concat();
        shown.push((args.join(" "), kit::pilotfish(&args).1));
    }
    shown
}

#[test]
fn no_secret_of_any_kind_is_shown() {
    let servers = Servers::start();
    let mut config = servers.config();
    let mut sidecar = Sidecar::start(kit::binary(), config.clone(), Until::Healthy).unwrap();
    wait_for_answers(&sidecar);
    let way = &kit::targets(&sidecar)[0];
    let mut client = Conn::connect_auth(way, Some(&servers.user), LONG).unwrap();
    assert_eq!(kit::say(&mut client, &["SET", "a", "1"]), kit::ok());
    drop(client);
    let mut shown = everything(&sidecar);

    // Mistakes beside the secrets: the lines around them are printed, recorded and shown.
    for service in &mut config.services {
        let mistaken = service.clone().discover("pasword", MARK);
        *service = mistaken.discover("interval", "never");
    }
    sidecar.rewrite_config(config).unwrap();
    let (code, said) = kit::control(&sidecar, &["reload"]);
    assert_eq!(code, Some(2), "{said}");
    shown.extend(everything(&sidecar));
    assert_eq!(sidecar.server().terminate(LONG).unwrap().code(), Some(0));
    let log = sidecar.server().log().unwrap();
    assert!(log.lines().count() > 20, "{log}");
    shown.push(("the log".into(), log));
    assert_none(&shown, &servers.key());
}

const PANIC: &str = "PILOTFISH_TEST_PANIC";

/// What a panic in the middle of everything could print: all that there is.
#[test]
fn not_even_a_panic_shows_one() {
    if let Some(file) = std::env::var_os(PANIC) {
        // The second life of this test, as a process whose stderr is looked at.
        pilotfish::telemetry::log::init("trace", false).unwrap();
        let loaded = pilotfish::config::load(Path::new(&file));
        let _ = std::thread::spawn(move || panic!("{loaded:?}")).join();
        return;
    }
    let dir = pilotfish_harness::scratch::Dir::new().unwrap();
    let (good, bad) = (dir.join("good.toml"), dir.join("bad.toml"));
    let text = format!(
        "[[service]]\nname = \"a\"\nprotocol = \"redis\"\nlisten = [\"127.0.0.1:1\"]\n[service.discovery]\n\
         kind = \"redis\"\nnodes = [\"127.0.0.1:2\"]\npassword = \"{MARK}\"\n"
    );
    std::fs::write(&good, &text).unwrap();
    std::fs::write(&bad, format!("{text}pasword = \"{MARK}\"\n")).unwrap();
    for file in [good, bad] {
        let child = std::process::Command::new("/proc/self/exe")
            .args([
                "--exact",
                "secrets::not_even_a_panic_shows_one",
                "--nocapture",
            ])
            .env(PANIC, &file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[child.stdout, child.stderr].concat()).into_owned();
        assert!(said.contains("panicked"), "{said}");
        assert_none(&[(file.display().to_string(), said)], "BEGIN PRIVATE KEY");
        // And not only because the log cuts what is too long.
        let whole = format!("{:?}", pilotfish::config::load(&file));
        assert_none(&[("Debug".into(), whole)], "BEGIN PRIVATE KEY");
    }
}
