//! Galera and Percona XtraDB clusters: one writer, the same for every sidecar of a region. Pure.
//!
//! Every node could be written to; what would happen is certification conflicts, which applications see as
//! deadlocks. So all sidecars choose by the same rule from the same facts: the first fit node of the own
//! region, then of the others, in the order of the config. Losing the writer switches at once. A better node
//! that comes (back) takes over when it has been fit for `failback_after`.

pub mod facts;
mod order;
mod show;

use std::collections::BTreeSet;
use std::time::Duration;

use self::facts::Facts;
use super::node::{EAGER, NodeView, Standing};
use super::watch::Seen;
use crate::addr::Addr;
use crate::clock::Moment;
use crate::monitor::{Judge, Pace, Verdict};
use crate::proto::spec::{GaleraSpec, NodeSpec};
use crate::topology::reduce::Conclusion;
use crate::topology::{Cause, Term};

/// How long sessions on a writer that is still fit may take to end what they began.
pub const FINISH: Duration = Duration::from_secs(10);
/// Nodes that see different components for so long are not just answering at different moments.
const PARTED: Duration = Duration::from_secs(3);
/// Between looks, when only time can change the verdict.
const RECHECK: Duration = Duration::from_millis(100);
/// Nodes that were started within so long of each other, in seconds, count as started together.
const TOGETHER: u64 = 5;

struct Node {
    addr: Addr,
    view: NodeView<Facts>,
    standing: Standing,
}

/// The state of one cluster's judgement.
pub struct GaleraJudge {
    spec: GaleraSpec,
    /// As they are preferred.
    nodes: Vec<Node>,
    /// The same without an operator's word.
    usual: Vec<Addr>,
    /// An operator's word.
    preferred: Option<Addr>,
    /// It was just said: the preferred node need not prove itself first.
    at_once: bool,
    /// The accepted writer, proven now or not.
    current: Option<usize>,
    /// Whether the last verdict named it.
    served: bool,
    leaving: Option<(usize, Moment)>,
    /// The history that the accepted writer's data belongs to.
    history: Option<String>,
    term: Option<u64>,
    /// Since when all that is seen is older than the term.
    behind_since: Option<Moment>,
    parted_since: Option<Moment>,
    /// Since when all who say that they are primary are of one component.
    united_since: Moment,
    evidence_at: Moment,
    notes: Vec<String>,
}

/// What stands in the way of choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conflict {
    /// Nodes of different histories say that they are primary.
    Histories,
    /// So do nodes of different components of one cluster.
    Components,
}

impl GaleraJudge {
    pub fn new(spec: &GaleraSpec, region: Option<&str>) -> Self {
        let own = |node: &&NodeSpec| region.is_some() && node.region.as_deref() == region;
        let (near, far): (Vec<_>, Vec<_>) = spec.nodes.iter().partition(own);
        let node = |it: &NodeSpec| Node {
            addr: it.addr.clone(),
            view: NodeView::default(),
            standing: Standing::Unknown,
        };
        let nodes: Vec<Node> = near.into_iter().chain(far).map(node).collect();
        Self {
            usual: nodes.iter().map(|node| node.addr.clone()).collect(),
            preferred: None,
            at_once: false,
            nodes,
            spec: spec.clone(),
            current: None,
            served: false,
            leaving: None,
            history: None,
            term: None,
            behind_since: None,
            parted_since: None,
            united_since: Moment::default(),
            evidence_at: Moment::default(),
            notes: Vec::new(),
        }
    }

    fn fresh(&self, now: Moment, index: usize) -> Option<&Facts> {
        self.nodes[index].view.fresh(now, &self.spec.probe)
    }

    fn is_fit(&self, index: usize) -> bool {
        self.nodes[index].standing == Standing::Fit
    }

    /// Those that say that they are of a primary component.
    fn members(&self, now: Moment) -> impl Iterator<Item = (usize, &Facts)> {
        let fresh = move |index| Some((index, self.fresh(now, index)?));
        let all = (0..self.nodes.len()).filter_map(fresh);
        all.filter(|(_, facts)| facts.primary)
    }

    fn look_at_nodes(&mut self, now: Moment) {
        let (probe, accept_donor) = (self.spec.probe.clone(), self.spec.accept_donor);
        for node in &mut self.nodes {
            let flaw = |facts: &Facts| facts.flaw(accept_donor);
            node.standing = node.view.stand(now, &probe, flaw);
        }
        let parts: BTreeSet<(u64, u64)> = self.members(now).map(|(_, f)| f.component).collect();
        if parts.len() > 1 {
            self.parted_since.get_or_insert(now);
        } else if self.parted_since.take().is_some() {
            self.united_since = now;
        }
    }

