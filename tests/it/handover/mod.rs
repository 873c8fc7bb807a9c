//! Forced failover of Redis: nothing lost, nothing left behind, whatever happens on the way.

mod ends;
mod harsh;
mod nodes;
mod own;
mod sentinel;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use pilotfish_harness::redis::RedisServer;
use pilotfish_harness::resp::Value;
use pilotfish_harness::sidecar::Sidecar;
use pilotfish_harness::wait;
use pilotfish_harness::writer::Ledger;
use serde_json::Value as Json;

use crate::kit::{self, LONG};

/// It must know all replicas before one can be chosen.
fn wait_replicas(sidecar: &Sidecar, wanted: usize) {
    sidecar
        .wait_health("the replicas to be known", LONG, |_| {
            let status = kit::status(sidecar);
            let endpoints = status["endpoints"].as_array().unwrap();
            let fit = |e: &&Json| e["role"] == "replica" && e["detail"].is_null();
            endpoints.iter().filter(fit).count() == wanted
        })
        .unwrap();
}

/// Exit code and account.
fn failover(sidecar: &Sidecar, args: &[&str]) -> (i32, Json) {
    let (code, said) = kit::control(sidecar, &[&["failover", "cache", "--json"], args].concat());
    let account = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    println!("{account:#}");
    (code.unwrap(), account)
}

/// The same while something else happens.
fn begin(sidecar: &Sidecar, args: &[&str]) -> Child {
    Command::new(kit::binary())
        .args(["failover", "cache", "--json", "--socket"])
        .arg(sidecar.admin_socket())
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end(child: Child) -> (i32, Json) {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    (
        output.status.code().unwrap(),
        serde_json::from_str(&said).unwrap(),
    )
}

fn step<'a>(account: &'a Json, name: &str) -> &'a Json {
    let steps = account["steps"].as_array().unwrap();
    let found = steps.iter().find(|step| step["step"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {account:#}"))
}

fn steps(account: &Json) -> Vec<&str> {
    let steps = account["steps"].as_array().unwrap();
    steps.iter().map(|s| s["step"].as_str().unwrap()).collect()
}

/// Waits for an event whose message contains `words`.
fn wait_event(sidecar: &Sidecar, event: &str, words: &str) -> Json {
    let what = format!("an event {event} with {words:?}");
    let found = wait::until(&what, LONG, || {
        let lines = sidecar.admin("GET", "/v1/events", "")?.body;
        let events = lines
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let wanted = |e: &Json| {
            e["event"] == event && e["message"].as_str().is_some_and(|m| m.contains(words))
        };
        Ok(events.into_iter().find(wanted))
    });
    found.unwrap()
}

/// Nobody is held, and clients of the sidecar and of the server itself write at once.
fn assert_goes_on(sidecar: &Sidecar, primary: &RedisServer) {
    assert_eq!(kit::status(sidecar)["held"], serde_json::json!([]));
    assert_eq!(sidecar.primary("cache").unwrap(), Some(primary.addr));
    let mut client = kit::client(sidecar);
    assert_eq!(kit::say(&mut client, &["SET", "goes", "on"]), kit::ok());
    // The harness waits half a second for an answer.
    assert_eq!(primary.command(&["SET", "goes", "on"]).unwrap(), kit::ok());
}

/// How often a command was called on a server, by its own statistics.
fn calls(node: &pilotfish_harness::resp::Target, command: &str) -> u64 {
    let mut conn = kit::connect(node);
    let text = kit::say(&mut conn, &["INFO", "commandstats"]);
    let text = text.text().unwrap();
    let head = format!("cmdstat_{command}:calls=");
    let line = text.lines().find_map(|line| line.strip_prefix(&head));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

/// Asked until it answers: a sentinel that sees a server change its part ends whoever is connected.
fn priority(node: &RedisServer) -> String {
    let asked = wait::until("a replica's priority", LONG, || {
        let value = node.command(&["CONFIG", "GET", "replica-priority"])?;
        Ok(value.field("replica-priority"))
    });
    asked.unwrap()
}

fn assert_nothing_missing(ledger: &Ledger, node: &RedisServer) {
    let missing = ledger.missing_from(node.conn().unwrap()).unwrap();
    let gap = ledger.longest_gap().map(|(_, gap)| gap);
    println!(
        "{}: {} acknowledged, {} missing, longest pause {gap:?}, errors {:?}, skipped {}",
        ledger.label,
        ledger.acked().count(),
        missing.len(),
        ledger.error_counts(),
        ledger.skipped,
    );
    assert!(missing.is_empty(), "{} lost {missing:?}", ledger.label);
}

/// From now on a replica takes in nothing of what its master sends, and answers questions all the same: a
/// failover to it waits until it is called off. (The link to the master is a client that wants to write.)
fn stall(replica: &RedisServer, master: &RedisServer) {
    let pause = ["CLIENT", "PAUSE", "120000", "WRITE"];
    replica.command(&pause).unwrap();
    master.command(&["SET", "not", "taken in"]).unwrap();
}

fn unstall(replica: &RedisServer) {
    replica.command(&["CLIENT", "UNPAUSE"]).unwrap();
}

/// A session that never comes to rest: it hears what is published on the server directly.
struct Restless {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Restless {
    fn start(sidecar: &Sidecar, primary: &RedisServer) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut hearing = kit::client(sidecar);
        kit::say(&mut hearing, &["SUBSCRIBE", "noise"]);
        let mut saying = primary.conn().unwrap();
        let (one, two) = (stop.clone(), stop.clone());
        let say = std::thread::spawn(move || {
            while !one.load(Ordering::Relaxed) {
                // It ends when the server is paused, frozen or demoted, as any client's would.
                if saying.command(&["PUBLISH", "noise", "x"]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let hear = std::thread::spawn(move || {
            while !two.load(Ordering::Relaxed) {
                if !matches!(hearing.read_value(), Ok(Value::Array(_))) {
                    return;
                }
            }
        });
        Self {
            stop,
            threads: vec![say, hear],
        }
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The listener ends with its session, at the latest when the sidecar does.
        drop(self.threads.pop());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
