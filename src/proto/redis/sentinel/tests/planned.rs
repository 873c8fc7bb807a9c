//! From the first sign of a failover to its end.

use super::super::bench::HOLD;
use super::super::bench::addr;
use super::super::event::Event;
use super::Play;
use super::master;
use super::replica_of;
use crate::proto::spec::FenceOn;
use crate::proto::spec::SwitchOn;
use std::time::Duration;

#[test]
fn a_planned_failover_is_fenced_from_the_event_to_the_announcement() {
    let mut play = Play::settled(|_| {});
    play.promoting(0, 'b', 'a');
    play.fenced();
    assert_eq!(
        play.bench.verdict.probes[&addr('b')].every,
        Duration::from_millis(10)
    );
    play.run(70).fenced();
    play.role('b', master());
    // 900 ms in the field, and longer than hold_timeout here.
    for _ in 0..20 {
        play.run(100).fenced();
        play.serves('a');
    }
    play.says(0, 'b', 6);
    play.open('b');
    play.says(1, 'b', 6);
    play.says(2, 'b', 6);
    play.run(15_000).open('b');
    assert_eq!(play.published, [addr('a'), addr('b')]);
}

#[test]
fn the_event_may_come_after_the_fact() {
    let mut play = Play::settled(|_| {});
    play.role_now('b', master());
    play.run(300);
    play.promoting(0, 'b', 'a');
    play.run(1500).fenced();
    // A stray master of old is no promotion.
    let mut play = Play::settled(|_| {});
    play.role_now('b', master());
    play.run(10_000);
    play.promoting(0, 'b', 'a');
    play.run(700).fenced();
    play.run(200).open('a');
}

#[test]
fn an_aborted_failover_releases() {
    let mut play = Play::settled(|_| {});
    play.promoting(0, 'b', 'a');
    play.run(100).fenced();
    // Only by the one that leads it.
    play.event(1, Event::Aborted);
    play.fenced();
    play.event(0, Event::Aborted);
    play.open('a');
    // Unless the replica says otherwise: then a majority decides.
    let mut play = Play::settled(|_| {});
    play.promoting(0, 'b', 'a');
    play.role_now('b', master());
    play.run(100).fenced();
    play.event(0, Event::Aborted);
    play.run(10).fenced();
    play.says(1, 'a', 5);
    play.fenced();
    play.says(2, 'a', 5);
    play.open('a');
}

#[test]
fn a_promotion_that_does_not_happen_holds_for_hold_timeout() {
    let mut play = Play::settled(|_| {});
    play.promoting(0, 'b', 'a');
    play.run(795).fenced();
    play.run(10).open('a');
    // When it happens after all, what the old one acknowledges may be lost again.
    play.run(2000).open('a');
    play.role('b', master());
    play.run(20).fenced();
    // Three seconds for them to say so, and then a majority's fresh word for the old one.
    play.run(2800).fenced();
    play.run(1000).open('a');
}

#[test]
fn a_promoted_replica_that_follows_again_ends_it() {
    let mut play = Play::settled(|_| {});
    play.promoting(0, 'b', 'a');
    play.role_now('b', master());
    for sentinel in 0..3 {
        play.lost(sentinel);
    }
    // Nobody is there to say who is right.
    play.patiently(20_000).fenced();
    play.role('b', replica_of('a'));
    play.run(150).open('a');
}

