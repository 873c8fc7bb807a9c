//! Who is master, from what the sentinels say and what the servers say of themselves. Pure.
//!
//! An address is accepted when a sentinel that counts names it at the highest epoch there is, the
//! server itself says master, and either the epoch is newer than the accepted one or a strict
//! majority of the *configured* sentinels name it. A lower epoch never wins, but for sentinels that
//! were made anew: see [`SentinelJudge::counted_anew`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::answer::Answer;
use super::event::Event;
use super::fence::{CONFIRM_WITHIN, Fence, Promotion, Sign, Stage};
use super::tell::MAX_NODES;
use super::view::{Claim, Heard, SentinelView, describe};
use crate::addr::Addr;
use crate::clock::Moment;
use crate::monitor::{Judge, Verdict};
use crate::proto::redis::node::{self, NodeView};
use crate::proto::redis::role::Role;
use crate::proto::spec::{FenceOn, Minority, SentinelSpec, SwitchOn};
use crate::topology::reduce::Conclusion;
use crate::topology::{Cause, Term};

/// How long a minority must be all there is before it is believed at start.
const MINORITY_AFTER: Duration = Duration::from_secs(3);
/// How long a majority must agree on an older epoch.
const ANEW_AFTER: Duration = Duration::from_secs(10);
/// How often to judge when only time can change the verdict.
const RESTLESS: Duration = Duration::from_millis(25);
const RESTING: Duration = Duration::from_millis(250);
/// After a fence that led to nothing.
const QUIET: Duration = Duration::from_secs(10);

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

/// The accepted master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub addr: Addr,
    pub term: Term,
}

/// The state of one service's judgement.
pub struct SentinelJudge {
    pub(super) spec: SentinelSpec,
    hold_timeout: Duration,
    pub(super) sentinels: Vec<SentinelView>,
    pub(super) nodes: BTreeMap<Addr, NodeView>,
    pub(super) accepted: Option<Accepted>,
    /// Why the accepted one was accepted; once shown, it is served.
    cause: Cause,
    started: Option<Moment>,
    minority_since: Option<Moment>,
    /// A majority names this one at an older epoch.
    pub(super) anew: Option<(Accepted, Moment)>,
    pub(super) promotion: Option<Promotion>,
    fence: Option<Fence>,
    /// A sign that passed without a change does not fence again before.
    quiet_until: Moment,
    evidence_at: Moment,
    ask_again: u64,
    notes: Vec<String>,
}

impl SentinelJudge {
    pub fn new(spec: SentinelSpec, hold_timeout: Duration) -> Self {
        let sentinels = spec
            .sentinels
            .iter()
            .cloned()
            .map(SentinelView::new)
            .collect();
        Self {
            spec,
            hold_timeout,
            sentinels,
            nodes: BTreeMap::new(),
            accepted: None,
            cause: Cause::Start,
            started: None,
            minority_since: None,
            anew: None,
            promotion: None,
            fence: None,
            quiet_until: Moment::default(),
            evidence_at: Moment::default(),
            ask_again: 0,
            notes: Vec::new(),
        }
    }

    /// A word of a server counts until its next one is overdue.
    pub(super) fn lease(&self) -> Duration {
        node::lease(self.spec.probe_interval)
    }

    fn mapped(&self, addr: Addr) -> Addr {
        self.spec.address_map.get(&addr).cloned().unwrap_or(addr)
    }

    pub(super) fn majority(&self) -> usize {
        self.spec.sentinels.len() / 2 + 1
    }

