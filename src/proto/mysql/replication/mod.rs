//! MySQL and MariaDB with asynchronous replication: the one server that can be written to. Pure.
//!
//! Nobody but an operator (or their tool) promotes a server here. So a server that cannot be reached is not
//! replaced before another one says that it can be written to; and when two say so, the present one stays,
//! since what the other takes is lost sooner or later.

pub mod facts;

use std::time::Duration;

use self::facts::Server;
use super::node::{EAGER, NodeView, Standing};
use super::probe::Said;
use super::watch::Seen;
use crate::addr::Addr;
use crate::clock::Moment;
use crate::monitor::{Judge, NodeReport, Pace, Trouble, Verdict};
use crate::proto::spec::{MysqlSpec, NodeSpec};
use crate::topology::Cause;
use crate::topology::reduce::Conclusion;

/// Between looks, when only time can change the verdict.
const RECHECK: Duration = Duration::from_millis(100);

struct Node {
    addr: Addr,
    view: NodeView<Server>,
    standing: Standing,
}

/// The state of one service's judgement.
pub struct MysqlJudge {
    spec: MysqlSpec,
    nodes: Vec<Node>,
    /// The accepted primary, proven now or not.
    current: Option<usize>,
    served: bool,
    evidence_at: Moment,
    notes: Vec<String>,
}

impl MysqlJudge {
    pub fn new(spec: &MysqlSpec) -> Self {
        let node = |it: &NodeSpec| Node {
            addr: it.addr.clone(),
            view: NodeView::default(),
            standing: Standing::Unknown,
        };
        Self {
            nodes: spec.nodes.iter().map(node).collect(),
            spec: spec.clone(),
            current: None,
            served: false,
            evidence_at: Moment::default(),
            notes: Vec::new(),
        }
    }

    fn fresh(&self, now: Moment, index: usize) -> Option<&Server> {
        self.nodes[index].view.fresh(now, &self.spec.probe)
    }

    /// Those that can be written to.
    fn writable(&self) -> Vec<usize> {
        let fit = |index: &usize| self.nodes[*index].standing == Standing::Fit;
        (0..self.nodes.len()).filter(fit).collect()
    }

    fn choose(&self, now: Moment) -> Result<(usize, Cause), Cause> {
        let writable = self.writable();
        let unheard = self
            .nodes
            .iter()
            .any(|node| node.standing == Standing::Unknown);
        match (self.current, &writable[..]) {
            // Whatever others say of themselves.
            (Some(current), all) if all.contains(&current) => Ok((current, Cause::Returned)),
            // It may answer the next moment.
            (Some(current), _) if self.nodes[current].standing == Standing::Unknown => {
                Err(Cause::Unproven)
            }
            // The first to answer is not the only one there is.
            (None, _) if unheard => Err(Cause::Start),
            (None, [only]) => Ok((*only, Cause::Proven)),
            (None, []) => Err(Cause::Start),
            (Some(_), [only]) => Ok((*only, Cause::Successor)),
            (Some(current), []) => Err(match self.fresh(now, current) {
                Some(_) => Cause::RoleLost,
                None => Cause::Unproven,
            }),
            (_, _) => Err(Cause::Conflict),
        }
    }

    fn accept(&mut self, chosen: usize) {
        let since = |index: usize| self.nodes[index].view.since();
        let before = self.current.filter(|before| *before != chosen);
        if let Some(before) = before {
            self.evidence_at = since(before).max(since(chosen));
            if let Standing::Unfit(why) = &self.nodes[before].standing {
                let addr = &self.nodes[before].addr;
                self.notes
                    .push(format!("{addr} is not the primary any more: {why}"));
            }
        } else if !self.served {
            self.evidence_at = since(chosen);
        }
        self.current = Some(chosen);
    }

    fn replicas(&self, now: Moment, primary: Option<usize>) -> Vec<Addr> {
        let serves = |&index: &usize| {
            let server = self.fresh(now, index).filter(|_| Some(index) != primary);
            // One that can be written to and is not the primary may hold anything.
            server.is_some_and(|s| s.barred.is_some() && s.lags(self.spec.max_lag).is_none())
        };
        let all = (0..self.nodes.len()).filter(serves);
        all.map(|index| self.nodes[index].addr.clone()).collect()
    }

