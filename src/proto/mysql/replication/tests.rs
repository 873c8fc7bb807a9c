use super::facts::Copying;
use super::*;
use crate::proto::spec::ProbeSpec;
use crate::secret::Credentials;

fn addr(name: char) -> Addr {
    let host = u32::from(name) - 96;
    format!("10.0.0.{host}:3306").parse().unwrap()
}

fn judge() -> MysqlJudge {
    let node = |name| NodeSpec {
        addr: addr(name),
        server_name: None,
        region: None,
    };
    MysqlJudge::new(&MysqlSpec {
        nodes: ['a', 'b', 'c'].map(node).into(),
        credentials: Credentials::default(),
        probe: ProbeSpec {
            interval: Duration::from_millis(500),
            timeout: Duration::from_millis(400),
            rise: 2,
            fall: 2,
        },
        max_lag: Duration::from_secs(10),
    })
}

fn said(word: &str) -> Said<Server> {
    let server = |barred, copying| {
        Said::Answer(Server {
            barred,
            offline: false,
            copying,
        })
    };
    match word {
        "w" => server(None, Copying::None),
        // Somebody forgot to make it read-only.
        "W" => server(None, Copying::Behind(0)),
        "r" => server(Some("read_only"), Copying::Behind(0)),
        "l" => server(Some("read_only"), Copying::Behind(11)),
        "t" => server(Some("read_only"), Copying::Stopped),
        "o" => server(Some("read_only"), Copying::None),
        "x" => Said::Refused("connection refused".into()),
        "s" => Said::Silent("no answer within 400ms".into()),
        "b" => Said::Busy("too many connections".into()),
        _ => panic!("{word}"),
    }
}

/// `a=w` node a can be written to, `r` is a replica, `l` one that lags, `t` one that stopped, `o` read-only and
/// no replica, `x` refuses, `s` is silent, `b` busy; `+ms` waits.
fn play(script: &str) -> Verdict {
    let (mut judge, mut ms) = (judge(), 0);
    for word in script.split_whitespace() {
        if let Some(wait) = word.strip_prefix('+') {
            ms += wait.parse::<u64>().unwrap();
        } else {
            let (name, word) = word.split_once('=').unwrap();
            let addr = addr(name.chars().next().unwrap());
            let seen = Seen::Said {
                addr,
                said: said(word),
            };
            judge.see(Moment::from_millis(ms), seen);
        }
        judge.judge(Moment::from_millis(ms));
    }
    judge.judge(Moment::from_millis(ms))
}

#[test]
fn who_is_primary() {
    use Cause::{Conflict, RoleLost, Start, Unproven};
    let table: [(&str, Result<char, Cause>, &str); 21] = [
        ("", Err(Start), "no server is fit"),
        // The first to answer may be a stray one.
        ("a=w b=r", Err(Start), ""),
        ("a=w b=r c=r", Ok('a'), ""),
        ("a=w b=x c=x", Ok('a'), "refused"),
        ("a=w b=s c=r", Err(Start), ""),
        ("a=w b=s c=r b=s", Ok('a'), "no answer"),
        ("a=w b=W c=r", Err(Conflict), "several masters"),
        ("a=r b=r c=r", Err(Start), "no server is fit"),
        // Promoted by hand: for a moment nobody can be written to.
        ("a=w b=r c=r a=r", Err(RoleLost), "no server is fit"),
        ("a=w b=r c=r a=r b=w b=w", Ok('b'), ""),
        ("a=w b=r c=r a=r b=w", Err(RoleLost), ""),
        ("a=w b=r c=r a=x", Err(Unproven), ""),
        ("a=w b=r c=r a=x b=w b=w", Ok('b'), "refused"),
        (
            "a=w b=r c=r a=x b=w b=w a=w a=w",
            Ok('b'),
            "several masters",
        ),
        // The present one stays while it is fresh.
        ("a=w b=r c=r b=w b=w", Ok('a'), "several masters"),
        (
            "a=w b=r c=r b=w b=w c=w c=w a=x",
            Err(Conflict),
            "several masters",
        ),
        ("a=w b=r c=r a=s", Ok('a'), ""),
        ("a=w b=r c=r a=s a=s", Err(Unproven), "no answer"),
        ("a=w b=r c=r a=b +1000", Ok('a'), ""),
        // This host was paused.
        ("a=w b=r c=r +5000 b=w b=w", Err(Unproven), ""),
        ("a=w b=r c=r +5000 b=w b=w a=w", Ok('a'), "several masters"),
    ];
    for (script, expected, trouble) in table {
        let verdict = play(script);
        let conclusion = verdict.conclusion;
        let got = conclusion.primary.ok_or(conclusion.cause);
        assert_eq!(got, expected.map(addr), "{script}");
        let said: Vec<String> = verdict.troubles.iter().map(ToString::to_string).collect();
        let found = said.iter().any(|it| it.contains(trouble));
        assert!(found || trouble.is_empty(), "{script}: {said:?}");
    }
}

#[test]
fn who_gets_reads() {
    for (script, replicas, why) in [
        ("a=w b=r c=r", "bc", ""),
        ("a=w b=l c=r", "c", "it is 11 s behind"),
        ("a=w b=t c=r", "c", "its replication does not run"),
        ("a=w b=o c=r", "c", "it replicates from nobody"),
        ("a=w b=x c=r", "c", "refused"),
        ("a=w b=r c=r b=W b=W", "c", ""),
        ("a=w b=r c=r a=x", "bc", ""),
    ] {
        let verdict = play(script);
        let expected: Vec<Addr> = replicas.chars().map(addr).collect();
        assert_eq!(verdict.conclusion.replicas, expected, "{script}");
        let details: Vec<_> = verdict
            .nodes
            .iter()
            .filter_map(|n| n.detail.as_deref())
            .collect();
        assert!(
            why.is_empty() || details.iter().any(|it| it.contains(why)),
            "{details:?}"
        );
    }
    let lags = play("a=w b=l c=t").nodes.into_iter().map(|n| n.lag_seconds);
    assert_eq!(lags.collect::<Vec<_>>(), [None, Some(11), None]);
}
