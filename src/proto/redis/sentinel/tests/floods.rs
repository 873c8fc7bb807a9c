//! Mapped names, and sentinels that say too much.

use super::super::answer::Answer;
use super::super::bench::addr;
use super::super::event::Event;
use super::super::tell::MAX_NODES;
use super::Play;
use super::TICK;
use super::down;
use super::master;
use crate::addr::Addr;
use crate::proto::redis::role::Role;
use crate::topology::Cause;
use crate::topology::Term;
use std::time::Duration;

#[test]
fn announced_addresses_are_mapped() {
    let outside: Addr = "172.18.0.1:6379".parse().unwrap();
    let map = [(outside.clone(), addr('a'))];
    let mut play = Play::of(3, |s| s.address_map = map.into());
    play.role('a', master());
    let answer = Answer::Names {
        master: outside.clone(),
        epoch: Term(5),
        tilt: false,
        replicas: vec![outside.clone(), addr('b')],
    };
    play.role(
        'b',
        Role::Replica {
            master: Some(outside.clone()),
            connected: true,
            offset: 3,
        },
    );
    for sentinel in 0..3 {
        play.answers(sentinel, answer.clone());
    }
    play.run(1000).open('a');
    let asked: Vec<_> = play.bench.verdict.probes.keys().cloned().collect();
    assert_eq!(asked, [addr('a'), addr('b')]);
    assert_eq!(play.bench.verdict.conclusion.replicas, [addr('b')]);
    play.event(
        0,
        Event::Promoting {
            replica: addr('b'),
            master: outside,
        },
    );
    play.fenced();
}

#[test]
fn a_flood_of_replicas_is_bounded_and_displaces_nobody() {
    let flood = |from: u32| -> Vec<Addr> {
        let host = |i: u32| std::net::Ipv4Addr::from(i);
        (from..from + 5000)
            .map(|i| format!("{}:1", host(i)).parse().unwrap())
            .collect()
    };
    let mut play = Play::settled(|_| {});
    for round in 0..50 {
        play.answers(
            2,
            Answer::Names {
                master: addr('a'),
                epoch: Term(5),
                tilt: false,
                replicas: flood(16 + 5000 * round),
            },
        );
        play.event(2, Event::Down { master: addr('z') });
        play.run(100).open('a');
        assert!(play.bench.verdict.probes.len() <= MAX_NODES);
        assert!(play.bench.verdict.nodes.len() <= MAX_NODES);
        for known in ['a', 'b', 'c'] {
            assert!(play.bench.verdict.probes.contains_key(&addr(known)));
        }
    }
    assert_eq!(
        play.bench.verdict.conclusion.replicas,
        [addr('b'), addr('c')]
    );
}

#[test]
fn a_chatty_sentinel_does_not_fill_the_log() {
    let mut play = Play::settled(|_| {});
    play.patiently(30_000);
    let (before, at) = (play.bench.notes.len(), play.ms);
    let (mut changes, mut shown) = (0, play.bench.verdict.troubles.clone());
    for n in 0..4000 {
        play.says(2, char::from(b'd' + u8::try_from(n % 20).unwrap()), n % 5);
        play.event(2, Event::Down { master: addr('a') });
        changes += usize::from(play.bench.verdict.troubles != shown);
        shown.clone_from(&play.bench.verdict.troubles);
        if n % 10 == 0 {
            play.run(TICK);
        }
    }
    let seconds = usize::try_from((play.ms - at) / 1000).unwrap();
    let lines = &play.bench.notes[before..];
    assert!(lines.len() <= 2 * (20 + seconds), "{} lines", lines.len());
    assert!(lines.iter().any(|(_, l)| l.ends_with("lines suppressed")));
    assert!(changes <= 21 + seconds, "{changes} changes");
    // And afterwards all is told again.
    play.says(2, 'a', 5);
    play.patiently(30_000).untroubled();
}

#[test]
fn the_time_of_a_switch_is_counted_from_its_evidence() {
    let mut play = Play::settled(|_| {});
    play.patiently(20_000);
    play.role_now('a', down());
    play.run(500);
    play.says(0, 'b', 6);
    let announced = play.bench.now;
    play.run(100);
    play.role_now('b', master());
    assert_eq!(play.bench.verdict.evidence_at, announced);
    // One that comes back counts from what stood in its way, not from when it first said master.
    play.patiently(60_000).serves('b');
    for sentinel in [0, 1] {
        play.says(sentinel, 'c', 7);
    }
    play.patiently(20_000).holds(Cause::Deposed);
    for sentinel in [0, 1] {
        play.says(sentinel, 'b', 6);
    }
    play.serves('b');
    let took = play.bench.now.since(play.bench.verdict.evidence_at);
    assert!(took <= Duration::from_millis(50), "{took:?}");
}
