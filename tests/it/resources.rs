//! Hostile and idle clients in masses: nothing leaks, nothing panics, nobody is forgotten.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use pilotfish_harness::resp::{Stream, Target, encode};
use pilotfish_harness::sidecar::{Sidecar, Until, request};
use pilotfish_harness::{scratch, wait};

use crate::kit::{self, LONG, connect, ok, say};

/// Connections of a round, and of these at a time.
const ROUND: usize = 20_000;
const BATCH: usize = 400;

fn no_panic(sidecar: &Sidecar) {
    let log = sidecar.server().log().unwrap();
    assert!(!log.contains("panicked"), "{}", sidecar.server().log_tail());
}

/// All that came has ended, and was counted once.
fn wait_settled(sidecar: &Sidecar, sessions: usize) {
    kit::wait_metric(sidecar, "sessions_total", &[], sessions as f64);
    kit::wait_no_sessions(sidecar);
    kit::wait_metric(sidecar, "session_ends_total", &[], sessions as f64);
    kit::wait_held(sidecar, 0);
}

/// Answers to a scrape may be on their way out while we count.
fn wait_fds(sidecar: &Sidecar, wanted: usize) {
    let mut last = 0;
    let back = wait::until_true("the descriptors to be given back", LONG, || {
        last = sidecar.server().fds()?;
        Ok(last == wanted)
    });
    assert!(back.is_ok(), "{last} descriptors are open, wanted {wanted}");
}

/// Descriptors when nothing is going on.
fn steady_fds(sidecar: &Sidecar) -> usize {
    let (mut last, mut same) = (0, 0);
    wait::until("the descriptors to be steady", LONG, || {
        let now = sidecar.server().fds()?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
        Ok((same == 20).then_some(now))
    })
    .unwrap()
}

/// Clients that nobody would want, of every kind in turn, all open at the same time.
fn batch(sidecar: &Sidecar, first: usize) {
    let [tcp, unix] = kit::targets(sidecar);
    let Target::Tcp(addr) = tcp else {
        panic!("the first is TCP")
    };
    let garbage: Vec<u8> = kit::large_value()[first..first + 2000].to_vec();
    let half = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100\r\nhalf of it".to_vec();
    let (mut open, mut slow, mut resetting) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..BATCH {
        let target = if number % 10 < 5 { &tcp } else { &unix };
        match number % 5 {
            // Leaves without a word.
            0 => drop(Stream::connect(target, LONG).unwrap()),
            1 => open.push(sent(target, &garbage)),
            2 => open.push(sent(target, &half)),
            3 => slow.push(Stream::connect(target, LONG).unwrap()),
            _ => {
                let mut stream = TcpStream::connect(addr).unwrap();
                // Some before their first byte, some in the middle of a request.
                stream.write_all(&half[..number % half.len()]).unwrap();
                resetting.push(stream);
            }
        }
    }
    for byte in b"PING\r\n" {
        for stream in &mut slow {
            stream.write_all(&[*byte]).unwrap();
        }
    }
    resetting.into_iter().for_each(kit::reset);
    for stream in &mut slow {
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"+PONG\r\n");
    }
}

fn sent(target: &Target, bytes: &[u8]) -> Stream {
    let mut stream = Stream::connect(target, LONG).unwrap();
    // Redis may have hung up after the first line.
    let _ = stream.write_all(bytes);
    stream
}

#[test]
fn twenty_thousand_bad_clients_leave_no_trace() {
    let redis = kit::redis();
    let config = kit::config(kit::patient(kit::cache(&[redis.addr]))).level("info");
    let sidecar = Sidecar::start(kit::binary(), config, Until::Healthy).unwrap();
    let fds = steady_fds(&sidecar);
    let mut rss = vec![sidecar.server().rss().unwrap()];
    for round in 1..=2 {
        for first in (0..ROUND).step_by(BATCH) {
            batch(&sidecar, first);
        }
        wait_settled(&sidecar, ROUND * round);
        wait_fds(&sidecar, fds);
        rss.push(sidecar.server().rss().unwrap());
    }
    println!("resident before and after each round: {rss:?} bytes; {fds} descriptors");
    assert!(rss[2] < rss[1] + 3_000_000, "it grows: {rss:?}");
    assert_eq!(say(&mut kit::client(&sidecar), &["SET", "a", "1"]), ok());
    no_panic(&sidecar);
}