    pub(super) fn claims(&self, now: Moment) -> impl Iterator<Item = Claim<'_>> {
        self.sentinels.iter().filter_map(move |s| s.claim(now))
    }

    fn votes(&self, now: Moment, addr: &Addr) -> usize {
        self.claims(now).filter(|c| c.master == addr).count()
    }

    pub(super) fn majority_names(&self, now: Moment, addr: &Addr) -> bool {
        self.votes(now, addr) >= self.majority()
    }

    pub(super) fn is_master(&self, now: Moment, addr: &Addr) -> bool {
        self.nodes
            .get(addr)
            .is_some_and(|n| n.is_master(now, self.lease()))
    }

    fn probe_now(&mut self, addr: &Addr) {
        if let Some(node) = self.nodes.get_mut(addr) {
            node.urgent += 1;
        } else if self.nodes.len() < MAX_NODES {
            self.nodes.insert(
                addr.clone(),
                NodeView {
                    urgent: 1,
                    ..NodeView::default()
                },
            );
        }
    }

    fn accept(&mut self, accepted: Accepted, cause: Cause) {
        let moved = self
            .accepted
            .as_ref()
            .is_none_or(|a| a.addr != accepted.addr);
        if moved || cause == Cause::EpochReset {
            self.cause = cause;
        }
        let at = accepted.term.0;
        self.notes.push(format!(
            "accepted {} at epoch {at} ({cause})",
            accepted.addr
        ));
        self.accepted = Some(accepted);
        self.promotion = None;
        self.fence = None;
        self.anew = None;
    }
}

// === what was seen ===

