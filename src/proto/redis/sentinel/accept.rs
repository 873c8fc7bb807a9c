//! Whom the sentinels' words make the master.
//!
//! An epoch that is newer than the accepted one is believed from a single sentinel when it names
//! another master, because the first word of a failover is one sentinel's. For the master that is
//! accepted already it takes a majority: a single inflated epoch would otherwise make every later
//! failover look old.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fence::CONFIRM_WITHIN;
use super::judge::SentinelJudge;
use super::view::Claim;
use crate::addr::Addr;
use crate::clock::Moment;
use crate::proto::spec::Minority;
use crate::topology::{Cause, Term};

/// How long a minority must be all there is before it is believed at start.
const MINORITY_AFTER: Duration = Duration::from_secs(3);
/// How long a majority must agree on an older epoch.
const ANEW_AFTER: Duration = Duration::from_secs(10);

/// A master and the epoch at which it was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub addr: Addr,
    pub term: Term,
}

/// Sentinels took the mastership from the accepted one, and their choice is not accepted yet. That
/// outlasts their silence.
#[derive(Clone, Copy, Debug)]
pub struct Deposed {
    pub epoch: Term,
    pub by_majority: bool,
}

// === counting ===

impl SentinelJudge {
    pub(super) fn majority(&self) -> usize {
        self.spec.sentinels.len() / 2 + 1
    }

    pub(super) fn claims(&self, now: Moment) -> impl Iterator<Item = Claim<'_>> {
        self.sentinels.iter().filter_map(move |s| s.claim(now))
    }

    pub(super) fn majority_names(&self, now: Moment, addr: &Addr) -> bool {
        self.claims(now).filter(|c| c.master == addr).count() >= self.majority()
    }

    /// The newest epoch at which a majority names `addr`.
    fn majority_epoch(&self, now: Moment, addr: &Addr) -> Option<Term> {
        let mut epochs: Vec<Term> = self
            .claims(now)
            .filter(|c| c.master == addr)
            .map(|c| c.epoch)
            .collect();
        epochs.sort_by(|a, b| b.cmp(a));
        epochs.get(self.majority() - 1).copied()
    }

    /// A claim as it is accepted: at the epoch that a majority knows, where there is one that is
    /// not older than `floor`.
    fn at_best_epoch(&self, now: Moment, claim: &Claim<'_>, floor: Term) -> Accepted {
        let known = self.majority_epoch(now, claim.master);
        Accepted {
            addr: claim.master.clone(),
            term: known.filter(|&e| e >= floor).unwrap_or(claim.epoch),
        }
    }
}

// === choosing ===

impl SentinelJudge {
    /// The claim to believe when nothing was accepted yet.
    fn first(&self, now: Moment) -> Option<Accepted> {
        let top = self.claims(now).map(|c| c.epoch).max()?;
        let at_top: Vec<Claim<'_>> = self.claims(now).filter(|c| c.epoch == top).collect();
        let patient = |since: Option<Moment>| since.is_some_and(|s| now.since(s) >= MINORITY_AFTER);
        let alone = at_top
            .iter()
            .map(|c| c.master)
            .collect::<BTreeSet<_>>()
            .len()
            == 1;
        let minority =
            self.spec.minority == Minority::Serve && patient(self.minority_since) && alone;
        let proven = |c: &&Claim<'_>| self.is_master(now, c.master);
        let believed = |c: &&Claim<'_>| proven(c) && self.majority_names(now, c.master);
        if let Some(claim) = at_top.iter().find(|c| believed(c) || minority && proven(c)) {
            return Some(self.at_best_epoch(now, claim, Term(0)));
        }
        // One sentinel with an epoch of its own for a server that is no master must not keep the
        // shop shut when all others agree.
        if at_top.iter().any(|c| proven(&c)) || !patient(self.started) {
            return None;
        }
        let agreed = self.claims(now).find(|c| believed(&c))?;
        Some(self.at_best_epoch(now, &agreed, Term(0)))
    }

