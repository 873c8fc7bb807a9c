//! What the judge does with each thing it sees.

use super::answer::Answer;
use super::event::Event;
use super::judge::{Seen, SentinelJudge};
use super::tell::MAX_NODES;
use super::view::describe;
use crate::addr::Addr;
use crate::clock::Moment;
use crate::proto::redis::node::NodeView;
use crate::proto::redis::role::Role;
use crate::proto::spec::FenceOn;

impl SentinelJudge {
    pub(super) fn take_in(&mut self, now: Moment, seen: Seen) {
        match seen {
            Seen::Answer { sentinel, answer } => self.see_answer(now, sentinel, answer),
            Seen::Lost { sentinel, why } => self.see_lost(now, sentinel, why),
            Seen::Event { sentinel, event } => self.see_event(now, sentinel, event),
            Seen::Hint(addr) => {
                if let Some(node) = self.nodes.get_mut(&addr) {
                    node.hurry();
                }
            }
            Seen::Role { addr, role } => {
                let role = self.mapped_role(role);
                if let Some(node) = self.nodes.get_mut(&addr) {
                    node.see(now, role);
                }
            }
        }
    }

    /// What a sentinel calls it -> where it is reached from here.
    fn mapped(&self, addr: Addr) -> Addr {
        self.spec.address_map.get(&addr).cloned().unwrap_or(addr)
    }

    fn mapped_role(&self, role: Role) -> Role {
        match role {
            Role::Replica {
                master,
                connected,
                offset,
            } => Role::Replica {
                master: master.map(|m| self.mapped(m)),
                connected,
                offset,
            },
            other => other,
        }
    }

    fn mapped_answer(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Names {
                master,
                epoch,
                tilt,
                replicas,
            } => Answer::Names {
                master: self.mapped(master),
                epoch,
                tilt,
                replicas: replicas
                    .into_iter()
                    .take(MAX_NODES)
                    .map(|r| self.mapped(r))
                    .collect(),
            },
            other => other,
        }
    }

    /// Has `addr` asked at once, as far as there is room for one more.
    pub(super) fn hurry(&mut self, addr: &Addr) {
        if let Some(node) = self.nodes.get_mut(addr) {
            node.hurry();
        } else if self.nodes.len() < MAX_NODES {
            let mut node = NodeView::default();
            node.hurry();
            self.nodes.insert(addr.clone(), node);
        }
    }

    fn see_answer(&mut self, now: Moment, sentinel: usize, answer: Answer) {
        // Whoever asked asks again; until then its word stands.
        if answer == Answer::Torn {
            return;
        }
        let answer = self.mapped_answer(answer);
        let Some(view) = self.sentinels.get_mut(sentinel) else {
            return;
        };
        let line = format!("sentinel {}: {}", view.addr, describe(&answer));
        let named = match &answer {
            Answer::Names { master, epoch, .. } => Some((master.clone(), *epoch)),
            _ => None,
        };
        if !view.answered(now, answer) {
            return;
        }
        self.notes.push(now, line);
        let Some((master, epoch)) = named else {
            return;
        };
        let current = self.accepted.as_ref();
        if current.is_none_or(|a| epoch > a.term && a.addr != master) {
            self.evidence_at = now;
        }
        self.hurry(&master);
    }

    fn see_lost(&mut self, now: Moment, sentinel: usize, why: String) {
        let Some(view) = self.sentinels.get_mut(sentinel) else {
            return;
        };
        let line = format!("sentinel {}: {why}", view.addr);
        if view.lost(why) {
            self.notes.push(now, line);
        }
    }

    fn see_event(&mut self, now: Moment, sentinel: usize, event: Event) {
        let Some(from) = self.sentinels.get(sentinel).map(|s| s.addr.clone()) else {
            return;
        };
        let current = self.accepted.as_ref().map(|a| a.addr.clone());
        let note = |what: String| format!("sentinel {from}: {what}");
        match event {
            Event::Promoting { replica, master } => {
                let (replica, master) = (self.mapped(replica), self.mapped(master));
                let what = format!("promotes {replica} in place of {master}");
                self.notes.push(now, note(what));
                if current.as_ref() == Some(&master) && replica != master {
                    self.begin_promotion(now, sentinel, replica);
                }
            }
            Event::Aborted => {
                self.notes
                    .push(now, note("the failover was aborted".to_owned()));
                self.abort_promotion(now, sentinel);
            }
            Event::Down { master } => {
                let master = self.mapped(master);
                self.notes
                    .push(now, note(format!("{master} is objectively down")));
                if current.as_ref() == Some(&master) {
                    self.hurry(&master);
                    if self.spec.fence == FenceOn::Odown {
                        self.hold_down(now, sentinel);
                    }
                }
            }
            Event::UpAgain { master } => {
                let master = self.mapped(master);
                self.notes.push(now, note(format!("{master} is up again")));
                if current.as_ref() == Some(&master) {
                    self.hurry(&master);
                }
                self.release_down(now, sentinel);
            }
            Event::Other => {
                if let Some(current) = current {
                    self.hurry(&current);
                }
            }
        }
    }
}