    fn conflict(&self, now: Moment) -> Option<Conflict> {
        let seen = self.members(now).map(|(_, facts)| facts.history.as_str());
        let mut histories: BTreeSet<&str> = seen.collect();
        histories.extend(self.history.as_deref().filter(|_| !histories.is_empty()));
        if histories.len() > 1 {
            return Some(Conflict::Histories);
        }
        let parted = self.parted_since.is_some_and(|at| now.since(at) >= PARTED);
        parted.then_some(Conflict::Components)
    }

    /// A cluster that was founded anew has another history. That is believed when most of the configured
    /// nodes have it, and none is left that has the old one: one node that was started wrongly is no cluster.
    fn adopt_history(&mut self, now: Moment) {
        let histories: Vec<String> = self.members(now).map(|(_, f)| f.history.clone()).collect();
        let Some((first, others)) = histories.split_first() else {
            return;
        };
        let most = histories.len() * 2 > self.nodes.len();
        if self.history.is_some()
            && most
            && others.iter().all(|h| h == first)
            && Some(first) != self.history.as_ref()
        {
            self.notes.push(format!(
                "the cluster was founded anew: its history is {first}"
            ));
            self.history = Some(first.clone());
        }
    }

    /// The writer, or why there is none.
    fn choose(&mut self, now: Moment) -> Result<(usize, Cause), Cause> {
        let conflict = self.conflict(now);
        let Some(current) = self.current else {
            return self.first_choice(now, conflict);
        };
        match &self.nodes[current].standing {
            Standing::Unknown => Err(Cause::Unproven),
            // It was given another history under our eyes.
            Standing::Fit if !self.is_own(now, current) => Err(Cause::Conflict),
            Standing::Fit => match self.better(now, current) {
                Some(better) if conflict.is_none() => Ok((better, Cause::Preferred)),
                _ => Ok((current, Cause::Returned)),
            },
            Standing::Unfit(_) if conflict.is_some() => Err(Cause::Conflict),
            Standing::Unfit(_) => match self.successor() {
                Some(next) => Ok((next, Cause::Successor)),
                None if self.fresh(now, current).is_some() => Err(Cause::RoleLost),
                None => Err(Cause::Unproven),
            },
        }
    }

    fn is_own(&self, now: Moment, index: usize) -> bool {
        let facts = self.fresh(now, index);
        facts.is_some_and(|facts| Some(&facts.history) == self.history.as_ref())
    }

    /// The first to answer may be the last in the order: the first choice hears them all. Who does not
    /// answer has said so within a few probes' time.
    fn first_choice(
        &self,
        now: Moment,
        conflict: Option<Conflict>,
    ) -> Result<(usize, Cause), Cause> {
        if self
            .nodes
            .iter()
            .any(|node| node.standing == Standing::Unknown)
        {
            return Err(Cause::Start);
        }
        if conflict.is_some() {
            return Err(Cause::Conflict);
        }
        if self.parted_since.is_some() {
            return Err(Cause::Start);
        }
        // Sidecars that have been here for longer did not wait for nodes that were not there yet. When
        // each node was started tells which one they chose.
        let fit = |index: usize| self.is_fit(index).then(|| self.fresh(now, index)).flatten();
        let all = 0..self.nodes.len();
        let eldest = all
            .clone()
            .filter_map(fit)
            .map(|f| f.uptime)
            .max()
            .ok_or(Cause::Start)?;
        let long = self.spec.failback_after.as_secs();
        let was_there = |f: &Facts| f.uptime >= long || f.uptime + TOGETHER >= eldest;
        let chosen = all.clone().find(|&index| fit(index).is_some_and(was_there));
        chosen
            .map(|index| (index, Cause::Proven))
            .ok_or(Cause::Start)
    }

    /// A node that is preferred to the writer and has been fit for long enough. One that was frozen or cut off
    /// calls itself a synced member of the component of then until it finds out, which may take it ten
    /// seconds: while nodes name different components nobody is better, and the time counts from when they agree.
    fn better(&self, now: Moment, current: usize) -> Option<usize> {
        if self.parted_since.is_some() {
            return None;
        }
        let settled = |node: &Node| {
            let fit = node.standing == Standing::Fit;
            let since = node.view.since().max(self.united_since);
            let long = now.since(since) >= self.spec.failback_after;
            fit && (long || self.is_wanted_now(&node.addr))
        };
        self.nodes[..current].iter().position(settled)
    }

    /// The best fit node. None is chosen over one that is preferred and about to be heard.
    fn successor(&self) -> Option<usize> {
        let decided = |node: &&Node| node.standing != Standing::Unknown;
        let heard = self.nodes.iter().take_while(decided);
        heard
            .into_iter()
            .position(|node| node.standing == Standing::Fit)
    }

