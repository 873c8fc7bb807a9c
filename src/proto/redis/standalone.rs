//! Redis without sentinels: the node whose own ROLE is master.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;

use super::node::{self, EAGER, NodeView};
use super::probers::Probers;
use super::role::{Prober, Role};
use crate::addr::Addr;
use crate::clock::Moment;
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
        let make = move |addr: &Addr| Prober {
            addr: addr.clone(),
            server_name: names.get(addr).cloned().flatten(),
            dialer: dialer.clone(),
            credentials: credentials.clone(),
            clock,
            probe_seconds: probe_seconds.clone(),
        };
        let hint_tx = seen_tx.clone();
        let mut probers = Probers::new(seen_tx, |addr, role| Seen::Role { addr, role }, make);
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
            evidence_at: proof.unwrap_or(now),
            troubles: self.troubles(now, primary.as_ref()),
            nodes: self.reports(now, primary.as_ref()),
            sources: Vec::new(),
            probes,
            ask_again: 0,
            recheck: Some(now + RECHECK),
            notes: Vec::new(),
            conclusion: Conclusion {
                replicas: self.replicas(now, primary.as_ref()),
                primary,
                term: None,
                cause,
            },
        }
    }
}
