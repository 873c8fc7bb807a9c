//! Real clients of Redis: PHP, `redis-cli`, and whatever a client may do on one connection.

use std::io::{Read, Write};
use std::time::Duration;

use pilotfish_harness::resp::{Stream, Target, Value, encode};
use pilotfish_harness::wait;

use crate::kit::{self, LONG, VERY_LONG, connect, ok, say};

#[test]
fn phpredis_over_tcp_and_unix() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]));
    for target in kit::targets(&sidecar) {
        redis.command(&["FLUSHALL"]).unwrap();
        assert_eq!(
            kit::run(&mut kit::php("phpredis.php", &target), b""),
            "done\n",
            "{target}"
        );
    }
    kit::wait_no_sessions(&sidecar);
    assert_eq!(kit::ends(&sidecar, "client-closed"), 2.0);
}

#[test]
fn predis_over_tcp_and_unix() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]));
    for target in kit::targets(&sidecar) {
        redis.command(&["FLUSHALL"]).unwrap();
        assert_eq!(
            kit::run(&mut kit::php("predis.php", &target), b""),
            "done\n",
            "{target}"
        );
    }
}

/// The end of an idle session is a FIN, which phpredis takes for a reason to connect again, without an error.
#[test]
fn persistent_connections_of_phpredis_survive_a_switch() {
    let old = kit::redis();
    let new = kit::replica_of(&old);
    let sidecar = kit::start(kit::patient(kit::cache(&[old.addr, new.addr])));
    for (target, (from, to)) in kit::targets(&sidecar)
        .iter()
        .zip([(&old, &new), (&new, &old)])
    {
        kit::wait_follows(to, from.addr);
        sidecar.wait_primary("cache", from.addr, LONG).unwrap();
        let mut php = kit::Talk::start(&mut kit::php("persistent.php", target));
        assert_eq!(php.hear(), "ready");
        let switched = kit::ends(&sidecar, "switched");
        kit::move_master(from, to);
        sidecar.wait_primary("cache", to.addr, LONG).unwrap();
        kit::wait_metric(
            &sidecar,
            "session_ends_total",
            &[("reason", "switched")],
            switched + 2.0,
        );
        php.say("go on");
        assert_eq!(php.hear(), "done", "{target}");
        let found = to.command(&["MGET", "after:kept", "after:pooled"]).unwrap();
        assert_eq!(
            found,
            Value::Array(vec![Value::Bulk(b"2".into()), Value::Bulk(b"2".into())])
        );
    }
}

#[test]
fn redis_cli_alone_and_with_mass_insertion() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]));
    let [Target::Tcp(tcp), Target::Unix(unix)] = kit::targets(&sidecar) else {
        panic!("one of each")
    };
    let port = tcp.port().to_string();
    let ways = [
        vec!["-h", "127.0.0.1", "-p", &port],
        vec!["-s", unix.to_str().unwrap()],
    ];
    for way in &ways {
        let cli = |more: &[&str], input: &[u8]| {
            kit::run(kit::program("redis-cli").args(way).args(more), input)
        };
        assert_eq!(cli(&["SET", "greeting", "hello"], b""), "OK\n");
        assert_eq!(cli(&[], b"GET greeting\nSTRLEN greeting\n"), "hello\n5\n");
        let insert: Vec<u8> = (0..10_000)
            .flat_map(|n| encode(&["SET", &format!("mass:{n}"), "x"]))
            .collect();
        let said = cli(&["--pipe"], &insert);
        assert!(said.contains("errors: 0, replies: 10000"), "{said}");
        assert_eq!(redis.command(&["DBSIZE"]).unwrap(), Value::Int(10_001));
        redis.command(&["FLUSHALL"]).unwrap();
    }
}

#[test]
fn published_messages_reach_subscribers() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]));
    let mut subscribers: Vec<_> = kit::targets(&sidecar).iter().map(connect).collect();
    for subscriber in &mut subscribers {
        say(subscriber, &["SUBSCRIBE", "news"]);
    }
    let mut publisher = kit::client(&sidecar);
    for n in 0..100 {
        assert_eq!(
            say(&mut publisher, &["PUBLISH", "news", &n.to_string()]),
            Value::Int(2)
        );
    }
    for subscriber in &mut subscribers {
        for n in 0..100 {
            let message = subscriber.read_value().unwrap();
            assert_eq!(message.array().unwrap()[2].text().unwrap(), n.to_string());
        }
        say(subscriber, &["UNSUBSCRIBE", "news"]);
        assert_eq!(say(subscriber, &["PING"]), Value::Simple("PONG".into()));
    }
}

