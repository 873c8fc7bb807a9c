//! What is shown of a cluster: who serves reads, what is the matter, how each node is. Pure.

use super::super::node::Standing;
use super::super::probe::Said;
use super::{Conflict, GaleraJudge};
use crate::addr::Addr;
use crate::clock::Moment;
use crate::monitor::{NodeReport, Trouble};

impl GaleraJudge {
    pub(super) fn replicas(&self, now: Moment, primary: Option<usize>) -> Vec<Addr> {
        let serves = |&index: &usize| {
            let facts = self.fresh(now, index).filter(|_| self.is_fit(index));
            Some(index) != primary
                && facts.is_some_and(|f| f.recv_queue <= self.spec.max_recv_queue)
                && self.is_own(now, index)
        };
        let all = (0..self.nodes.len()).filter(serves);
        all.map(|index| self.nodes[index].addr.clone()).collect()
    }

    pub(super) fn troubles(&self, now: Moment, primary: Option<usize>) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        if let Some(conflict) = self.conflict(now) {
            let addrs = self
                .members(now)
                .map(|(index, _)| self.nodes[index].addr.clone());
            let how = match conflict {
                Conflict::Histories => "nodes of different clusters say they are primary",
                Conflict::Components => "parts of one cluster both say they are primary",
            };
            troubles.push(Trouble::Parted {
                addrs: addrs.collect(),
                how,
            });
        }
        if primary.is_none() && !self.nodes.iter().any(|node| node.standing == Standing::Fit) {
            troubles.push(Trouble::NoneFit);
        }
        for node in &self.nodes {
            if let Standing::Unfit(why) = &node.standing {
                let (name, why) = (node.addr.to_string(), why.clone());
                troubles.push(Trouble::Source { name, why });
            }
        }
        troubles
    }

    pub(super) fn report(&self, now: Moment, index: usize, primary: Option<usize>) -> NodeReport {
        let node = &self.nodes[index];
        let role = match (self.fresh(now, index), node.view.instead()) {
            (Some(_), _) if primary == Some(index) => "writer",
            (Some(facts), _) if !facts.primary => "non-primary",
            (Some(facts), _) => facts.state.as_str(),
            (None, Some(Said::Busy(_))) => "busy",
            (None, Some(_)) => "down",
            (None, None) => "unknown",
        };
        let queue = self.fresh(now, index).map_or(0, |facts| facts.recv_queue);
        let detail = match &node.standing {
            Standing::Unfit(why) => Some(why.clone()),
            Standing::Unknown => {
                Some("no answer for too long".to_owned()).filter(|_| node.view.is_heard())
            }
            Standing::Fit if queue > self.spec.max_recv_queue => {
                Some(format!("{queue} transactions wait to be applied"))
            }
            Standing::Fit => self.word_for(&node.addr),
        };
        NodeReport {
            address: node.addr.clone(),
            role,
            up: !matches!(role, "down" | "unknown"),
            lag_bytes: None,
            lag_seconds: None,
            detail,
        }
    }
}
