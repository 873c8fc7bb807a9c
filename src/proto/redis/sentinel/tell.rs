//! What the judge shows: troubles, servers, sentinels, and whom it wants probed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::answer::Answer;
use super::fence::{Promotion, Stage};
use super::judge::SentinelJudge;
use super::view::{Heard, SentinelView};
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
    pub(super) fn troubles(&self, now: Moment, primary: Option<&Addr>) -> Vec<Trouble> {
        let of = self.sentinels.len();
        let counting = self.claims(now).count();
        let answering = self.sentinels.iter().filter(|s| s.answers(now)).count();
        let unknown = |s: &&SentinelView| matches!(s.heard, Heard::Answer(Answer::UnknownMaster));
        let unknown = self
            .sentinels
            .iter()
            .filter(|s| s.answers(now))
            .filter(unknown)
            .count();
        let mut troubles = Vec::new();
        if answering == 0 {
            troubles.push(Trouble::NoSentinel { of });
        } else if unknown == answering {
            troubles.push(Trouble::UnknownMaster {
                master: self.spec.master.clone(),
            });
        } else if counting < self.majority() {
            troubles.push(Trouble::Minority {
                count: counting,
                of,
            });
        }
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
        if let (Some((to, _)), Some(from)) = (&self.anew, &self.accepted) {
            troubles.push(Trouble::EpochWentBack {
                from: from.term.0,
                to: to.term.0,
            });
        }
        if let Some(Promotion {
            replica,
            stage: Stage::Provisional { .. } | Stage::Unconfirmed { .. },
            ..
        }) = &self.promotion
        {
            troubles.push(Trouble::Provisional {
                addr: replica.clone(),
            });
        }
        troubles.extend(self.fenced(now).map(|why| Trouble::Fenced { why }));
        let silent = self.sentinels.iter().filter(|s| s.claim(now).is_none());
        troubles.extend(
            silent
                .filter(|s| !matches!(s.heard, Heard::Nothing))
                .map(|s| Trouble::Source {
                    name: format!("sentinel {}", s.addr),
                    why: s.says(now),
                }),
        );
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

    pub(super) fn probes(&mut self, now: Moment) -> BTreeMap<Addr, Pace> {
        let steady = self.spec.probe_interval;
        let mut wanted: BTreeMap<Addr, Duration> = BTreeMap::new();
        for replica in self.sentinels.iter().flat_map(SentinelView::replicas) {
            wanted.insert(replica.clone(), steady);
        }
        let accepted = self.accepted.iter().map(|a| &a.addr);
        let named = self
            .sentinels
            .iter()
            .filter_map(|s| s.claim(now))
            .map(|c| c.master);
        for addr in accepted.chain(named) {
            let every = if self.is_master(now, addr) {
                steady
            } else {
                EAGER.min(steady)
            };
            wanted.insert(addr.clone(), every);
        }
        if let Some(promotion) = &self.promotion {
            wanted.insert(promotion.replica.clone(), PROMOTING);
        }
        while wanted.len() > MAX_NODES {
            wanted.pop_last();
        }
        self.nodes.retain(|addr, _| wanted.contains_key(addr));
        let pace = |(addr, every): (Addr, Duration)| {
            let node = self.nodes.entry(addr.clone()).or_default();
            (
                addr,
                Pace {
                    every,
                    urgent: node.urgent,
                },
            )
        };
        wanted.into_iter().map(pace).collect()
    }

    pub(super) fn sources(&self, now: Moment) -> Vec<SourceReport> {
        let report = |s: &SentinelView| SourceReport {
            address: s.addr.clone(),
            up: s.answers(now),
            says: s.says(now),
        };
        self.sentinels.iter().map(report).collect()
    }
}