    fn troubles(&self, now: Moment, primary: Option<usize>) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let writable = self.writable();
        if writable.len() > 1 {
            let addrs = writable.iter().map(|&index| self.nodes[index].addr.clone());
            troubles.push(Trouble::Conflict {
                addrs: addrs.collect(),
            });
        } else if writable.is_empty() {
            troubles.push(Trouble::NoneFit);
        }
        for (index, node) in self.nodes.iter().enumerate() {
            let why = match (&node.standing, self.fresh(now, index)) {
                (_, Some(server)) if Some(index) != primary => server.lags(self.spec.max_lag),
                (Standing::Unfit(why), None) => Some(why.clone()),
                _ => None,
            };
            troubles.extend(why.map(|why| Trouble::Source {
                name: node.addr.to_string(),
                why,
            }));
        }
        troubles
    }

    fn report(&self, now: Moment, index: usize, primary: Option<usize>) -> NodeReport {
        let node = &self.nodes[index];
        let server = self.fresh(now, index);
        let role = match (server, node.view.instead()) {
            (Some(server), _) if server.barred.is_none() => "primary",
            (Some(_), _) => "replica",
            (None, Some(Said::Busy(_))) => "busy",
            (None, Some(_)) => "down",
            (None, None) => "unknown",
        };
        let stray = role == "primary" && Some(index) != primary;
        let detail = match (&node.standing, server) {
            (Standing::Unfit(why), Some(_)) if role == "primary" => Some(why.clone()),
            _ if stray => Some("can be written to, is not the primary".to_owned()),
            (_, Some(server)) if role == "replica" => server.lags(self.spec.max_lag),
            (Standing::Unfit(why), None) => Some(why.clone()),
            _ => None,
        };
        NodeReport {
            address: node.addr.clone(),
            role,
            up: !matches!(role, "down" | "unknown"),
            lag_bytes: None,
            lag_seconds: server.filter(|_| role == "replica").and_then(Server::lag),
            detail,
        }
    }
}

impl Judge for MysqlJudge {
    type Seen = Seen<Server>;

    fn see(&mut self, now: Moment, seen: Seen<Server>) {
        // Who can be written to is nothing that could be preferred.
        let (Seen::Said { addr, .. } | Seen::Hint(addr) | Seen::Prefer(Some(addr))) = &seen else {
            return;
        };
        let Some(node) = self.nodes.iter_mut().find(|node| node.addr == *addr) else {
            return;
        };
        match seen {
            Seen::Hint(_) => node.view.hurry(),
            Seen::Prefer(_) => {}
            Seen::Said { said, .. } => node.view.see(now, said, &self.spec.probe, Server::flaw),
        }
    }

    fn judge(&mut self, now: Moment) -> Verdict {
        for node in &mut self.nodes {
            node.standing = node.view.stand(now, &self.spec.probe, Server::flaw);
        }
        let chosen = self.choose(now);
        if let Ok((index, _)) = chosen {
            self.accept(index);
        }
        let primary = chosen.ok().map(|(index, _)| index);
        self.served = primary.is_some();
        let every = match primary {
            Some(_) => self.spec.probe.interval,
            None => EAGER.min(self.spec.probe.interval),
        };
        let pace = |node: &mut Node| {
            let urgent = node.view.urgency(now);
            (node.addr.clone(), Pace { every, urgent })
        };
        let probes = self.nodes.iter_mut().map(pace).collect();
        let all = 0..self.nodes.len();
        Verdict {
            fence: false,
            evidence_at: self.evidence_at,
            troubles: self.troubles(now, primary),
            nodes: all.map(|index| self.report(now, index, primary)).collect(),
            sources: Vec::new(),
            probes,
            ask_again: 0,
            recheck: Some(now + RECHECK),
            notes: std::mem::take(&mut self.notes),
            conclusion: Conclusion {
                primary: primary.map(|index| self.nodes[index].addr.clone()),
                leaving: None,
                term: None,
                cause: match chosen {
                    Ok((_, cause)) | Err(cause) => cause,
                },
                replicas: self.replicas(now, primary),
            },
        }
    }
}

#[cfg(test)]
mod tests;
