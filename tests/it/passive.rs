//! What clients of Redis hear makes the monitor ask, and decides nothing.
//!
//! Servers are asked once a minute here, so whatever is noticed sooner was noticed by the answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pilotfish_harness::redis::{Options, RedisCluster, RedisConf, RedisServer};
use pilotfish_harness::resp::{Conn, Value, encode};
use pilotfish_harness::sidecar::{Service, Sidecar};

use crate::kit::{self, LONG};
use crate::support::{assert_sound, calm, hurry, until};

const INTERVAL: Duration = Duration::from_secs(60);
/// Of the interval: what is noticed by the answer is noticed in a small part of it.
const PART: u32 = 12;
/// A server may be asked again after this, however many clients complain.
const SOONEST: Duration = Duration::from_millis(10);
/// How often servers are asked while there is no primary.
const EAGER: Duration = Duration::from_millis(100);
/// A true master says this: the words come from a script.
const SCRIPT: [&str; 3] = [
    "EVAL",
    "return redis.error_reply('READONLY You can not write')",
    "0",
];

fn slowly(service: Service) -> Service {
    let interval = format!("{}s", INTERVAL.as_secs());
    kit::patient(service.discover("probe_interval", &interval))
}

fn nodes(nodes: &[SocketAddr]) -> Result<Service> {
    let service = Service::new("cache", "redis")?.discover("kind", "redis");
    Ok(slowly(service.discover_all("nodes", nodes)))
}

fn error_of(conn: &mut Conn, command: &[&str]) -> Result<String> {
    match conn.command(command)? {
        Value::Error(error) => Ok(error),
        other => anyhow::bail!("no error, but {other:?}"),
    }
}

fn answers(sidecar: &Sidecar) -> Result<f64> {
    sidecar.metric(
        "hints_total",
        &[("service", "cache"), ("evidence", "answer")],
    )
}

/// What happened to the service, as `pilotfish events` shows it.
fn events(sidecar: &Sidecar) -> Result<Vec<(String, String)>> {
    let body = sidecar.admin("GET", "/v1/events", "")?.body;
    let mut all = Vec::new();
    for line in body.lines() {
        let event: serde_json::Value = serde_json::from_str(line)?;
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        all.push((text("event"), text("message")));
    }
    Ok(all)
}

/// How often it was asked for its role.
fn asked(server: &RedisServer) -> Result<u64> {
    let text = server.command(&["INFO", "commandstats"])?;
    let text = text.text().context("INFO gave no text")?;
    let line = |line: &str| {
        let calls = line.strip_prefix("cmdstat_role:calls=")?;
        calls.split(',').next()?.parse().ok()
    };
    Ok(text.lines().find_map(line).unwrap_or(0))
}

/// What was asked when the sidecar started, and asked often, is answered: the next question is a minute away.
fn wait_unasked(server: &RedisServer) -> Result<()> {
    let (mut last, mut since) = (asked(server)?, Instant::now());
    until("the questions of the start to end", || {
        let now = asked(server)?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
        Ok(since.elapsed() > 5 * EAGER)
    })
}

/// Behind everybody's back it becomes the replica of a server that is not there.
fn demote(server: &RedisServer) -> Result<()> {
    server.command(&["REPLICAOF", "127.0.0.1", "1"])?.ok()?;
    Ok(())
}

/// A client whose answer begins with `word` is enough for the primary to be given up.
fn assert_noticed(
    sidecar: &Sidecar,
    conn: &mut Conn,
    (command, word): (&[&str], &str),
) -> Result<()> {
    let before = answers(sidecar)?;
    ensure!(
        sidecar.primary("cache")?.is_some(),
        "nobody has noticed yet"
    );
    let began = Instant::now();
    let error = error_of(conn, command)?;
    ensure!(error.starts_with(word), "the server's own word: {error}");
    kit::wait_bereft(sidecar);
    let took = began.elapsed();
    println!("{word}: given up {took:?} after the request");
    ensure!(took < INTERVAL / PART, "{took:?}");
    ensure!(answers(sidecar)? > before);
    let events = events(sidecar)?;
    let at = |name: &str| events.iter().rposition(|(event, _)| event == name);
    let (hint, gone) = (at("hint"), at("no-primary"));
    ensure!(hint.is_some() && hint < gone, "{events:?}");
    Ok(())
}

#[test]
fn a_replica_made_by_hand_is_noticed_by_the_first_refusal() -> Result<()> {
    let (one, two) = (kit::redis(), kit::redis());
    demote(&two)?;
    let sidecar = kit::start(nodes(&[one.addr, two.addr])?);
    let mut client = kit::client(&sidecar);
    ensure!(kit::say(&mut client, &["SET", "a", "1"]) == kit::ok());
    wait_unasked(&one)?;
    demote(&one)?;
    assert_noticed(&sidecar, &mut client, (&["SET", "a", "2"], "READONLY"))?;
    // Whoever writes now waits for the next one.
    let mut held = kit::client(&sidecar);
    held.send_raw(&encode(&["SET", "b", "1"]))?;
    kit::wait_held(&sidecar, 1);
    two.command(&["REPLICAOF", "NO", "ONE"])?.ok()?;
    ensure!(held.read_value()? == kit::ok());
    sidecar.wait_primary("cache", two.addr, LONG)?;
    assert_sound(&sidecar)
}

