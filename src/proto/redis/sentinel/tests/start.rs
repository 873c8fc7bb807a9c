//! Before anything was accepted.

use super::super::answer::Answer;
use super::super::judge::Seen;
use super::Play;
use super::in_tilt;
use super::master;
use super::replica_of;
use crate::proto::spec::Minority;
use crate::topology::Cause;

#[test]
fn at_start_a_majority_must_agree() {
    for minority in [Minority::Serve, Minority::Hold] {
        let mut play = Play::of(3, |s| s.minority = minority);
        play.role('a', master());
        play.run(50).holds(Cause::Start);
        play.says(0, 'a', 5);
        play.run(2000).holds(Cause::Start);
        play.troubled("1 of 3");
        play.says(1, 'a', 5);
        play.run(200).open('a');
        play.term(5, Cause::Proven);
    }
}

#[test]
fn at_start_the_address_must_prove_itself() {
    let mut play = Play::of(3, |_| {});
    play.role('a', replica_of('b'));
    play.all_say('a', 5);
    play.run(5000).holds(Cause::Start);
    play.troubled("it says it is a replica");
    play.role('a', master());
    play.run(150).open('a');
}

#[test]
fn at_start_a_minority_is_believed_after_three_seconds_or_never() {
    let mut play = Play::of(3, |_| {});
    play.role('a', master());
    play.says(0, 'a', 5);
    play.run(2900).holds(Cause::Start);
    play.run(200).open('a');
    play.troubled("1 of 3");
    assert!(play.bench.verdict.troubles[0].degrades());

    let mut play = Play::of(3, |s| s.minority = Minority::Hold);
    play.role('a', master());
    play.says(0, 'a', 5);
    play.patiently(60_000).holds(Cause::Start);
}

#[test]
fn at_start_one_huge_epoch_does_not_keep_the_shop_shut() {
    let mut play = Play::of(3, |_| {});
    play.role('a', master());
    play.says(0, 'z', 1_000_000);
    play.says(1, 'a', 5);
    play.says(2, 'a', 5);
    play.run(3300).serves('a');
    play.term(5, Cause::Proven);
    (play.held, play.fenced, play.tick) = (0, 0, 25);
    play.run(100_000).serves('a');
    assert_eq!(play.held, 0);
    assert!(play.fenced < 10_000, "{} ms of 100 s", play.fenced);
    play.troubled("10.0.0.26:6379 is not proven");
}

#[test]
fn at_start_the_newest_of_a_failover_that_goes_on_is_waited_for() {
    let mut play = Play::of(3, |_| {});
    play.role('a', master());
    play.role('b', master());
    play.says(0, 'b', 6);
    play.says(1, 'a', 5);
    play.says(2, 'a', 5);
    play.run(5000).holds(Cause::Start);
    play.says(1, 'b', 6);
    play.run(50).open('b');
    play.term(6, Cause::Proven);
}

#[test]
fn a_name_that_nobody_knows() {
    let mut play = Play::of(3, |_| {});
    for sentinel in 0..3 {
        play.answers(sentinel, Answer::UnknownMaster);
    }
    play.run(5000).holds(Cause::Start);
    play.troubled("no sentinel knows a master named 'shop'");
    play.all_say('a', 1);
    play.role('a', master());
    play.run(500).open('a');
    play.untroubled();
}

#[test]
fn a_sentinel_in_tilt_does_not_count() {
    let mut play = Play::of(3, |s| s.minority = Minority::Hold);
    play.role('a', master());
    play.says(0, 'a', 5);
    play.answers(1, in_tilt('a', 5));
    play.answers(2, in_tilt('b', 9));
    play.run(10_000).holds(Cause::Start);
    play.troubled("1 of 3");
    play.says(1, 'a', 5);
    play.run(100).open('a');
    // Nor does it announce.
    play.role('b', master());
    play.run(5000).open('a');
}

#[test]
fn torn_answers_change_nothing() {
    let mut play = Play::settled(|_| {});
    let asked = play.bench.verdict.ask_again;
    for _ in 0..100 {
        play.see(Seen::Answer {
            sentinel: 0,
            answer: Answer::Torn,
        });
    }
    play.run(1000).open('a');
    // Whoever tears its answers must not have all others asked all the time.
    assert_eq!(play.bench.verdict.ask_again, asked);
    play.untroubled();
}
