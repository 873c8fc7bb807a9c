use std::collections::BTreeMap;

use super::facts::LocalState;
use super::*;
use crate::monitor::Trouble;
use crate::proto::mysql::probe::Said;
use crate::proto::spec::ProbeSpec;
use crate::secret::Credentials;

pub fn addr(name: char) -> Addr {
    let host = u32::from(name) - 96;
    format!("10.0.0.{host}:3306").parse().unwrap()
}

/// Nodes a, b, c, in this order; c is in another region.
pub fn spec() -> GaleraSpec {
    let node = |(name, region): (char, &str)| NodeSpec {
        addr: addr(name),
        server_name: None,
        region: Some(region.to_owned()),
    };
    GaleraSpec {
        nodes: [('a', "gra"), ('b', "gra"), ('c', "rbx")].map(node).into(),
        credentials: Credentials::default(),
        probe: ProbeSpec {
            interval: Duration::from_millis(500),
            timeout: Duration::from_millis(400),
            rise: 2,
            fall: 2,
        },
        failback_after: Duration::from_secs(60),
        accept_donor: false,
        max_recv_queue: 100,
    }
}

pub fn healthy() -> Facts {
    Facts {
        primary: true,
        ready: true,
        connected: true,
        state: LocalState::Synced,
        desync: false,
        rejects: None,
        donor_rejects: false,
        read_only: false,
        maintenance: None,
        history: "u".to_owned(),
        component: (7, 3),
        recv_queue: 0,
        uptime: 1000,
    }
}

fn said(word: &str) -> Said<Facts> {
    let mut facts = healthy();
    let (word, number) = word.split_at(1);
    match word {
        "+" => facts.component.0 = number.parse().unwrap_or(7),
        "-" => facts.read_only = true,
        "n" => (facts.primary, facts.component.0) = (false, u64::MAX),
        "q" => facts.recv_queue = 101,
        "h" => facts.history = "v".to_owned(),
        "y" => facts.uptime = number.parse().unwrap(),
        "p" => facts.component = (8, 1),
        "x" => return Said::Refused("connection refused".into()),
        "s" => return Said::Silent("no answer within 400ms".into()),
        "b" => return Said::Busy("too many connections".into()),
        _ => panic!("{word}"),
    }
    Said::Answer(facts)
}

/// `a+` node a is fit, `a-` says that it is read-only, `n` non-primary, `q` has a long queue, `h` another
/// history, `p` another component, `y5` up for 5 s, `x` refuses, `s` is silent, `b` busy; `*+` all; `@700` at
/// that time, with everybody's last word repeated every 500 ms until then; `>b` an operator prefers b, `>`
/// nobody.
fn play_in(region: Option<&str>, script: &str) -> (Verdict, u64) {
    let mut judge = GaleraJudge::new(&spec(), region);
    let mut now = 0;
    let mut last: BTreeMap<char, String> = BTreeMap::new();
    let see = |judge: &mut GaleraJudge, now, name: char, word: &str| {
        let seen = Seen::Said {
            addr: addr(name),
            said: said(word),
        };
        judge.see(Moment::from_millis(now), seen);
        judge.judge(Moment::from_millis(now))
    };
    for word in script.split_whitespace() {
        if let Some(at) = word.strip_prefix('@') {
            let at: u64 = at.parse().unwrap();
            while now < at {
                now = at.min(now + 500);
                for (name, word) in &last {
                    see(&mut judge, now, *name, word);
                }
            }
        } else if let Some(at) = word.strip_prefix('!') {
            now = at.parse().unwrap();
        } else if let Some(name) = word.strip_prefix('>') {
            let wish = name.chars().next().map(addr);
            judge.see(Moment::from_millis(now), Seen::Prefer(wish));
            judge.judge(Moment::from_millis(now));
        } else {
            let (names, word) = word.split_at(1);
            for name in if names == "*" { "abc" } else { names }.chars() {
                last.insert(name, word.to_owned());
                see(&mut judge, now, name, word);
            }
        }
    }
    (judge.judge(Moment::from_millis(now)), now)
}

fn play(script: &str) -> Verdict {
    play_in(Some("gra"), script).0
}

fn outcome(verdict: &Verdict) -> Result<Addr, Cause> {
    let conclusion = &verdict.conclusion;
    conclusion.primary.clone().ok_or(conclusion.cause)
}

