//! Passwords, TLS, who may use the admin socket, and that no secret is shown anywhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pilotfish_harness::certs::Certs;
use pilotfish_harness::process::find_program;
use pilotfish_harness::redis::{Options, RedisCluster, RedisConf, RedisServer, Tls};
use pilotfish_harness::resp::{Auth, Conn, Value};
use pilotfish_harness::sidecar::{Service, Sidecar, Until};
use pilotfish_harness::wait;

use crate::kit::{self, LONG, VERY_LONG, ok, say};

fn auth(user: Option<&str>, password: &str) -> Auth {
    Auth {
        user: user.map(Into::into),
        password: password.into(),
    }
}

fn assert_error(reply: &Value, begins: &str) {
    assert!(
        matches!(reply, Value::Error(text) if text.starts_with(begins)),
        "{reply:?}"
    );
}

/// The service has no primary, and the status says why.
fn assert_refused(sidecar: &Sidecar, why: &str) {
    let said = || {
        Ok(kit::status(sidecar)["endpoints"][0]["detail"]
            .as_str()
            .is_some_and(|d| d.contains(why)))
    };
    if let Err(error) = wait::until_true("the reason to be shown", LONG, said) {
        panic!("{error}: {}", kit::status(sidecar));
    }
    sidecar.wait_log(why, LONG).unwrap();
    assert_eq!(sidecar.primary("cache").unwrap(), None);
    assert_eq!(sidecar.http_get("/healthz").unwrap().status, 503);
}

#[test]
fn clients_and_the_monitor_log_in_for_themselves() {
    let secret = auth(None, "redis-pass-zkqv");
    let conf = RedisConf {
        auth: Some(secret.clone()),
        ..RedisConf::default()
    };
    let redis = RedisServer::start(&conf).unwrap();
    let sidecar = kit::start(kit::cache(&[redis.addr]).login("", Some(&secret)));
    for target in kit::targets(&sidecar) {
        let mut client = kit::connect(&target);
        assert_error(&say(&mut client, &["SET", "a", "1"]), "NOAUTH");
        let mut client = Conn::connect_auth(&target, Some(&secret), LONG).unwrap();
        assert_eq!(say(&mut client, &["SET", "a", "1"]), ok());
    }
}

#[test]
fn an_acl_user_with_nothing_but_role_is_enough_for_the_monitor() {
    let (app, probe) = (
        auth(Some("app"), "app-pass-zkqv"),
        auth(Some("probe"), "probe-pass-zkqv"),
    );
    let conf = RedisConf {
        auth: Some(app.clone()),
        extra: vec![format!("user probe on >{} -@all +role", probe.password)],
        ..RedisConf::default()
    };
    let redis = RedisServer::start(&conf).unwrap();
    let sidecar = kit::start(kit::cache(&[redis.addr]).login("", Some(&probe)));
    let target = &kit::targets(&sidecar)[0];
    let mut client = Conn::connect_auth(target, Some(&app), LONG).unwrap();
    assert_eq!(say(&mut client, &["SET", "a", "1"]), ok());
    let mut limited = Conn::connect_auth(target, Some(&probe), LONG).unwrap();
    assert_error(&say(&mut limited, &["SET", "a", "1"]), "NOPERM");
}

#[test]
fn a_wrong_password_is_said_and_nothing_is_routed() {
    let conf = RedisConf {
        auth: Some(auth(None, "right-zkqv")),
        ..RedisConf::default()
    };
    let redis = RedisServer::start(&conf).unwrap();
    for (login, why) in [
        (Some(auth(None, "wrong-zkqv")), "WRONGPASS"),
        (None, "NOAUTH"),
    ] {
        let sidecar =
            kit::start_without_primary(kit::cache(&[redis.addr]).login("", login.as_ref()));
        assert_refused(&sidecar, why);
        assert!(!sidecar.server().log().unwrap().contains("zkqv"));
    }
}

/// A Redis server behind TLS, with a certificate for these names.
struct Encrypted {
    redis: RedisServer,
    certs: Certs,
}

impl Encrypted {
    fn start(names: &[&str], client_certs: bool) -> Self {
        let certs = Certs::make(names).unwrap();
        let tls = Tls {
            client_certs,
            ..Tls::from(&certs)
        };
        let conf = RedisConf {
            tls: Some(tls),
            ..RedisConf::default()
        };
        let redis = RedisServer::start(&conf).unwrap();
        Self { redis, certs }
    }

    fn service(&self, lines: &[String]) -> Service {
        kit::patient(kit::cache(&[self.redis.addr]))
            .section(&format!("[service.tls]\n{}", lines.join("\n")))
    }

    fn assert_works(&self, lines: &[String]) {
        let sidecar = kit::start(self.service(lines));
        assert_eq!(
            say(&mut kit::client(&sidecar), &["SET", "a", "1"]),
            ok(),
            "{lines:?}"
        );
        assert_eq!(
            say(&mut kit::client(&sidecar), &["GET", "a"])
                .text()
                .unwrap(),
            "1"
        );
    }

