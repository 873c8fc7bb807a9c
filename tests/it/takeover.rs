//! SIGUSR2: another process takes over, and no client notices.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pilotfish_harness::process::{Orphan, Signal};
use pilotfish_harness::redis::RedisServer;
use pilotfish_harness::resp::Conn;
use pilotfish_harness::sidecar::{Config, Service, Sidecar, Until, request};
use pilotfish_harness::{ports, scratch, wait};

use crate::kit::{self, LONG, connect, control, ok, say};
use crate::load::Load;

/// What the contract asks for.
const PACE: usize = 2_000;

/// A sidecar and the processes that took over from it, which are killed at the end.
struct Dynasty {
    heirs: Vec<Orphan>,
    sidecar: Sidecar,
}

impl Dynasty {
    fn found(binary: &Path, config: Config) -> Self {
        let sidecar = Sidecar::start(binary, config, Until::Healthy).unwrap();
        Self {
            heirs: Vec::new(),
            sidecar,
        }
    }

    fn reigning(&self) -> i32 {
        let heir = self.heirs.last().map(Orphan::pid);
        heir.unwrap_or_else(|| self.sidecar.server().pid())
    }

    fn signal(&self, signal: Signal) {
        match self.heirs.last() {
            Some(heir) => heir.signal(signal).unwrap(),
            None => self.sidecar.server().signal(signal).unwrap(),
        }
    }

    /// The pids of all processes that began to serve, in their order.
    fn started(&self) -> Vec<i32> {
        let lines = self.sidecar.log_lines("event=\"started\"").unwrap();
        lines.iter().map(|line| number(line, "pid=")).collect()
    }

    /// Returns when another process serves, alone.
    fn succeed(&mut self) {
        let before = self.started().len();
        self.signal(Signal::USR2);
        let served = wait::until("a takeover", LONG, || {
            Ok(self.started().get(before).copied())
        });
        match served {
            Ok(pid) => self.heirs.push(Orphan::new(pid).unwrap()),
            Err(error) => panic!("{error:#}; {}", self.sidecar.server().log_tail()),
        }
    }

    /// Waits for the `n`th takeover that failed, and returns why.
    fn failure(&self, n: usize) -> String {
        let found = wait::until("a failed takeover", LONG, || {
            let lines = self.sidecar.log_lines("event=\"takeover-failed\"")?;
            Ok(lines.get(n).cloned())
        });
        found.unwrap_or_else(|error| panic!("{error:#}; {}", self.sidecar.server().log_tail()))
    }

    /// Both ways into the service work, and operators are answered.
    fn assert_serves(&self) {
        for target in kit::targets(&self.sidecar) {
            assert_eq!(say(&mut connect(&target), &["SET", "a", "1"]), ok());
        }
        let (code, said) = control(&self.sidecar, &["status"]);
        assert_eq!(code, Some(0), "{said}");
        self.wait_health(200);
    }

    /// Whoever answers.
    fn wait_health(&self, status: u16) {
        let what = format!("health to say {status}");
        let asked = || Ok(self.sidecar.http_get("/healthz")?.status == status);
        wait::until_true(&what, LONG, asked).unwrap();
    }

    fn events(&self) -> String {
        let (code, said) = control(&self.sidecar, &["events"]);
        assert_eq!(code, Some(0), "{said}");
        said
    }
}

fn number(line: &str, key: &str) -> i32 {
    let rest = line.split_once(key).unwrap().1;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().unwrap()
}

fn config(redis: &RedisServer, lines: &[&str]) -> Config {
    let service = kit::patient(kit::cache(&[redis.addr])).line("max_connections = 5000");
    let config = Config::new().unwrap().level("info").service(service);
    lines.iter().fold(config, |config, line| config.line(line))
}

/// A second service, for an operator to play with.
fn other(redis: &RedisServer) -> Service {
    let mut service = kit::cache(&[redis.addr]);
    service.name = "other".into();
    service.unix = Some("other.sock".into());
    service
}

fn kept(dynasty: &Dynasty) -> Vec<Conn> {
    kit::targets(&dynasty.sidecar).iter().map(connect).collect()
}

