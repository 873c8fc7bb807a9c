//! Clients without a primary: held, served later, told off in time, and let go at a pace.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pilotfish_harness::certs::Certs;
use pilotfish_harness::ports;
use pilotfish_harness::redis::{RedisConf, RedisServer, Tls};
use pilotfish_harness::resp::{Stream, Target, Value, encode};
use pilotfish_harness::wait;

use crate::kit::{self, LONG, connect, ok, say};

const LOADING: &str = "-LOADING Pilotfish: no primary for 'cache'";
const FULL: &[u8] = b"-ERR max number of clients reached\r\n";

fn pong() -> Value {
    Value::Simple("PONG".into())
}

/// What it hears until the end, as text.
fn hear(stream: &mut Stream) -> String {
    String::from_utf8(kit::rest(stream)).unwrap()
}

fn assert_loading(said: &str) {
    assert!(
        said.starts_with(LOADING) && said.ends_with("\r\n"),
        "{said:?}"
    );
    assert_eq!(said.matches("\r\n").count(), 1, "one reply: {said:?}");
}

#[test]
fn held_clients_are_served_when_the_primary_is_back() {
    let mut redis = kit::redis();
    redis.server().kill().unwrap();
    let sidecar = kit::start_without_primary(kit::patient(kit::cache(&[redis.addr])));
    let mut early: Vec<_> = (0..20)
        .map(|n| connect(&kit::targets(&sidecar)[n % 2]))
        .collect();
    let mut late: Vec<_> = (0..20)
        .map(|n| connect(&kit::targets(&sidecar)[n % 2]))
        .collect();
    for (n, client) in early.iter_mut().enumerate() {
        client
            .send_raw(&encode(&["SET", &format!("early:{n}"), "x"]))
            .unwrap();
    }
    kit::wait_held(&sidecar, 40);
    // More while they are held, and as much as fits on the way: nothing of it may be lost.
    let filler = "f".repeat(50_000);
    for client in &mut early {
        client.send_raw(&encode(&["ECHO", &filler])).unwrap();
    }
    redis.restart().unwrap();
    for client in &mut early {
        assert_eq!(client.read_value().unwrap(), ok());
        assert_eq!(client.read_value().unwrap().text().unwrap(), filler);
    }
    for client in &mut late {
        assert_eq!(say(client, &["PING"]), pong());
    }
    assert_eq!(redis.command(&["DBSIZE"]).unwrap(), Value::Int(20));
    assert_eq!(sidecar.metric("held_clients", &[]).unwrap(), 0.0);
    assert_eq!(sidecar.metric("hold_seconds_count", &[]).unwrap(), 40.0);
}

#[test]
fn without_a_primary_in_time_the_first_command_is_answered_with_loading() {
    let sidecar = kit::start_without_primary(
        kit::cache(&[ports::free().unwrap()]).set("hold_timeout", "300ms"),
    );
    for target in kit::targets(&sidecar) {
        for command in [&["PING"][..], &["SET", "a", "1"], &["HELLO", "3"]] {
            let mut client = Stream::connect(&target, LONG).unwrap();
            client.write_all(&encode(command)).unwrap();
            assert_loading(&hear(&mut client));
        }
        // A pipeline is answered once: what was not sent anywhere has no answers.
        let mut client = Stream::connect(&target, LONG).unwrap();
        client.write_all(&encode(&["PING"]).repeat(5000)).unwrap();
        assert_loading(&hear(&mut client));
    }
    kit::wait_ends(&sidecar, "hold-timeout", 8.0);
    kit::wait_no_sessions(&sidecar);
}

#[test]
fn a_client_that_has_not_spoken_hears_nothing_before_it_does() {
    let sidecar = kit::start_without_primary(
        kit::cache(&[ports::free().unwrap()]).set("hold_timeout", "300ms"),
    );
    for target in kit::targets(&sidecar) {
        let mut silent = Stream::connect(&target, Duration::from_millis(1)).unwrap();
        kit::wait_held(&sidecar, 1);
        kit::wait_held(&sidecar, 0);
        let nothing = silent.read(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock, "{target}");
        silent.set_timeout(LONG).unwrap();
        silent.write_all(&encode(&["PING"])).unwrap();
        assert_loading(&hear(&mut silent));

        let mut dumb = Stream::connect(&target, LONG).unwrap();
        assert_eq!(
            hear(&mut dumb),
            "",
            "it never spoke, so there is nothing to answer"
        );
    }
}

