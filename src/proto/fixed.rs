//! `static` discovery: the first server of a list that accepts connections.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Found;
use super::spec::{NodeSpec, StaticSpec};
use crate::addr::Addr;
use crate::clock::Moment;
use crate::monitor::{Judge, NodeReport, Outlet, Trouble, Verdict, Watcher, drive};
use crate::net::Stream;
use crate::net::dial::Dialer;
use crate::topology::Cause;
use crate::topology::reduce::Conclusion;

/// A connect that takes longer proves nothing.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// Between tries of a server that did not accept.
const EAGER: Duration = Duration::from_millis(100);

/// Watches the servers of one list.
pub struct FixedWatcher {
    pub spec: StaticSpec,
}

/// The end of a connection that was only a knock.
pub type Leaving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The same, at servers that mind how one leaves.
pub struct PoliteWatcher {
    spec: StaticSpec,
    leave: fn(Stream) -> Leaving,
}

impl FixedWatcher {
    /// Ends every knock with `leave` instead of just hanging up.
    pub fn politely(self, leave: fn(Stream) -> Leaving) -> PoliteWatcher {
        PoliteWatcher {
            spec: self.spec,
            leave,
        }
    }
}

fn hang_up(stream: Stream) -> Leaving {
    drop(stream);
    Box::pin(std::future::ready(()))
}

/// Whether a server accepted a connection, and why not.
#[derive(Clone, Debug)]
pub struct Seen {
    pub node: usize,
    pub accepts: Result<(), String>,
}

impl Watcher for FixedWatcher {
    fn watch(self: Box<Self>, outlet: Outlet) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.politely(hang_up).run(outlet))
    }
}

impl Watcher for PoliteWatcher {
    fn watch(self: Box<Self>, outlet: Outlet) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.run(outlet))
    }
}

impl PoliteWatcher {
    async fn run(self, outlet: Outlet) {
        let Outlet {
            clock,
            dialer,
            mut hints,
            mut publisher,
            ..
        } = outlet;
        let (seen_tx, mut seen) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        let mut again: BTreeMap<Addr, Arc<Notify>> = BTreeMap::new();
        for (index, node) in self.spec.nodes.iter().enumerate() {
            publisher
                .writer
                .name_endpoint(node.addr.clone(), node.server_name.clone());
            let wake = Arc::new(Notify::new());
            again.insert(node.addr.clone(), wake.clone());
            let interval = self.spec.probe_interval;
            tasks.spawn(knock(Knocker {
                node: index,
                spec: node.clone(),
                dialer: dialer.clone(),
                interval,
                wake,
                seen: seen_tx.clone(),
                leave: self.leave,
            }));
        }
        tasks.spawn(async move {
            while let Some(addr) = hints.recv().await {
                if let Some(wake) = again.get(&addr) {
                    wake.notify_one();
                }
            }
        });
        let mut judge = FixedJudge::new(&self.spec);
        drive(&mut judge, &clock, &mut seen, &mut publisher, |_| {}).await;
    }
}

/// Whether each server of the list accepts a connection.
pub async fn look_around(spec: &StaticSpec, dialer: &Dialer) -> Vec<Found> {
    let mut found = Vec::new();
    for node in &spec.nodes {
        let dialled = dialer
            .dial(&node.addr, node.server_name.as_deref(), CONNECT_WITHIN)
            .await;
        let ok = dialled.is_ok();
        let says = dialled.map_or_else(|error| error.to_string(), |_| "accepts".to_owned());
        found.push(Found {
            what: format!("server {}", node.addr),
            ok,
            says,
        });
    }
    found
}

/// Knocks at one server.
struct Knocker {
    node: usize,
    spec: NodeSpec,
    dialer: Dialer,
    interval: Duration,
    wake: Arc<Notify>,
    seen: mpsc::Sender<Seen>,
    leave: fn(Stream) -> Leaving,
}

async fn knock(knocker: Knocker) {
    let Knocker {
        node,
        spec,
        dialer,
        interval,
        wake,
        seen,
        leave,
    } = knocker;
    loop {
        let limit = CONNECT_WITHIN.min(interval.max(EAGER * 2));
        let dialled = dialer
            .dial(&spec.addr, spec.server_name.as_deref(), limit)
            .await;
        let (accepts, stream) = match dialled {
            Ok(stream) => (Ok(()), Some(stream)),
            Err(error) => (Err(error.to_string()), None),
        };
        let pause = if accepts.is_ok() {
            interval
        } else {
            EAGER.min(interval)
        };
        if seen.send(Seen { node, accepts }).await.is_err() {
            return;
        }
        if let Some(stream) = stream {
            leave(stream).await;
        }
        let _ = timeout(pause, wake.notified()).await;
    }
}

/// The last answer of a server, and when.
type Knock = (Result<(), String>, Moment);

/// The state of one list. Pure.
pub struct FixedJudge {
    nodes: Vec<(Addr, Option<Knock>)>,
    lease: Duration,
    current: Option<Addr>,
    evidence_at: Moment,
}

impl FixedJudge {
    pub fn new(spec: &StaticSpec) -> Self {
        Self {
            nodes: spec.nodes.iter().map(|n| (n.addr.clone(), None)).collect(),
            lease: spec.probe_interval + CONNECT_WITHIN + EAGER * 3,
            current: None,
            evidence_at: Moment::default(),
        }
    }