#[test]
fn the_kinds_of_fence() {
    let odown = |sentinel| {
        move |play: &mut Play| {
            let master = addr('a');
            play.event(sentinel, Event::Down { master });
        }
    };
    let promoting = |play: &mut Play| play.promoting(0, 'b', 'a');
    let claim = |play: &mut Play| play.says(0, 'b', 6);
    type Sign<'a> = &'a dyn Fn(&mut Play);
    let table: [(FenceOn, Sign<'_>, bool); 7] = [
        (FenceOn::Failover, &odown(0), false),
        (FenceOn::Failover, &promoting, true),
        (FenceOn::Failover, &claim, true),
        (FenceOn::Odown, &odown(0), true),
        (FenceOn::Odown, &promoting, true),
        (FenceOn::Switch, &odown(0), false),
        (FenceOn::Switch, &promoting, false),
    ];
    for (fence, happens, fenced) in table {
        let mut play = Play::settled(|s| s.fence = fence);
        happens(&mut play);
        assert_eq!(play.bench.verdict.fence, fenced, "{fence:?}");
        play.run(850).open('a');
    }
    let mut play = Play::settled(|s| s.fence = FenceOn::Odown);
    odown(0)(&mut play);
    odown(1)(&mut play);
    play.run(100).fenced();
    play.event(0, Event::UpAgain { master: addr('a') });
    play.fenced();
    play.event(1, Event::UpAgain { master: addr('a') });
    play.open('a');
}

#[test]
fn an_odown_fence_does_not_use_up_the_one_for_the_promotion() {
    let mut play = Play::settled(|s| s.fence = FenceOn::Odown);
    let master = addr('a');
    play.event(0, Event::Down { master });
    play.run(2000).open('a');
    play.promoting(0, 'b', 'a');
    play.fenced();
}

#[test]
fn crying_wolf_costs_a_fraction_of_the_time() {
    let down = |play: &mut Play, _: u64| {
        let master = addr('a');
        play.event(2, Event::Down { master });
    };
    let promoting = |play: &mut Play, _: u64| play.promoting(2, 'b', 'a');
    let others = |play: &mut Play, n: u64| {
        play.promoting(2, if n.is_multiple_of(2) { 'b' } else { 'c' }, 'a');
    };
    let aborting = |play: &mut Play, n: u64| {
        play.promoting(2, 'b', 'a');
        if n % 6 == 5 {
            play.event(2, Event::Aborted);
        }
    };
    let claims = |play: &mut Play, n: u64| play.says(2, 'z', 10 + n);
    let on_and_off = |play: &mut Play, n: u64| match n % 7 {
        6 => play.says(2, 'a', 5),
        _ => play.says(2, 'z', 10 + n),
    };
    type Wolf<'a> = &'a dyn Fn(&mut Play, u64);
    let table: [(&str, Wolf<'_>); 6] = [
        ("odown", &down),
        ("promoting", &promoting),
        ("promoting others", &others),
        ("aborting", &aborting),
        ("claims", &claims),
        ("claims on and off", &on_and_off),
    ];
    for hold in [HOLD, Duration::from_secs(10)] {
        for (name, cry) in table {
            let mut play = Play::holding(hold, 3, |s| s.fence = FenceOn::Odown);
            play.healthy();
            play.tick = 100;
            for n in 0..3000 {
                cry(&mut play, n);
                play.run(100).serves('a');
            }
            let of = 300_000;
            assert!(
                play.fenced <= of / 8,
                "{name} {hold:?}: {} of {of}",
                play.fenced
            );
            assert_eq!(play.held, 0, "{name}");
            // And it does not keep the real one from being heard.
            play.event(2, Event::Aborted);
            play.promoting(0, 'b', 'a');
            play.fenced();
        }
    }
}

#[test]
fn a_wolf_does_not_displace_the_real_promotion() {
    for switch_on in [SwitchOn::Announcement, SwitchOn::Promotion] {
        let mut play = Play::settled(|s| s.switch_on = switch_on);
        play.promoting(2, 'c', 'a');
        play.run(700);
        play.promoting(0, 'b', 'a');
        play.promoting(2, 'z', 'a');
        play.run(300).fenced();
        play.role('b', master());
        play.run(20);
        play.promoting(2, 'c', 'a');
        match switch_on {
            SwitchOn::Announcement => play.fenced(),
            SwitchOn::Promotion => play.serves('b'),
        }
        play.says(0, 'b', 6);
        play.open('b');
        assert_eq!(play.published, [addr('a'), addr('b')]);
    }
}
