//! Who is master, from what the sentinels say and what the servers say of themselves. Pure.
//!
//! An address is accepted when a sentinel that counts names it at the highest epoch there is, the
//! server itself says master, and either the epoch is newer than the accepted one or a strict
//! majority of the *configured* sentinels name it. A lower epoch never wins, but for sentinels that
//! were made anew. `see` takes things in, `accept` chooses, `fence` holds, `tell` shows.

use std::collections::BTreeMap;
use std::time::Duration;

use super::accept::{Accepted, Deposed};
use super::answer::Answer;
use super::event::Event;
use super::fence::{Promotion, Stage};
use super::notes::{Damper, Notes};
use super::view::SentinelView;
use crate::addr::Addr;
use crate::clock::Moment;
use crate::monitor::{Judge, Verdict};
use crate::proto::redis::node::{self, NodeView};
use crate::proto::redis::role::Role;
use crate::proto::spec::SentinelSpec;
use crate::topology::Cause;
use crate::topology::reduce::Conclusion;

/// How often to judge when only time can change the verdict.
const RESTLESS: Duration = Duration::from_millis(25);
const RESTING: Duration = Duration::from_millis(250);

/// What the shell saw.
#[derive(Clone, Debug)]
pub enum Seen {
    Answer {
        sentinel: usize,
        answer: Answer,
    },
    Lost {
        sentinel: usize,
        why: String,
    },
    Event {
        sentinel: usize,
        event: Event,
    },
    Role {
        addr: Addr,
        role: Role,
    },
    /// A client could not be connected to it.
    Hint(Addr),
}

/// The state of one service's judgement.
pub struct SentinelJudge {
    pub(super) spec: SentinelSpec,
    pub(super) hold_timeout: Duration,
    pub(super) sentinels: Vec<SentinelView>,
    pub(super) nodes: BTreeMap<Addr, NodeView>,
    pub(super) accepted: Option<Accepted>,
    pub(super) deposed: Option<Deposed>,
    /// Why the accepted one is served.
    pub(super) cause: Cause,
    /// It was served since it was accepted.
    pub(super) served: bool,
    /// When an older epoch was accepted.
    pub(super) reset_at: Option<Moment>,
    pub(super) started: Option<Moment>,
    pub(super) minority_since: Option<Moment>,
    /// A majority names this one at an older epoch.
    pub(super) anew: Option<(Accepted, Moment)>,
    /// A majority names this one, against a newer word for another that says master.
    pub(super) outvoting: Option<(Addr, Moment)>,
    pub(super) promotions: Vec<Promotion>,
    pub(super) evidence_at: Moment,
    pub(super) ask_again: u64,
    pub(super) notes: Notes,
    pub(super) damper: Damper,
    /// The last verdict's primary, and until when it was another.
    shown: Option<Addr>,
    changed_at: Moment,
    judged_at: Moment,
}

impl SentinelJudge {
    pub fn new(spec: SentinelSpec, hold_timeout: Duration) -> Self {
        let sentinels = spec.sentinels.iter().cloned();
        Self {
            sentinels: sentinels.map(SentinelView::new).collect(),
            spec,
            hold_timeout,
            nodes: BTreeMap::new(),
            accepted: None,
            deposed: None,
            cause: Cause::Start,
            served: false,
            reset_at: None,
            started: None,
            minority_since: None,
            anew: None,
            outvoting: None,
            promotions: Vec::new(),
            evidence_at: Moment::default(),
            ask_again: 0,
            notes: Notes::default(),
            damper: Damper::default(),
            shown: None,
            changed_at: Moment::default(),
            judged_at: Moment::default(),
        }
    }

    /// A word of a server counts until its next one is overdue.
    pub(super) fn lease(&self) -> Duration {
        node::lease(self.spec.probe_interval)
    }

    pub(super) fn is_master(&self, now: Moment, addr: &Addr) -> bool {
        self.nodes
            .get(addr)
            .is_some_and(|n| n.is_master(now, self.lease()))
    }

    /// Sentinels in reach whose word counts.
    pub(super) fn counting(&self, now: Moment) -> usize {
        self.sentinels.iter().filter(|s| s.counts(now)).count()
    }

    fn update_minority(&mut self, now: Moment) {
        self.started.get_or_insert(now);
        if self.counting(now) >= self.majority() {
            self.minority_since = None;
        } else {
            self.minority_since.get_or_insert(now);
        }
    }