#[test]
fn who_is_the_writer() {
    use Cause::{Conflict, RoleLost, Start, Unproven};
    let table: [(&str, Result<char, Cause>, &str); 27] = [
        ("", Err(Start), "no server is fit"),
        // The first to answer may be the last in the order.
        ("b+ c+", Err(Start), ""),
        ("b+ c+ a+", Ok('a'), ""),
        ("b+ c+ as", Err(Start), ""),
        ("b+ c+ as as", Ok('b'), "no answer"),
        ("ax b+ c+", Ok('b'), "refused"),
        ("ax bx cx", Err(Start), "no server is fit"),
        // An explicit word switches at once.
        ("*+ a-", Ok('b'), "read-only"),
        ("*+ an", Ok('b'), "primary component"),
        ("*+ ax", Ok('b'), "refused"),
        // Silence takes `fall` of it.
        ("*+ as", Ok('a'), ""),
        ("*+ as as", Ok('b'), "no answer"),
        ("*+ as a+ as", Ok('a'), ""),
        // Busy is not down, for as long as its last word counts.
        ("*+ ab !1000 b+ c+", Ok('a'), ""),
        ("*+ ab @2000", Ok('b'), "too many"),
        // Never one without the majority.
        ("*+ bn cn ax", Err(Unproven), "no server is fit"),
        ("*+ an bn cn", Err(RoleLost), "no server is fit"),
        ("*+ ax bn c+", Ok('c'), ""),
        // This host was paused: nobody is chosen before the writer was asked.
        ("*+ !5000", Err(Unproven), ""),
        ("*+ !5000 b+ c+", Err(Unproven), ""),
        ("*+ !5000 b+ c+ a+", Ok('a'), ""),
        ("*+ !5000 b+ c+ a-", Ok('b'), ""),
        // Another cluster.
        ("a+ b+ ch", Err(Conflict), "different clusters"),
        ("*+ ch", Ok('a'), "different clusters"),
        ("*+ ch ax", Err(Conflict), "different clusters"),
        ("*+ ah", Err(Conflict), "different clusters"),
        ("*+ ch c+ ax", Ok('b'), ""),
    ];
    for (script, expected, trouble) in table {
        let verdict = play(script);
        assert_eq!(outcome(&verdict), expected.map(addr), "{script}");
        let said: Vec<String> = verdict.troubles.iter().map(ToString::to_string).collect();
        let found = said.iter().any(|it| it.contains(trouble));
        assert!(found || trouble.is_empty(), "{script}: {said:?}");
    }
}

#[test]
fn the_own_region_first() {
    for (region, first, second) in [
        (Some("gra"), 'a', 'b'),
        (Some("rbx"), 'c', 'a'),
        (None, 'a', 'b'),
    ] {
        let (verdict, _) = play_in(region, "*+");
        assert_eq!(outcome(&verdict), Ok(addr(first)), "{region:?}");
        let (verdict, _) = play_in(region, &format!("*+ {first}x"));
        assert_eq!(outcome(&verdict), Ok(addr(second)), "{region:?}");
    }
}

#[test]
fn who_returns_has_to_prove_it_for_long() {
    // Two good answers, then a minute.
    let back = "*+ ax @1000 a+";
    for (script, writer) in [
        ("@1400", 'b'),
        ("@60900", 'b'),
        ("@61500", 'a'),
        // Every relapse begins the minute anew.
        ("@30000 a- a+ @61500", 'b'),
        ("@30000 a- a+ @91000", 'a'),
        // It is the best one there is when the writer goes.
        ("@2000 bx", 'a'),
        // But not before it has risen.
        ("bx", 'c'),
    ] {
        let script = format!("{back} {script}");
        let (verdict, now) = play_in(Some("gra"), &script);
        assert_eq!(outcome(&verdict), Ok(addr(writer)), "{script}");
        let leaving = verdict.conclusion.leaving;
        if writer == 'a' && !script.contains("bx") {
            let (who, until) = leaving.unwrap_or_else(|| panic!("{script}: nobody leaves"));
            assert_eq!(who, addr('b'));
            let left = until.since(Moment::from_millis(now));
            assert!(
                left <= FINISH && left > FINISH - Duration::from_secs(1),
                "{left:?}"
            );
        } else {
            assert_eq!(leaving, None, "{script}");
        }
    }
    for end in ["@71600", "b-", "bx"] {
        let verdict = play(&format!("{back} @61500 {end}"));
        assert_eq!(outcome(&verdict), Ok(addr('a')), "{end}");
        assert_eq!(verdict.conclusion.leaving, None, "{end}");
    }
}

