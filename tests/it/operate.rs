//! What an operator does: look, pause, pin, drain.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pilotfish_harness::process::Signal;
use pilotfish_harness::redis::RedisServer;
use pilotfish_harness::resp::{Value, encode};
use pilotfish_harness::sidecar::{Config, Service, Sidecar};
use pilotfish_harness::wait;

use crate::kit::{self, LONG, connect, control, ok, say};

fn done(sidecar: &Sidecar, args: &[&str]) -> String {
    let (code, said) = control(sidecar, args);
    assert_eq!(code, Some(0), "{args:?}: {said}");
    said
}

/// What `events` prints, without the times.
fn events(sidecar: &Sidecar) -> Vec<String> {
    let text = done(sidecar, &["events"]);
    let rest = |line: &str| line.split_once(' ').unwrap().1.to_owned();
    text.lines().map(rest).collect()
}

#[test]
fn a_paused_service_holds_its_clients_and_goes_on() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::patient(kit::cache(&[redis.addr])));
    let mut kept = kit::client(&sidecar);
    assert_eq!(say(&mut kept, &["SET", "before", "1"]), ok());

    assert!(done(&sidecar, &["pause", "cache"]).contains("cache is paused"));
    assert!(done(&sidecar, &["pause", "cache"]).contains("already"));
    assert_eq!(
        kit::status(&sidecar)["held"],
        serde_json::json!(["operator"])
    );
    kept.send_raw(&encode(&["SET", "kept", "2"])).unwrap();
    let mut fresh = connect(&kit::targets(&sidecar)[1]);
    fresh.send_raw(&encode(&["SET", "fresh", "3"])).unwrap();
    kit::wait_held(&sidecar, 1);
    let exists = |key: &str| redis.command(&["EXISTS", key]).unwrap();
    assert_eq!(
        exists("kept"),
        exists("nothing"),
        "a byte of it went past the gate"
    );

    assert!(done(&sidecar, &["resume", "cache"]).contains("goes on"));
    assert_eq!(kept.read_value().unwrap(), ok());
    assert_eq!(fresh.read_value().unwrap(), ok());
    assert!(done(&sidecar, &["resume", "cache"]).contains("was not paused"));
    let events = events(&sidecar).join("\n");
    for said in [
        "cache paused: ",
        "cache resumed: ",
        "cache primary: new primary",
        "(uid ",
    ] {
        assert!(events.contains(said), "{said} is not in {events}");
    }
}

#[test]
fn a_pin_rules_over_the_monitor_and_outlives_the_process() {
    let master = kit::redis();
    let replica = kit::replica_of(&master);
    let mut sidecar = kit::start(kit::patient(kit::cache(&[master.addr, replica.addr])));
    let mut kept = kit::client(&sidecar);
    assert_eq!(say(&mut kept, &["SET", "a", "1"]), ok());

    let to = replica.addr.to_string();
    assert!(done(&sidecar, &["pin", "cache", &to]).contains("restarts included"));
    sidecar.wait_primary("cache", replica.addr, LONG).unwrap();
    assert!(
        kept.read_to_end().is_ok(),
        "the session on the other server ends"
    );
    let shown = kit::status(&sidecar);
    assert_eq!(shown["cause"], "pinned");
    let reason = shown["reason"].as_str().unwrap();
    let expected = format!("pinned to {to} by an operator instead of {}", master.addr);
    assert!(reason.contains(&expected), "{reason}");
    let health = sidecar.healthz().unwrap();
    assert_eq!(health["status"], "degraded");

    sidecar.server().kill().unwrap();
    sidecar.restart().unwrap();
    sidecar.wait_primary("cache", replica.addr, LONG).unwrap();
    let reason = kit::status(&sidecar)["reason"].to_string();
    assert!(reason.contains("pinned to"), "{reason}");

    assert!(done(&sidecar, &["unpin", "cache"]).contains("the monitor decides"));
    sidecar.wait_primary("cache", master.addr, LONG).unwrap();
    assert_eq!(sidecar.healthz().unwrap()["status"], "ok");
    sidecar.server().kill().unwrap();
    sidecar.restart().unwrap();
    sidecar.wait_primary("cache", master.addr, LONG).unwrap();
}

#[test]
fn a_drain_takes_the_server_out_and_serves_on() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]));
    assert!(done(&sidecar, &["drain"]).contains("503"));
    sidecar.wait_status("/healthz", 503, LONG).unwrap();
    sidecar.wait_status("/livez", 200, LONG).unwrap();
    assert_eq!(say(&mut kit::client(&sidecar), &["SET", "a", "1"]), ok());
    assert!(done(&sidecar, &["undrain"]).contains("drains no more"));
    sidecar.wait_status("/healthz", 200, LONG).unwrap();
    assert!(done(&sidecar, &["undrain"]).contains("did not drain"));
}

