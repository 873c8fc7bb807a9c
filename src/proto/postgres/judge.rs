//! Who is primary: the server of the right system that is not in recovery, on the highest timeline.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::{Answer, Says};
use super::node::{EAGER, NodeView, Rules};
use crate::addr::Addr;
use crate::clock::Moment;
use crate::monitor::{Judge, NodeReport, Pace, Trouble, Verdict};
use crate::proto::spec::PostgresSpec;
use crate::topology::reduce::Conclusion;
use crate::topology::{Cause, Term};

/// Between looks, when only time can change the verdict.
const RECHECK: Duration = Duration::from_millis(100);

/// What the shell saw.
#[derive(Clone, Debug)]
pub enum Seen {
    Answer { addr: Addr, answer: Answer },
    Hint(Addr),
}

/// The state of one service's judgement. Pure.
pub struct PostgresJudge {
    nodes: BTreeMap<Addr, NodeView>,
    /// As the config lists them.
    order: Vec<Addr>,
    interval: Duration,
    rules: Rules,
    max_lag: u64,
    /// The system identifier of the first proof.
    system: Option<i64>,
    /// The highest timeline that any primary of this system was ever seen on. Nothing older counts.
    newest: u64,
    /// The last primary and its timeline.
    current: Option<(Addr, u64)>,
    /// Where the last primary's log ended, and when it said so.
    head: Option<(u64, Moment)>,
    /// The last verdict's primary, and until when it was another.
    shown: Option<Addr>,
    changed_at: Moment,
    judged_at: Moment,
}

/// A server that says it is a primary of the right system.
#[derive(Clone, Copy)]
struct Claim<'a> {
    addr: &'a Addr,
    timeline: u64,
    read_only: bool,
}

impl PostgresJudge {
    pub fn new(spec: &PostgresSpec) -> Self {
        let order: Vec<Addr> = spec.nodes.iter().map(|n| n.addr.clone()).collect();
        Self {
            nodes: order
                .iter()
                .map(|a| (a.clone(), NodeView::default()))
                .collect(),
            order,
            interval: spec.probe.interval,
            rules: Rules::of(&spec.probe),
            max_lag: spec.max_lag,
            system: None,
            newest: 0,
            current: None,
            head: None,
            shown: None,
            changed_at: Moment::default(),
            judged_at: Moment::default(),
        }
    }

    fn fresh(&self, now: Moment, addr: &Addr) -> Option<(&Says, Moment)> {
        self.nodes.get(addr)?.fresh(now, self.rules)
    }

    fn says(&self, now: Moment) -> impl Iterator<Item = (&Addr, &Says)> {
        let says = move |addr| Some((addr, self.fresh(now, addr)?.0));
        self.order.iter().filter_map(says)
    }

    /// The system that all this is about: that of the first proof; before it, the one that more servers
    /// belong to than to any other.
    fn system(&self, now: Moment) -> Option<i64> {
        if self.system.is_some() {
            return self.system;
        }
        let mut votes: BTreeMap<i64, usize> = BTreeMap::new();
        for (_, says) in self.says(now) {
            *votes.entry(says.system()).or_default() += 1;
        }
        let most = votes.values().copied().max()?;
        let mut winners = votes.iter().filter(|(_, n)| **n == most);
        match (winners.next(), winners.next()) {
            (Some((system, _)), None) => Some(*system),
            _ => None,
        }
    }