    fn accept(&mut self, now: Moment, chosen: usize, cause: Cause) {
        let before = self.current.filter(|before| *before != chosen);
        if let Some(before) = before {
            self.leaving = None;
            if cause == Cause::Preferred {
                self.leaving = Some((before, now + FINISH));
                self.evidence_at = now;
            } else {
                let since = |index: usize| self.nodes[index].view.since();
                self.evidence_at = since(before).max(since(chosen));
            }
            if let Standing::Unfit(why) = &self.nodes[before].standing {
                let addr = &self.nodes[before].addr;
                self.notes
                    .push(format!("{addr} is not fit to write to: {why}"));
            }
        } else if !self.served {
            self.evidence_at = self.nodes[chosen].view.since();
        }
        self.current = Some(chosen);
        self.heed_word(chosen);
        let history = self.fresh(now, chosen).map(|facts| facts.history.clone());
        if self.history.is_none() {
            self.history = history;
        }
    }

    /// Counts what the nodes say of their component's age. It begins anew when all of a cluster was stopped:
    /// that is believed when nobody has said anything else for a while, and published with a writer.
    fn count_term(&mut self, now: Moment, proven: bool) -> bool {
        let newest = self.members(now).map(|(_, facts)| facts.component.0).max();
        let (Some(newest), Some(term)) = (newest, self.term) else {
            self.term = self.term.or(newest);
            return false;
        };
        if newest >= term {
            (self.term, self.behind_since) = (Some(newest), None);
            return false;
        }
        let since = *self.behind_since.get_or_insert(now);
        let anew = proven && now.since(since) >= PARTED;
        if anew {
            self.notes.push(format!(
                "the cluster began to count anew: from {term} to {newest}"
            ));
            (self.term, self.behind_since) = (Some(newest), None);
        }
        anew
    }

    fn leave(&mut self, now: Moment, primary: Option<usize>) -> Option<(Addr, Moment)> {
        let (index, until) = self.leaving?;
        if primary.is_none() || primary == Some(index) || now >= until || !self.is_fit(index) {
            self.leaving = None;
            return None;
        }
        Some((self.nodes[index].addr.clone(), until))
    }
}

impl Judge for GaleraJudge {
    type Seen = Seen<Facts>;

    fn see(&mut self, now: Moment, seen: Seen<Facts>) {
        let (Seen::Said { addr, .. } | Seen::Hint(addr)) = &seen else {
            if let Seen::Prefer(wish) = seen {
                self.prefer(wish);
            }
            return;
        };
        let accept_donor = self.spec.accept_donor;
        let Some(node) = self.nodes.iter_mut().find(|node| node.addr == *addr) else {
            return;
        };
        match seen {
            Seen::Hint(_) => node.view.hurry(),
            Seen::Prefer(_) => {}
            Seen::Said { said, .. } => {
                node.view.see(now, said, &self.spec.probe, |facts| {
                    facts.flaw(accept_donor)
                });
            }
        }
    }

    fn judge(&mut self, now: Moment) -> Verdict {
        self.look_at_nodes(now);
        self.adopt_history(now);
        let chosen = self.choose(now);
        if let Ok((index, cause)) = chosen {
            self.accept(now, index, cause);
        }
        let primary = chosen.ok().map(|(index, _)| index);
        let anew = self.count_term(now, primary.is_some());
        self.served = primary.is_some();
        let leaving = self.leave(now, primary);
        let every = match primary {
            Some(_) => self.spec.probe.interval,
            None => EAGER.min(self.spec.probe.interval),
        };
        let pace = |node: &mut Node| {
            let urgent = node.view.urgency(now);
            (node.addr.clone(), Pace { every, urgent })
        };
        let probes = self.nodes.iter_mut().map(pace).collect();
        Verdict {
            fence: false,
            evidence_at: self.evidence_at,
            troubles: self.troubles(now, primary),
            nodes: (0..self.nodes.len())
                .map(|index| self.report(now, index, primary))
                .collect(),
            sources: Vec::new(),
            probes,
            ask_again: 0,
            recheck: Some(now + RECHECK),
            notes: std::mem::take(&mut self.notes),
            conclusion: Conclusion {
                primary: primary.map(|index| self.nodes[index].addr.clone()),
                leaving,
                term: self.term.map(Term),
                cause: match chosen {
                    _ if anew => Cause::EpochReset,
                    Ok((_, cause)) | Err(cause) => cause,
                },
                replicas: self.replicas(now, primary),
            },
        }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
