//! The time between two masters: from the first sign of a failover to its end.
//!
//! What one sentinel says may hold the shop for `hold_timeout`, and after a hold that led to nothing
//! that sentinel's next one of the same kind has to wait ten times as long as the last one took. So
//! one that cries wolf costs a fraction of the time, and cannot keep another's warning from being
//! heard.

use std::time::Duration;

use super::judge::SentinelJudge;
use super::view::Claim;
use crate::addr::Addr;
use crate::clock::Moment;
use crate::proto::spec::{FenceOn, SwitchOn};

/// How long a promotion may go unconfirmed by every sentinel.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(3);
/// How long a replica that was told to become master is watched, if that is longer than the hold.
const AWAITED: Duration = Duration::from_secs(5);
/// A replica may say master this long before the event that announces it is heard.
const EVENT_LATE: Duration = Duration::from_secs(1);
/// The least time between two holds of one kind because of one sentinel.
const QUIET: Duration = Duration::from_secs(10);
const QUIET_TIMES: u32 = 10;

/// Why one sentinel's words hold the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The master is objectively down.
    Down,
    /// A replica is being promoted.
    Promotion,
    /// It names another master at a newer epoch, which is not proven.
    Claim,
}

#[derive(Clone, Copy, Debug, Default)]
struct Hold {
    since: Option<Moment>,
    quiet_until: Moment,
}

/// The holds because of one sentinel, by sign.
#[derive(Clone, Debug, Default)]
pub struct Holds([Hold; 3]);

impl Holds {
    /// Whether a hold stands or begins.
    fn begin(&mut self, now: Moment, sign: Sign) -> bool {
        let hold = &mut self.0[sign as usize];
        if hold.since.is_none() && now >= hold.quiet_until {
            hold.since = Some(now);
        }
        hold.since.is_some()
    }

    /// It led to nothing.
    fn end(&mut self, now: Moment, sign: Sign) {
        let hold = &mut self.0[sign as usize];
        if let Some(since) = hold.since.take() {
            hold.quiet_until = now + QUIET.max(now.since(since) * QUIET_TIMES);
        }
    }

    fn stands(&self, sign: Sign) -> bool {
        self.0[sign as usize].since.is_some()
    }

    fn expire(&mut self, now: Moment, sign: Sign, after: Duration) {
        let since = self.0[sign as usize].since;
        if since.is_some_and(|since| now.since(since) >= after) {
            self.end(now, sign);
        }
    }
}

/// A replica that was told to become master.
#[derive(Clone, Debug)]
pub struct Promotion {
    /// The sentinel that says so. Each has at most one.
    pub by: usize,
    pub replica: Addr,
    pub since: Moment,
    pub stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has not said master since. -> Provisional, Deposing, or over
    Awaiting,
    /// It says master, and is served before any sentinel names it. -> Unconfirmed, or confirmed
    Provisional { since: Moment },
    /// It says master, and its predecessor is not released before a majority has named that one
    /// later than `after`, or the replica follows it again. -> over
    Deposing { after: Moment },
    /// Nobody named it in time: nobody is served until a majority named one since. -> over
    Unconfirmed { since: Moment },
}

// === what begins and ends it ===

impl SentinelJudge {
    pub(super) fn begin_promotion(&mut self, now: Moment, by: usize, replica: Addr) {
        let known = self.promotions.iter_mut().find(|p| p.by == by);
        if let Some(known) = known {
            // It changed its mind before anything happened; its time goes on.
            if known.stage == Stage::Awaiting && known.replica != replica {
                known.replica = replica.clone();
                self.hurry(&replica);
            }
            return;
        }
        let view = self.sentinels.get_mut(by);
        if !view.is_some_and(|view| view.holds.begin(now, Sign::Promotion)) {
            return;
        }
        self.evidence_at = now;
        self.hurry(&replica);
        self.promotions.push(Promotion {
            by,
            replica,
            since: now,
            stage: Stage::Awaiting,
        });
    }

    /// The sentinel gave up. What its replica says of itself may tell otherwise; then a majority
    /// decides, at once.
    pub(super) fn abort_promotion(&mut self, now: Moment, by: usize) {
        let Some(promotion) = self.promotions.iter_mut().find(|p| p.by == by) else {
            return;
        };
        promotion.stage = match promotion.stage {
            Stage::Awaiting => {
                self.end_promotions(now, |p| p.by == by);
                return;
            }
            Stage::Provisional { .. } => Stage::Unconfirmed { since: now },
            Stage::Deposing { after } => Stage::Deposing {
                after: after.min(now),
            },
            unconfirmed @ Stage::Unconfirmed { .. } => unconfirmed,
        };
        self.ask_again += 1;
    }

    fn end_promotions(&mut self, now: Moment, which: impl Fn(&Promotion) -> bool) {
        for over in self.promotions.extract_if(.., |p| which(p)) {
            if let Some(view) = self.sentinels.get_mut(over.by) {
                view.holds.end(now, Sign::Promotion);
            }
        }
    }

    pub(super) fn hold_down(&mut self, now: Moment, by: usize) {
        if let Some(view) = self.sentinels.get_mut(by) {
            view.holds.begin(now, Sign::Down);
        }
    }

    pub(super) fn release_down(&mut self, now: Moment, by: usize) {
        if let Some(view) = self.sentinels.get_mut(by) {
            view.holds.end(now, Sign::Down);
        }
    }