#[test]
fn nobody_is_refused_by_takeovers_in_a_row() {
    let redis = kit::redis();
    let config = |workers: &str| config(&redis, &[workers, "drain_timeout = \"60s\""]);
    let first = config("workers = 2");
    let http = first.http;
    let service = first.services[0].clone();
    let mut dynasty = Dynasty::found(kit::binary(), first);
    let load = Load::start(
        dynasty.sidecar.tcp("cache").unwrap(),
        &dynasty.sidecar.unix("cache").unwrap(),
        PACE,
    );
    let mut sessions = Vec::new();
    // The same number of threads, fewer, more.
    for workers in [2, 1, 3, 2, 2] {
        let workers = format!("workers = {workers}");
        load.wait_more(PACE);
        sessions.push(kept(&dynasty));
        let mut next = config(&workers);
        (next.http, next.services) = (http, vec![service.clone()]);
        dynasty.sidecar.rewrite_config(next).unwrap();
        dynasty.succeed();
        for conn in sessions.iter_mut().flatten() {
            assert_eq!(
                say(conn, &["SET", "kept", "1"]),
                ok(),
                "they stay where they are"
            );
        }
        dynasty.assert_serves();
    }
    load.wait_more(PACE);
    load.stop().assert_clean();

    assert_eq!(dynasty.started().len(), 6);
    assert!(dynasty.sidecar.server().is_running(), "it has clients");
    sessions.clear();
    let status = dynasty.sidecar.server().wait(LONG).unwrap();
    assert_eq!(status.code(), Some(0));
    let last = dynasty.heirs.pop().unwrap();
    for heir in &dynasty.heirs {
        heir.wait(LONG).unwrap();
    }
    let stopped = dynasty.sidecar.log_lines("event=\"stopped\"").unwrap();
    assert_eq!(stopped.len(), 5);
    let socket = dynasty.sidecar.unix("cache").unwrap();
    assert!(socket.exists(), "it is the last one's");
    last.signal(Signal::TERM).unwrap();
    last.wait(LONG).unwrap();
    assert!(!socket.exists() && !dynasty.sidecar.admin_socket().exists());
    let log = dynasty.sidecar.server().log().unwrap();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn an_operators_word_and_the_history_come_along() {
    let redis = kit::redis();
    let config = config(&redis, &["workers = 2"]).service(other(&redis));
    let mut dynasty = Dynasty::found(kit::binary(), config);
    let elsewhere = ports::free().unwrap().to_string();
    for args in [
        &["pin", "cache", &elsewhere][..],
        &["pause", "other"],
        &["drain"],
    ] {
        let (code, said) = control(&dynasty.sidecar, args);
        assert_eq!(code, Some(0), "{said}");
    }
    let before = dynasty.events();
    // A pin that nobody can write down is not lost either.
    let state = dynasty.sidecar.config_file().with_file_name("state");
    fs::remove_dir_all(state).unwrap();
    for _ in 0..2 {
        dynasty.succeed();
        let shown = kit::status(&dynasty.sidecar);
        assert_eq!(shown["cause"], "pinned");
        assert_eq!(shown["primary"], elsewhere.as_str());
        let other = dynasty
            .sidecar
            .admin("GET", "/v1/services/other", "")
            .unwrap();
        assert!(other.body.contains("\"operator\""), "{}", other.body);
        dynasty.wait_health(503);
    }
    let after = dynasty.events();
    assert!(after.starts_with(&before), "{before}\n---\n{after}");
    assert_eq!(after.matches("took over from Pilotfish").count(), 2);
    assert_eq!(after.matches(" takeover: ").count(), 2, "{after}");
    let numbers = control(&dynasty.sidecar, &["events", "--json"]).1;
    let numbers: Vec<u64> = numbers
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64())
        .map(Option::unwrap)
        .collect();
    assert!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "{numbers:?}"
    );
}

/// A link to the binary under test, which can be made to lead elsewhere: to scripts that are written before
/// anything is started, since a file cannot run while anybody else has it open for writing.
struct Installed {
    path: PathBuf,
    dir: scratch::Dir,
}

