//! Redis without sentinels: the node whose own ROLE is master.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;

use super::node::{self, EAGER, NodeView};
use super::role::{Prober, Role, probe};
use crate::addr::Addr;
use crate::clock::Moment;
use crate::monitor::probers::Probers;
use crate::monitor::{Judge, NodeReport, Outlet, Pace, Trouble, Verdict, Watcher, drive};
use crate::proto::spec::{NodeSpec, RedisSpec};
use crate::topology::Cause;
use crate::topology::reduce::Conclusion;

/// Between looks, when only time can change the verdict.
const RECHECK: Duration = Duration::from_millis(100);

/// Watches the nodes of one service.
pub struct StandaloneWatcher {
    pub spec: RedisSpec,
}

/// What the shell saw.
#[derive(Clone, Debug)]
pub enum Seen {
    Role { addr: Addr, role: Role },
    Hint(Addr),
}

impl Watcher for StandaloneWatcher {
    fn watch(self: Box<Self>, outlet: Outlet) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.run(outlet))
    }
}

impl StandaloneWatcher {
    async fn run(self: Box<Self>, outlet: Outlet) {
        let Outlet {
            clock,
            dialer,
            mut hints,
            mut publisher,
            ..
        } = outlet;
        let (seen_tx, mut seen) = mpsc::channel(256);
        let names: BTreeMap<Addr, Option<String>> = self
            .spec
            .nodes
            .iter()
            .map(|n| (n.addr.clone(), n.server_name.clone()))
            .collect();
        for (addr, name) in &names {
            publisher.writer.name_endpoint(addr.clone(), name.clone());
        }
        let credentials = self.spec.credentials.clone();
        let probe_seconds = publisher.metrics.probe_seconds.clone();
        let hint_tx = seen_tx.clone();
        let mut probers = Probers::new(move |addr, pace| {
            let prober = Prober {
                addr: addr.clone(),
                server_name: names.get(addr).cloned().flatten(),
                dialer: dialer.clone(),
                credentials: credentials.clone(),
                clock,
                probe_seconds: probe_seconds.clone(),
            };
            let wrap = |addr, role| Seen::Role { addr, role };
            Box::pin(probe(prober, pace, seen_tx.clone(), wrap))
        });
        let mut judge = StandaloneJudge::new(&self.spec);
        let pass_hints = async move {
            while let Some(addr) = hints.recv().await {
                let _ = hint_tx.send(Seen::Hint(addr)).await;
            }
            std::future::pending::<()>().await;
        };
        let act = |verdict: &Verdict| probers.follow(&verdict.probes);
        tokio::select! {
            () = drive(&mut judge, &clock, &mut seen, &mut publisher, act) => {}
            () = pass_hints => {}
        }
    }
}

/// The state of one service's judgement. Pure.
pub struct StandaloneJudge {
    nodes: BTreeMap<Addr, NodeView>,
    /// As the config lists them.
    order: Vec<Addr>,
    interval: Duration,
    current: Option<Addr>,
    served: bool,
    /// The last verdict's primary, and until when it was another.
    shown: Option<Addr>,
    changed_at: Moment,
    judged_at: Moment,
}

impl StandaloneJudge {
    pub fn new(spec: &RedisSpec) -> Self {
        let order: Vec<Addr> = spec
            .nodes
            .iter()
            .map(|n: &NodeSpec| n.addr.clone())
            .collect();
        Self {
            nodes: order
                .iter()
                .map(|a| (a.clone(), NodeView::default()))
                .collect(),
            order,
            interval: spec.probe_interval,
            current: None,
            served: false,
            shown: None,
            changed_at: Moment::default(),
            judged_at: Moment::default(),
        }
    }

    fn fresh(&self, now: Moment, addr: &Addr) -> Option<&Role> {
        self.nodes.get(addr)?.fresh(now, node::lease(self.interval))
    }

    /// The servers that say master now, and whether replicas are connected to each.
    fn masters(&self, now: Moment) -> Vec<(&Addr, bool)> {
        let master = |addr| match self.fresh(now, addr) {
            Some(Role::Master { replicas, .. }) => Some((addr, !replicas.is_empty())),
            _ => None,
        };
        self.order.iter().filter_map(master).collect()
    }

