//! What the sidecar listens on: sockets and their files, health and metrics, reads, and how it all ends.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use pilotfish_harness::process::Signal;
use pilotfish_harness::redis::RedisServer;
use pilotfish_harness::resp::{Conn, Stream, Target, Value, encode};
use pilotfish_harness::sidecar::{Service, Sidecar, Until, request};
use pilotfish_harness::{ports, scratch, wait};
use serde_json::Value as Json;

use crate::kit::{self, LONG, connect, ok, say};

/// Nobody is there, and nobody is needed.
fn nowhere() -> Service {
    kit::cache(&[ports::free().unwrap()])
}

fn at(mut service: Service, socket: &Path) -> Service {
    service.unix = Some(socket.display().to_string());
    service
}

/// Starts what must refuse to; its exit code is 1 and its log says all of `words`.
fn assert_refuses(service: Service, words: &[&str]) {
    let sidecar = Sidecar::start(kit::binary(), kit::config(service), Until::Started).unwrap();
    let status = sidecar.server().wait(LONG).unwrap();
    let log = sidecar.server().log().unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    for word in words {
        assert!(log.contains(word), "no {word:?} in\n{log}");
    }
    assert!(!log.contains("panicked"), "{log}");
}

fn mode(path: &Path) -> u32 {
    let found = fs::metadata(path).unwrap();
    assert!(found.file_type().is_socket());
    found.permissions().mode() & 0o777
}