impl Installed {
    fn new() -> Self {
        let dir = scratch::Dir::new().unwrap();
        let path = dir.join("pilotfish");
        let installed = Self { path, dir };
        installed.lead_to(kit::binary());
        installed
    }

    fn lead_to(&self, file: &Path) {
        let beside = self.path.with_extension("new");
        std::os::unix::fs::symlink(file, &beside).unwrap();
        fs::rename(&beside, &self.path).unwrap();
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let file = self.dir.join(name);
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        file
    }
}

#[test]
fn a_failed_takeover_changes_nothing() {
    let redis = kit::redis();
    let installed = Installed::new();
    let marker = installed.dir.join("pid");
    let ends = installed.script("ends", "exit 7");
    let hangs = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000",
        marker.display()
    );
    let hangs = installed.script("hangs", &hangs);
    let mut dynasty = Dynasty::found(&installed.path, config(&redis, &["workers = 2"]));
    let mut session = connect(&kit::targets(&dynasty.sidecar)[0]);
    let first = dynasty.reigning();

    let good = fs::read_to_string(dynasty.sidecar.config_file()).unwrap();
    fs::write(dynasty.sidecar.config_file(), "workers = \"many\"\n").unwrap();
    dynasty.signal(Signal::USR2);
    assert!(dynasty.failure(0).contains("exit status: 2"));
    dynasty.assert_serves();
    fs::write(dynasty.sidecar.config_file(), good).unwrap();

    installed.lead_to(&ends);
    dynasty.signal(Signal::USR2);
    assert!(dynasty.failure(1).contains("exit status: 7"));
    dynasty.assert_serves();

    // It hangs, and is killed; meanwhile operators are told to wait, and a second signal does nothing.
    installed.lead_to(&hangs);
    dynasty.signal(Signal::USR2);
    let hung = wait::until("the new process", LONG, || {
        Ok(fs::read_to_string(&marker).ok())
    });
    let hung = Orphan::new(hung.unwrap().trim().parse().unwrap()).unwrap();
    let (code, said) = control(&dynasty.sidecar, &["pause", "cache"]);
    assert_eq!(code, Some(3), "{said}");
    let (code, said) = control(&dynasty.sidecar, &["reload"]);
    assert_eq!(code, Some(3), "{said}");
    dynasty.signal(Signal::USR2);
    dynasty.sidecar.wait_log("under way already", LONG).unwrap();
    dynasty.assert_serves();
    hung.signal(Signal::KILL).unwrap();
    assert!(dynasty.failure(2).contains("signal: 9"));
    dynasty.assert_serves();
    let (code, said) = control(&dynasty.sidecar, &["pause", "cache"]);
    assert_eq!(code, Some(0), "{said}");
    control(&dynasty.sidecar, &["resume", "cache"]);

    assert_eq!(dynasty.reigning(), first);
    assert_eq!(dynasty.events().matches("takeover-failed").count(), 3);
    assert_eq!(say(&mut session, &["SET", "b", "2"]), ok());
    // The next version is a good one.
    installed.lead_to(kit::binary());
    dynasty.succeed();
    dynasty.assert_serves();
    assert_eq!(dynasty.events().matches("takeover-failed").count(), 3);
}

#[test]
fn who_cannot_prove_a_primary_does_not_take_over() {
    let redis = kit::redis();
    let mut dynasty = Dynasty::found(kit::binary(), config(&redis, &["workers = 2"]));
    let good = dynasty.sidecar.config().clone();
    let mut bad = good.clone();
    bad.services[0].discovery[1] = format!("nodes = [\"{}\"]", ports::free().unwrap());
    dynasty.sidecar.rewrite_config(bad).unwrap();

    // It is killed while it tries.
    heir(&dynasty).signal(Signal::KILL).unwrap();
    assert!(dynasty.failure(0).contains("signal: 9"));
    dynasty.assert_serves();
    assert!(dynasty.sidecar.unix("cache").unwrap().exists());

    dynasty.signal(Signal::USR2);
    let why = dynasty.failure(1);
    assert!(why.contains("no primary of cache could be proven"), "{why}");
    dynasty.assert_serves();

    // Told to end meanwhile, it takes the other with it.
    let child = heir(&dynasty);
    let status = dynasty.sidecar.server().terminate(LONG).unwrap();
    assert_eq!(status.code(), Some(0));
    child.wait(LONG).unwrap();
    assert!(!dynasty.sidecar.unix("cache").unwrap().exists());
}