    fn claims(&self, now: Moment) -> Vec<Claim<'_>> {
        let Some(ours) = self.system(now) else {
            return Vec::new();
        };
        let claim = |(addr, says): (_, &Says)| match says {
            Says::Primary {
                system,
                timeline,
                read_only,
                ..
            } if *system == ours => Some(Claim {
                addr,
                timeline: *timeline,
                read_only: *read_only,
            }),
            _ => None,
        };
        self.says(now).filter_map(claim).collect()
    }

    fn choose(&self, now: Moment) -> (Option<(Addr, u64)>, Cause) {
        // The first to answer is not the only one there is. Who does not answer has said so within a few
        // timeouts.
        let waiting = || !self.nodes.values().all(NodeView::is_known);
        if self.current.is_none() && waiting() {
            return (None, Cause::Start);
        }
        let primary = |(_, says): &(&Addr, &Says)| matches!(says, Says::Primary { .. });
        if self.system(now).is_none() && self.says(now).any(|said| primary(&said)) {
            return (None, Cause::Conflict);
        }
        let claims = self.claims(now);
        let newest = claims.iter().map(|c| c.timeline).max().unwrap_or(0);
        let newest = newest.max(self.newest);
        let top: Vec<&Claim> = claims.iter().filter(|c| c.timeline == newest).collect();
        let chosen = match top.as_slice() {
            [] => return (None, self.absence(now)),
            [only] => *only,
            _ => return (None, Cause::Conflict),
        };
        let is_current = |(addr, _): &(Addr, u64)| addr == chosen.addr;
        let cause = match &self.current {
            None => Cause::Proven,
            Some(current) if is_current(current) => Cause::Returned,
            // A standby that is promoted begins a timeline. Whoever is primary without that is a copy.
            Some((_, timeline)) if *timeline >= chosen.timeline => {
                return (None, self.absence(now));
            }
            Some(_) => Cause::Promoted,
        };
        if chosen.read_only {
            return (None, self.absence(now));
        }
        (Some((chosen.addr.clone(), chosen.timeline)), cause)
    }

    fn absence(&self, now: Moment) -> Cause {
        let Some((current, timeline)) = &self.current else {
            return Cause::Start;
        };
        let fresh = self.fresh(now, current);
        match fresh.filter(|(says, _)| self.system == Some(says.system())) {
            Some((Says::Standby { .. }, _)) => Cause::RoleLost,
            Some((Says::Primary { .. }, _)) if *timeline < self.newest => Cause::Deposed,
            Some((Says::Primary { .. }, _)) => Cause::RoleLost,
            None => Cause::Unproven,
        }
    }

    /// Why a server that says it is primary is not, if it is not.
    fn objection(&self, addr: &Addr, says: &Says) -> Option<String> {
        let theirs = says.system();
        if let Some(ours) = self.system.filter(|ours| *ours != theirs) {
            return Some(format!(
                "it belongs to another cluster: its system identifier is {theirs}, not {ours}"
            ));
        }
        let Says::Primary {
            timeline,
            read_only,
            ..
        } = says
        else {
            return None;
        };
        let current = self.current.as_ref().filter(|(a, _)| a != addr);
        if *timeline < self.newest {
            let newest = self.newest;
            return Some(format!(
                "it says primary on timeline {timeline}, and timeline {newest} has begun"
            ));
        }
        if let Some((other, _)) = current.filter(|(_, t)| t == timeline) {
            return Some(format!(
                "it says primary on timeline {timeline}, which is {other}'s"
            ));
        }
        read_only.then(|| "default_transaction_read_only is on".to_owned())
    }

    /// How far behind a standby is, and why it gets no reads if it gets none.
    ///
    /// Against what was known of the primary when the standby answered: who is asked later must not look
    /// better or worse for it than it is.
    fn behind(&self, addr: &Addr, says: &Says, at: Moment) -> (Option<u64>, Option<String>) {
        let Says::Standby {
            replayed,
            receives,
            timeline,
            ..
        } = says
        else {
            return (None, None);
        };
        let (Some((head, head_at)), Some(replayed)) = (self.head, *replayed) else {
            return (None, Some("how far it is behind is not known".to_owned()));
        };
        let then = self.nodes.get(addr).and_then(|node| node.head);
        let lag = then.unwrap_or(head).saturating_sub(replayed);
        let why = if *receives && timeline.is_some_and(|t| t < self.newest) {
            Some("it follows an older timeline".to_owned())
        } else if replayed > head && head_at > at {
            // The primary was asked later, and its log only grows.
            Some("it is ahead of the primary: it has another history".to_owned())
        } else if lag > self.max_lag {
            Some(format!("it is {lag} bytes behind"))
        } else {
            None
        };
        (Some(lag), why)
    }

    fn replicas(&self, now: Moment) -> Vec<Addr> {
        let fit = |addr: &&Addr| {
            let Some((says, at)) = self.fresh(now, addr) else {
                return false;
            };
            matches!(says, Says::Standby { .. })
                && self.system == Some(says.system())
                && self.behind(addr, says, at).1.is_none()
        };
        self.order.iter().filter(fit).cloned().collect()
    }

    fn note_choice(&mut self, now: Moment, chosen: &(Addr, u64), notes: &mut Vec<String>) {
        let (addr, timeline) = chosen;
        if let Some((Says::Primary { system, lsn, .. }, at)) = self.fresh(now, addr) {
            let (system, lsn) = (*system, *lsn);
            if self.system.is_none() {
                notes.push(format!(
                    "system identifier {system}, timeline {timeline}: nothing else, and nothing older, from now on"
                ));
            }
            self.system = Some(system);
            self.head = Some((lsn, at));
        }
        self.current = Some(chosen.clone());
    }

    fn troubles(&self, now: Moment, primary: Option<&Addr>) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let claims = self.claims(now);
        let newest = claims.iter().map(|c| c.timeline).max().unwrap_or(0);
        let rivals: Vec<Addr> = match self.system(now) {
            // Nobody knows which of them is ours.
            None => self
                .says(now)
                .filter(|(_, says)| matches!(says, Says::Primary { .. }))
                .map(|(addr, _)| addr.clone())
                .collect(),
            Some(_) => claims
                .iter()
                .filter(|c| c.timeline == newest)
                .map(|c| c.addr.clone())
                .collect(),
        };
        if rivals.len() > 1 {
            troubles.push(Trouble::Conflict { addrs: rivals });
        } else if primary.is_none() {
            troubles.push(Trouble::NoPrimary);
        }
        for addr in &self.order {
            troubles.extend(self.trouble_of(now, addr, primary));
        }
        // Those that degrade come first.
        troubles.sort_by_key(|trouble| !trouble.degrades());
        troubles
    }

    fn trouble_of(&self, now: Moment, addr: &Addr, primary: Option<&Addr>) -> Option<Trouble> {
        let node = self.nodes.get(addr)?;
        let source = |why: String| Trouble::Source {
            name: addr.to_string(),
            why,
        };
        let Some((says, at)) = node.fresh(now, self.rules) else {
            let silent = || "no answer for too long".to_owned();
            let said = node
                .is_known()
                .then(|| node.trouble.clone().unwrap_or_else(silent));
            return said.map(source);
        };
        if let Some(why) = self.objection(addr, says) {
            let addr = addr.clone();
            return Some(Trouble::Stray { addr, why });
        }
        match says {
            Says::Standby { paused: true, .. } => Some(source("replay is paused".to_owned())),
            Says::Standby { .. } if primary.is_some() => self.behind(addr, says, at).1.map(source),
            _ => node.trouble.clone().map(source),
        }
    }

    fn report(&self, now: Moment, addr: &Addr, primary: Option<&Addr>) -> Option<NodeReport> {
        let node = self.nodes.get(addr)?;
        let (mut role, mut lag_bytes, mut detail) = ("unknown", None, node.trouble.clone());
        if let Some((says, at)) = node.fresh(now, self.rules) {
            let objection = self.objection(addr, says);
            (role, lag_bytes, detail) = match says {
                Says::Primary { .. } => ("primary", None, objection.or(detail)),
                Says::Standby { paused, .. } => {
                    let (lag, why) = self.behind(addr, says, at);
                    let paused = paused.then(|| "replay is paused".to_owned());
                    ("standby", lag, objection.or(paused).or(why).or(detail))
                }
            };
            if Some(addr) == primary {
                detail = node.trouble.clone();
            }
        } else if node.is_down() {
            role = "down";
        }
        if node.busy && role != "primary" {
            role = "busy";
        }
        Some(NodeReport {
            address: addr.clone(),
            role,
            up: matches!(role, "primary" | "standby" | "busy"),
            lag_seconds: None,
            lag_bytes,
            detail,
        })
    }

    fn probes(&mut self, now: Moment, bereft: bool) -> BTreeMap<Addr, Pace> {
        let (interval, eager) = (self.interval, EAGER.min(self.interval));
        let probe = |(addr, node): (&Addr, &mut NodeView)| {
            let every = if bereft || node.is_on_its_way() {
                eager
            } else {
                interval
            };
            let urgent = node.urgency(now);
            (addr.clone(), Pace { every, urgent })
        };
        self.nodes.iter_mut().map(probe).collect()
    }
}