#[test]
fn unix_sockets_have_their_mode_and_go_at_the_end() {
    let sidecar = kit::start_without_primary(nowhere().set("socket_mode", "0640"));
    let (socket, admin) = (sidecar.unix("cache").unwrap(), sidecar.admin_socket());
    assert_eq!((mode(&socket), mode(&admin)), (0o640, 0o600));
    assert_eq!(sidecar.server().terminate(LONG).unwrap().code(), Some(0));
    let left: Vec<_> = fs::read_dir(socket.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("sock"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let open = kit::start_without_primary(nowhere());
    assert_eq!(
        mode(&open.unix("cache").unwrap()),
        0o666,
        "PHP runs as another user"
    );
}

#[test]
fn a_socket_that_a_crash_left_is_replaced() {
    let dir = scratch::Dir::new().unwrap();
    let socket = dir.join("left.sock");
    drop(UnixListener::bind(&socket).unwrap());
    let redis = kit::redis();
    for crash in [true, false] {
        let sidecar = kit::start(at(kit::cache(&[redis.addr]), &socket));
        assert_eq!(
            say(
                &mut connect(&Target::from(socket.as_path())),
                &["SET", "a", "1"]
            ),
            ok()
        );
        if crash {
            sidecar.server().kill().unwrap();
            assert!(socket.exists());
        }
    }
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let dir = scratch::Dir::new().unwrap();
    let (live, file) = (dir.join("live.sock"), dir.join("file.sock"));
    let owner = UnixListener::bind(&live).unwrap();
    assert_refuses(
        at(nowhere(), &live),
        &["another process is listening", "live.sock"],
    );
    assert!(
        std::os::unix::net::UnixStream::connect(&live).is_ok(),
        "it still listens"
    );
    drop(owner);
    fs::write(&file, "somebody's").unwrap();
    assert_refuses(at(nowhere(), &file), &["not a socket", "file.sock"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "somebody's");
    assert_refuses(
        at(nowhere(), &dir.join("nowhere/x.sock")),
        &["cannot listen", "nowhere/x.sock"],
    );
}

#[test]
fn a_second_sidecar_does_not_disturb_the_first() {
    let redis = kit::redis();
    let first = kit::start(kit::cache(&[redis.addr]));
    let mut same_port = kit::cache(&[redis.addr]);
    same_port.tcp = vec![first.tcp("cache").unwrap()];
    let port = same_port.tcp[0].to_string();
    assert_refuses(same_port, &["another process is listening", &port]);
    assert_refuses(
        at(kit::cache(&[redis.addr]), &first.unix("cache").unwrap()),
        &["another process"],
    );
    for target in kit::targets(&first) {
        assert_eq!(say(&mut connect(&target), &["SET", "a", "1"]), ok());
    }
}

#[test]
fn taken_ports_are_named() {
    let taken = TcpListener::bind(ports::free().unwrap()).unwrap();
    let addr = taken.local_addr().unwrap();
    let mut service = nowhere();
    service.tcp = vec![addr];
    assert_refuses(
        service,
        &["another process is listening", &addr.to_string()],
    );
    let mut config = kit::config(nowhere());
    config.http = addr;
    let sidecar = Sidecar::start(kit::binary(), config, Until::Started).unwrap();
    assert_eq!(sidecar.server().wait(LONG).unwrap().code(), Some(1));
    assert!(sidecar.server().log().unwrap().contains(&addr.to_string()));
}

#[test]
fn ipv6_clients_are_served() {
    let redis = kit::redis();
    let mut service = kit::cache(&[redis.addr]);
    let port = service.tcp[0].port();
    let addr = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port));
    service.tcp = vec![addr];
    if TcpListener::bind("[::1]:0").is_err() {
        // A host without IPv6: it must say so, and not run without the listener.
        return assert_refuses(service, &["cannot listen", &addr.to_string()]);
    }
    let sidecar = kit::start(service);
    assert_eq!(say(&mut kit::client(&sidecar), &["SET", "a", "1"]), ok());
}

#[test]
fn sigterm_drains_and_ends_with_the_last_session() {
    let redis = kit::redis();
    for signal in [Signal::TERM, Signal::INT] {
        let sidecar = kit::start(kit::cache(&[redis.addr]));
        let mut sessions: Vec<Conn> = kit::targets(&sidecar).iter().map(connect).collect();
        for session in &mut sessions {
            assert_eq!(say(session, &["SET", "a", "1"]), ok());
        }
        sidecar.server().signal(signal).unwrap();
        let health = sidecar
            .wait_health("the drain to show", LONG, |h| h["status"] == "draining")
            .unwrap();
        assert_eq!(
            health["services"]["cache"]["status"], "ok",
            "the database is as well as before"
        );
        assert_eq!(sidecar.http_get("/readyz").unwrap().status, 503);
        assert_eq!(sidecar.http_get("/livez").unwrap().status, 200);
        for session in &mut sessions {
            assert_eq!(say(session, &["GET", "a"]).text().unwrap(), "1");
        }
        // The balancer takes a while to see it; who comes until then is served.
        assert_eq!(
            say(&mut kit::client(&sidecar), &["GET", "a"])
                .text()
                .unwrap(),
            "1"
        );
        drop(sessions);
        assert_eq!(sidecar.server().wait(LONG).unwrap().code(), Some(0));
        assert!(!sidecar.server().log().unwrap().contains("panicked"));
    }
}

#[test]
fn patience_and_its_early_end() {
    let redis = kit::redis();
    // By the clock, and at once by a second signal.
    for (drain_timeout, signals) in [("300ms", 1), ("60s", 2)] {
        let config = kit::config(kit::cache(&[redis.addr]))
            .line(&format!("drain_timeout = \"{drain_timeout}\""));
        let sidecar = Sidecar::start(kit::binary(), config, Until::Healthy).unwrap();
        let mut idle = kit::client(&sidecar);
        assert_eq!(say(&mut idle, &["SET", "a", "1"]), ok());
        for _ in 0..signals {
            sidecar.server().signal(Signal::TERM).unwrap();
            if signals == 2 {
                sidecar.wait_log("draining", LONG).unwrap();
            }
        }
        assert_eq!(
            sidecar.server().wait(LONG).unwrap().code(),
            Some(0),
            "{drain_timeout}"
        );
        assert_eq!(idle.read_to_end().unwrap(), b"");
    }
}

#[test]
fn held_clients_do_not_outlive_the_drain() {
    let config = kit::config(kit::patient(nowhere())).line("drain_timeout = \"300ms\"");
    let sidecar = Sidecar::start(kit::binary(), config, Until::Live).unwrap();
    let mut held = kit::client(&sidecar);
    kit::wait_held(&sidecar, 1);
    sidecar.server().signal(Signal::TERM).unwrap();
    assert_eq!(held.read_to_end().unwrap(), b"");
    assert_eq!(sidecar.server().wait(LONG).unwrap().code(), Some(0));
}

#[test]
fn signals_that_are_not_the_end_do_not_kill() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]));
    let mut session = kit::client(&sidecar);
    sidecar.server().signal(Signal::HUP).unwrap();
    sidecar.wait_log("nothing changed", LONG).unwrap();
    assert_eq!(say(&mut session, &["SET", "a", "1"]), ok());
    assert!(sidecar.server().is_running());
}