/// Asks for a takeover, and returns the new process as soon as it has its sockets.
fn heir(dynasty: &Dynasty) -> Orphan {
    let listening = || dynasty.sidecar.log_lines("listening").unwrap().len();
    let before = listening();
    dynasty.signal(Signal::USR2);
    let child = wait::until("the new process to get its sockets", LONG, || {
        Ok((listening() > before)
            .then(|| child_of(dynasty.reigning()))
            .flatten())
    });
    Orphan::new(child.unwrap()).unwrap()
}

fn child_of(pid: i32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

#[test]
fn listeners_may_change_with_the_process() {
    let redis = kit::redis();
    let config = config(&redis, &["workers = 2"]).service(other(&redis));
    let mut dynasty = Dynasty::found(kit::binary(), config);
    let gone = dynasty.sidecar.unix("other").unwrap();
    let mut next = dynasty.sidecar.config().clone();
    let removed = next.services.pop().unwrap();
    let fresh = ports::free().unwrap();
    next.services[0].tcp.push(fresh);
    dynasty.sidecar.rewrite_config(next).unwrap();
    dynasty.succeed();
    dynasty.assert_serves();
    assert_eq!(say(&mut connect(&fresh.into()), &["SET", "a", "1"]), ok());
    wait::until_true("a removed listener to go", LONG, || {
        let refused = std::net::TcpStream::connect_timeout(&removed.tcp[0], Duration::from_secs(1));
        Ok(refused.is_err() && !gone.exists())
    })
    .unwrap();
}

/// What may ask for a cutover, and knows no right token here: the name server is not there.
fn receiver(listen: std::net::SocketAddr, dir: &Path) -> String {
    let (dead, key) = (ports::free().unwrap(), dir.join("secret"));
    fs::write(&key, "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ=\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let (key, dir) = (key.display(), dir.display());
    format!(
        r#"[cutover]
state_dir = "{dir}/cutover"
record = ["shop.example.com A"]
[[cutover.region]]
name = "gra"
A = ["192.0.2.10"]
[[cutover.region]]
name = "rbx"
A = ["192.0.2.20"]
[cutover.dns]
kind = "rfc2136"
zone = "example.com"
server = "{dead}"
key_name = "cutover"
key_file = "{key}"
[cutover.auto]
alertmanager = "{listen}"
alerts = ["RegionDown"]
token_file = "{key}"
"#
    )
}

#[test]
fn alertmanager_is_answered_by_whoever_serves() {
    let redis = kit::redis();
    let (listen, dir) = (ports::free().unwrap(), scratch::Dir::new().unwrap());
    let mut config = config(&redis, &["workers = 2"]);
    config.sections.push(receiver(listen, dir.path()));
    let mut dynasty = Dynasty::found(kit::binary(), config);
    let strangers = |dynasty: &Dynasty| {
        let labels = [("outcome", "unauthorized")];
        let count = dynasty.sidecar.metric("auto_alerts_total", &labels);
        count.unwrap().round()
    };
    for heir in 0..3 {
        if heir > 0 {
            dynasty.succeed();
        }
        assert!(strangers(&dynasty).abs() < 0.1, "a process of its own");
        for asked in 1..=5 {
            let answer = request(&listen.into(), "POST", "/v1/alertmanager", "{}", LONG);
            assert_eq!(answer.unwrap().status, 401);
            let counted = strangers(&dynasty);
            assert!((counted - f64::from(asked)).abs() < 0.1, "{counted}");
        }
    }
    let last = dynasty.heirs.last().unwrap();
    last.signal(Signal::TERM).unwrap();
    last.wait(LONG).unwrap();
    assert!(std::net::TcpStream::connect(listen).is_err());
}