#[test]
fn transactions_are_whole_and_watched() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]));
    let (mut one, mut other) = (kit::client(&sidecar), kit::client(&sidecar));
    let queued = Value::Simple("QUEUED".into());
    for (meddle, result) in [
        (false, Value::Array(vec![ok(), Value::Int(8)])),
        (true, Value::Nil),
    ] {
        assert_eq!(say(&mut one, &["WATCH", "stock"]), ok());
        if meddle {
            assert_eq!(say(&mut other, &["SET", "stock", "0"]), ok());
        }
        assert_eq!(say(&mut one, &["MULTI"]), ok());
        assert_eq!(say(&mut one, &["SET", "stock", "7"]), queued);
        assert_eq!(say(&mut one, &["INCR", "stock"]), queued);
        assert_eq!(say(&mut one, &["EXEC"]), result);
    }
}

#[test]
fn blocking_commands_wait_as_long_as_they_like() {
    let redis = kit::redis();
    // The hold's end and the connect's are far shorter than the wait; neither has a say in it.
    let sidecar = kit::start(
        kit::cache(&[redis.addr])
            .set("hold_timeout", "50ms")
            .set("connect_timeout", "100ms"),
    );
    let mut waiting: Vec<_> = kit::targets(&sidecar).iter().map(connect).collect();
    // Each at a list of its own: whose command arrives first is anybody's guess.
    let list = |n: usize| format!("jobs:{n}");
    for (n, client) in waiting.iter_mut().enumerate() {
        client.send_raw(&encode(&["BLPOP", &list(n), "0"])).unwrap();
    }
    let blocked = || Ok(redis.info("clients", "blocked_clients")? == "2");
    wait::until_true("both to be blocked", LONG, blocked).unwrap();
    for client in &mut waiting {
        client.set_timeout(Duration::from_millis(300)).unwrap();
        assert!(client.read_value().is_err(), "there is nothing to read yet");
        client.set_timeout(LONG).unwrap();
    }
    let mut pusher = kit::client(&sidecar);
    for (n, client) in waiting.iter_mut().enumerate() {
        say(&mut pusher, &["RPUSH", &list(n), &n.to_string()]);
        let popped = client.read_value().unwrap();
        assert_eq!(popped.array().unwrap()[1].text().unwrap(), n.to_string());
    }
}

#[test]
fn pipelines_of_ten_thousand() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]));
    let names: Vec<String> = (0..10_000).map(|n| format!("key:{n}")).collect();
    for target in kit::targets(&sidecar) {
        let mut client = connect(&target);
        let sets: Vec<Vec<&str>> = names.iter().map(|name| vec!["SET", name, name]).collect();
        let gets: Vec<Vec<&str>> = names.iter().map(|name| vec!["GET", name]).collect();
        assert!(
            client
                .pipeline(&sets)
                .unwrap()
                .iter()
                .all(|reply| *reply == ok())
        );
        let values = client.pipeline(&gets).unwrap();
        assert!(
            values
                .iter()
                .zip(&names)
                .all(|(value, name)| value.text().as_ref() == Some(name))
        );
        redis.command(&["FLUSHALL"]).unwrap();
    }
}

#[test]
fn values_of_100_mb_both_ways() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::patient(kit::cache(&[redis.addr])));
    let value = kit::large_value();
    for target in kit::targets(&sidecar) {
        let mut client = connect(&target);
        client.set_timeout(VERY_LONG).unwrap();
        assert_eq!(kit::set_large(&mut client, "large", value), ok());
        assert_eq!(
            say(&mut client, &["STRLEN", "large"]),
            Value::Int(value.len() as i64)
        );
        let Value::Bulk(got) = say(&mut client, &["GET", "large"]) else {
            panic!("no string")
        };
        assert!(got == value, "{target}: it came back changed");
        redis.command(&["DEL", "large"]).unwrap();
    }
    let up = sidecar
        .metric("bytes_total", &[("direction", "up")])
        .unwrap();
    assert!(up > 2.0 * value.len() as f64, "{up}");
}

