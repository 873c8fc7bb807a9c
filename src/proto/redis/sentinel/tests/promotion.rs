//! `switch_on = "promotion"`.

use super::super::bench::addr;
use super::super::event::Event;
use super::Play;
use super::down;
use super::master;
use crate::proto::spec::SwitchOn;
use crate::topology::Cause;

#[test]
fn a_promoted_replica_is_served_before_it_is_announced() {
    let mut play = Play::settled(|s| s.switch_on = SwitchOn::Promotion);
    play.promoting(0, 'b', 'a');
    play.run(70).fenced();
    play.role('b', master());
    play.run(15).open('b');
    play.term(5, Cause::Promoted);
    play.troubled("promotion of 10.0.0.2:6379 is not confirmed");
    let generation = play.bench.topology.generation;
    play.run(900).open('b');
    play.says(0, 'b', 6);
    play.open('b');
    play.term(6, Cause::Refreshed);
    assert!(play.bench.topology.generation.0 <= generation.0 + 2);
    play.all_say('b', 6);
    play.run(12_000).open('b');
    assert_eq!(play.published, [addr('a'), addr('b')]);
    assert_eq!(play.held, 0);
}

#[test]
fn an_unconfirmed_promotion_is_held_until_a_majority_speaks() {
    let mut play = Play::settled(|s| s.switch_on = SwitchOn::Promotion);
    play.promoting(0, 'b', 'a');
    play.run(70);
    play.role_now('b', master());
    play.lost(0);
    for sentinel in [1, 2] {
        play.frozen(sentinel);
    }
    play.run(2900).open('b');
    let asked = play.bench.verdict.ask_again;
    play.run(200).holds(Cause::Unconfirmed);
    assert!(play.bench.verdict.ask_again > asked);
    play.patiently(20_000).holds(Cause::Unconfirmed);
    play.says(1, 'a', 5);
    play.run(600).holds(Cause::Unconfirmed);
    play.says(2, 'a', 5);
    play.open('a');
    assert_eq!(play.published, [addr('a'), addr('b'), addr('a')]);
}

#[test]
fn an_unconfirmed_promotion_is_confirmed_late() {
    let mut play = Play::settled(|s| s.switch_on = SwitchOn::Promotion);
    play.promoting(0, 'b', 'a');
    play.run(70);
    play.role_now('b', master());
    for sentinel in 0..3 {
        play.frozen(sentinel);
    }
    play.run(5000).holds(Cause::Unconfirmed);
    play.says(1, 'b', 6);
    play.open('b');
    play.term(6, Cause::Announced);
}

#[test]
fn an_aborted_promotion_is_not_served_any_more() {
    let mut play = Play::settled(|s| s.switch_on = SwitchOn::Promotion);
    play.promoting(0, 'b', 'a');
    play.role_now('b', master());
    play.open('b');
    play.event(0, Event::Aborted);
    play.holds(Cause::Unconfirmed);
    play.run(1100).open('a');
}

#[test]
fn a_served_promotion_that_fails_is_revoked() {
    let mut play = Play::settled(|s| s.switch_on = SwitchOn::Promotion);
    play.promoting(0, 'b', 'a');
    play.role_now('b', master());
    play.open('b');
    play.role_now('b', down());
    play.holds(Cause::Unproven);
    // The old one says master and is named by all: not before the time is up.
    play.run(2900).holds(Cause::Unproven);
    play.run(1200).open('a');
}