    /// What follows `current`, by epoch or by majority.
    fn next(&self, now: Moment, current: &Accepted) -> Option<(Accepted, Cause)> {
        let known = self.majority_epoch(now, &current.addr);
        if let Some(term) = known.filter(|&e| e > current.term)
            && self.is_master(now, &current.addr)
        {
            let addr = current.addr.clone();
            return Some((Accepted { addr, term }, Cause::Announced));
        }
        let mut claims: Vec<Claim<'_>> = self.rivals(now, current).collect();
        claims.sort_by_key(|c| std::cmp::Reverse(c.epoch));
        for claim in claims.iter().filter(|c| self.is_master(now, c.master)) {
            let newer = claim.epoch > current.term;
            let alone = newer && !claim.outvoted && self.contesters(now, claim).next().is_none();
            let agreed = self.majority_names(now, claim.master)
                && (!self.contested_by_master(now, claim) || self.outvoted_long(now, claim.master));
            if alone || agreed {
                let (cause, floor) = if newer {
                    (Cause::Announced, Term(current.term.0.saturating_add(1)))
                } else {
                    (Cause::Majority, current.term)
                };
                return Some((self.at_best_epoch(now, claim, floor), cause));
            }
        }
        None
    }

    /// Claims for another master than `current`, as new or newer.
    fn rivals<'a>(
        &'a self,
        now: Moment,
        current: &'a Accepted,
    ) -> impl Iterator<Item = Claim<'a>> + 'a {
        self.claims(now)
            .filter(|c| c.epoch >= current.term && *c.master != current.addr)
    }

    /// Claims, as new or newer, that `claim` is wrong.
    fn contesters<'a>(
        &'a self,
        now: Moment,
        claim: &'a Claim<'a>,
    ) -> impl Iterator<Item = Claim<'a>> + 'a {
        self.claims(now)
            .filter(|c| !c.outvoted && c.epoch >= claim.epoch && c.master != claim.master)
    }

    fn contested_by_master(&self, now: Moment, claim: &Claim<'_>) -> bool {
        self.contesters(now, claim)
            .any(|c| c.epoch > claim.epoch && self.is_master(now, c.master))
    }

    /// A majority has stood against a newer word for long enough: it is no failover that gets
    /// around.
    fn outvoted_long(&self, now: Moment, by: &Addr) -> bool {
        self.outvoting
            .as_ref()
            .is_some_and(|(named, since)| named == by && now.since(*since) >= CONFIRM_WITHIN)
    }

    fn update_outvoting(&mut self, now: Moment, current: &Accepted) {
        let named = self.rivals(now, current).find(|c| {
            self.is_master(now, c.master)
                && self.majority_names(now, c.master)
                && self.contested_by_master(now, c)
        });
        let named = named.map(|c| c.master.clone());
        self.outvoting = named.map(|named| match self.outvoting.take() {
            Some((known, since)) if known == named => (named, since),
            _ => (named, now),
        });
    }

    /// A word against `accepted` that lost to a majority must not win as soon as that is accepted.
    fn mark_outvoted(&mut self, now: Moment, accepted: &Accepted) {
        let newer = |c: &Claim<'_>| c.epoch > accepted.term && *c.master != accepted.addr;
        for index in 0..self.sentinels.len() {
            let claim = self.sentinels[index].claim(now).filter(newer);
            let lost = claim.filter(|c| self.is_master(now, c.master));
            let lost = lost.map(|c| Accepted {
                addr: c.master.clone(),
                term: c.epoch,
            });
            if lost.is_some() {
                self.sentinels[index].outvoted = lost;
            }
        }
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
    /// to another master only when the accepted one no longer says that it is one; to the same one,
    /// unless it is being replaced, so that the next failover, at a low epoch, is believed at once.
    fn counted_anew(&mut self, now: Moment, current: &Accepted) -> Option<Accepted> {
        let Some(named) = self.older_majority(now, current) else {
            self.anew = None;
            return None;
        };
        let since = match &self.anew {
            Some((known, since)) if known.addr == named.addr => *since,
            _ => now,
        };
        self.anew = Some((named.clone(), since));
        let agreed = now.since(since) >= ANEW_AFTER && self.is_master(now, &named.addr);
        let free = if named.addr == current.addr {
            self.promotions.is_empty()
        } else {
            !self.is_master(now, &current.addr)
        };
        (agreed && free).then_some(named)
    }

    /// A majority has named another master, at an older epoch, for longer than a failover takes to
    /// get around.
    pub(super) fn older_rival(&self, now: Moment) -> Option<&Accepted> {
        let (named, since) = self.anew.as_ref()?;
        (now.since(*since) >= CONFIRM_WITHIN).then_some(named)
    }

    /// That other one says master too, and nobody stands by the accepted one any more: the sentinel
    /// that named it died before the others heard of it. They will demote one of the two.
    pub(super) fn disowned(&self, now: Moment, current: &Accepted) -> bool {
        self.older_rival(now)
            .is_some_and(|rival| rival.addr != current.addr && self.is_master(now, &rival.addr))
            && !self.claims(now).any(|c| *c.master == current.addr)
    }

    pub(super) fn update_accepted(&mut self, now: Moment) {
        // What was accepted just now may make something else acceptable.
        for _ in 0..4 {
            let found = match self.accepted.clone() {
                None => self.first(now).map(|found| (found, Cause::Proven)),
                Some(current) => {
                    self.update_outvoting(now, &current);
                    self.next(now, &current).or_else(|| {
                        let anew = self.counted_anew(now, &current)?;
                        Some((anew, Cause::EpochReset))
                    })
                }
            };
            let Some((found, cause)) = found else { return };
            self.accept(now, found, cause);
        }
    }

    fn accept(&mut self, now: Moment, accepted: Accepted, cause: Cause) {
        let Accepted { addr, term } = &accepted;
        self.notes
            .always(format!("accepted {addr} at epoch {} ({cause})", term.0));
        let moved = self.accepted.as_ref().is_none_or(|a| a.addr != *addr);
        if moved {
            if self.outvoting.take().is_some() {
                self.mark_outvoted(now, &accepted);
            }
            self.cause = cause;
            self.served = false;
            self.end_fences();
        }
        if cause == Cause::EpochReset {
            self.reset_at = Some(now);
        }
        self.accepted = Some(accepted);
        self.anew = None;
        self.deposed = None;
    }
}