/// Back-pressure: what a client does not read stays with the server, not with us.
#[test]
fn slow_readers_cost_no_memory_and_delay_nobody() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::patient(kit::cache(&[redis.addr])));
    let value = kit::large_value();
    let mut quick = kit::client(&sidecar);
    quick.set_timeout(VERY_LONG).unwrap();
    assert_eq!(kit::set_large(&mut quick, "large", value), ok());
    let before = sidecar.server().rss().unwrap();
    let ways = kit::targets(&sidecar);
    let mut slow: Vec<Stream> = ways
        .iter()
        .map(|target| Stream::connect(target, VERY_LONG).unwrap())
        .collect();
    for reader in &mut slow {
        reader.write_all(&encode(&["GET", "large"])).unwrap();
    }
    let mut down = 0.0;
    wait::until_true("the readers' share to stand still", LONG, || {
        let was = std::mem::replace(
            &mut down,
            sidecar.metric("bytes_total", &[("direction", "down")])?,
        );
        // The other client is served meanwhile; its 5 bytes are the only ones that move.
        quick.command(&["PING"])?;
        Ok(down > 100_000.0 && down - was <= 7.0)
    })
    .unwrap();
    let after = sidecar.server().rss().unwrap();
    assert!(
        after < before + 4_000_000,
        "{before} bytes before, {after} with two slow readers"
    );
    for reader in &mut slow {
        let head = format!("${}\r\n", value.len());
        let mut got = vec![0; head.len() + value.len() + 2];
        // The first megabyte in small bites, between which others are served.
        for bite in got[..1 << 20].chunks_mut(16 * 1024) {
            reader.read_exact(bite).unwrap();
            assert_eq!(say(&mut quick, &["PING"]), Value::Simple("PONG".into()));
        }
        reader.read_exact(&mut got[1 << 20..]).unwrap();
        assert!(got.starts_with(head.as_bytes()) && got[head.len()..].starts_with(value));
    }
}

#[test]
fn a_client_that_ends_its_side_gets_all_replies() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]));
    for target in kit::targets(&sidecar) {
        let mut stream = Stream::connect(&target, LONG).unwrap();
        let pings: Vec<u8> = (0..1000).flat_map(|_| encode(&["PING"])).collect();
        stream.write_all(&pings).unwrap();
        stream.shutdown_write().unwrap();
        assert_eq!(
            kit::rest(&mut stream),
            b"+PONG\r\n".repeat(1000),
            "{target}"
        );
    }
    kit::wait_no_sessions(&sidecar);
    assert_eq!(kit::ends(&sidecar, "client-closed"), 2.0);
}

#[test]
fn many_small_clients_at_once() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::patient(kit::cache(&[redis.addr])));
    let ways = kit::targets(&sidecar);
    std::thread::scope(|scope| {
        for worker in 0..16 {
            let target = &ways[worker % 2];
            scope.spawn(move || {
                for round in 0..100 {
                    let (key, text) = (format!("many:{worker}"), round.to_string());
                    let mut client = connect(target);
                    assert_eq!(say(&mut client, &["SET", &key, &text]), ok());
                    assert_eq!(say(&mut client, &["GET", &key]).text().unwrap(), text);
                }
            });
        }
    });
    kit::wait_no_sessions(&sidecar);
    assert_eq!(sidecar.metric("sessions_total", &[]).unwrap(), 1600.0);
    assert_eq!(kit::ends(&sidecar, "client-closed"), 1600.0);
}

#[test]
fn only_idle_sessions_meet_the_idle_timeout() {
    let redis = kit::redis();
    let sidecar = kit::start(kit::cache(&[redis.addr]).set("idle_timeout", "1s"));
    let (mut busy, mut idle) = (kit::client(&sidecar), kit::client(&sidecar));
    assert_eq!(say(&mut idle, &["SET", "a", "1"]), ok());
    wait::until_true("the idle session to end", LONG, || {
        busy.command(&["PING"])?;
        Ok(!idle.is_usable())
    })
    .unwrap();
    assert_eq!(
        idle.read_to_end().unwrap(),
        b"",
        "it hears the end, and nothing else"
    );
    assert_eq!(say(&mut busy, &["GET", "a"]).text().unwrap(), "1");
    kit::wait_ends(&sidecar, "idle-timeout", 1.0);
}
