use super::*;
use crate::proto::spec::{NodeSpec, ProbeSpec};
use crate::secret::Credentials;

const OURS: i64 = 7001;
const THEIRS: i64 = 7002;
const MB: u64 = 1 << 20;

fn addr(name: char) -> Addr {
    let last = u32::from(name) - 96;
    format!("10.0.0.{last}:5432").parse().unwrap()
}

fn judge() -> PostgresJudge {
    let node = |name| NodeSpec {
        addr: addr(name),
        server_name: None,
        region: None,
    };
    PostgresJudge::new(&PostgresSpec {
        nodes: "abc".chars().map(node).collect(),
        credentials: Credentials::default(),
        database: "postgres".into(),
        probe: ProbeSpec {
            interval: Duration::from_millis(500),
            timeout: Duration::from_millis(400),
            rise: 2,
            fall: 2,
        },
        max_lag: 16 * MB,
    })
}

fn answer(word: &str) -> Answer {
    let (kind, number) = word.split_at(1);
    let number = number.parse::<u64>().ok();
    let primary = |system, read_only| {
        Answer::Says(Says::Primary {
            system,
            timeline: number.unwrap_or(1),
            lsn: 100 * MB,
            read_only,
        })
    };
    let standby = |system, paused| {
        Answer::Says(Says::Standby {
            system,
            replayed: Some(number.unwrap_or(100) * MB),
            paused,
            receives: true,
            timeline: None,
        })
    };
    match kind {
        "P" => primary(OURS, false),
        "R" => primary(OURS, true),
        "F" => primary(THEIRS, false),
        "s" => standby(OURS, false),
        "p" => standby(OURS, true),
        "f" => standby(THEIRS, false),
        "t" => Answer::Silent("no answer within 400ms".into()),
        "b" => Answer::Busy("sorry, too many clients already (53300)".into()),
        "d" => Answer::Refused("connection refused".into()),
        other => panic!("{other}"),
    }
}

/// `a=P1` primary on timeline 1, `R` the same, read-only, `F` of another cluster; `s90` a standby that has
/// replayed 90 MB of 100, `p` with its replay paused, `f` of another cluster; `t` silent, `b` busy,
/// `d` refused; `+ms` waits.
fn play(script: &str) -> (PostgresJudge, Verdict, Moment) {
    let mut judge = judge();
    let mut now = Moment::from_millis(1000);
    for word in script.split_whitespace() {
        if let Some(ms) = word.strip_prefix('+') {
            now = now + Duration::from_millis(ms.parse().unwrap());
        } else {
            let (name, says) = word.split_once('=').unwrap();
            let addr = addr(name.chars().next().unwrap());
            let answer = answer(says);
            judge.see(now, Seen::Answer { addr, answer });
        }
        judge.judge(now);
    }
    let verdict = judge.judge(now);
    (judge, verdict, now)
}

fn check(table: &[(&str, Result<char, Cause>, &str)]) {
    for (script, expected, trouble) in table {
        let (_, verdict, _) = play(script);
        let conclusion = &verdict.conclusion;
        let got = conclusion.primary.clone().ok_or(conclusion.cause);
        assert_eq!(got, expected.map(addr), "{script}");
        let said: Vec<String> = verdict.troubles.iter().map(ToString::to_string).collect();
        let found = match *trouble {
            "" => said.is_empty(),
            text => said.iter().any(|t| t.contains(text)),
        };
        assert!(found, "{script}: {said:?}");
    }
}

#[test]
fn at_the_start() {
    use Cause::{Conflict, Start};
    check(&[
        ("", Err(Start), "no server"),
        ("a=P1", Err(Start), "no server"),
        // The first to answer is not the only one there is.
        ("a=P1 b=s", Err(Start), "no server"),
        ("a=P1 b=s c=s", Ok('a'), ""),
        ("a=P1 b=s c=t", Err(Start), "no server"),
        ("a=P1 b=s c=t +400 c=t", Ok('a'), "no answer within"),
        ("a=P1 b=d c=d", Ok('a'), "connection refused"),
        ("a=s b=s c=s", Err(Start), "no server"),
        ("a=P1 b=P2 c=s", Ok('b'), "timeline 2 has begun"),
        ("a=P1 b=P1 c=s", Err(Conflict), "several"),
        ("a=R1 b=s c=s", Err(Start), "read_only"),
        // More servers are of one cluster than of the other.
        ("a=F9 b=P1 c=s", Ok('b'), "another cluster"),
        ("a=P1 b=s c=F1", Ok('a'), "another cluster"),
        ("a=P1 b=F1 c=d", Err(Conflict), "several"),
        ("a=F1 b=s c=d", Err(Conflict), "no server"),
    ]);
}