    /// Another master is accepted: what announced it was right.
    pub(super) fn end_fences(&mut self) {
        self.promotions.clear();
        for view in &mut self.sentinels {
            view.holds = Holds::default();
        }
    }
}

// === what becomes of it ===

impl SentinelJudge {
    /// A sentinel names another master at a newer epoch, and that one is not proven: hold for a
    /// while, in case the proof is on its way.
    pub(super) fn watch_claims(&mut self, now: Moment) {
        let Some(current) = self.accepted.clone() else {
            return;
        };
        for view in &mut self.sentinels {
            let rival =
                |c: Claim<'_>| !c.outvoted && c.epoch > current.term && *c.master != current.addr;
            if view.claim(now).is_some_and(rival) {
                view.holds.begin(now, Sign::Claim);
            } else if view.says(now).is_some() {
                view.holds.end(now, Sign::Claim);
            }
            view.holds.expire(now, Sign::Claim, self.hold_timeout);
            view.holds.expire(now, Sign::Down, self.hold_timeout);
        }
    }

    /// Whether a majority named the accepted one later than `after`.
    fn reaffirmed(&self, now: Moment, after: Moment) -> bool {
        let current = self.accepted.as_ref().map(|a| &a.addr);
        let names = |c: &Claim<'_>| c.at > after && Some(c.master) == current;
        self.claims(now).filter(names).count() >= self.majority()
    }

    /// Whether `replica` turned master because of what was announced at `since`.
    fn promoted(&self, now: Moment, replica: &Addr, since: Moment) -> bool {
        let turned = self.nodes.get(replica).and_then(|n| n.master_since);
        self.is_master(now, replica) && turned.is_some_and(|at| since.since(at) <= EVENT_LATE)
    }

    /// A sentinel names neither the replica nor its predecessor, at a newer epoch.
    fn contradicted(&self, now: Moment, replica: &Addr) -> bool {
        let current = self.accepted.as_ref();
        let third = |c: &Claim<'_>| {
            current.is_some_and(|a| {
                !c.outvoted && c.epoch > a.term && *c.master != a.addr && c.master != replica
            })
        };
        self.claims(now).any(|c| third(&c))
    }

    /// Where a promotion stands now; `None` when it is over.
    fn next_stage(&self, now: Moment, promotion: &Promotion) -> Option<Stage> {
        let Promotion {
            replica,
            since,
            stage,
            by,
        } = promotion;
        let follows_again = || {
            let current = self.accepted.as_ref().map(|a| &a.addr);
            let node = self.nodes.get(replica).zip(current);
            node.is_some_and(|(node, of)| node.is_fit_replica(now, self.lease(), of))
        };
        let rival = |p: &Promotion| {
            p.by != *by
                && p.replica != *replica
                && matches!(
                    p.stage,
                    Stage::Provisional { .. } | Stage::Unconfirmed { .. }
                )
        };
        match *stage {
            Stage::Awaiting if self.promoted(now, replica, *since) => {
                Some(match self.spec.switch_on {
                    SwitchOn::Announcement => Stage::Deposing {
                        after: now + CONFIRM_WITHIN,
                    },
                    SwitchOn::Promotion if self.promotions.iter().any(rival) => {
                        Stage::Unconfirmed { since: now }
                    }
                    SwitchOn::Promotion => Stage::Provisional { since: now },
                })
            }
            Stage::Awaiting if now.since(*since) >= self.hold_timeout.max(AWAITED) => None,
            Stage::Provisional { since }
                if now.since(since) >= CONFIRM_WITHIN || self.contradicted(now, replica) =>
            {
                Some(Stage::Unconfirmed { since: now })
            }
            Stage::Deposing { after } if self.reaffirmed(now, after) || follows_again() => None,
            Stage::Unconfirmed { since } if self.reaffirmed(now, since) => None,
            _ => Some(*stage),
        }
    }

    pub(super) fn advance_promotions(&mut self, now: Moment) {
        let mut over = Vec::new();
        for index in 0..self.promotions.len() {
            while let Some(next) = self.next_stage(now, &self.promotions[index]) {
                let stage = &mut self.promotions[index].stage;
                if std::mem::replace(stage, next) == next {
                    break;
                }
                if matches!(next, Stage::Provisional { .. }) {
                    self.evidence_at = now;
                } else {
                    self.ask_again += 1;
                }
            }
            if self.next_stage(now, &self.promotions[index]).is_none() {
                over.push(self.promotions[index].by);
            }
        }
        self.end_promotions(now, |p| over.contains(&p.by));
    }

    pub(super) fn fenced(&self, now: Moment) -> Option<&'static str> {
        if self.spec.fence == FenceOn::Switch {
            return None;
        }
        let fences = |p: &Promotion| match p.stage {
            Stage::Awaiting => now.since(p.since) < self.hold_timeout,
            Stage::Deposing { .. } => true,
            Stage::Provisional { .. } | Stage::Unconfirmed { .. } => false,
        };
        let stands = |sign| self.sentinels.iter().any(|s| s.holds.stands(sign));
        if self.promotions.iter().any(fences) {
            Some("a replica is being promoted")
        } else if stands(Sign::Claim) {
            Some("a sentinel names another master that is not proven yet")
        } else if stands(Sign::Down) {
            Some("the sentinels say that the master is down")
        } else {
            None
        }
    }
}
