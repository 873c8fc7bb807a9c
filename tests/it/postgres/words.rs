//! Logins of all kinds, with and without TLS to the server.

use anyhow::{Context, Result, ensure};
use pilotfish_harness::certs::Certs;
use pilotfish_harness::postgres::{PgConf, PgServer, program};
use pilotfish_harness::resp::Auth;
use pilotfish_harness::sidecar::{Service, Sidecar, Until, quoted};
use pilotfish_harness::wait;

use super::{LONG, assert_sound, config, shop, start, wait_state};
use crate::kit;

const PASSWORDS: &[(&str, &str)] = &[
    ("scram", "scram-sha-256"),
    ("hashed", "md5"),
    ("clear", "password"),
];

/// A server that wants passwords, and with `certs` also TLS. Its probe is an ordinary account.
fn guarded(certs: Option<&Certs>) -> Result<PgServer> {
    let host = if certs.is_some() { "hostssl" } else { "host" };
    let line = |(user, method): &(&str, &str)| format!("{host} all {user} 127.0.0.1/32 {method}");
    let mut conf = PgConf {
        hba: PASSWORDS.iter().map(line).collect(),
        ..PgConf::default()
    };
    conf.hba.push(line(&("pilotfish", "scram-sha-256")));
    let rest = "host all scram,hashed,clear,pilotfish,nobody 127.0.0.1/32 reject";
    conf.hba.push(rest.into());
    if let Some(certs) = certs {
        conf.files = vec![
            ("cert.pem".into(), certs.cert.clone()),
            ("key.pem".into(), certs.key.clone()),
        ];
        for line in [
            "ssl = on",
            "ssl_cert_file = '../cert.pem'",
            "ssl_key_file = '../key.pem'",
        ] {
            conf.lines.push(line.into());
        }
    }
    let server = PgServer::start(&conf)?;
    let mut pg = server.connect()?;
    for (user, method) in PASSWORDS {
        let way = if *method == "md5" {
            "md5"
        } else {
            "scram-sha-256"
        };
        pg.query(&format!("SET password_encryption = '{way}'"))?;
        pg.query(&format!("CREATE ROLE {user} LOGIN PASSWORD 'open sesame'"))?;
    }
    pg.query("CREATE ROLE pilotfish LOGIN PASSWORD 'open sesame'")?;
    Ok(server)
}

fn service(server: &PgServer) -> Result<Service> {
    let probe = Auth {
        user: None,
        password: "open sesame".into(),
    };
    let mut service = shop(&[server.addr])?.login("", Some(&probe));
    service.discovery.retain(|line| !line.starts_with("user"));
    Ok(service.discover("user", "pilotfish"))
}

fn psql(sidecar: &Sidecar, user: &str, password: &str, sql: &str) -> Result<std::process::Output> {
    let mut command = kit::program("env");
    command
        .arg(program("psql")?)
        .args(["-X", "-A", "-t", "-c", sql]);
    let tcp = sidecar.tcp("shop")?;
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", tcp.port().to_string());
    command.env("PGUSER", user).env("PGDATABASE", "postgres");
    command.env("PGPASSWORD", password);
    command.output().context("running psql")
}

const ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

fn log_in_everybody(sidecar: &Sidecar, encrypted: &str) -> Result<()> {
    for (user, _) in PASSWORDS {
        let said = psql(sidecar, user, "open sesame", ENCRYPTED)?;
        let (out, err) = (
            String::from_utf8_lossy(&said.stdout).into_owned(),
            String::from_utf8_lossy(&said.stderr).into_owned(),
        );
        ensure!(out.trim() == encrypted, "{user}: {out} {err}");
        let said = psql(sidecar, user, "let me in", ENCRYPTED)?;
        let err = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(
            err.contains("password authentication failed"),
            "{user}: {err}"
        );
    }
    let said = psql(sidecar, "nobody", "", ENCRYPTED)?;
    let err = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(err.contains("pg_hba.conf rejects connection"), "{err}");
    Ok(())
}

#[test]
fn passwords_pass_through() -> Result<()> {
    let server = guarded(None)?;
    let sidecar = start(service(&server)?)?;
    log_in_everybody(&sidecar, "f")?;
    // A session is counted when it is over, which the client knows before us.
    wait::until_true("four refused logins", LONG, || {
        let refused = sidecar.metric("session_ends_total", &[("reason", "login-refused")])?;
        Ok(refused == 4.0)
    })?;
    ensure!(!sidecar.server().log()?.contains("open sesame"));
    assert_sound(&sidecar)
}

#[test]
fn tls_to_the_server_and_none_to_the_client() -> Result<()> {
    let certs = Certs::make(&["db.test", "127.0.0.1"])?;
    let mut server = guarded(Some(&certs))?;
    let ca = quoted(&certs.ca.display().to_string());
    let tls = |mode: &str| -> Result<Service> {
        let lines = match mode {
            "require" => "[service.tls]\nmode = \"require\"".to_owned(),
            _ => format!(
                "[service.tls]\nmode = \"{mode}\"\nca_file = {ca}\nserver_name = \"db.test\""
            ),
        };
        Ok(service(&server)?.section(&lines))
    };
    for mode in ["require", "verify-ca", "verify-full"] {
        let sidecar = start(tls(mode)?)?;
        // SCRAM works although the server offers a binding to a channel that the client does not have.
        log_in_everybody(&sidecar, "t")?;
        assert_sound(&sidecar)?;
    }
    let mut wrong = tls("verify-full")?;
    for section in &mut wrong.sections {
        *section = section.replace("db.test", "other.test");
    }
    let sidecar = Sidecar::start(kit::binary(), config(wrong)?, Until::Live)?;
    sidecar.wait_log("certificate", LONG)?;
    ensure!(sidecar.primary("shop")?.is_none());
    drop(sidecar);
    // A server that lost its TLS: nothing goes there in plain text.
    let sidecar = start(tls("require")?)?;
    server.set("ssl = off")?;
    server.restart()?;
    wait_state(&sidecar, "shop", "degraded", "the server does not do TLS")?;
    ensure!(sidecar.primary("shop")?.is_none());
    assert_sound(&sidecar)
}
