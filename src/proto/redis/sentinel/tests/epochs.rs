//! Epochs that go back, jump, or are disputed.

use super::super::bench::addr;
use super::Play;
use super::down;
use super::master;
use super::replica_of;
use crate::proto::spec::SwitchOn;
use crate::topology::Cause;
use crate::topology::Term;

#[test]
fn one_inflated_epoch_for_the_present_master_does_not_make_failovers_look_old() {
    let mut play = Play::settled(|_| {});
    play.says(2, 'a', 1000);
    play.run(5000).open('a');
    play.term(5, Cause::Refreshed);
    // It still contests, so that it takes a majority.
    play.role('b', master());
    play.says(0, 'b', 6);
    play.fenced();
    play.run(60).serves('a');
    play.says(1, 'b', 6);
    // Two masters, an epoch against a majority: nobody, and then the majority.
    play.holds(Cause::Deposed);
    play.run(2900).holds(Cause::Deposed);
    play.run(200).open('b');
    play.term(6, Cause::Announced);
    play.patiently(30_000).open('b');
    assert_eq!(play.published, [addr('a'), addr('b')]);
    // An epoch that a majority knows is taken.
    play.says(0, 'b', 8);
    play.says(1, 'b', 7);
    play.run(10);
    assert_eq!(play.bench.topology.term, Some(Term(7)));
}

#[test]
fn recreated_sentinels_count_anew_for_the_same_master() {
    let mut play = Play::settled(|_| {});
    play.all_say('a', 0);
    play.run(9900).open('a');
    play.term(5, Cause::Refreshed);
    play.troubled("config-epoch went back from 5 to 0");
    play.run(200).open('a');
    play.term(0, Cause::EpochReset);
    play.run(1000).untroubled();
    // The next failover is followed at once.
    play.role_now('a', down());
    play.role('b', master());
    play.says(0, 'b', 1);
    play.run(20).open('b');
    play.term(1, Cause::Announced);
    assert!(play.held < 50, "{}", play.held);
}

#[test]
fn recreated_sentinels_count_anew_for_another_master_only_without_the_present_one() {
    let mut play = Play::settled(|_| {});
    play.role('b', master());
    play.all_say('b', 0);
    play.run(2000).open('a');
    // Two masters, and nobody stands by ours: no switch, and no writes.
    play.patiently(60_000).holds(Cause::Unconfirmed);
    play.role('a', replica_of('b'));
    play.run(1100).open('b');
    play.term(0, Cause::EpochReset);
    assert_eq!(play.published, [addr('a'), addr('b')]);
    play.run(1000).open('b');

    // Not before ten seconds either.
    let mut play = Play::settled(|_| {});
    play.role_now('a', down());
    play.role('b', master());
    play.all_say('b', 0);
    play.run(9900).holds(Cause::Unproven);
    play.run(200).open('b');
}

#[test]
fn an_old_epoch_of_a_few_or_for_a_while_is_nothing() {
    let mut play = Play::settled(|_| {});
    play.role('b', master());
    for _ in 0..10 {
        play.says(0, 'b', 4);
        play.says(1, 'b', 4);
        play.run(2500).open('a');
        play.says(1, 'a', 5);
        play.run(1000).open('a');
    }
    assert_eq!((play.held, play.fenced), (0, 0));
}

#[test]
fn a_majority_moves_the_address_without_a_new_epoch() {
    let mut play = Play::settled(|_| {});
    play.role('b', master());
    play.says(0, 'b', 5);
    play.run(500).open('a');
    play.says(1, 'b', 5);
    play.run(1100).open('b');
    play.term(5, Cause::Majority);
}

#[test]
fn the_reset_of_epochs_waits_for_a_promotion_to_end() {
    let mut play = Play::settled(|s| s.switch_on = SwitchOn::Promotion);
    play.all_say('a', 0);
    play.run(9000);
    play.promoting(0, 'b', 'a');
    play.run(100);
    play.role_now('b', master());
    play.open('b');
    // The old one must not come back because its epoch is adopted meanwhile.
    play.run(2000).open('b');
    assert_eq!(play.published, [addr('a'), addr('b')]);
}