impl SentinelJudge {
    fn see_answer(&mut self, now: Moment, sentinel: usize, answer: Answer) {
        let answer = self.mapped_answer(answer);
        if answer == Answer::Torn {
            self.ask_again += 1;
            return;
        }
        let Some(view) = self.sentinels.get_mut(sentinel) else {
            return;
        };
        let news =
            !matches!(&view.heard, Heard::Answer(known) if describe(known) == describe(&answer));
        if news {
            self.notes
                .push(format!("sentinel {}: {}", view.addr, describe(&answer)));
        }
        view.at = now;
        let named = match &answer {
            Answer::Names { master, epoch, .. } => Some((master.clone(), *epoch)),
            _ => None,
        };
        view.heard = Heard::Answer(answer);
        if let (true, Some((master, epoch))) = (news, named) {
            if self
                .accepted
                .as_ref()
                .is_none_or(|a| epoch > a.term && a.addr != master)
            {
                self.evidence_at = now;
            }
            self.probe_now(&master);
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

    fn see_lost(&mut self, now: Moment, sentinel: usize, why: String) {
        let Some(view) = self.sentinels.get_mut(sentinel) else {
            return;
        };
        if !matches!(&view.heard, Heard::Lost(known) if *known == why) {
            self.notes.push(format!("sentinel {}: {why}", view.addr));
        }
        view.heard = Heard::Lost(why);
        view.at = now;
    }

    fn see_event(&mut self, now: Moment, sentinel: usize, event: Event) {
        let Some(from) = self.sentinels.get(sentinel).map(|s| s.addr.clone()) else {
            return;
        };
        let current = self.accepted.as_ref().map(|a| a.addr.clone());
        let ours = |addr: &Addr| current.as_ref() == Some(addr);
        match event {
            Event::Promoting { replica, master } => {
                let (replica, master) = (self.mapped(replica), self.mapped(master));
                self.notes.push(format!(
                    "sentinel {from}: promotes {replica} in place of {master}"
                ));
                if ours(&master) && replica != master {
                    self.begin_promotion(now, replica);
                }
            }
            Event::Aborted => {
                self.notes
                    .push(format!("sentinel {from}: the failover was aborted"));
                self.abort_promotion(now);
            }
            Event::Down { master } => {
                let master = self.mapped(master);
                self.notes
                    .push(format!("sentinel {from}: {master} is objectively down"));
                self.probe_now(&master);
                if ours(&master) && self.spec.fence == FenceOn::Odown {
                    self.begin_fence(now, Sign::Down);
                }
            }
            Event::UpAgain { master } => {
                let master = self.mapped(master);
                self.notes
                    .push(format!("sentinel {from}: {master} is up again"));
                self.probe_now(&master);
                self.end_fence(|sign| *sign == Sign::Down);
            }
            Event::Other => {
                if let Some(current) = current {
                    self.probe_now(&current);
                }
            }
        }
    }

    fn begin_promotion(&mut self, now: Moment, replica: Addr) {
        let known = self
            .promotion
            .as_ref()
            .is_some_and(|p| p.replica == replica);
        // A sentinel that says it again and again must not hold the shop for ever.
        if known || now < self.quiet_until {
            return;
        }
        self.evidence_at = now;
        self.probe_now(&replica);
        self.promotion = Some(Promotion {
            replica,
            since: now,
            stage: Stage::Awaiting,
        });
    }

    fn abort_promotion(&mut self, now: Moment) {
        match &mut self.promotion {
            Some(Promotion {
                stage: stage @ Stage::Provisional { .. },
                ..
            }) => {
                *stage = Stage::Unconfirmed { since: now };
                self.ask_again += 1;
            }
            Some(Promotion {
                stage: Stage::Awaiting | Stage::Deposing { .. },
                ..
            }) => {
                self.promotion = None;
            }
            Some(Promotion {
                stage: Stage::Unconfirmed { .. },
                ..
            })
            | None => {}
        }
    }

    fn begin_fence(&mut self, now: Moment, sign: Sign) {
        if self.fence.is_none() && now >= self.quiet_until {
            self.fence = Some(Fence {
                sign,
                until: now + self.hold_timeout,
            });
        }
    }

    /// A fence ends when its time is up; the next one has to wait, so that a sentinel that cries wolf
    /// cannot hold the shop most of the time.
    fn expire_fence(&mut self, now: Moment) {
        if self.fence.as_ref().is_some_and(|f| now >= f.until) {
            self.fence = None;
            self.quiet_until = now + QUIET;
        }
    }

    fn end_fence(&mut self, which: impl FnOnce(&Sign) -> bool) {
        if self.fence.as_ref().is_some_and(|f| which(&f.sign)) {
            self.fence = None;
        }
    }
}

// === what follows ===

impl SentinelJudge {
    /// The claim to believe when nothing was accepted yet.
    fn first(&self, now: Moment) -> Option<(Accepted, Cause)> {
        let top = self.claims(now).map(|c| c.epoch).max()?;
        let at_top: BTreeSet<&Addr> = self
            .claims(now)
            .filter(|c| c.epoch == top)
            .map(|c| c.master)
            .collect();
        let patient = |since: Option<Moment>| since.is_some_and(|s| now.since(s) >= MINORITY_AFTER);
        for &addr in &at_top {
            let alone = at_top.len() == 1;
            let minority =
                self.spec.minority == Minority::Serve && patient(self.minority_since) && alone;
            if self.is_master(now, addr) && (self.majority_names(now, addr) || minority) {
                return Some((
                    Accepted {
                        addr: addr.clone(),
                        term: top,
                    },
                    Cause::Proven,
                ));
            }
        }
        // One sentinel with an epoch of its own for a server that is no master must not keep the
        // shop shut when all others agree.
        if at_top.iter().any(|a| self.is_master(now, a)) || !patient(self.started) {
            return None;
        }
        let agreed = self
            .claims(now)
            .find(|c| self.majority_names(now, c.master) && self.is_master(now, c.master))?;
        Some((
            Accepted {
                addr: agreed.master.clone(),
                term: agreed.epoch,
            },
            Cause::Proven,
        ))
    }

    /// A successor of `current`, by epoch or by majority.
    fn next(&self, now: Moment, current: &Accepted) -> Option<(Accepted, Cause)> {
        let mut claims: Vec<Claim<'_>> = self
            .claims(now)
            .filter(|c| c.epoch >= current.term)
            .collect();
        claims.sort_by_key(|c| std::cmp::Reverse(c.epoch));
        for claim in &claims {
            let newer = claim.epoch > current.term;
            if !newer && *claim.master == current.addr || !self.is_master(now, claim.master) {
                continue;
            }
            let contested = claims
                .iter()
                .any(|c| c.epoch >= claim.epoch && c.master != claim.master);
            if newer && !contested || self.majority_names(now, claim.master) {
                let cause = if newer {
                    Cause::Announced
                } else {
                    Cause::Majority
                };
                return Some((
                    Accepted {
                        addr: claim.master.clone(),
                        term: claim.epoch,
                    },
                    cause,
                ));
            }
        }
        None
    }

    /// What a majority names at epochs below the accepted one: sentinels that were recreated count
    /// from 0 again.
    fn older_majority(&self, now: Moment, current: &Accepted) -> Option<Accepted> {
        let older = || self.claims(now).filter(|c| c.epoch < current.term);
        let named = older()
            .map(|c| c.master)
            .find(|&addr| older().filter(|c| c.master == addr).count() >= self.majority())?;
        let term = older()
            .filter(|c| c.master == named)
            .map(|c| c.epoch)
            .max()?;
        Some(Accepted {
            addr: named.clone(),
            term,
        })
    }

    /// Follows sentinels that began to count anew, after a majority of them agreed for long enough:
    /// to another master only when the accepted one no longer says that it is one; to the same one
    /// so that the next failover, at a low epoch, is believed at once.
    fn counted_anew(&mut self, now: Moment, current: &Accepted) -> Option<(Accepted, Cause)> {
        let named = self.older_majority(now, current);
        let Some(named) = named else {
            self.anew = None;
            return None;
        };
        let since = match &self.anew {
            Some((known, since)) if known.addr == named.addr => *since,
            _ => now,
        };
        self.anew = Some((named.clone(), since));
        let agreed = now.since(since) >= ANEW_AFTER && self.is_master(now, &named.addr);
        let free = named.addr == current.addr || !self.is_master(now, &current.addr);
        (agreed && free).then_some((named, Cause::EpochReset))
    }

    fn update_accepted(&mut self, now: Moment) {
        let found = match self.accepted.clone() {
            None => self.first(now),
            Some(current) => match self.next(now, &current) {
                Some(found) => Some(found),
                None => self.counted_anew(now, &current),
            },
        };
        if let Some((accepted, cause)) = found
            && self.accepted.as_ref() != Some(&accepted)
        {
            self.accept(accepted, cause);
        }
    }

    /// A newer epoch names another master that is not proven: hold for a while, in case the proof is
    /// on its way.
    fn watch_claims(&mut self, now: Moment) {
        let Some(current) = &self.accepted else {
            return;
        };
        let newer = self
            .claims(now)
            .find(|c| c.epoch > current.term && *c.master != current.addr);
        let sign = newer.map(|c| Sign::Claim(c.master.clone(), c.epoch));
        match sign {
            Some(sign) if self.spec.fence != FenceOn::Switch => self.begin_fence(now, sign),
            Some(_) => {}
            None => self.end_fence(|sign| matches!(sign, Sign::Claim(..))),
        }
    }

    fn advance_promotion(&mut self, now: Moment) {
        let Some(Promotion {
            replica,
            since,
            stage,
        }) = self.promotion.clone()
        else {
            return;
        };
        let promoted = self.is_master(now, &replica)
            && self
                .nodes
                .get(&replica)
                .and_then(|n| n.master_since)
                .is_some_and(|m| m >= since);
        let current = self.accepted.as_ref().map(|a| a.addr.clone());
        // A majority that still names the present one, in answers younger than `after`.
        let reaffirmed = |after: Moment| {
            let names = |c: &Claim<'_>| c.at > after && Some(c.master) == current.as_ref();
            self.claims(now).filter(names).count() >= self.majority()
        };
        let next = match stage {
            Stage::Awaiting if promoted && self.spec.switch_on == SwitchOn::Promotion => {
                self.evidence_at = now;
                Some(Stage::Provisional { since: now })
            }
            Stage::Awaiting if promoted => Some(Stage::Deposing { since: now }),
            Stage::Awaiting if now.since(since) >= self.hold_timeout => {
                self.quiet_until = now + QUIET;
                None
            }
            Stage::Provisional { since } if now.since(since) >= CONFIRM_WITHIN => {
                self.ask_again += 1;
                Some(Stage::Unconfirmed { since: now })
            }
            Stage::Deposing { since } if now.since(since) >= CONFIRM_WITHIN => {
                (!reaffirmed(since + CONFIRM_WITHIN)).then_some(stage)
            }
            Stage::Unconfirmed { since } => (!reaffirmed(since)).then_some(stage),
            Stage::Awaiting | Stage::Provisional { .. } | Stage::Deposing { .. } => Some(stage),
        };
        match next {
            Some(stage) => {
                self.promotion = Some(Promotion {
                    replica,
                    since,
                    stage,
                })
            }
            None => self.promotion = None,
        }
    }

    /// The primary to publish, and why it or nobody.
    fn serve(&self, now: Moment) -> (Option<Addr>, Cause) {
        match self.promotion.as_ref().map(|p| (&p.replica, p.stage)) {
            Some((replica, Stage::Provisional { .. })) if self.is_master(now, replica) => {
                return (Some(replica.clone()), Cause::Promoted);
            }
            Some((_, Stage::Provisional { .. })) => return (None, Cause::Unproven),
            Some((_, Stage::Unconfirmed { .. })) => return (None, Cause::Unconfirmed),
            _ => {}
        }
        let Some(current) = &self.accepted else {
            return (None, Cause::Start);
        };
        let deposed = self.claims(now).any(|c| {
            c.epoch >= current.term
                && *c.master != current.addr
                && self.majority_names(now, c.master)
        });
        if deposed {
            return (None, Cause::Deposed);
        }
        if self.is_master(now, &current.addr) {
            return (Some(current.addr.clone()), self.cause);
        }
        let said = self.nodes.get(&current.addr).and_then(|n| n.said.as_ref());
        match said {
            Some((Role::Replica { .. }, _)) => (None, Cause::RoleLost),
            _ => (None, Cause::Unproven),
        }
    }

    pub(super) fn fenced(&self, now: Moment) -> Option<&'static str> {
        if self.spec.fence != FenceOn::Switch
            && let Some(promotion) = &self.promotion
            && matches!(promotion.stage, Stage::Awaiting | Stage::Deposing { .. })
        {
            return Some("a replica is being promoted");
        }
        let fence = self.fence.as_ref().filter(|f| now < f.until)?;
        Some(match fence.sign {
            Sign::Down => "the sentinels say that the master is down",
            Sign::Claim(..) => "a sentinel names another master that is not proven yet",
        })
    }
}

impl SentinelJudge {
    /// When what was published became known: a successor by its announcement, anything else by the
    /// server's own word.
    fn evidence(&self, now: Moment, primary: Option<&Addr>, cause: Cause) -> Moment {
        match cause {
            Cause::Announced | Cause::Promoted => self.evidence_at,
            _ => {
                let node = primary.and_then(|p| self.nodes.get(p));
                node.and_then(|n| n.master_since).unwrap_or(now)
            }
        }
    }
}

impl Judge for SentinelJudge {
    type Seen = Seen;

