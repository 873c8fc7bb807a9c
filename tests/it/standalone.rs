//! Without Sentinel: `redis` discovery by ROLE, `static` discovery by who accepts, and plain TCP.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use pilotfish_harness::ports;
use pilotfish_harness::redis::RedisServer;
use pilotfish_harness::resp::{Stream, encode};
use pilotfish_harness::sidecar::Sidecar;
use serde_json::Value as Json;

use crate::kit::{self, LONG, ok, say};

/// Waits for a health of the service whose reason has all of `words`.
fn wait_reason(sidecar: &Sidecar, status: &str, words: &[&str]) -> Json {
    let wanted = |health: &Json| {
        let cache = &health["services"]["cache"];
        let reason = cache["reason"].as_str().unwrap_or_default();
        cache["status"] == status && words.iter().all(|word| reason.contains(word))
    };
    sidecar
        .wait_health(&format!("{status}: {words:?}"), LONG, wanted)
        .unwrap()
}

fn addrs(nodes: &[&RedisServer]) -> Vec<SocketAddr> {
    nodes.iter().map(|node| node.addr).collect()
}

#[test]
fn the_one_master_is_found_among_its_replicas() {
    let master = kit::redis();
    let replicas = [kit::replica_of(&master), kit::replica_of(&master)];
    let sidecar = kit::start(kit::cache(&addrs(&[&replicas[0], &master, &replicas[1]])));
    let health = sidecar.wait_primary("cache", master.addr, LONG).unwrap();
    let cache = &health["services"]["cache"];
    assert_eq!(
        (&cache["status"], &cache["reason"], &cache["term"]),
        (&"ok".into(), &Json::Null, &Json::Null)
    );
    assert_eq!(say(&mut kit::client(&sidecar), &["SET", "a", "1"]), ok());
    let status = sidecar.admin("GET", "/v1/services/cache", "").unwrap().body;
    let status: Json = serde_json::from_str(&status).unwrap();
    let roles: Vec<&str> = status["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["role"].as_str().unwrap())
        .collect();
    assert_eq!(
        roles.iter().filter(|role| **role == "replica").count(),
        2,
        "{status}"
    );
    assert_eq!(status["discovery"], "redis");
}

#[test]
fn a_master_moved_by_hand_is_followed_back_and_forth() {
    let (one, two) = {
        let one = kit::redis();
        let two = kit::replica_of(&one);
        (one, two)
    };
    let sidecar = kit::start(kit::patient(kit::cache(&addrs(&[&one, &two]))));
    for (round, (from, to)) in [(&one, &two), (&two, &one)].into_iter().enumerate() {
        sidecar.wait_primary("cache", from.addr, LONG).unwrap();
        kit::wait_follows(to, from.addr);
        let mut kept = kit::client(&sidecar);
        assert_eq!(
            say(&mut kept, &["SET", &format!("before:{round}"), "1"]),
            ok()
        );
        // Between the two commands there is no master: whoever comes then waits.
        kit::replicaof(from, to.addr);
        kit::wait_bereft(&sidecar);
        let mut held = kit::client(&sidecar);
        held.send_raw(&encode(&["SET", &format!("held:{round}"), "1"]))
            .unwrap();
        kit::wait_held(&sidecar, 1);
        to.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
        assert_eq!(held.read_value().unwrap(), ok());
        sidecar.wait_primary("cache", to.addr, LONG).unwrap();
        assert_eq!(
            kept.read_to_end().unwrap(),
            b"",
            "the session on the old one ends with a FIN"
        );
        assert_eq!(
            to.command(&["EXISTS", &format!("held:{round}")]).unwrap(),
            pilotfish_harness::resp::Value::Int(1)
        );
    }
    kit::wait_ends(&sidecar, "switched", 2.0);
}

/// Two masters: nobody but an operator knows which is right, and the one in use is the smaller surprise.
#[test]
fn of_two_masters_the_present_one_stays() {
    let old = kit::redis();
    let new = kit::replica_of(&old);
    let sidecar = kit::start(kit::cache(&addrs(&[&new, &old])));
    sidecar.wait_primary("cache", old.addr, LONG).unwrap();
    let mut kept = kit::client(&sidecar);
    assert_eq!(say(&mut kept, &["SET", "a", "1"]), ok());
    new.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    let both = [old.addr.to_string(), new.addr.to_string()];
    let health = wait_reason(
        &sidecar,
        "degraded",
        &["several masters", &both[0], &both[1]],
    );
    assert_eq!(health["status"], "degraded");
    assert_eq!(sidecar.http_get("/healthz").unwrap().status, 200);
    assert_eq!(sidecar.primary("cache").unwrap(), Some(old.addr));
    assert_eq!(
        say(&mut kept, &["SET", "b", "1"]),
        ok(),
        "nobody is disturbed"
    );
    let status = sidecar.admin("GET", "/v1/services/cache", "").unwrap().body;
    assert!(status.contains("several masters"), "{status}");
    sidecar.wait_log("several masters", LONG).unwrap();
    kit::replicaof(&old, new.addr);
    sidecar.wait_primary("cache", new.addr, LONG).unwrap();
    wait_is_ok(&sidecar);
}

fn wait_is_ok(sidecar: &Sidecar) {
    sidecar
        .wait_health("all to be well", LONG, |health| health["status"] == "ok")
        .unwrap();
}

#[test]
fn two_masters_from_the_start_are_held_until_one_is_told() {
    let (one, two) = (kit::redis(), kit::redis());
    let sidecar = kit::start_without_primary(kit::patient(kit::cache(&addrs(&[&one, &two]))));
    wait_reason(&sidecar, "failing", &["several masters"]);
    assert_eq!(sidecar.http_get("/healthz").unwrap().status, 503);
    let mut client = kit::client(&sidecar);
    client.send_raw(&encode(&["PING"])).unwrap();
    kit::wait_held(&sidecar, 1);
    assert_eq!(sidecar.primary("cache").unwrap(), None);
    kit::replicaof(&one, two.addr);
    sidecar.wait_primary("cache", two.addr, LONG).unwrap();
    assert_eq!(client.read_value().unwrap().text().unwrap(), "PONG");
}

#[test]
fn of_two_masters_the_one_with_replicas_is_the_first_to_be_believed() {
    let (stray, master) = (kit::redis(), kit::redis());
    let replica = kit::replica_of(&master);
    let sidecar = kit::start_without_primary(kit::cache(&addrs(&[&stray, &master, &replica])));
    sidecar.wait_primary("cache", master.addr, LONG).unwrap();
    wait_reason(&sidecar, "degraded", &["several masters"]);
}

#[test]
fn without_any_master_everybody_waits() {
    let master = kit::redis();
    let (one, two) = (kit::replica_of(&master), kit::replica_of(&master));
    let sidecar = kit::start_without_primary(kit::patient(kit::cache(&addrs(&[&one, &two]))));
    wait_reason(&sidecar, "failing", &["no server says it is master"]);
    let mut client = kit::client(&sidecar);
    client.send_raw(&encode(&["SET", "a", "1"])).unwrap();
    kit::wait_held(&sidecar, 1);
    two.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    assert_eq!(client.read_value().unwrap(), ok());
    assert_eq!(sidecar.primary("cache").unwrap(), Some(two.addr));
}

#[test]
fn static_goes_to_the_first_that_accepts_and_back() {
    let (mut first, second) = (kit::redis(), kit::redis());
    let mut service = kit::patient(kit::bytes(&addrs(&[&first, &second])));
    service.protocol = "redis".into();
    let sidecar = kit::start(service);
    let named = |node: &RedisServer| {
        let mut client = kit::client(&sidecar);
        say(&mut client, &["CONFIG", "GET", "port"]).field("port")
            == Some(node.addr.port().to_string())
    };
    assert_eq!(
        sidecar.service_health("cache").unwrap()["generation"],
        1,
        "the second was never it"
    );
    sidecar.wait_primary("cache", first.addr, LONG).unwrap();
    assert!(named(&first));
    first.server().kill().unwrap();
    sidecar.wait_primary("cache", second.addr, LONG).unwrap();
    assert!(named(&second));
    let mut kept = kit::client(&sidecar);
    assert_eq!(say(&mut kept, &["SET", "a", "1"]), ok());
    first.restart().unwrap();
    sidecar.wait_primary("cache", first.addr, LONG).unwrap();
    assert_eq!(kept.read_to_end().unwrap(), b"");
    assert!(named(&first));
}

/// A server of one's own on the other side: whom it accepts, the test gets.
fn server() -> (SocketAddr, Receiver<TcpStream>) {
    let listener = TcpListener::bind(ports::free().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let (give, get) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_read_timeout(Some(LONG)).unwrap();
            if give.send(stream).is_err() {
                return;
            }
        }
    });
    (addr, get)
}

