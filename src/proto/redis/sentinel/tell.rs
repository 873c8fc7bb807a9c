//! What the judge shows: troubles, servers, sentinels, and whom it wants probed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::answer::Answer;
use super::fence::{Promotion, Stage};
use super::judge::SentinelJudge;
use super::view::SentinelView;
use crate::addr::Addr;
use crate::clock::Moment;
use crate::monitor::report::{NodeReport, SourceReport};
use crate::monitor::{Pace, Trouble};
use crate::proto::redis::node::{EAGER, NodeView};

/// How often a server is asked that is being promoted.
const PROMOTING: Duration = Duration::from_millis(10);
/// Servers probed at most, whatever sentinels claim.
pub(super) const MAX_NODES: usize = 64;

impl SentinelJudge {
    /// Who answers, and who counts.
    fn sentinel_trouble(&self, now: Moment) -> Option<Trouble> {
        let of = self.sentinels.len();
        let answers = || self.sentinels.iter().filter_map(|s| s.says(now));
        let unknown = |a: &&Answer| matches!(a, Answer::UnknownMaster);
        let count = self.counting(now);
        if answers().count() == 0 {
            Some(Trouble::NoSentinel { of })
        } else if answers().all(|a| unknown(&a)) {
            let master = self.spec.master.clone();
            Some(Trouble::UnknownMaster { master })
        } else if count < self.majority() {
            Some(Trouble::Minority { count, of })
        } else {
            None
        }
    }

    pub(super) fn troubles(&self, now: Moment, primary: Option<&Addr>) -> Vec<Trouble> {
        let mut troubles: Vec<Trouble> = self.sentinel_trouble(now).into_iter().collect();
        let named: BTreeSet<&Addr> = self.claims(now).map(|c| c.master).collect();
        if named.len() > 1 && !named.iter().any(|a| self.majority_names(now, a)) {
            troubles.push(Trouble::Disagreement {
                named: named.iter().map(|&a| a.clone()).collect(),
            });
        }
        for &addr in &named {
            if primary != Some(addr) && !self.is_master(now, addr) {
                let node = self.nodes.get(addr).cloned().unwrap_or_default();
                let why = node.why_not_master(now, self.lease());
                troubles.push(Trouble::NotProven {
                    addr: addr.clone(),
                    why,
                });
            }
        }
        if let (Some(to), Some(from)) = (self.older_rival(now), &self.accepted) {
            troubles.push(Trouble::EpochWentBack {
                from: from.term.0,
                to: to.term.0,
            });
        }
        let provisional = |p: &&Promotion| {
            matches!(
                p.stage,
                Stage::Provisional { .. } | Stage::Unconfirmed { .. }
            )
        };
        let provisional = self.promotions.iter().filter(provisional);
        troubles.extend(provisional.map(|p| Trouble::Provisional {
            addr: p.replica.clone(),
        }));
        troubles.extend(self.fenced(now).map(|why| Trouble::Fenced { why }));
        let silent = self.sentinels.iter().filter(|s| !s.counts(now));
        troubles.extend(silent.filter(|s| s.is_known()).map(|s| Trouble::Source {
            name: format!("sentinel {}", s.addr),
            why: s.describe(now),
        }));
        troubles
    }

    pub(super) fn replicas(&self, now: Moment, primary: Option<&Addr>) -> Vec<Addr> {
        let Some(primary) = primary.or(self.accepted.as_ref().map(|a| &a.addr)) else {
            return Vec::new();
        };
        let fit = |node: &NodeView| node.is_fit_replica(now, self.lease(), primary);
        let fit = self
            .nodes
            .iter()
            .filter(|&(addr, node)| addr != primary && fit(node));
        fit.map(|(addr, _)| addr.clone()).collect()
    }

    pub(super) fn node_reports(&self, now: Moment, primary: Option<&Addr>) -> Vec<NodeReport> {
        let head = primary
            .and_then(|p| self.nodes.get(p))
            .and_then(NodeView::offset);
        let report = |(addr, node): (&Addr, &NodeView)| {
            node.report(
                addr,
                node.fresh(now, self.lease()),
                head,
                primary != Some(addr),
            )
        };
        self.nodes.iter().map(report).collect()
    }

    /// Whom to probe and how often. Those that matter first: there is no room for all replicas that
    /// a sentinel can invent.
    fn wanted(&self, now: Moment) -> BTreeMap<Addr, Duration> {
        let steady = self.spec.probe_interval;
        let mut wanted: BTreeMap<Addr, Duration> = BTreeMap::new();
        for Promotion { replica, stage, .. } in &self.promotions {
            let every = match stage {
                Stage::Awaiting | Stage::Provisional { .. } => PROMOTING,
                Stage::Deposing { .. } | Stage::Unconfirmed { .. } => EAGER,
            };
            wanted.insert(replica.clone(), every.min(steady));
        }
        let accepted = self.accepted.iter().map(|a| &a.addr);
        for addr in accepted.chain(self.claims(now).map(|c| c.master)) {
            let proven = self.is_master(now, addr);
            let every = if proven { steady } else { EAGER.min(steady) };
            wanted.entry(addr.clone()).or_insert(every);
        }
        // One of each sentinel at a time, so that none of them takes all the room.
        let longest = self.sentinels.iter().map(|s| s.replicas().len()).max();
        for index in 0..longest.unwrap_or(0) {
            for replica in self
                .sentinels
                .iter()
                .filter_map(|s| s.replicas().get(index))
            {
                if wanted.len() < MAX_NODES {
                    wanted.entry(replica.clone()).or_insert(steady);
                }
            }
        }
        wanted
    }

    pub(super) fn probes(&mut self, now: Moment) -> BTreeMap<Addr, Pace> {
        let wanted = self.wanted(now);
        self.nodes.retain(|addr, _| wanted.contains_key(addr));
        let pace = |(addr, every): (Addr, Duration)| {
            let node = self.nodes.entry(addr.clone()).or_default();
            let urgent = node.urgency(now);
            (addr, Pace { every, urgent })
        };
        wanted.into_iter().map(pace).collect()
    }

    pub(super) fn sources(&self, now: Moment) -> Vec<SourceReport> {
        let report = |s: &SentinelView| SourceReport {
            address: s.addr.clone(),
            up: s.says(now).is_some(),
            says: s.describe(now),
        };
        self.sentinels.iter().map(report).collect()
    }
}