    fn choose(&self, now: Moment) -> (Option<Addr>, Cause) {
        let masters = self.masters(now);
        let is_current = |&(addr, _): &(&Addr, bool)| Some(addr) == self.current.as_ref();
        // Two masters: the present one stays, whatever the other says of itself.
        if masters.iter().any(is_current) {
            return (
                self.current.clone(),
                if self.served {
                    Cause::Returned
                } else {
                    Cause::Proven
                },
            );
        }
        // The first to answer is not the only one there is.
        if self.current.is_none() && self.nodes.values().any(|n| n.said.is_none()) {
            return (None, Cause::Start);
        }
        // The first to answer may be a master that was deposed: the first choice hears them all. Who
        // does not answer has said so within a probe's time.
        if self.current.is_none() && self.nodes.values().any(|n| n.said.is_none()) {
            return (None, Cause::Start);
        }
        let followed: Vec<&Addr> = masters.iter().filter(|m| m.1).map(|m| m.0).collect();
        let cause = if self.current.is_none() {
            Cause::Proven
        } else {
            Cause::Announced
        };
        match (masters.as_slice(), followed.as_slice()) {
            ([(only, _)], _) | (_, [only]) => (Some((*only).clone()), cause),
            ([], _) => (None, self.absence(now)),
            _ => (None, Cause::Conflict),
        }
    }

    fn absence(&self, now: Moment) -> Cause {
        match self.current.as_ref().map(|c| self.fresh(now, c)) {
            None => Cause::Start,
            Some(Some(Role::Replica { .. })) => Cause::RoleLost,
            Some(_) => Cause::Unproven,
        }
    }

    fn replicas(&self, now: Moment, primary: Option<&Addr>) -> Vec<Addr> {
        let fit = |addr: &&Addr| {
            Some(*addr) != primary
                && matches!(
                    self.fresh(now, addr),
                    Some(Role::Replica {
                        connected: true,
                        ..
                    })
                )
        };
        self.order.iter().filter(fit).cloned().collect()
    }

    fn troubles(&self, now: Moment, primary: Option<&Addr>) -> Vec<Trouble> {
        let masters = self.masters(now);
        let mut troubles = Vec::new();
        if masters.len() > 1 {
            let addrs = masters.iter().map(|m| m.0.clone()).collect();
            troubles.push(Trouble::Conflict { addrs });
        } else if masters.is_empty() {
            troubles.push(Trouble::NoPrimary);
        }
        for addr in self.order.iter().filter(|a| Some(*a) != primary) {
            let why = match self.fresh(now, addr) {
                Some(Role::Down(why) | Role::Busy(why)) => why.clone(),
                None if self.nodes.get(addr).is_some_and(|n| n.said.is_some()) => "silent".into(),
                _ => continue,
            };
            troubles.push(Trouble::Source {
                name: addr.to_string(),
                why,
            });
        }
        troubles
    }

    fn reports(&self, now: Moment, primary: Option<&Addr>) -> Vec<NodeReport> {
        let head = primary
            .and_then(|p| self.nodes.get(p))
            .and_then(NodeView::offset);
        let report = |(addr, node): (&Addr, &NodeView)| {
            node.report(addr, self.fresh(now, addr), head, primary != Some(addr))
        };
        self.nodes.iter().map(report).collect()
    }
}

impl Judge for StandaloneJudge {
    type Seen = Seen;

    fn see(&mut self, now: Moment, seen: Seen) {
        match seen {
            Seen::Hint(addr) => {
                if let Some(node) = self.nodes.get_mut(&addr) {
                    node.hurry();
                }
            }
            Seen::Role { addr, role } => {
                if let Some(node) = self.nodes.get_mut(&addr) {
                    node.see(now, role);
                }
            }
        }
    }