#[test]
fn one_that_lost_its_master_is_noticed_by_a_read() -> Result<()> {
    let conf = RedisConf {
        extra: vec!["replica-serve-stale-data no".into()],
        ..RedisConf::default()
    };
    let one = RedisServer::start(&conf)?;
    let sidecar = kit::start(nodes(&[one.addr])?);
    let mut client = kit::client(&sidecar);
    ensure!(kit::say(&mut client, &["SET", "a", "1"]) == kit::ok());
    wait_unasked(&one)?;
    demote(&one)?;
    assert_noticed(&sidecar, &mut client, (&["GET", "a"], "MASTERDOWN"))?;
    assert_sound(&sidecar)
}

/// The sentinels would notice in ten seconds; here they look at nothing for a minute.
#[test]
fn with_sentinels_too() -> Result<()> {
    let cluster = RedisCluster::start(Options::default())?;
    hurry(&cluster, INTERVAL)?;
    calm(&cluster)?;
    let sidecar = kit::start(slowly(Service::sentinel("cache", &cluster)?));
    let mut client = kit::client(&sidecar);
    ensure!(kit::say(&mut client, &["SET", "a", "1"]) == kit::ok());
    wait_unasked(cluster.node(0))?;
    demote(cluster.node(0))?;
    assert_noticed(&sidecar, &mut client, (&["SET", "a", "2"], "READONLY"))?;
    // And is taken back on its own word, which nobody had to hint at.
    cluster.node(0).command(&["REPLICAOF", "NO", "ONE"])?.ok()?;
    sidecar.wait_primary("cache", cluster.node(0).addr, LONG)?;
    assert_sound(&sidecar)
}

/// A flood of such answers from a server that is master all the same: it is asked, and stays, and is not
/// asked more often than makes sense.
#[test]
fn a_master_that_only_says_so_stays_and_is_not_flooded() -> Result<()> {
    const CLIENTS: usize = 4;
    const EACH: usize = 5_000;
    let (one, two) = (kit::redis(), kit::redis());
    demote(&two)?;
    let sidecar = kit::start(nodes(&[one.addr, two.addr])?);
    let generation = sidecar.service_health("cache")?["generation"].clone();
    let asked_before = asked(&one)?;
    let began = Instant::now();
    ensure!(error_of(&mut kit::client(&sidecar), &SCRIPT)?.starts_with("READONLY"));
    until("the server to be asked", || Ok(asked(&one)? > asked_before))?;
    ensure!(began.elapsed() < INTERVAL / PART, "{:?}", began.elapsed());
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = kit::client(&sidecar);
                for _ in 0..EACH {
                    let said = kit::say(&mut client, &SCRIPT);
                    assert!(matches!(&said, Value::Error(e) if e.starts_with("READONLY")));
                }
            });
        }
    });
    let heard = answers(&sidecar)?;
    ensure!(heard > (CLIENTS * EACH) as f64, "each was seen: {heard}");
    // Every question that is under way is counted.
    let (asked, took) = (asked(&one)? - asked_before, began.elapsed());
    let most = took.as_millis() / SOONEST.as_millis() + 2;
    println!("{heard} answers, asked {asked} times in {took:?}, {most} allowed");
    ensure!(asked > 1 && u128::from(asked) <= most);
    ensure!(sidecar.primary("cache")? == Some(one.addr));
    ensure!(sidecar.service_health("cache")?["generation"] == generation);
    ensure!(sidecar.log_lines("no-primary")?.is_empty());
    let hints = events(&sidecar)?;
    let hints = hints.iter().filter(|(event, _)| event == "hint").count();
    ensure!(
        hints >= 1 && hints as u64 <= 1 + took.as_secs() / 10,
        "{hints}"
    );
    assert_sound(&sidecar)
}

/// What a client may not do on a replica is no reason to ask anybody.
#[test]
fn a_write_on_the_replicas_door_is_no_evidence() -> Result<()> {
    let master = kit::redis();
    let replica = kit::replica_of(&master);
    let door = pilotfish_harness::ports::free()?;
    let service = nodes(&[master.addr, replica.addr])?;
    let sidecar = kit::start(service.line(&format!("replica_listen = [\"{door}\"]")));
    let mut client = Conn::connect(&door.into(), LONG)?;
    let error = error_of(&mut client, &["SET", "a", "1"])?;
    ensure!(error.starts_with("READONLY"), "{error}");
    ensure!(answers(&sidecar)? == 0.0);
    // The primary's sessions are counted in the same place.
    ensure!(error_of(&mut kit::client(&sidecar), &SCRIPT)?.starts_with("READONLY"));
    until("an answer to be counted", || Ok(answers(&sidecar)? == 1.0))?;
    assert_sound(&sidecar)
}