impl Judge for PostgresJudge {
    type Seen = Seen;

    fn see(&mut self, now: Moment, seen: Seen) {
        match seen {
            Seen::Hint(addr) => {
                if let Some(node) = self.nodes.get_mut(&addr) {
                    node.hurry();
                }
            }
            Seen::Answer { addr, answer } => {
                if let Some(node) = self.nodes.get_mut(&addr) {
                    node.see(now, answer, self.rules);
                    node.head = self.head.map(|(head, _)| head);
                }
            }
        }
    }

    fn judge(&mut self, now: Moment) -> Verdict {
        let (chosen, cause) = self.choose(now);
        let mut notes = Vec::new();
        if let Some(chosen) = &chosen {
            self.note_choice(now, chosen, &mut notes);
        }
        // Once the system is known, a timeline that was seen has begun, whoever leads it.
        if self.system.is_some() {
            let seen = self.claims(now).iter().map(|c| c.timeline).max();
            self.newest = self.newest.max(seen.unwrap_or(0));
        }
        let primary = chosen.map(|(addr, _)| addr);
        if self.shown != primary {
            self.shown.clone_from(&primary);
            self.changed_at = self.judged_at;
        }
        self.judged_at = now;
        let node = primary.as_ref().and_then(|p| self.nodes.get(p));
        let proof = node.map(|node| node.since);
        let evidence_at = proof.map_or(now, |at| at.max(self.changed_at));
        let probes = self.probes(now, primary.is_none());
        let reports = self.order.iter();
        Verdict {
            fence: false,
            evidence_at,
            troubles: self.troubles(now, primary.as_ref()),
            nodes: reports
                .filter_map(|addr| self.report(now, addr, primary.as_ref()))
                .collect(),
            sources: Vec::new(),
            probes,
            ask_again: 0,
            recheck: Some(now + RECHECK),
            notes,
            conclusion: Conclusion {
                leaving: None,
                replicas: self.replicas(now),
                primary,
                term: self.current.as_ref().map(|(_, timeline)| Term(*timeline)),
                cause,
            },
        }
    }
}

#[cfg(test)]
mod tests;