fn http(sidecar: &Sidecar) -> Target {
    sidecar.config().http.into()
}

#[test]
fn health_and_metrics_answer_as_the_contract_says() {
    let redis = kit::redis();
    let config = kit::config(kit::cache(&[redis.addr])).line("region = \"gra\"");
    let sidecar = Sidecar::start(kit::binary(), config, Until::Healthy).unwrap();
    assert_eq!(say(&mut kit::client(&sidecar), &["SET", "a", "1"]), ok());
    for path in [
        "/healthz",
        "/healthz/cache",
        "/livez",
        "/readyz",
        "/metrics",
    ] {
        let ask = |method| request(&http(&sidecar), method, path, "", LONG).unwrap();
        assert_eq!(ask("GET").status, 200, "{path}");
        assert!(!ask("GET").body.is_empty());
        assert_eq!(
            (ask("HEAD").status, ask("HEAD").body),
            (200, String::new()),
            "{path}"
        );
        assert_eq!(ask("OPTIONS").status, 200, "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            assert_eq!(ask(method).status, 405, "{method} {path}");
        }
    }
    for path in ["/nothing", "/healthz/nobody", "/v1/status"] {
        assert_eq!(sidecar.http_get(path).unwrap().status, 404, "{path}");
    }
    let health = sidecar.healthz().unwrap();
    let keys = |json: &Json| {
        json.as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(keys(&health), "name region services status");
    assert_eq!(
        (&health["status"], &health["name"], &health["region"]),
        (&"ok".into(), &"app-01".into(), &"gra".into())
    );
    let cache = &health["services"]["cache"];
    assert_eq!(keys(cache), "generation primary reason since status term");
    assert_eq!(cache["primary"], redis.addr.to_string());
    assert_eq!(cache["generation"], 1);
    assert!(cache["since"].as_str().unwrap().ends_with('Z'), "{cache}");
    let alone: Json =
        serde_json::from_str(&sidecar.http_get("/healthz/cache").unwrap().body).unwrap();
    assert_eq!(&alone, cache);
}

#[test]
fn metrics_have_the_names_of_the_contract() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]));
    let mut session = kit::client(&sidecar);
    assert_eq!(say(&mut session, &["SET", "a", "1"]), ok());
    let text = sidecar.http_get("/metrics").unwrap().body;
    for name in [
        "sessions_active{",
        "sessions_total{",
        "session_ends_total{",
        "bytes_total{",
        "held_clients{",
        "hold_seconds",
        "connect_seconds_bucket{",
        "switches_total{",
        "switch_seconds_bucket{",
        "generation{",
        "primary_info{",
        "endpoint_up{",
        "probe_seconds",
        "accept_errors_total{",
        "health_status",
        "build_info{",
    ] {
        assert!(
            text.contains(&format!("\npilotfish_{name}")),
            "no {name} in\n{text}"
        );
    }
    assert!(
        text.contains("process_resident_memory_bytes") && text.contains("process_open_fds"),
        "{text}"
    );
    let value = |name, labels: &[(&str, &str)]| sidecar.metric(name, labels).unwrap();
    let primary = [("service", "cache"), ("endpoint", &*redis.addr.to_string())];
    assert_eq!(value("primary_info", &primary), 1.0);
    assert_eq!(value("endpoint_up", &primary), 1.0);
    assert_eq!(
        value(
            "sessions_active",
            &[("service", "cache"), ("role", "primary")]
        ),
        1.0
    );
    assert_eq!(
        value("bytes_total", &[("direction", "up")]),
        encode(&["SET", "a", "1"]).len() as f64
    );
    assert_eq!(value("bytes_total", &[("direction", "down")]), 5.0);
    assert_eq!(
        (value("generation", &[]), value("health_status", &[])),
        (1.0, 0.0)
    );
}