#[test]
fn clients_that_leave_while_held_are_noticed_and_their_requests_forgotten() {
    let mut redis = kit::redis();
    redis.server().kill().unwrap();
    let sidecar = kit::start_without_primary(kit::patient(kit::cache(&[redis.addr])));
    let mut leaving: Vec<_> = (0..20)
        .map(|n| connect(&kit::targets(&sidecar)[n % 2]))
        .collect();
    let mut resetting: Vec<TcpStream> = (0..10)
        .map(|_| TcpStream::connect(sidecar.tcp("cache").unwrap()).unwrap())
        .collect();
    let mut staying = kit::client(&sidecar);
    kit::wait_held(&sidecar, 31);
    let request = encode(&["SADD", "executed", "by somebody who left"]);
    for client in &mut leaving {
        client.send_raw(&request).unwrap();
    }
    for client in &mut resetting {
        client.write_all(&request).unwrap();
    }
    staying
        .send_raw(&encode(&["SADD", "executed", "by somebody who stayed"]))
        .unwrap();
    drop(leaving);
    resetting.into_iter().for_each(kit::reset);
    kit::wait_held(&sidecar, 1);
    kit::wait_ends(&sidecar, "held-client-left", 30.0);
    redis.restart().unwrap();
    assert_eq!(staying.read_value().unwrap(), Value::Int(1));
    assert_eq!(
        redis.command(&["SCARD", "executed"]).unwrap(),
        Value::Int(1)
    );
}

#[test]
fn one_too_many_to_hold_is_told_at_once() {
    let service = kit::patient(kit::cache(&[ports::free().unwrap()])).line("max_held = 3");
    let sidecar = kit::start_without_primary(service);
    let mut held: Vec<_> = (0..3).map(|_| kit::client(&sidecar)).collect();
    kit::wait_held(&sidecar, 3);
    for target in kit::targets(&sidecar) {
        let mut client = Stream::connect(&target, LONG).unwrap();
        client.write_all(&encode(&["PING"])).unwrap();
        assert_loading(&hear(&mut client));
    }
    kit::wait_ends(&sidecar, "hold-full", 2.0);
    assert!(
        held.iter_mut().all(|client| client.is_usable()),
        "the others wait on"
    );
    // A place that is given back can be had.
    held.pop();
    kit::wait_held(&sidecar, 2);
    let _third = kit::client(&sidecar);
    kit::wait_held(&sidecar, 3);
}

#[test]
fn one_connection_too_many_is_told_so() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]).line("max_connections = 3"));
    let mut served: Vec<_> = (0..3).map(|_| kit::client(&sidecar)).collect();
    for client in &mut served {
        assert_eq!(say(client, &["PING"]), pong());
    }
    for target in kit::targets(&sidecar) {
        let mut client = Stream::connect(&target, LONG).unwrap();
        client.write_all(&encode(&["SET", "a", "1"])).unwrap();
        assert_eq!(kit::rest(&mut client), FULL, "{target}");
    }
    assert_eq!(kit::ends(&sidecar, "too-many"), 2.0);
    assert_eq!(redis.command(&["DBSIZE"]).unwrap(), Value::Int(0));
    for client in &mut served {
        assert_eq!(say(client, &["PING"]), pong());
    }
    served.pop();
    kit::wait_metric(&sidecar, "sessions_active", &[], 2.0);
    assert_eq!(say(&mut kit::client(&sidecar), &["PING"]), pong());
}