    /// The primary to publish, and why it or nobody.
    fn serve(&self, now: Moment) -> (Option<Addr>, Cause) {
        let unconfirmed = |p: &Promotion| matches!(p.stage, Stage::Unconfirmed { .. });
        if self.promotions.iter().any(unconfirmed) {
            return (None, Cause::Unconfirmed);
        }
        let provisional = |p: &&Promotion| matches!(p.stage, Stage::Provisional { .. });
        if let Some(Promotion { replica, .. }) = self.promotions.iter().find(provisional) {
            return if self.is_master(now, replica) {
                (Some(replica.clone()), Cause::Promoted)
            } else {
                (None, Cause::Unproven)
            };
        }
        let Some(current) = &self.accepted else {
            return (None, Cause::Start);
        };
        if self.deposed.is_some() {
            return (None, Cause::Deposed);
        }
        if self.is_master(now, &current.addr) {
            return if self.disowned(now, current) || self.returns_to_a_rival(now, current) {
                (None, Cause::Unconfirmed)
            } else {
                (Some(current.addr.clone()), self.cause)
            };
        }
        let said = self.nodes.get(&current.addr).and_then(|n| n.said.as_ref());
        match said {
            Some((Role::Replica { .. }, _)) => (None, Cause::RoleLost),
            _ => (None, Cause::Unproven),
        }
    }

    /// It was lost, nobody is there to say who is right, and another one says master meanwhile. With
    /// no break in its own word it would stay.
    fn returns_to_a_rival(&self, now: Moment, current: &Accepted) -> bool {
        let rival = |(addr, node): (&Addr, &NodeView)| {
            *addr != current.addr && node.is_master(now, self.lease())
        };
        !self.served && self.claims(now).next().is_none() && self.nodes.iter().any(rival)
    }

    /// What was served once can only come back.
    fn remember(&mut self, now: Moment, primary: Option<&Addr>) {
        let accepted = self.accepted.as_ref().map(|a| &a.addr);
        if primary.is_some() && primary == accepted {
            self.served = true;
        } else if std::mem::take(&mut self.served) {
            self.cause = Cause::Returned;
        }
        if self.shown.as_ref() != primary {
            self.shown = primary.cloned();
            self.changed_at = self.judged_at;
        }
        self.judged_at = now;
    }

    /// When what was published became known: a successor by its announcement, anything else by the
    /// server's own word, or by whatever stood in its way until then.
    fn evidence(&self, now: Moment, primary: Option<&Addr>, cause: Cause) -> Moment {
        match cause {
            Cause::Announced | Cause::Promoted => self.evidence_at,
            _ => {
                let node = primary.and_then(|p| self.nodes.get(p));
                let word = node.and_then(|n| n.master_since);
                word.map_or(now, |at| at.max(self.changed_at))
            }
        }
    }
}

impl Judge for SentinelJudge {
    type Seen = Seen;

    fn see(&mut self, now: Moment, seen: Seen) {
        self.take_in(now, seen);
    }

    fn judge(&mut self, now: Moment) -> Verdict {
        self.update_minority(now);
        self.advance_promotions(now);
        self.update_accepted(now);
        self.watch_claims(now);
        self.update_deposed(now);
        let probes = self.probes(now);
        let (primary, cause) = self.serve(now);
        self.remember(now, primary.as_ref());
        let fence = self.fenced(now).is_some();
        let restless = primary.is_none()
            || fence
            || !self.promotions.is_empty()
            || self.anew.is_some()
            || self.nodes.values().any(NodeView::is_waiting);
        let troubles = self.troubles(now, primary.as_ref());
        Verdict {
            fence,
            evidence_at: self.evidence(now, primary.as_ref(), cause),
            troubles: self.damper.damp(now, troubles),
            nodes: self.node_reports(now, primary.as_ref()),
            sources: self.sources(now),
            probes,
            ask_again: self.ask_again,
            recheck: Some(now + if restless { RESTLESS } else { RESTING }),
            notes: self.notes.take(now),
            conclusion: Conclusion {
                leaving: None,
                replicas: self.replicas(now, primary.as_ref()),
                primary,
                term: self.accepted.as_ref().map(|a| a.term),
                // The one word with which the term may go back.
                cause: match self.reset_at {
                    Some(at) if at == now => Cause::EpochReset,
                    _ => cause,
                },
            },
        }
    }
}