    fn assert_fails(&self, lines: &[String], why: &str) {
        assert_refused(&kit::start_without_primary(self.service(lines)), why);
    }
}

fn set(key: &str, value: &str) -> String {
    format!("{key} = \"{value}\"")
}

fn file(key: &str, path: &std::path::Path) -> String {
    set(key, &path.display().to_string())
}

#[test]
fn verify_full_wants_the_right_authority_and_name() {
    let server = Encrypted::start(&["redis.test", "127.0.0.1"], false);
    let (ca, other) = (
        file("ca_file", &server.certs.ca),
        Certs::make(&["redis.test"]).unwrap(),
    );
    let full = set("mode", "verify-full");
    for name in ["redis.test", "127.0.0.1"] {
        server.assert_works(&[full.clone(), ca.clone(), set("server_name", name)]);
    }
    let wrong_ca = [
        full.clone(),
        file("ca_file", &other.ca),
        set("server_name", "redis.test"),
    ];
    server.assert_fails(&wrong_ca, "invalid peer certificate");
    server.assert_fails(
        &[full, ca, set("server_name", "other.test")],
        "not valid for name",
    );
}

#[test]
fn the_weaker_modes_accept_what_libpq_says() {
    let server = Encrypted::start(&["redis.test"], false);
    let ca = file("ca_file", &server.certs.ca);
    server.assert_works(&[set("mode", "require")]);
    server.assert_works(&[
        set("mode", "verify-ca"),
        ca,
        set("server_name", "other.test"),
    ]);
    let other = Certs::make(&["redis.test"]).unwrap();
    server.assert_fails(
        &[set("mode", "verify-ca"), file("ca_file", &other.ca)],
        "invalid peer certificate",
    );
    // To a server that does not speak TLS, nothing is sent in the clear.
    let plain = kit::redis();
    let service = kit::cache(&[plain.addr]).section("[service.tls]\nmode = \"require\"");
    assert_refused(&kit::start_without_primary(service), "no answer within");
}

#[test]
fn a_client_certificate_opens_a_server_that_wants_one() {
    let server = Encrypted::start(&["redis.test"], true);
    let ca = file("ca_file", &server.certs.ca);
    let base = [
        set("mode", "verify-full"),
        ca,
        set("server_name", "redis.test"),
    ];
    server.assert_fails(&base, "ertificate");
    let pair = [
        file("cert_file", &server.certs.cert),
        file("key_file", &server.certs.key),
    ];
    server.assert_works(&[base.as_slice(), &pair].concat());
}

#[test]
fn large_values_and_half_closes_pass_through_tls() {
    let server = Encrypted::start(&["redis.test"], false);
    let sidecar = kit::start(server.service(&[set("mode", "require")]));
    let value = kit::large_value();
    let mut client = kit::client(&sidecar);
    client.set_timeout(VERY_LONG).unwrap();
    assert_eq!(kit::set_large(&mut client, "large", value), ok());
    let Value::Bulk(got) = say(&mut client, &["GET", "large"]) else {
        panic!("no string")
    };
    assert!(got == value, "it came back changed");
    client
        .send_raw(&b"*1\r\n$4\r\nPING\r\n".repeat(1000))
        .unwrap();
    client.stream().shutdown_write().unwrap();
    assert_eq!(client.read_to_end().unwrap(), b"+PONG\r\n".repeat(1000));
    kit::wait_no_sessions(&sidecar);
}

#[test]
fn sentinels_behind_tls_and_passwords() {
    let certs = Certs::make(&["redis.test"]).unwrap();
    let options = Options {
        replicas: 1,
        auth: Some(auth(Some("app"), "app-pass-zkqv")),
        sentinel_auth: Some(auth(None, "sentinel-pass-zkqv")),
        tls: Some(Tls::from(&certs)),
        ..Options::default()
    };
    let cluster = RedisCluster::start(options).unwrap();
    let tls = |section: &str, ca: &std::path::Path| {
        let lines = [
            set("mode", "verify-full"),
            file("ca_file", ca),
            set("server_name", "redis.test"),
        ];
        format!("[{section}]\n{}", lines.join("\n"))
    };
    let service = |ca: &std::path::Path| {
        Service::sentinel("cache", &cluster)
            .unwrap()
            .section(&tls("service.discovery.tls", ca))
            .section(&tls("service.tls", &certs.ca))
    };
    let sidecar = kit::start(kit::patient(service(&certs.ca)));
    let mut client = Conn::connect_auth(
        &kit::targets(&sidecar)[0],
        cluster.options().auth.as_ref(),
        LONG,
    )
    .unwrap();
    assert_eq!(say(&mut client, &["SET", "a", "1"]), ok());
    cluster.failover(0).unwrap();
    let new = cluster.wait_new_master(0, LONG).unwrap();
    sidecar
        .wait_primary("cache", cluster.node(new).addr, LONG)
        .unwrap();
    assert_eq!(
        client.read_to_end().unwrap(),
        b"",
        "over TLS, too, the end is a FIN"
    );

    let other = Certs::make(&["redis.test"]).unwrap();
    let blind = kit::start_without_primary(service(&other.ca));
    blind.wait_log("invalid peer certificate", LONG).unwrap();
    assert!(blind.primary("cache").unwrap().is_none());
    assert!(
        kit::status(&blind)
            .to_string()
            .contains("invalid peer certificate")
    );
}