/// Bad clients and no primary: they are held, and the half of them that leaves is forgotten.
#[test]
fn bad_clients_without_a_primary_leave_no_trace() {
    let mut redis = kit::redis();
    redis.server().kill().unwrap();
    let sidecar =
        kit::start_without_primary(kit::patient(kit::cache(&[redis.addr])).line("max_held = 5000"));
    let garbage = vec![b'x'; 30_000];
    for _ in 0..10 {
        let clients: Vec<Stream> = (0..BATCH)
            .map(|n| sent(&kit::targets(&sidecar)[n % 2], &garbage[..n * 70]))
            .collect();
        kit::wait_held(&sidecar, BATCH);
        drop(clients);
        kit::wait_held(&sidecar, 0);
    }
    wait_settled(&sidecar, 10 * BATCH);
    kit::wait_ends(&sidecar, "held-client-left", (10 * BATCH) as f64);
    redis.restart().unwrap();
    sidecar.wait_primary("cache", redis.addr, LONG).unwrap();
    assert_eq!(say(&mut kit::client(&sidecar), &["SET", "a", "1"]), ok());
    no_panic(&sidecar);
}

/// A binary that may have only so many descriptors.
pub fn short_of_descriptors(dir: &scratch::Dir, limit: usize) -> std::path::PathBuf {
    let script = dir.join("pilotfish");
    let text = format!(
        "#!/bin/sh\nulimit -n {limit} && exec {} \"$@\"\n",
        kit::binary().display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

#[test]
fn without_descriptors_clients_are_told_and_the_control_side_answers() {
    let redis = kit::redis();
    let dir = scratch::Dir::new().unwrap();
    let config = kit::config(kit::patient(kit::cache(&[redis.addr])));
    let sidecar = Sidecar::start(&short_of_descriptors(&dir, 128), config, Until::Healthy).unwrap();
    let fds = steady_fds(&sidecar);
    let mut crowd: Vec<Stream> = (0..600)
        .map(|n| Stream::connect(&kit::targets(&sidecar)[n % 2], LONG).unwrap())
        .collect();
    for stream in &mut crowd {
        let _ = stream.write_all(&encode(&["PING"]));
        // G6, in the thick of it.
        let health = request(
            &sidecar.config().http.into(),
            "GET",
            "/healthz",
            "",
            Duration::from_secs(2),
        );
        assert_eq!(health.unwrap().status, 200);
    }
    assert_eq!(sidecar.admin("GET", "/v1/status", "").unwrap().status, 200);
    let (mut served, mut told, mut closed) = (Vec::new(), 0, 0);
    for mut stream in crowd {
        let mut first = [0; 4];
        match stream.read(&mut first).unwrap_or(0) {
            0 => closed += 1,
            n if first[..n].starts_with(b"+PON") => served.push(stream),
            n => {
                assert_eq!(&first[..n], &b"-ERR"[..n]);
                told += 1;
            }
        }
    }
    println!("{} served, {told} told, {closed} closed", served.len());
    assert!(
        (20..60).contains(&served.len()) && told > 0,
        "{} served, {told} told",
        served.len()
    );
    assert_eq!(sidecar.http_get("/healthz").unwrap().status, 200);
    drop(served);
    kit::wait_no_sessions(&sidecar);
    wait_fds(&sidecar, fds);
    for target in kit::targets(&sidecar) {
        assert_eq!(
            say(&mut connect(&target), &["SET", "a", "1"]),
            ok(),
            "{target}: it recovers"
        );
    }
    no_panic(&sidecar);
}

/// What HAProxy 2.6 takes. A debug build's sessions are no fatter: the buffers are what counts.
const IDLE_SESSION: u64 = 3_500;

#[test]
fn idle_sessions_are_cheap() {
    const SESSIONS: u64 = 3000;
    pilotfish::net::fds::raise_limit();
    let redis = kit::redis();
    let sidecar = kit::start(kit::patient(kit::cache(&[redis.addr])));
    let open = |count: u64| -> Vec<_> {
        let ways = kit::targets(&sidecar);
        let session = |n: u64| {
            let mut client = connect(&ways[(n % 2) as usize]);
            assert_eq!(say(&mut client, &["SET", "a", "1"]), ok());
            client
        };
        (0..count).map(session).collect()
    };
    // What the first ones bring along is the process's, not theirs.
    let _first = open(200);
    let before = sidecar.server().rss().unwrap();
    let _idle = open(SESSIONS);
    kit::wait_metric(&sidecar, "sessions_active", &[], (SESSIONS + 200) as f64);
    let each = sidecar.server().rss().unwrap().saturating_sub(before) / SESSIONS;
    println!("{each} bytes for each of {SESSIONS} idle sessions");
    assert!(
        each <= IDLE_SESSION,
        "{each} bytes for each of {SESSIONS} idle sessions"
    );
}