#[test]
fn a_promotion() {
    use Cause::{Conflict, Deposed, RoleLost, Unproven};
    check(
        &[
            ("a=P1 b=s c=s b=P2", Ok('b'), "timeline 2 has begun"),
            ("a=P1 b=s c=s a=d", Err(Unproven), "no server"),
            ("a=P1 b=s c=s a=d b=P2", Ok('b'), "connection refused"),
            // It returns as it was, and says what it always said.
            (
                "a=P1 b=s c=s a=d b=P2 +500 a=P1 a=P1 a=P1 b=P2",
                Ok('b'),
                "a refused",
            ),
            (
                "a=P1 b=s c=s a=d b=P2 b=d a=P1 a=P1 a=P1",
                Err(Unproven),
                "timeline 2",
            ),
            ("a=P1 b=s c=s b=P2 +5000 a=P1", Err(Unproven), "timeline 2"),
            // Two on the new timeline, and nobody knows which one.
            ("a=P1 b=s c=s b=P2 c=P2", Err(Conflict), "several"),
            ("a=P1 b=s c=s b=P2 c=P2 c=d", Ok('b'), "connection refused"),
            ("a=P1 b=s c=s b=P2 c=P3", Ok('c'), "timeline 3 has begun"),
            // A copy of the primary: no timeline of its own.
            ("a=P1 b=s c=s a=d b=P1", Err(Unproven), "is 10.0.0.1:5432's"),
            ("a=P1 b=s c=s b=P1", Err(Conflict), "several"),
            ("a=P1 b=s c=s a=s", Err(RoleLost), "no server"),
            // A new primary that an operator has closed: the old one has had its time all the same.
            ("a=P1 b=s c=s b=R2", Err(Deposed), "read_only"),
            ("a=P1 b=s c=s b=R2 b=P2", Ok('b'), "timeline 2"),
            ("a=P1 b=s c=s a=R1", Err(RoleLost), "read_only"),
        ]
        .map(|(script, expected, trouble)| {
            let trouble = if trouble == "a refused" {
                "is refused"
            } else {
                trouble
            };
            (script, expected, trouble)
        }),
    );
}

#[test]
fn evidence_comes_and_goes() {
    use Cause::Unproven;
    check(&[
        // One answer may be late.
        ("a=P1 b=s c=s +500 a=t", Ok('a'), "no answer within"),
        ("a=P1 b=s c=s +500 a=t a=t", Err(Unproven), "no server"),
        (
            "a=P1 b=s c=s +500 a=t a=P1 a=t",
            Ok('a'),
            "no answer within",
        ),
        // It has to rise before it counts again.
        ("a=P1 b=s c=s a=t a=t a=P1", Err(Unproven), "answers again"),
        ("a=P1 b=s c=s a=t a=t a=P1 a=P1", Ok('a'), ""),
        ("a=P1 b=s c=s a=d a=P1 a=P1", Ok('a'), ""),
        // Busy is not down, as long as what it said before is fresh.
        ("a=P1 b=s c=s +500 a=b b=s c=s", Ok('a'), "too many clients"),
        (
            "a=P1 b=s c=s +1000 a=b b=s c=s +700 a=b b=s c=s",
            Err(Unproven),
            "too many clients",
        ),
        ("a=P1 b=s c=s +1600", Ok('a'), ""),
        (
            "a=P1 b=s c=s +1601",
            Err(Unproven),
            "no answer for too long",
        ),
        // Of another cluster, under the same address.
        (
            "a=P1 b=s c=s a=d a=F5 a=F5",
            Err(Unproven),
            "another cluster",
        ),
    ]);
}