/// A sidecar that starts finds the writer that the others chose long ago.
#[test]
fn who_comes_late_chooses_as_the_others_did() {
    for (script, writer) in [
        // Node a was restarted ten seconds ago: the others are waiting for its minute to pass.
        ("ay10 by900 cy900", 'b'),
        ("ay61 by900 cy900", 'a'),
        // All of them were: the one that was there first, and those that came with it.
        ("ay10 by30 cy30", 'b'),
        ("ay28 by30 cy30", 'a'),
        ("ay1 by2 cy50", 'c'),
        ("ay900 by1 cy1", 'a'),
    ] {
        assert_eq!(outcome(&play(script)), Ok(addr(writer)), "{script}");
    }
}

#[test]
fn reads_go_to_the_other_fit_nodes() {
    for (script, replicas) in [
        ("", ""),
        ("*+", "bc"),
        ("*+ b-", "c"),
        ("*+ cq", "b"),
        ("*+ ax", "c"),
        ("*+ ch", "b"),
        ("*+ ab", "bc"),
    ] {
        let expected: Vec<Addr> = replicas.chars().map(addr).collect();
        assert_eq!(play(script).conclusion.replicas, expected, "{script}");
    }
}

#[test]
fn the_count_of_the_membership_is_the_term() {
    let term = |script: &str| {
        let conclusion = play(script).conclusion;
        (
            conclusion.term.map(|t| t.0),
            conclusion.cause == Cause::EpochReset,
        )
    };
    for (script, expected) in [
        ("", None),
        ("*+7", Some(7)),
        ("*+7 a+8", Some(8)),
        // Answers are of different moments: what was seen once stays.
        ("*+7 a+8 ax", Some(8)),
        // A node that is alone counts nothing.
        ("*+7 an", Some(7)),
        // All of them were stopped, and begin anew; after a while that is believed.
        ("*+7 *x @500 *+1 @2000", Some(7)),
        ("*+7 *x @500 *+1 @6000", Some(1)),
    ] {
        assert_eq!(term(script).0, expected, "{script}");
    }
    let mut judge = GaleraJudge::new(&spec(), None);
    let mut resets = 0;
    for n in 0..20 {
        let now = Moment::from_millis(n * 500);
        for name in "abc".chars() {
            let word = if n < 2 { "+9" } else { "+2" };
            judge.see(
                now,
                Seen::Said {
                    addr: addr(name),
                    said: said(word),
                },
            );
        }
        resets += usize::from(judge.judge(now).conclusion.cause == Cause::EpochReset);
    }
    assert_eq!(resets, 1);
}

#[test]
fn parts_of_one_cluster() {
    // For a moment that is how a change of membership looks; then it is a split brain.
    let splits = "*+ ap @2000";
    assert_eq!(outcome(&play(splits)), Ok(addr('a')));
    assert!(
        !play(splits)
            .troubles
            .iter()
            .any(|t| matches!(t, Trouble::Parted { .. }))
    );
    let long = play("*+ ap @5000");
    assert_eq!(outcome(&long), Ok(addr('a')), "no switch");
    assert!(
        matches!(long.troubles[0], Trouble::Parted { .. }),
        "{:?}",
        long.troubles
    );
    assert_eq!(
        outcome(&play("*+ ap @5000 ax")),
        Ok(addr('b')),
        "the rest is of one part"
    );
    assert_eq!(outcome(&play("*+ bp @5000 ax")), Err(Cause::Conflict));
}

#[test]
fn who_wakes_up_in_a_component_of_the_past_does_not_take_over() {
    let thawed = "*+ as as b+8 c+8 @4000 a+7";
    let cases = [
        // It has been fit for a minute, and then it turns out that the others are of another component.
        ("*+ ax @1000 a+ @60000 b+8 c+8 @62500", 'b'),
        // Found out within a moment: the minute begins then.
        ("*+ ax @1000 a+ @60000 b+8 c+8 @61000 a+8 @120000", 'b'),
        ("*+ ax @1000 a+ @60000 b+8 c+8 @61000 a+8 @121500", 'a'),
        // An operator's word does not lead there either, and is heeded later.
        (&format!("{thawed} @6000 >a @6500"), 'b'),
        (
            &format!("{thawed} @6000 >a an @7000 a+9 b+9 c+9 @8000"),
            'a',
        ),
    ];
    for (script, writer) in cases {
        assert_eq!(outcome(&play(script)), Ok(addr(writer)), "{script}");
    }
    // Nor is it the first choice of a sidecar that starts meanwhile.
    assert_eq!(outcome(&play("a+7 b+8 c+8")), Err(Cause::Start));
    assert_eq!(outcome(&play("a+7 b+8 c+8 @1000 a+8")), Ok(addr('a')));
    assert_eq!(outcome(&play("a+7 b+8 c+8 @5000")), Err(Cause::Conflict));
}