/// What user `nobody` gets from the admin socket.
fn as_nobody(sidecar: &Sidecar) -> String {
    let script = r#"$s = @stream_socket_client("unix://" . $argv[1], $code, $why);
        if (!$s) { echo "no connection: $why"; exit; }
        fwrite($s, "GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        echo stream_get_contents($s);"#;
    let mut command = kit::program("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command
        .arg(find_program("php").unwrap())
        .args(["-r", script])
        .arg(sidecar.admin_socket());
    kit::run(&mut command, b"")
}

#[test]
fn other_users_may_not_use_the_admin_socket() {
    let redis = kit::redis();
    if !rustix::process::geteuid().is_root() {
        // Only root can be somebody else. What the kernel checks first is the file's mode; the check
        // of the peer has a test without root in admin/server.
        let sidecar = kit::start(kit::cache(&[redis.addr]));
        let mode = fs::metadata(sidecar.admin_socket())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        return;
    }
    for (mode, said) in [
        ("0600", "no connection: Permission denied"),
        ("0666", "HTTP/1.1 403"),
    ] {
        let mut config = kit::config(kit::cache(&[redis.addr]));
        config.admin_lines.push(set("mode", mode));
        let sidecar = Sidecar::start(kit::binary(), config, Until::Healthy).unwrap();
        let dir = sidecar.admin_socket().parent().unwrap().to_owned();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        let answer = as_nobody(&sidecar);
        assert!(answer.starts_with(said), "{mode}: {answer}");
        assert!(!answer.contains(&redis.addr.to_string()), "{answer}");
        assert_eq!(
            sidecar.admin("GET", "/v1/status", "").unwrap().status,
            200,
            "root may"
        );
        if mode == "0666" {
            let line = sidecar.wait_log("admin-refused", LONG).unwrap();
            assert!(line.contains("65534"), "{line}");
        }
    }
}

#[test]
fn no_secret_is_shown_anywhere() {
    let (server, literal) = (auth(Some("app"), "file-pass-zkqv"), "literal-pass-zkqv");
    let conf = RedisConf {
        auth: Some(server.clone()),
        ..RedisConf::default()
    };
    let redis = RedisServer::start(&conf).unwrap();
    // One that works, one whose server refuses it, one for sentinels that are not there.
    let wrong = |name: &str, kind: &str| {
        Service::new(name, "redis")
            .unwrap()
            .discover("kind", kind)
            .line("required = false")
    };
    let refused = wrong("refused", "redis")
        .discover_all("nodes", &[redis.addr])
        .discover("password", literal);
    let sentinel = wrong("sentinel", "sentinel")
        .discover("master", "mymaster")
        .discover_all("sentinels", &[redis.addr])
        .discover("sentinel_password", literal);
    let mut config = kit::config(kit::cache(&[redis.addr]).login("", Some(&server))).level("trace");
    config = config.service(refused).service(sentinel);
    let mut sidecar = Sidecar::start(kit::binary(), config.clone(), Until::Healthy).unwrap();
    let mut client = Conn::connect_auth(&kit::targets(&sidecar)[0], Some(&server), LONG).unwrap();
    assert_eq!(say(&mut client, &["SET", "a", "1"]), ok());
    drop(client);
    sidecar.wait_log("WRONGPASS", LONG).unwrap();
    let (file, socket) = (sidecar.config_file(), sidecar.admin_socket());
    let (file, socket) = (
        file.to_str().unwrap().to_owned(),
        socket.to_str().unwrap().to_owned(),
    );
    let mut shown = vec![
        sidecar.http_get("/healthz").unwrap().body,
        sidecar.http_get("/metrics").unwrap().body,
        sidecar.admin("GET", "/v1/status", "").unwrap().body,
        kit::pilotfish(&["check", "-c", &file]).1,
        kit::pilotfish(&["check", "--probe", "-c", &file]).1,
        kit::pilotfish(&["status", "--socket", &socket]).1,
        kit::pilotfish(&["status", "--json", "--socket", &socket]).1,
    ];
    // A mistake beside the password: the lines around it are printed.
    config.services[1] = config.services[1]
        .clone()
        .discover("pasword", literal)
        .discover("username", "7");
    sidecar.rewrite_config(config).unwrap();
    let (code, text) = kit::pilotfish(&["check", "-c", &file]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("pasword"), "{text}");
    shown.push(text);
    assert_eq!(sidecar.server().terminate(LONG).unwrap().code(), Some(0));
    shown.push(sidecar.server().log().unwrap());
    for text in &shown {
        assert!(!text.is_empty() && !text.contains("zkqv"), "{text}");
    }
}