    fn see(&mut self, now: Moment, seen: Seen) {
        match seen {
            Seen::Answer { sentinel, answer } => self.see_answer(now, sentinel, answer),
            Seen::Lost { sentinel, why } => self.see_lost(now, sentinel, why),
            Seen::Event { sentinel, event } => self.see_event(now, sentinel, event),
            Seen::Hint(addr) => {
                if self.nodes.contains_key(&addr) {
                    self.probe_now(&addr);
                }
            }
            Seen::Role { addr, role } => {
                let role = match role {
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
                };
                if let Some(node) = self.nodes.get_mut(&addr) {
                    node.see(now, role);
                }
            }
        }
    }

    fn judge(&mut self, now: Moment) -> Verdict {
        self.started.get_or_insert(now);
        if self.claims(now).count() >= self.majority() {
            self.minority_since = None;
        } else {
            self.minority_since.get_or_insert(now);
        }
        let probes = self.probes(now);
        self.update_accepted(now);
        self.advance_promotion(now);
        self.expire_fence(now);
        self.watch_claims(now);
        let (primary, cause) = self.serve(now);
        if primary.is_some() && primary.as_ref() == self.accepted.as_ref().map(|a| &a.addr) {
            // Once served, it can only come back.
            self.cause = Cause::Returned;
        }
        let fence = self.fenced(now).is_some();
        let restless =
            primary.is_none() || fence || self.promotion.is_some() || self.anew.is_some();
        Verdict {
            fence,
            evidence_at: self.evidence(now, primary.as_ref(), cause),
            troubles: self.troubles(now, primary.as_ref()),
            nodes: self.node_reports(now, primary.as_ref()),
            sources: self.sources(now),
            probes,
            ask_again: self.ask_again,
            recheck: Some(now + if restless { RESTLESS } else { RESTING }),
            notes: std::mem::take(&mut self.notes),
            conclusion: Conclusion {
                replicas: self.replicas(now, primary.as_ref()),
                primary,
                term: self.accepted.as_ref().map(|a| a.term),
                cause,
            },
        }
    }
}