#[test]
fn a_cluster_that_was_founded_anew() {
    assert_eq!(
        outcome(&play("*+ *x ch")),
        Err(Cause::Conflict),
        "one is not enough"
    );
    let verdict = play("*+ *x @1000 bh ch @2500");
    assert_eq!(outcome(&verdict), Ok(addr('b')));
    let mixed = play("*+ ax bh ch @2000 ax b+");
    assert_eq!(outcome(&mixed), Err(Cause::Conflict));
}

#[test]
fn evidence_is_as_old_as_what_decided() {
    let at = |script: &str| play(script).evidence_at;
    assert_eq!(at("*+ @3000 ax"), Moment::from_millis(3000));
    assert_eq!(at("*+ @3000 as !3400 as"), Moment::from_millis(3400));
    assert_eq!(at("*+ @3000 *x !4000 b+ @5000"), Moment::from_millis(4500));
}

#[test]
fn hints_ask_at_once_and_not_too_often() {
    let mut judge = GaleraJudge::new(&spec(), None);
    let urgent = |judge: &mut GaleraJudge, ms| {
        judge.judge(Moment::from_millis(ms)).probes[&addr('b')].urgent
    };
    for _ in 0..100 {
        judge.see(Moment::from_millis(5), Seen::Hint(addr('b')));
        judge.see(Moment::from_millis(5), Seen::Hint(addr('z')));
    }
    assert_eq!(urgent(&mut judge, 5), 1);
    judge.see(Moment::from_millis(6), Seen::Hint(addr('b')));
    assert_eq!((urgent(&mut judge, 6), urgent(&mut judge, 15)), (1, 2));
    // Without a writer everybody is asked more often.
    let pace =
        |judge: &mut GaleraJudge, ms| judge.judge(Moment::from_millis(ms)).probes[&addr('a')].every;
    assert_eq!(pace(&mut judge, 20), EAGER);
    for name in "abc".chars() {
        judge.see(
            Moment::from_millis(30),
            Seen::Said {
                addr: addr(name),
                said: said("+"),
            },
        );
    }
    assert_eq!(pace(&mut judge, 30), Duration::from_millis(500));
}

#[test]
fn an_operators_preference_counts_at_once_and_then_like_the_order() {
    for (script, writer) in [
        ("*+ >b", 'b'),
        ("*+ >b @500", 'b'),
        ("*+ >c", 'c'),
        // Of another region, and fit only now.
        ("*+ c- @1000 >c @2000 c+ c+", 'c'),
        // It is none that is known, or not fit.
        ("*+ >z", 'a'),
        ("*+ b- >b", 'a'),
        ("*+ bx >b @1000", 'a'),
        // Undone: the usual order, with its patience.
        ("*+ >b @1000 > @2000", 'b'),
        ("*+ >b @1000 > @61500", 'a'),
        ("*+ >b >", 'b'),
        // It is no pin, and comes back like any other.
        ("*+ >b @1000 b-", 'a'),
        ("*+ >b @1000 b- @2000 b+ b+ @20000", 'a'),
        ("*+ >b @1000 b- @2000 b+ b+ @63000", 'b'),
        // The writer is asked for, and so it stays so for ever.
        ("*+ >a @1000 a- @2000 a+ a+ @20000", 'b'),
    ] {
        let chosen = play(script).conclusion.primary;
        assert_eq!(chosen, Some(addr(writer)), "{script}");
    }
}

#[test]
fn sessions_on_the_former_writer_may_finish() {
    let verdict = play("*+ @1000 >b");
    let (leaving, until) = verdict.conclusion.leaving.unwrap();
    assert_eq!(
        (leaving, until),
        (addr('a'), Moment::from_millis(1000) + FINISH)
    );
    let b = verdict.nodes.iter().find(|n| n.address == addr('b'));
    assert!(
        b.unwrap()
            .detail
            .as_deref()
            .unwrap()
            .contains("comes first")
    );
    // The order may change again meanwhile.
    let verdict = play("*+ @1000 >b @2000 >c");
    assert_eq!(verdict.conclusion.primary, Some(addr('c')));
    assert_eq!(verdict.conclusion.leaving.unwrap().0, addr('b'));
}