/// Connects take as long as the valve says; the handshake of TLS waits behind it.
#[test]
fn held_clients_are_let_go_at_a_pace() {
    const CLIENTS: usize = 12;
    let certs = Certs::make(&["127.0.0.1"]).unwrap();
    let conf = RedisConf {
        tls: Some(Tls::from(&certs)),
        ..RedisConf::default()
    };
    let mut redis = RedisServer::start(&conf).unwrap();
    redis.server().kill().unwrap();
    // The monitor's own connection passes: without it nobody would be let go.
    let valve = Valve::start(redis.addr, 1);
    let service = kit::patient(kit::cache(&[valve.addr]))
        .line("max_connecting = 3")
        .set("connect_timeout", "60s")
        .section("[service.tls]\nmode = \"require\"");
    let sidecar = kit::start_without_primary(service);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| kit::client(&sidecar)).collect();
    for client in &mut clients {
        client.send_raw(&encode(&["PING"])).unwrap();
    }
    kit::wait_held(&sidecar, CLIENTS);
    redis.restart().unwrap();
    for done in 0..CLIENTS {
        let at_once = 3.min(CLIENTS - done);
        valve.wait_stalled(at_once);
        valve.let_one_go();
    }
    for client in &mut clients {
        assert_eq!(client.read_value().unwrap(), pong());
    }
    assert_eq!(valve.most_stalled(), 3);
}

/// A primary that may come back is no reason to cut anybody off.
#[test]
fn sessions_on_a_frozen_primary_are_paused() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::patient(kit::cache(&[redis.addr])));
    let mut sessions: Vec<_> = kit::targets(&sidecar).iter().map(connect).collect();
    for session in &mut sessions {
        assert_eq!(say(session, &["SET", "visits", "0"]), ok());
    }
    redis.server().freeze().unwrap();
    for session in &mut sessions {
        session.send_raw(&encode(&["INCR", "visits"])).unwrap();
    }
    kit::wait_bereft(&sidecar);
    let mut fresh = kit::client(&sidecar);
    for session in sessions.iter_mut().chain([&mut fresh]) {
        session.send_raw(&encode(&["INCR", "visits"])).unwrap();
    }
    kit::wait_held(&sidecar, 1);
    assert!(sessions.iter_mut().all(|session| session.is_usable()));
    redis.server().thaw().unwrap();
    for session in &mut sessions {
        for _ in 0..2 {
            assert!(matches!(session.read_value().unwrap(), Value::Int(_)));
        }
        assert_eq!(say(session, &["PING"]), pong());
    }
    assert!(matches!(fresh.read_value().unwrap(), Value::Int(_)));
    let visits = redis.command(&["GET", "visits"]).unwrap();
    assert_eq!(visits.text().unwrap(), "5", "each exactly once");
    assert_eq!(kit::ends(&sidecar, "switched"), 0.0);
}

/// G5: a session of which the old primary saw nothing moves along; one of which it saw a byte is closed.
#[test]
fn only_untouched_sessions_move_to_the_new_primary() {
    let old = kit::redis();
    let new = kit::replica_of(&old);
    let sidecar = kit::start(kit::patient(kit::cache(&[old.addr, new.addr])));
    let ways = kit::targets(&sidecar);
    let mut untouched: Vec<_> = ways.iter().map(connect).collect();
    let mut waiting: Vec<_> = ways
        .iter()
        .map(|target| Stream::connect(target, LONG).unwrap())
        .collect();
    for stream in &mut waiting {
        stream.write_all(&encode(&["BLPOP", "jobs", "0"])).unwrap();
    }
    let blocked = || Ok(old.info("clients", "blocked_clients")? == "2");
    wait::until_true("both to be blocked", LONG, blocked).unwrap();
    kit::wait_metric(&sidecar, "sessions_active", &[], 4.0);
    kit::move_master(&old, &new);
    sidecar.wait_primary("cache", new.addr, LONG).unwrap();
    for stream in &mut waiting {
        let said = kit::rest(stream);
        // Redis itself unblocks such clients when it is demoted.
        assert!(
            said.is_empty() || said.starts_with(b"-UNBLOCKED"),
            "{said:?}"
        );
    }
    new.command(&["RPUSH", "jobs", "still here"]).unwrap();
    for (n, client) in untouched.iter_mut().enumerate() {
        assert_eq!(
            say(client, &["LLEN", "jobs"]),
            Value::Int(1),
            "asked of the new one"
        );
        assert_eq!(say(client, &["SET", &format!("moved:{n}"), "1"]), ok());
    }
    assert_eq!(new.command(&["DBSIZE"]).unwrap(), Value::Int(3));
}