#[test]
fn health_fails_before_the_proof_and_long_after_the_loss() {
    let mut redis = kit::redis();
    redis.server().kill().unwrap();
    let mut config = kit::config(kit::cache(&[redis.addr]));
    config.http_lines.push("unhealthy_after = \"2s\"".into());
    let sidecar = Sidecar::start(kit::binary(), config, Until::Live).unwrap();
    let health = sidecar.healthz().unwrap();
    assert_eq!(
        (&health["status"], &health["services"]["cache"]["status"]),
        (&"failing".into(), &"failing".into())
    );
    assert_eq!(
        sidecar.http_get("/healthz").unwrap().status,
        503,
        "before the first proof"
    );
    redis.restart().unwrap();
    sidecar.wait_status("/healthz", 200, LONG).unwrap();
    let watch = sidecar.watch("cache").unwrap();
    wait::until_true("the watch to begin", LONG, || {
        Ok(!watch.changes().is_empty())
    })
    .unwrap();
    redis.server().kill().unwrap();
    sidecar
        .wait_health("it to be degraded", LONG, |h| h["status"] == "degraded")
        .unwrap();
    assert_eq!(
        sidecar.http_get("/healthz").unwrap().status,
        200,
        "all app servers see the same"
    );
    sidecar.wait_status("/healthz", 503, LONG).unwrap();
    redis.restart().unwrap();
    sidecar.wait_status("/healthz", 200, LONG).unwrap();
    let words = ["ok", "degraded", "failing", "ok"];
    let all_seen = || {
        let mut said: Vec<String> = watch
            .changes()
            .into_iter()
            .map(|change| change.status)
            .collect();
        said.dedup();
        Ok(said == words)
    };
    wait::until_true("the watch to have seen it all", LONG, all_seen).unwrap();
}

#[test]
fn a_service_that_is_not_required_only_degrades() {
    let redis = kit::redis();
    let mut extra = Service::new("extra", "redis")
        .unwrap()
        .discover("kind", "redis")
        .line("required = false");
    extra = extra.discover_all("nodes", &[ports::free().unwrap()]);
    let config = kit::config(kit::cache(&[redis.addr])).service(extra);
    let sidecar = Sidecar::start(kit::binary(), config, Until::Healthy).unwrap();
    let health = sidecar
        .wait_health("it to be proven", LONG, |h| {
            h["services"]["cache"]["status"] == "ok"
        })
        .unwrap();
    assert_eq!(
        (&health["status"], &health["services"]["extra"]["status"]),
        (&"degraded".into(), &"failing".into())
    );
    assert_eq!(sidecar.http_get("/healthz/extra").unwrap().status, 503);
    assert_eq!(sidecar.http_get("/healthz/cache").unwrap().status, 200);
}

/// A service with a second port for reads.
fn with_reads(nodes: &[&RedisServer], fallback: &str) -> (Sidecar, Target) {
    let addrs: Vec<SocketAddr> = nodes.iter().map(|node| node.addr).collect();
    let reads = ports::free().unwrap();
    let service = kit::patient(kit::cache(&addrs))
        .line(&format!("replica_listen = [\"{reads}\"]"))
        .set("replica_fallback", fallback);
    (kit::start(service), reads.into())
}

fn role(conn: &mut Conn) -> String {
    say(conn, &["ROLE"]).array().unwrap()[0].text().unwrap()
}