#[test]
fn reads() {
    let replicas = |script| {
        let (_, verdict, _) = play(script);
        let names = verdict.conclusion.replicas.iter();
        names.map(ToString::to_string).collect::<Vec<_>>()
    };
    let both = ["10.0.0.2:5432", "10.0.0.3:5432"];
    assert_eq!(replicas("a=P1 b=s c=s"), both);
    assert_eq!(replicas("a=P1 b=s83 c=s"), both[1..], "17 MB behind");
    assert_eq!(replicas("a=P1 b=s84 c=s"), both);
    assert_eq!(replicas("a=P1 b=f c=s"), both[1..]);
    assert_eq!(replicas("a=P1 b=s c=s a=d"), both, "they still can");
    assert_eq!(replicas("a=P1 b=s c=s +2000"), [""; 0]);
    // Ahead of a primary that was asked after it: it has another history.
    assert_eq!(replicas("a=P1 b=s c=s101 +1 a=P1"), both[..1]);
    let (_, verdict, _) = play("a=P1 b=p90 c=s");
    let node = verdict
        .nodes
        .iter()
        .find(|n| n.address == addr('b'))
        .unwrap();
    assert_eq!((node.role, node.lag_bytes), ("standby", Some(10 * MB)));
    assert!(verdict.troubles[0].to_string().contains("paused"));
}

#[test]
fn terms_are_timelines_and_only_grow() {
    let mut judge = judge();
    let mut last = None;
    let script = "a=P4 b=s c=s a=d b=P5 a=P4 a=P4 b=d c=P9 a=s b=P5 c=d c=P9 c=P9";
    for (n, word) in script.split_whitespace().enumerate() {
        let (name, says) = word.split_once('=').unwrap();
        let addr = addr(name.chars().next().unwrap());
        let now = Moment::from_millis(n as u64 * 10);
        let answer = answer(says);
        judge.see(now, Seen::Answer { addr, answer });
        let term = judge.judge(now).conclusion.term;
        assert!(term >= last, "{word}");
        last = term;
    }
    assert_eq!(last, Some(Term(9)));
}

#[test]
fn questions_come_sooner_when_they_matter() {
    let every = |script, name| {
        let (_, verdict, _) = play(script);
        verdict.probes[&addr(name)].every
    };
    let interval = Duration::from_millis(500);
    assert_eq!(every("a=P1 b=s c=s", 'b'), interval);
    assert_eq!(every("a=P1 b=s c=s a=d", 'b'), EAGER, "nobody is primary");
    assert_eq!(every("a=P1 b=s c=s a=t", 'a'), EAGER, "it may be lost");
    assert_eq!(every("a=P1 b=s c=s a=t", 'b'), interval);
    assert_eq!(every("a=P1 b=s c=s c=d c=s", 'c'), EAGER, "it rises");
    let (mut judge, _, now) = play("a=P1 b=s c=s");
    judge.see(now, Seen::Hint(addr('b')));
    judge.see(now, Seen::Hint(addr('z')));
    assert_eq!(judge.judge(now).probes[&addr('b')].urgent, 1);
    // A thousand clients are one question.
    for _ in 0..1000 {
        judge.see(now, Seen::Hint(addr('b')));
    }
    assert_eq!(judge.judge(now).probes[&addr('b')].urgent, 1);
}

#[test]
fn what_comes_in_any_order_publishes_nobody_who_is_not_proven() {
    let words = ["P1", "P2", "R3", "F9", "s", "p90", "t", "b", "d", "P3"];
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut judge, mut now) = (judge(), Moment::from_millis(1000));
        let mut highest = 0;
        let mut said: BTreeMap<Addr, (String, Moment)> = BTreeMap::new();
        for _ in 0..200 {
            now = now + Duration::from_millis(random.u64(0..300));
            let addr = addr(
                random
                    .choice(["a", "b", "c"])
                    .unwrap()
                    .chars()
                    .next()
                    .unwrap(),
            );
            let word = words[random.usize(..words.len())];
            if !matches!(word, "t" | "b") {
                said.insert(addr.clone(), (word.to_owned(), now));
            }
            let answer = answer(word);
            judge.see(now, Seen::Answer { addr, answer });
            let conclusion = judge.judge(now).conclusion;
            let term = conclusion.term.map_or(0, |t| t.0);
            assert!(term >= highest, "seed {seed}: a term went back");
            highest = term;
            let Some(primary) = conclusion.primary else {
                continue;
            };
            // Its own last word says so, and no other's denies it.
            let (word, at) = &said[&primary];
            let timeline: u64 = word[1..].parse().unwrap_or(0);
            assert!(
                word.starts_with(['P', 'F']) && timeline == term,
                "seed {seed}: {word}"
            );
            assert!(now.since(*at) <= judge.rules.lease, "seed {seed}: stale");
        }
    }
}