/// A server that takes connections and drops them keeps nobody for ever.
#[test]
fn a_server_that_drops_its_clients_is_not_asked_for_ever() {
    let dropper = TcpListener::bind(ports::free().unwrap()).unwrap();
    let addr = dropper.local_addr().unwrap();
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = dropped.clone();
    std::thread::spawn(move || {
        for stream in dropper.incoming() {
            drop(stream);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let sidecar = kit::start(kit::bytes(&[addr]).set("hold_timeout", "1s"));
    for target in kit::targets(&sidecar) {
        let mut client = Stream::connect(&target, LONG).unwrap();
        assert_eq!(kit::rest(&mut client), b"", "{target}");
    }
    kit::wait_no_sessions(&sidecar);
    // The back-off begins with 10 ms and ends with 250 ms; the monitor knocks ten times a second.
    let tries = dropped.load(Ordering::Relaxed);
    assert!(
        (4..200).contains(&tries),
        "{tries} connects for two clients of a second each"
    );
}

/// In front of a server: the first connections pass, each later one waits until it is let go.
struct Valve {
    addr: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    passing: usize,
    stalled: usize,
    most: usize,
    let_go: usize,
}

impl Valve {
    fn start(server: SocketAddr, passing: usize) -> Self {
        let listener = TcpListener::bind(ports::free().unwrap()).unwrap();
        let valve = Self {
            addr: listener.local_addr().unwrap(),
            state: Arc::default(),
        };
        valve.state.0.lock().unwrap().passing = passing;
        let state = valve.state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (state, stream) = (state.clone(), stream.unwrap());
                std::thread::spawn(move || Self::pass(&state, stream, server));
            }
        });
        valve
    }

    fn pass(state: &(Mutex<State>, Condvar), stream: TcpStream, server: SocketAddr) {
        // While the server is down there is nothing to wait for.
        let Ok(upstream) = TcpStream::connect(server) else {
            return;
        };
        let (lock, changed) = state;
        let mut now = lock.lock().unwrap();
        if now.passing > 0 {
            now.passing -= 1;
        } else {
            now.stalled += 1;
            now.most = now.most.max(now.stalled);
            changed.notify_all();
            now = changed.wait_while(now, |now| now.let_go == 0).unwrap();
            now.let_go -= 1;
        }
        drop(now);
        let (from, to) = (stream.try_clone().unwrap(), upstream.try_clone().unwrap());
        std::thread::spawn(move || copy(from, to));
        copy(upstream, stream);
    }

    fn wait_stalled(&self, wanted: usize) {
        let (lock, changed) = &*self.state;
        let now = lock.lock().unwrap();
        let (now, timeout) = changed
            .wait_timeout_while(now, LONG, |now| now.stalled != wanted)
            .unwrap();
        assert!(
            !timeout.timed_out(),
            "{} are stalled, wanted {wanted}",
            now.stalled
        );
    }

    fn let_one_go(&self) {
        let (lock, changed) = &*self.state;
        let mut now = lock.lock().unwrap();
        now.stalled -= 1;
        now.let_go += 1;
        changed.notify_all();
    }

    fn most_stalled(&self) -> usize {
        self.state.0.lock().unwrap().most
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn a_hint_of_a_failed_connect_is_no_verdict() {
    // The probe's connection is kept and says master; only new connections are refused for a while.
    let redis = kit::redis();
    let sidecar = kit::start(kit::patient(kit::cache(&[redis.addr])));
    redis
        .command(&["CONFIG", "SET", "maxclients", "3"])
        .unwrap();
    let mut first = kit::client(&sidecar);
    assert_eq!(say(&mut first, &["PING"]), pong());
    // The server's own refusal is passed on as it stands: it is an answer.
    let spare = Target::from(redis.addr);
    let (_a, _b) = (connect(&spare), connect(&spare));
    let mut second = Stream::connect(&kit::targets(&sidecar)[0], LONG).unwrap();
    assert_eq!(kit::rest(&mut second), FULL);
    assert_eq!(sidecar.primary("cache").unwrap(), Some(redis.addr));
    assert_eq!(say(&mut first, &["PING"]), pong());
}