    fn judge(&mut self, now: Moment) -> Verdict {
        let (primary, cause) = self.choose(now);
        if let Some(primary) = &primary {
            self.served = self.current.as_ref() == Some(primary);
            self.current = Some(primary.clone());
        }
        if self.shown != primary {
            self.shown.clone_from(&primary);
            self.changed_at = self.judged_at;
        }
        self.judged_at = now;
        let every = if primary.is_some() {
            self.interval
        } else {
            EAGER.min(self.interval)
        };
        let probe = |(addr, node): (&Addr, &mut NodeView)| {
            let urgent = node.urgency(now);
            (addr.clone(), Pace { every, urgent })
        };
        let probes = self.nodes.iter_mut().map(probe).collect();
        let proof = primary
            .as_ref()
            .and_then(|p| self.nodes.get(p))
            .and_then(|n| n.master_since);
        Verdict {
            fence: false,
            // Its word, or what stood in its way until then.
            evidence_at: proof.map_or(now, |at| at.max(self.changed_at)),
            troubles: self.troubles(now, primary.as_ref()),
            nodes: self.reports(now, primary.as_ref()),
            sources: Vec::new(),
            probes,
            ask_again: 0,
            recheck: Some(now + RECHECK),
            notes: Vec::new(),
            conclusion: Conclusion {
                leaving: None,
                replicas: self.replicas(now, primary.as_ref()),
                primary,
                term: None,
                cause,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Credentials;

    fn addr(name: char) -> Addr {
        format!("10.0.0.{}:6379", u32::from(name) - 96)
            .parse()
            .unwrap()
    }

    fn master(followed: bool) -> Role {
        Role::Master {
            offset: 1,
            replicas: followed.then(|| (addr('c'), 1)).into_iter().collect(),
        }
    }

    fn replica() -> Role {
        Role::Replica {
            master: Some(addr('a')),
            connected: true,
            offset: 1,
        }
    }

    fn down() -> Role {
        Role::Down("refused".into())
    }

    /// `a=M` master with replicas, `m` without, `r` replica, `d` down, `b` busy; `+ms` waits.
    fn play(script: &str) -> (StandaloneJudge, Verdict) {
        let node = |name| NodeSpec {
            addr: addr(name),
            server_name: None,
            region: None,
        };
        let mut judge = StandaloneJudge::new(&RedisSpec {
            nodes: ['a', 'b', 'c'].map(node).into(),
            credentials: Credentials::default(),
            probe_interval: Duration::from_secs(1),
        });
        let mut ms = 0;
        for word in script.split_whitespace() {
            if let Some(wait) = word.strip_prefix('+') {
                ms += wait.parse::<u64>().unwrap();
            } else {
                let (name, role) = word.split_once('=').unwrap();
                let role = match role {
                    "M" => master(true),
                    "m" => master(false),
                    "r" => replica(),
                    "b" => Role::Busy("BUSY".into()),
                    _ => down(),
                };
                let addr = addr(name.chars().next().unwrap());
                judge.see(Moment::from_millis(ms), Seen::Role { addr, role });
            }
            judge.judge(Moment::from_millis(ms));
        }
        let verdict = judge.judge(Moment::from_millis(ms));
        (judge, verdict)
    }

    #[test]
    fn who_is_primary() {
        use Cause::{Conflict, RoleLost, Start, Unproven};
        let table: [(&str, Result<char, Cause>, &str); 19] = [
            ("", Err(Start), "no server"),
            // The first to answer may be a stray one.
            ("b=m", Err(Start), ""),
            ("b=m c=r", Err(Start), ""),
            ("b=m c=r a=M", Ok('a'), "several masters"),
            ("b=m c=d a=d", Ok('b'), "10.0.0.1:6379: refused"),
            ("a=M b=r c=r", Ok('a'), ""),
            ("a=m b=r c=r", Ok('a'), ""),
            ("a=m b=m c=r", Err(Conflict), "several masters"),
            ("a=M b=M c=r", Err(Conflict), "several masters"),
            ("a=r b=r c=r", Err(Start), "no server"),
            // The present one stays while it is fresh, whatever the other says.
            ("a=m b=r c=r b=M", Ok('a'), "several masters"),
            ("a=M b=r c=r +100 b=m a=d", Ok('b'), "refused"),
            ("a=M b=r c=r +100 b=m a=d +100 a=M", Ok('b'), "several"),
            ("a=M b=r c=r a=r", Err(RoleLost), "no server"),
            ("a=M b=r c=r a=d", Err(Unproven), "no server"),
            ("a=M b=r c=r a=b +2000", Ok('a'), ""),
            ("a=M b=r c=r a=b +2400", Err(Unproven), "no server"),
            ("a=M b=r c=r +2400", Err(Unproven), "silent"),
            ("a=M b=r c=r +2400 b=M c=M", Ok('b'), "several"),
        ];
        for (script, expected, trouble) in table {
            let (_, verdict) = play(script);
            let conclusion = verdict.conclusion;
            let got = conclusion.primary.ok_or(conclusion.cause);
            assert_eq!(got, expected.map(addr), "{script}");
            let said: Vec<String> = verdict.troubles.iter().map(ToString::to_string).collect();
            let found = said.iter().any(|t| t.contains(trouble));
            assert!(found || trouble.is_empty(), "{script}: {said:?}");
        }
    }

    #[test]
    fn replicas_hints_and_evidence() {
        let (mut judge, verdict) = play("a=M b=r c=r +5000 a=M b=r c=d");
        assert_eq!(verdict.conclusion.replicas, [addr('b')]);
        judge.see(Moment::from_millis(5000), Seen::Hint(addr('a')));
        judge.see(Moment::from_millis(5000), Seen::Hint(addr('z')));
        let hinted = judge.judge(Moment::from_millis(5000));
        assert_eq!(hinted.probes[&addr('a')].urgent, 1);
        assert_eq!(hinted.probes.len(), 3);

        // One that said master for long is new as primary only since the other is gone.
        let (_, verdict) = play("a=M b=m c=r +2000 a=M b=m +2000 a=d b=m");
        assert_eq!(verdict.conclusion.primary, Some(addr('b')));
        assert!(verdict.evidence_at >= Moment::from_millis(2000));
    }
}