fn wait_replicas(sidecar: &Sidecar, wanted: usize) {
    let fit = |status: &Json| {
        let all = status["endpoints"].as_array().unwrap();
        all.iter()
            .filter(|e| e["role"] == "replica" && e["up"] == true)
            .count()
            == wanted
    };
    let seen = || {
        Ok(fit(&serde_json::from_str(
            &sidecar.admin("GET", "/v1/services/cache", "")?.body,
        )?))
    };
    wait::until_true("the replicas to be seen", LONG, seen).unwrap();
}

#[test]
fn reads_are_spread_over_the_replicas() {
    let master = kit::redis();
    let replicas = [kit::replica_of(&master), kit::replica_of(&master)];
    let (sidecar, reads) = with_reads(&[&master, &replicas[0], &replicas[1]], "refuse");
    wait_replicas(&sidecar, 2);
    let mut clients: Vec<Conn> = (0..10).map(|_| connect(&reads)).collect();
    let mut ports: Vec<String> = Vec::new();
    for client in &mut clients {
        assert_eq!(role(client), "slave");
        ports.push(
            say(client, &["CONFIG", "GET", "port"])
                .field("port")
                .unwrap(),
        );
    }
    for replica in &replicas {
        let here = replica.addr.port().to_string();
        assert_eq!(
            ports.iter().filter(|port| **port == here).count(),
            5,
            "{ports:?}"
        );
    }
    let refused = say(&mut clients[0], &["SET", "a", "1"]);
    assert!(
        matches!(&refused, Value::Error(text) if text.starts_with("READONLY")),
        "{refused:?}"
    );
    assert_eq!(role(&mut kit::client(&sidecar)), "master");
    assert_eq!(
        sidecar
            .metric("sessions_active", &[("role", "replica")])
            .unwrap(),
        10.0
    );
}

#[test]
fn without_a_replica_the_fallback_decides() {
    let master = kit::redis();
    let mut replica = kit::replica_of(&master);
    for fallback in ["primary", "hold", "refuse"] {
        let (sidecar, reads) = with_reads(&[&master, &replica], fallback);
        wait_replicas(&sidecar, 1);
        assert_eq!(role(&mut connect(&reads)), "slave", "{fallback}");
        replica.server().kill().unwrap();
        wait_replicas(&sidecar, 0);
        match fallback {
            "primary" => assert_eq!(role(&mut connect(&reads)), "master"),
            "hold" => {
                let mut client = connect(&reads);
                client.send_raw(&encode(&["ROLE"])).unwrap();
                kit::wait_held(&sidecar, 1);
                assert_eq!(
                    role(&mut kit::client(&sidecar)),
                    "master",
                    "writes are not concerned"
                );
                replica.restart().unwrap();
                let said = client.read_value().unwrap();
                assert_eq!(said.array().unwrap()[0].text().unwrap(), "slave");
            }
            _ => {
                let Target::Tcp(addr) = reads else { panic!() };
                let mut client = Stream::connect(&addr.into(), LONG).unwrap();
                client.write_all(&encode(&["ROLE"])).unwrap();
                assert!(kit::rest(&mut client).starts_with(b"-LOADING Pilotfish"));
                kit::wait_ends(&sidecar, "no-replica", 1.0);
            }
        }
        replica.restart().unwrap();
        kit::wait_follows(&replica, master.addr);
    }
}

/// G6: whoever comes in masses, the control side answers.
#[test]
fn health_answers_while_all_places_are_taken() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]).line("max_connections = 50"));
    let held: Vec<Conn> = (0..200).map(|_| kit::client(&sidecar)).collect();
    kit::wait_metric(&sidecar, "sessions_active", &[], 50.0);
    for path in ["/healthz", "/livez", "/metrics"] {
        let answer = request(&http(&sidecar), "GET", path, "", Duration::from_secs(1)).unwrap();
        assert_eq!(answer.status, 200, "{path}");
    }
    assert_eq!(sidecar.admin("GET", "/v1/status", "").unwrap().status, 200);
    drop(held);
    kit::wait_no_sessions(&sidecar);
}