#[test]
fn sessions_are_listed_with_what_they_did() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]));
    let mut clients: Vec<_> = kit::targets(&sidecar).iter().map(connect).collect();
    for client in &mut clients {
        assert_eq!(say(client, &["SET", "a", "1"]), ok());
    }
    let text = done(&sidecar, &["sessions", "cache"]);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(
        text.contains("unix") && text.contains("127.0.0.1:"),
        "{text}"
    );
    let json = done(&sidecar, &["sessions", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(list["total"], 2);
    let request = encode(&["SET", "a", "1"]).len();
    for session in list["sessions"].as_array().unwrap() {
        assert_eq!(session["endpoint"], redis.addr.to_string());
        assert_eq!(
            (&session["bytes_up"], &session["bytes_down"]),
            (&request.into(), &5.into())
        );
        assert_eq!(session["state"], "relaying");
    }
    drop(clients);
    kit::wait_no_sessions(&sidecar);
    assert!(done(&sidecar, &["sessions"]).contains("no sessions"));
    let (code, said) = control(&sidecar, &["sessions", "cahce"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("there is cache"), "{said}");
}

#[test]
fn events_are_followed_as_they_happen() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]));
    let mut child = Command::new(kit::binary())
        .args(["events", "--follow", "--json", "--socket"])
        .arg(sidecar.admin_socket())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = |wanted: &str| loop {
        let line = lines.next().unwrap().unwrap();
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        if event["event"] == wanted {
            return event;
        }
    };
    let first = next("primary");
    assert_eq!(first["service"], "cache");
    done(&sidecar, &["pause", "cache"]);
    assert_eq!(
        next("paused")["by"]["uid"],
        rustix::process::getuid().as_raw()
    );
    redis.server().kill().unwrap();
    assert!(
        next("no-primary")["message"]
            .as_str()
            .unwrap()
            .contains("unproven")
    );
    child.kill().unwrap();
    child.wait().unwrap();

    let recent = done(&sidecar, &["events", "--since", "1h"]);
    assert!(recent.contains("cache paused: "), "{recent}");
    let (code, said) = control(&sidecar, &["events", "--since", "soon"]);
    assert_eq!(code, Some(2), "{said}");
}

/// The config of `cache` on the nodes of `first`, and of `search` where there is one.
fn with(nodes: &RedisServer, hold: &str, search: Option<&RedisServer>) -> Config {
    let mut config = kit::config(kit::cache(&[nodes.addr]).set("hold_timeout", hold));
    if let Some(search) = search {
        config = config.service(second(search));
    }
    config
}

fn second(redis: &RedisServer) -> Service {
    Service::new("search", "tcp")
        .unwrap()
        .discover("kind", "static")
        .discover_all("nodes", &[redis.addr])
}

/// The same with the listeners of `before`, as an editor leaves them.
fn keep_listeners(mut config: Config, before: &Config) -> Config {
    for service in &mut config.services {
        if let Some(old) = before.services.iter().find(|s| s.name == service.name) {
            service.tcp.clone_from(&old.tcp);
            service.unix.clone_from(&old.unix);
        }
    }
    config.http = before.http;
    config
}

