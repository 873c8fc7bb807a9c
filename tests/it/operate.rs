//! What an operator does: look, pause, pin, drain.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use pilotfish_harness::resp::encode;
use pilotfish_harness::sidecar::Sidecar;

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