    fn report(&self, now: Moment, index: usize) -> NodeReport {
        let (address, said) = &self.nodes[index];
        let (role, detail) = match said {
            Some((Ok(()), at)) if now.since(*at) <= self.lease => ("up", None),
            Some((Err(why), _)) => ("down", Some(why.clone())),
            Some((Ok(()), _)) => ("unknown", Some("no answer for too long".to_owned())),
            None => ("unknown", None),
        };
        NodeReport {
            address: address.clone(),
            role,
            up: role == "up",
            lag_bytes: None,
            lag_seconds: None,
            detail,
        }
    }
}

impl Judge for FixedJudge {
    type Seen = Seen;

    fn see(&mut self, now: Moment, seen: Seen) {
        if let Some((_, said)) = self.nodes.get_mut(seen.node) {
            let accepted = |said: &Option<Knock>| matches!(said, Some((Ok(()), _)));
            let before = accepted(said);
            *said = Some((seen.accepts, now));
            if accepted(said) != before {
                self.evidence_at = now;
            }
        }
    }

    fn judge(&mut self, now: Moment) -> Verdict {
        let nodes: Vec<NodeReport> = (0..self.nodes.len()).map(|i| self.report(now, i)).collect();
        // One that was not tried yet may be the first that accepts.
        let tried = self.nodes.iter().take_while(|(_, said)| said.is_some());
        let tried = &nodes[..tried.count()];
        let primary = tried.iter().find(|n| n.up).map(|n| n.address.clone());
        let cause = match (&self.current, &primary) {
            (None, None) => Cause::Start,
            (None, Some(_)) => Cause::Proven,
            (Some(_), None) => Cause::Unproven,
            (Some(was), Some(is)) if was == is => Cause::Returned,
            (Some(_), Some(_)) => Cause::Reachable,
        };
        if primary.is_some() {
            self.current.clone_from(&primary);
        }
        let down = |n: &NodeReport| {
            let why = n.detail.clone()?;
            Some(Trouble::Source {
                name: n.address.to_string(),
                why,
            })
        };
        let mut troubles: Vec<Trouble> = nodes.iter().filter_map(down).collect();
        if primary.is_none() {
            troubles.insert(0, Trouble::NoPrimary);
        }
        Verdict {
            fence: false,
            evidence_at: self.evidence_at,
            troubles,
            nodes,
            sources: Vec::new(),
            probes: BTreeMap::new(),
            ask_again: 0,
            recheck: Some(now + EAGER),
            notes: Vec::new(),
            conclusion: Conclusion {
                leaving: None,
                primary,
                term: None,
                cause,
                replicas: Vec::new(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(n: usize) -> Addr {
        format!("10.0.0.{n}:1").parse().unwrap()
    }

    /// `1+` the first server accepts, `1-` it does not, `@500` at that time.
    fn play(script: &str) -> Verdict {
        let node = |n| NodeSpec {
            addr: addr(n),
            server_name: None,
            region: None,
        };
        let mut judge = FixedJudge::new(&StaticSpec {
            nodes: (0..3).map(node).collect(),
            probe_interval: Duration::from_secs(1),
        });
        let mut now = Moment::default();
        for word in script.split_whitespace() {
            if let Some(at) = word.strip_prefix('@') {
                now = Moment::from_millis(at.parse().unwrap());
            } else {
                let (node, accepts) = word.split_at(1);
                let refused = Err("refused".to_owned());
                let accepts = if accepts == "+" { Ok(()) } else { refused };
                let node = node.parse().unwrap();
                judge.see(now, Seen { node, accepts });
            }
            judge.judge(now);
        }
        judge.judge(now)
    }

    #[test]
    fn the_first_that_accepts() {
        use Cause::{Start, Unproven};
        let table: [(&str, Result<usize, Cause>); 11] = [
            ("", Err(Start)),
            // The second is faster, not the first.
            ("1+", Err(Start)),
            ("1+ 0+", Ok(0)),
            ("1+ 0-", Ok(1)),
            ("2+ 0-", Err(Start)),
            ("0- 1- 2+", Ok(2)),
            ("0- 1- 2-", Err(Start)),
            ("0+ 1+ 2+ 0-", Ok(1)),
            ("0+ 1+ 2+ 0- @100 0+", Ok(0)),
            ("0+ 1+ 2+ @2200 1+ 2+ @2400", Ok(1)),
            ("0+ 1+ 2+ @2400", Err(Unproven)),
        ];
        for (script, expected) in table {
            let verdict = play(script);
            let conclusion = &verdict.conclusion;
            let got = conclusion.primary.clone().ok_or(conclusion.cause);
            assert_eq!(got, expected.map(addr), "{script}");
            let none = verdict.troubles.contains(&Trouble::NoPrimary);
            assert_eq!(none, expected.is_err(), "{script}");
        }
        // Word for word the same again is no evidence.
        let evidence = play("0+ 1+ 2+ @500 0+ @700 0+").evidence_at;
        assert_eq!(evidence, Moment::default());
        assert_eq!(play("0+ 1+ @500 0-").evidence_at, Moment::from_millis(500));
    }
}