#[test]
fn a_reload_follows_the_file_and_leaves_the_others_alone() {
    let (redis, other) = (kit::redis(), kit::redis());
    let first = with(&redis, "10s", Some(&other));
    let mut sidecar = kit::start_config(first);
    let mut cache = kit::client(&sidecar);
    let mut search = connect(&sidecar.tcp("search").unwrap().into());
    for client in [&mut cache, &mut search] {
        assert_eq!(say(client, &["SET", "a", "1"]), ok());
    }
    assert!(done(&sidecar, &["reload"]).contains("nothing changed"));

    // `cache` moves to the other server; `search` stays as it is.
    let moved = with(&other, "10s", Some(&other));
    let moved = keep_listeners(moved, sidecar.config());
    sidecar.rewrite_config(moved).unwrap();
    assert!(done(&sidecar, &["reload"]).contains("services changed: cache"));
    sidecar.wait_primary("cache", other.addr, LONG).unwrap();
    assert_eq!(say(&mut kit::client(&sidecar), &["SET", "b", "2"]), ok());
    assert_eq!(
        other.command(&["GET", "b"]).unwrap(),
        Value::Bulk(b"2".to_vec())
    );
    // Who was there before goes on where it was; the other service never noticed.
    assert_eq!(say(&mut cache, &["SET", "a", "2"]), ok());
    assert_eq!(
        redis.command(&["GET", "a"]).unwrap(),
        Value::Bulk(b"2".to_vec())
    );
    assert_eq!(say(&mut search, &["SET", "a", "2"]), ok());
    drop(cache);
    sidecar.wait_log("event=\"retired\"", LONG).unwrap();
    assert_eq!(
        sidecar
            .metric(
                "sessions_active",
                &[("service", "search"), ("role", "primary")]
            )
            .unwrap(),
        1.0
    );
    let info = |addr: String| {
        let labels = [("service", "cache"), ("endpoint", addr.as_str())];
        sidecar.metric("primary_info", &labels).unwrap()
    };
    assert_eq!(
        (info(redis.addr.to_string()), info(other.addr.to_string())),
        (0.0, 1.0)
    );

    // By signal, and one service less.
    let fewer = keep_listeners(with(&other, "10s", None), sidecar.config());
    let gone = sidecar.tcp("search").unwrap();
    sidecar.rewrite_config(fewer).unwrap();
    sidecar.server().signal(Signal::HUP).unwrap();
    sidecar.wait_log("services removed: search", LONG).unwrap();
    let refused = || Ok(std::net::TcpStream::connect(gone).is_err());
    wait::until_true("the listener is gone", LONG, refused).unwrap();
    assert_eq!(
        say(&mut search, &["SET", "a", "3"]),
        ok(),
        "its session goes on"
    );
    drop(search);
}

#[test]
fn a_bad_file_changes_nothing_and_is_shown() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]));
    let mut client = kit::client(&sidecar);
    let good = std::fs::read_to_string(sidecar.config_file()).unwrap();
    std::fs::write(
        sidecar.config_file(),
        good.replace("max_held", "max_hold") + "\nhold = 1\n",
    )
    .unwrap();
    let (code, said) = control(&sidecar, &["reload"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("unknown key `hold`") && said.contains("proxy.toml:"),
        "{said}"
    );
    let shown = done(&sidecar, &["status"]);
    assert!(
        shown.contains("is not followed") && shown.contains("unknown key `hold`"),
        "{shown}"
    );
    assert_eq!(say(&mut client, &["SET", "a", "1"]), ok());
    assert_eq!(say(&mut kit::client(&sidecar), &["SET", "a", "1"]), ok());
    assert!(
        events(&sidecar)
            .iter()
            .any(|e| e.contains("reload-failed: "))
    );

    // An address that cannot be had is found before anything changes.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let own = format!("{}", sidecar.tcp("cache").unwrap());
    let other = good.replace(&own, &taken.local_addr().unwrap().to_string());
    std::fs::write(sidecar.config_file(), other).unwrap();
    let (code, said) = control(&sidecar, &["reload"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("another process is listening there"),
        "{said}"
    );
    assert_eq!(say(&mut kit::client(&sidecar), &["SET", "a", "1"]), ok());

    std::fs::write(sidecar.config_file(), good).unwrap();
    assert!(done(&sidecar, &["reload"]).contains("nothing changed"));
    assert!(!done(&sidecar, &["status"]).contains("is not followed"));
}

#[test]
fn a_storm_of_reloads_drops_nobody() {
    let redis = kit::redis();
    let mut sidecar = kit::start_config(with(&redis, "10s", None));
    starve_data_threads(&sidecar);
    let mut kept = kit::client(&sidecar);
    let targets = kit::targets(&sidecar);
    let stop = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for target in &targets {
            let (stop, served) = (&stop, &served);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(say(&mut connect(target), &["SET", "a", "1"]), ok());
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let stopped = Stop(&stop);
        for round in 0..100 {
            let hold = ["10s", "11s"][round % 2];
            let next = keep_listeners(with(&redis, hold, None), sidecar.config());
            sidecar.rewrite_config(next).unwrap();
            let answer = sidecar.admin("POST", "/v1/reload", "").unwrap();
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(say(&mut kept, &["SET", "b", "1"]), ok());
        }
        drop(stopped);
    });
    assert!(served.load(Ordering::Relaxed) > 100, "{served:?}");
    assert_eq!(
        kit::ends(&sidecar, "drained") + kit::ends(&sidecar, "switched"),
        0.0
    );
    drop(kept);
    kit::wait_no_sessions(&sidecar);
    assert!(sidecar.server().fds().unwrap() < 100);
}