// === deposing ===

impl SentinelJudge {
    /// Whether the accepted one lost the mastership, by words that count now.
    fn deposed_now(&self, now: Moment, current: &Accepted, home: Option<Term>) -> Option<Deposed> {
        let rivals = || self.rivals(now, current);
        let by_majority = |c: &Claim<'_>| self.majority_names(now, c.master);
        // Proven by its own word, but contested. Or nobody in reach says otherwise.
        let by_epoch = |c: &Claim<'_>| {
            c.epoch > current.term
                && !c.outvoted
                && home.is_none_or(|h| c.epoch > h && self.is_master(now, c.master))
        };
        let epoch = rivals()
            .filter(|c| by_majority(c) || by_epoch(c))
            .map(|c| c.epoch)
            .max()?;
        Some(Deposed {
            epoch,
            by_majority: rivals().any(|c| by_majority(&c)),
        })
    }

    /// Neither the deposed one nor an unproven successor gets anything. It stays so until those who
    /// took the mastership away give it back: a majority, or a word at as new an epoch, or, where
    /// the former was said by fewer than a majority, anybody.
    pub(super) fn update_deposed(&mut self, now: Moment) {
        let Some(current) = &self.accepted else {
            return;
        };
        let home = self
            .claims(now)
            .filter(|c| *c.master == current.addr)
            .map(|c| c.epoch)
            .max();
        let back = |d: &Deposed| {
            self.majority_names(now, &current.addr)
                || home.is_some_and(|h| h >= d.epoch || !d.by_majority)
        };
        let standing = self.deposed.filter(|d| !back(d));
        let fresh = self.deposed_now(now, current, home);
        self.deposed = match (standing, fresh) {
            (Some(a), Some(b)) => Some(Deposed {
                epoch: a.epoch.max(b.epoch),
                by_majority: a.by_majority || b.by_majority,
            }),
            (one, other) => one.or(other),
        };
    }
}
