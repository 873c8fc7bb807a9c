//! A master dies, sentinels die, and what is left.

use super::super::bench::addr;
use super::super::event::Event;
use super::super::judge::Seen;
use super::Play;
use super::down;
use super::master;
use super::replica_of;
use crate::proto::redis::role::Role;
use crate::topology::Cause;

#[test]
fn a_killed_master_and_its_successor() {
    let mut play = Play::settled(|_| {});
    play.role_now('a', down());
    play.holds(Cause::Unproven);
    play.run(1500).holds(Cause::Unproven);
    // The leader's word is enough, with the newcomer's own.
    play.says(1, 'b', 6);
    play.holds(Cause::Unproven);
    play.role('b', master());
    play.run(15).open('b');
    play.term(6, Cause::Announced);
    // The others follow.
    play.run(60);
    play.says(0, 'b', 6);
    play.says(2, 'b', 6);
    // The old one comes back, says master, and gets nothing.
    play.role('a', master());
    play.run(12_000).open('b');
    play.role('a', replica_of('b'));
    play.role('c', replica_of('b'));
    play.run(2000).open('b');
    play.untroubled();
    assert_eq!(play.published, [addr('a'), addr('b')]);
    assert_eq!(
        play.bench.verdict.conclusion.replicas,
        [addr('a'), addr('c')]
    );
}

#[test]
fn a_hint_or_an_event_has_the_server_asked_at_once() {
    let mut play = Play::settled(|_| {});
    let urgent = |play: &Play| play.bench.verdict.probes[&addr('a')].urgent;
    let before = urgent(&play);
    play.see(Seen::Hint(addr('a')));
    assert_eq!(urgent(&play), before + 1);
    // Of a server that is none of ours: nothing.
    play.see(Seen::Hint(addr('z')));
    assert!(!play.bench.verdict.probes.contains_key(&addr('z')));
    // A thousand clients that fail are a few questions.
    play.run(100);
    let before = urgent(&play);
    for _ in 0..20 {
        for _ in 0..1000 {
            play.bench.see(Seen::Hint(addr('a')));
        }
        play.run(5);
    }
    assert!(
        (8..=11).contains(&(urgent(&play) - before)),
        "{}",
        urgent(&play) - before
    );
    play.run(100);
    let before = urgent(&play);
    play.event(2, Event::Other);
    assert_eq!(urgent(&play), before + 1);
}

#[test]
fn a_word_counts_until_the_next_one_is_overdue() {
    let mut play = Play::settled(|_| {});
    // Busy is not down: what it said before stands until it is too old.
    play.role('a', Role::Busy("BUSY".into()));
    play.run(1200).open('a');
    play.run(2000).holds(Cause::Unproven);
    play.role('a', master());
    play.run(200).open('a');
    assert_eq!(play.bench.topology.cause, Cause::Returned);
    // A failed probe revokes at once what an earlier one said.
    play.role_now('a', down());
    play.holds(Cause::Unproven);
    play.role_now('a', master());
    play.open('a');
    play.role_now('a', replica_of('b'));
    play.holds(Cause::RoleLost);
}

#[test]
fn a_thawed_liar_alone_in_reach_switches_nothing() {
    let mut play = Play::settled(|_| {});
    play.frozen(2);
    play.run(100);
    play.role_now('a', down());
    for sentinel in [0, 1] {
        play.says(sentinel, 'b', 6);
    }
    play.role('b', master());
    play.run(3000).open('b');
    play.lost(0);
    play.lost(1);
    play.says(2, 'a', 5);
    play.role('a', master());
    play.patiently(30_000).open('b');
    play.troubled("1 of 3");
    // Not even when the rightful one is gone.
    play.role_now('b', down());
    play.patiently(30_000).holds(Cause::Unproven);
    assert_eq!(play.published, [addr('a'), addr('b')]);
}

#[test]
fn without_any_sentinel_the_primary_stays_on_its_own_word() {
    let mut play = Play::settled(|_| {});
    for sentinel in 0..3 {
        play.lost(sentinel);
    }
    play.patiently(60_000).open('a');
    play.troubled("none of 3 sentinels");
    assert!(play.bench.verdict.troubles[0].degrades());
    play.role('b', master());
    play.run(5000).open('a');
    play.role_now('a', replica_of('b'));
    play.patiently(30_000).holds(Cause::RoleLost);
    play.all_say('b', 6);
    play.run(50).open('b');
    play.untroubled();
    assert_eq!(play.held / 100, 300, "as soon as they said so");
}

#[test]
fn the_leader_dies_right_after_its_word() {
    // Its word counts like that of one that fell silent.
    let mut play = Play::settled(|_| {});
    play.says(0, 'b', 6);
    play.lost(0);
    play.fenced();
    play.role('b', master());
    play.run(20).open('b');
    // The others never heard of it, and demote the new one: neither is safe to write to.
    play.run(3500).holds(Cause::Unconfirmed);
    play.troubled("config-epoch went back from 6 to 5");
    play.role('b', replica_of('a'));
    play.run(8000).open('a');
    play.term(5, Cause::EpochReset);
    assert_eq!(play.published, [addr('a'), addr('b'), addr('a')]);
}

#[test]
fn taken_from_it_by_a_majority_it_stays_so_when_they_fall_silent() {
    let mut play = Play::settled(|_| {});
    for sentinel in [0, 1] {
        play.says(sentinel, 'b', 6);
    }
    play.holds(Cause::Deposed);
    for sentinel in [0, 1, 2] {
        play.lost(sentinel);
    }
    play.patiently(60_000).holds(Cause::Deposed);
    // One that slept through it gives nothing back.
    play.says(2, 'a', 5);
    play.patiently(60_000).holds(Cause::Deposed);
    play.says(1, 'a', 5);
    play.run(10).open('a');
}

#[test]
fn the_only_one_in_reach_takes_the_mastership_away() {
    let mut play = Play::settled(|_| {});
    play.lost(1);
    play.lost(2);
    play.run(3000).open('a');
    play.says(0, 'b', 6);
    play.holds(Cause::Deposed);
    play.patiently(30_000).holds(Cause::Deposed);
    // Until anybody says otherwise.
    play.says(1, 'a', 5);
    play.run(10).serves('a');
}

#[test]
fn all_back_after_a_failover_that_nobody_saw() {
    let mut play = Play::settled(|_| {});
    for sentinel in 0..3 {
        play.lost(sentinel);
    }
    play.run(10_000).open('a');
    play.role('b', master());
    play.all_say('b', 9);
    play.run(30).open('b');
    play.term(9, Cause::Announced);
    assert!(
        play.held + play.fenced <= 100,
        "{} {}",
        play.held,
        play.fenced
    );
}

#[test]
fn thawed_while_no_sentinel_is_in_reach_it_does_not_return_beside_another_master() {
    let mut play = Play::settled(|_| {});
    for sentinel in 0..3 {
        play.lost(sentinel);
    }
    play.run(3000).open('a');
    play.role_now('a', down());
    play.role('b', master());
    play.run(3000).holds(Cause::Unproven);
    play.role('a', master());
    play.patiently(30_000).holds(Cause::Unconfirmed);
    play.says(1, 'b', 6);
    play.open('b');
    assert_eq!(play.published, [addr('a'), addr('b')]);
}