/// Who accepts runs last on one processor, so that a reload is over before they hear of it.
fn starve_data_threads(sidecar: &Sidecar) {
    let pid = sidecar.server().pid();
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
    };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let allowed = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    // "0-1", "3,5-7": the first one.
    let first = |list: &str| list.trim().split([',', '-']).next().map(str::to_owned);
    let cpu = allowed.and_then(first).unwrap();
    run(
        "taskset",
        &["--all-tasks", "--pid", "--cpu-list", &cpu, &pid.to_string()],
    );
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let task = task.unwrap();
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap();
        if name.starts_with("data-") {
            let tid = task.file_name().into_string().unwrap();
            run("renice", &["--priority", "19", "--pid", &tid]);
        }
    }
}

/// Ends the load even when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What comes out of a terminal, until it contains `wanted` so many times.
fn drawn(output: &mut impl Read, wanted: &str, times: usize) -> String {
    let mut all = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        let n = output.read(&mut bytes).unwrap();
        all.extend_from_slice(&bytes[..n]);
        let text = String::from_utf8_lossy(&all).into_owned();
        if n == 0 || text.matches(wanted).count() >= times {
            return text;
        }
    }
}

#[test]
fn the_status_is_watched_on_a_terminal_until_ctrl_c() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]));
    let line = format!(
        "stty rows 12 cols 90; exec {} status --watch --socket {}",
        kit::binary().display(),
        sidecar.admin_socket().display()
    );
    // `script` gives it a terminal, and passes on what is typed.
    let mut child = kit::program("script")
        .args(["-qefc", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut text = drawn(&mut output, "app-01: ok", 1);
    done(&sidecar, &["pause", "cache"]);
    text += &drawn(&mut output, "held: operator", 1);
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\x03").unwrap();
    text += &drawn(&mut output, "\x1b[?1049l", 1);
    assert!(child.wait().unwrap().success(), "{text:?}");
    assert!(text.starts_with("\x1b[?1049h"), "{text:?}");
    assert!(text.ends_with("\x1b[?25h\x1b[?1049l"), "{text:?}");
    for line in text.split("\r\n").flat_map(|line| line.split("\x1b[H")) {
        let plain = line
            .replace('\r', "")
            .replace("\x1b[K", "")
            .replace("\x1b[J", "");
        let plain = plain
            .replace("\x1b[?1049h\x1b[?25l", "")
            .replace("\x1b[?25h\x1b[?1049l", "");
        assert!(
            plain.chars().count() <= 90 && !plain.contains('\x1b'),
            "{plain:?}"
        );
    }
}

#[test]
fn the_status_is_watched_through_a_pipe_and_through_a_restart() {
    let redis = kit::redis();
    let mut sidecar = kit::start(kit::cache(&[redis.addr]));
    let mut child = Command::new(kit::binary())
        .args(["status", "cache", "--watch", "--socket"])
        .arg(sidecar.admin_socket())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let text = drawn(&mut output, "cache: redis by redis", 2);
    assert!(!text.contains('\x1b'), "{text:?}");
    sidecar.server().kill().unwrap();
    drawn(&mut output, "is not running", 1);
    sidecar.restart().unwrap();
    drawn(&mut output, "cache: redis by redis", 1);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    // Nobody to ask from the beginning is an error.
    sidecar.server().kill().unwrap();
    let (code, said) = control(&sidecar, &["status", "--watch"]);
    assert_eq!(code, Some(1), "{said}");
}

#[test]
fn the_agent_says_what_health_says() {
    let redis = kit::redis();
    let port = pilotfish_harness::ports::free().unwrap();
    let mut config = kit::config(kit::cache(&[redis.addr]));
    config.http_lines.push(format!("agent = \"{port}\""));
    let sidecar = kit::start_config(config);
    let asked = || {
        let mut stream = std::net::TcpStream::connect(port).unwrap();
        let mut line = String::new();
        stream.read_to_string(&mut line).unwrap();
        line
    };
    assert_eq!(asked(), "up ready\n");
    done(&sidecar, &["drain"]);
    assert_eq!(asked(), "drain\n");
    done(&sidecar, &["undrain"]);
    assert_eq!(asked(), "up ready\n");
}

#[test]
fn the_config_is_shown_without_its_secrets() {
    let redis = kit::redis();
    let service = kit::cache(&[redis.addr]).discover("password", "hunter2-and-more");
    let sidecar = kit::start_without_primary(service);
    let answer = sidecar.admin("GET", "/v1/config", "").unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("[[service]]"), "{}", answer.body);
    assert!(!answer.body.contains("hunter2"), "{}", answer.body);
}
