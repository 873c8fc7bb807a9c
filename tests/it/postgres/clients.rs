//! Clients of all kinds, who notice nothing.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use pilotfish_harness::postgres::{Pg, PgCluster, message, program};
use pilotfish_harness::resp::{Stream, Target};
use pilotfish_harness::sidecar::Sidecar;
use pilotfish_harness::wait;

use super::{LONG, assert_sound, cluster, connect, shop, start, target};
use crate::kit::{self, large_value};

/// How libpq finds the sidecar, over TCP and through the directory of its socket.
fn ways(sidecar: &Sidecar, dir: &std::path::Path) -> Result<[Vec<(&'static str, String)>; 2]> {
    let tcp = sidecar.tcp("shop")?;
    let common = |host: String, port: String| {
        vec![
            ("PGHOST", host),
            ("PGPORT", port),
            ("PGUSER", "postgres".to_owned()),
            ("PGDATABASE", "postgres".to_owned()),
        ]
    };
    Ok([
        common("127.0.0.1".to_owned(), tcp.port().to_string()),
        common(dir.display().to_string(), "5432".to_owned()),
    ])
}

fn libpq(name: &str, environment: &[(&'static str, String)]) -> Result<Command> {
    let mut command = kit::program("env");
    command.arg(program(name)?);
    command.envs(environment.iter().map(|(k, v)| (*k, v.as_str())));
    Ok(command)
}

/// A sidecar that also listens in a directory, under PostgreSQL's own name.
fn with_directory(cluster: &PgCluster) -> Result<(Sidecar, PathBuf)> {
    let mut service = shop(&cluster.addrs())?;
    // The sidecar's own: a name that ends in `/`.
    service.unix = Some(String::new());
    let sidecar = start(service)?;
    let dir = sidecar.unix("shop")?;
    Ok((sidecar, dir))
}

#[test]
fn psql_pgbench_and_php() -> Result<()> {
    let cluster = cluster(0)?;
    let (sidecar, dir) = with_directory(&cluster)?;
    ensure!(dir.join(".s.PGSQL.5432").exists());
    for way in ways(&sidecar, &dir)? {
        let script = b"\\set ON_ERROR_STOP 1\nCREATE TEMPORARY TABLE t AS SELECT generate_series(1, 1000) AS n;\n\
            BEGIN;\nSAVEPOINT a;\nDELETE FROM t;\nROLLBACK TO a;\nCOMMIT;\nSELECT sum(n) FROM t;\n\
            \\copy (SELECT n FROM t WHERE n < 3) to stdout\n";
        let said = kit::run(libpq("psql", &way)?.args(["-X", "-A", "-t", "-q"]), script);
        ensure!(said == "500500\n1\n2\n", "{said:?}");
        kit::run(libpq("pgbench", &way)?.args(["-i", "-q", "-s", "1"]), b"");
        for mode in ["simple", "extended", "prepared"] {
            let mut command = libpq("pgbench", &way)?;
            command.args(["-n", "-M", mode, "-c", "4", "-j", "2", "-t", "50"]);
            let said = kit::run(&mut command, b"");
            ensure!(said.contains("200/200"), "{mode}: {said}");
            ensure!(
                said.contains("number of failed transactions: 0"),
                "{mode}: {said}"
            );
        }
        let mut command = libpq("pgbench", &way)?;
        command.args(["-n", "-C", "-S", "-c", "2", "-t", "20"]);
        ensure!(kit::run(&mut command, b"").contains("40/40"));
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/php/pgsql.php");
        let mut php = kit::program("php");
        php.arg(path).arg(&way[0].1).arg(&way[1].1);
        ensure!(kit::run(&mut php, b"") == "done\n");
    }
    // Sessions end one by one as their clients do.
    let sessions = || sidecar.metric("sessions_active", &[]);
    wait::until_true("all sessions to end", LONG, || Ok(sessions()? == 0.0))?;
    ensure!(sidecar.metric("session_ends_total", &[("reason", "protocol-error")])? == 0.0);
    assert_sound(&sidecar)
}

/// 100 MB in, and the same 100 MB out.
#[test]
fn copies_of_100_mb_both_ways() -> Result<()> {
    let cluster = cluster(0)?;
    let sidecar = start(shop(&cluster.addrs())?)?;
    let targets = [
        target(&sidecar)?,
        Target::from(sidecar.unix("shop")?.as_path()),
    ];
    let line: Vec<u8> = large_value()
        .iter()
        .map(|b| b"0123456789abcdef"[usize::from(b & 15)])
        .collect();
    for target in targets {
        let mut pg = Pg::connect(&target, kit::VERY_LONG)?;
        pg.query("CREATE TEMPORARY TABLE t (n int, line text)")?;
        pg.ask("COPY t FROM STDIN")?;
        let (kind, _) = pg.read()?;
        ensure!(kind == b'G', "{kind}");
        for (n, part) in line.chunks(1 << 20).enumerate() {
            let row = [format!("{n}\t").as_bytes(), part, b"\n"].concat();
            pg.send(&message(b'd', &row))?;
        }
        pg.send(&message(b'c', b""))?;
        pg.answer()?;
        pg.ask("COPY (SELECT line FROM t ORDER BY n) TO STDOUT")?;
        let mut back = Vec::with_capacity(line.len());
        loop {
            let (kind, body) = pg.read()?;
            match kind {
                b'd' => back.extend_from_slice(&body[..body.len() - 1]),
                b'Z' => break,
                b'H' | b'c' | b'C' => {}
                other => anyhow::bail!("{}", other as char),
            }
        }
        ensure!(back == line, "{} bytes of {}", back.len(), line.len());
        ensure!(pg.query("SELECT 1")? == [["1"]]);
    }
    assert_sound(&sidecar)
}

#[test]
fn a_notification_reaches_who_listens() -> Result<()> {
    let cluster = cluster(0)?;
    let sidecar = start(shop(&cluster.addrs())?)?;
    let (mut listens, mut speaks) = (connect(&sidecar)?, connect(&sidecar)?);
    listens.query("LISTEN news")?;
    speaks.query("NOTIFY news, 'hello'")?;
    let (kind, body) = listens.read()?;
    ensure!(
        kind == b'A' && body[4..] == *b"news\0hello\0",
        "{kind} {body:?}"
    );
    ensure!(listens.query("SELECT 1")? == [["1"]]);
    assert_sound(&sidecar)
}

fn cancel(target: &Target, key: &[u8]) -> Result<()> {
    let mut stream = Stream::connect(target, LONG)?;
    let length = u32::try_from(key.len() + 8)?;
    stream.write_all(&[&length.to_be_bytes(), &80_877_102_u32.to_be_bytes(), key].concat())?;
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut rest)?;
    ensure!(rest.is_empty(), "a request to cancel has no answer");
    Ok(())
}

/// Two sessions run a query each; the one whose key is shown is cancelled, and the other is not. Also
/// where there is no room for another session.
#[test]
fn a_request_to_cancel_ends_the_right_query() -> Result<()> {
    let cluster = cluster(1)?;
    let replica = pilotfish_harness::ports::free()?;
    let service = shop(&cluster.addrs())?
        .line(&format!("replica_listen = [\"{replica}\"]"))
        .line("max_connections = 3");
    let sidecar = start(service)?;
    let (mut first, mut second) = (connect(&sidecar)?, connect(&sidecar)?);
    let mut reads = Pg::connect(&replica.into(), LONG)?;
    for session in [&mut first, &mut second, &mut reads] {
        session.ask("SELECT pg_sleep(60)")?;
    }
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
    for (node, count) in [(0, "2"), (1, "1")] {
        wait::until_true("the queries to run", LONG, || {
            Ok(cluster.node(node).value(running)? == count)
        })?;
    }
    // All places are taken; and the request may come in through any listener.
    for session in [&mut second, &mut reads] {
        cancel(&target(&sidecar)?, &session.key.clone())?;
        let error = session
            .answer()
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default();
        ensure!(error.contains("57014"), "{error}");
        ensure!(session.query("SELECT 1")? == [["1"]]);
    }
    ensure!(
        cluster.node(0).value(running)? == "1",
        "the first still runs"
    );
    let nobody = [0, 0, 1, 1, 9, 9, 9, 9];
    cancel(&target(&sidecar)?, &nobody)?;
    ensure!(cluster.node(0).value(running)? == "1");
    let full = connect(&sidecar)
        .err()
        .map(|e| e.to_string())
        .unwrap_or_default();
    ensure!(
        full.contains("FATAL 53300: Pilotfish: too many clients"),
        "{full}"
    );
    drop(first);
    assert_sound(&sidecar)
}

/// What psql does when somebody presses Ctrl-C.
#[test]
fn psql_cancels_with_ctrl_c() -> Result<()> {
    let cluster = cluster(0)?;
    let (sidecar, dir) = with_directory(&cluster)?;
    for way in ways(&sidecar, &dir)? {
        let mut command = Command::new(program("psql")?);
        command.envs(way.iter().map(|(k, v)| (*k, v.as_str())));
        command.args(["-X", "-A", "-t", "-c", "SELECT pg_sleep(60)"]);
        command.stderr(std::process::Stdio::piped());
        let child = command.spawn()?;
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'";
        wait::until_true("the query to run", LONG, || {
            Ok(cluster.node(0).value(running)? == "1")
        })?;
        let pid = child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status()?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            said.contains("canceling statement due to user request"),
            "{said}"
        );
    }
    assert_sound(&sidecar)
}