/// The next connection that carries a client: the monitor's knocks end without a word.
fn greeted(accepted: &Receiver<TcpStream>, greeting: &[u8]) -> TcpStream {
    loop {
        let mut stream = accepted.recv_timeout(LONG).unwrap();
        let mut heard = vec![0; greeting.len()];
        match stream.read_exact(&mut heard) {
            Ok(()) => {
                assert_eq!(heard, greeting);
                return stream;
            }
            Err(_) => continue,
        }
    }
}

fn end_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn tcp_relays_any_bytes_and_both_half_closes() {
    let (addr, accepted) = server();
    let sidecar = kit::start(kit::bytes(&[addr]));
    let every: Vec<u8> = (0..=255_u8).cycle().take(1 << 20).collect();
    for (target, client_first) in kit::targets(&sidecar)
        .iter()
        .flat_map(|t| [(t, true), (t, false)])
    {
        let mut client = Stream::connect(target, LONG).unwrap();
        client.write_all(b"\0hello").unwrap();
        let mut server = greeted(&accepted, b"\0hello");
        if client_first {
            client.write_all(&every).unwrap();
            client.shutdown_write().unwrap();
            assert!(end_of(&mut server) == every, "{target}: up");
            server.write_all(&every).unwrap();
            drop(server);
            assert!(
                kit::rest(&mut client) == every,
                "{target}: down, after the client's end"
            );
        } else {
            server.write_all(&every).unwrap();
            server.shutdown(Shutdown::Write).unwrap();
            assert!(kit::rest(&mut client) == every, "{target}: down");
            client.write_all(&every).unwrap();
            drop(client);
            assert!(
                end_of(&mut server) == every,
                "{target}: up, after the server's end"
            );
        }
    }
    kit::wait_no_sessions(&sidecar);
}

#[test]
fn tcp_lets_the_server_speak_first() {
    let listener = TcpListener::bind(ports::free().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // The monitor's knock does not listen.
            let _ = stream.unwrap().write_all(b"220 ready\r\n");
        }
    });
    let sidecar = kit::start(kit::bytes(&[addr]));
    for target in kit::targets(&sidecar) {
        let mut client = Stream::connect(&target, LONG).unwrap();
        assert_eq!(kit::rest(&mut client), b"220 ready\r\n", "{target}");
    }
}

#[test]
fn tcp_has_no_words_of_its_own() {
    let service = kit::bytes(&[ports::free().unwrap()]).set("hold_timeout", "200ms");
    let sidecar = kit::start_without_primary(service);
    for target in kit::targets(&sidecar) {
        let mut client = Stream::connect(&target, LONG).unwrap();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        assert_eq!(
            kit::rest(&mut client),
            b"",
            "{target}: the end, and not a reset"
        );
    }
    kit::wait_ends(&sidecar, "hold-timeout", 2.0);
}
