//! The change itself: sent once, and read before it would be sent again.

use std::time::Duration;

use tokio::time::sleep;

use super::actions::Job;
use super::{failed, refused};
use crate::cutover::machine::{Event, Left};
use crate::cutover::plan::{Plan, PlanError, PlannedSet, SetText, digest};
use crate::cutover::tools::shortened;
use crate::dns::change::{self, Left as LeftToDo};
use crate::dns::{Change, Changed, CompareAndSet, DnsError, Key, Kind, Observed, Outcome, Records};

/// After an attempt of which the outcome is not known, before the records are read: what was sent is
/// there by then, or lost.
const CALM: Duration = Duration::from_secs(2);
/// So many readings in a row must agree.
const READINGS: usize = 2;
const MAX_READINGS: usize = 6;

impl Job<'_> {
    pub(super) fn wanted(&self, plan: &Plan) -> Result<Change, PlanError> {
        match self.state.back {
            true => plan.back(),
            false => plan.change(),
        }
    }

    /// The last look before the first attempt.
    pub(super) async fn before_sending(&self, plan: &Plan, attempt: u32) -> Event {
        let state = self.state;
        if state.touched || state.back {
            return Event::Sending { attempt };
        }
        if plan.expired(self.tools.wall()) {
            return refused("the plan has expired: make another one");
        }
        match self.tools.provider.read(&self.tools.spec.watched()).await {
            Err(error) => failed(&error.to_string()),
            Ok(seen) if digest(&self.tools.spec, &seen) != plan.digest => refused(
                "records-expected: somebody changed the records since they were planned with",
            ),
            Ok(_) => Event::Sending { attempt },
        }
    }

    pub(super) async fn send(&self, plan: &Plan) -> Event {
        let change = match self.wanted(plan) {
            Ok(change) => change,
            Err(error) => return not_sent(&error.to_string(), false),
        };
        match self.tools.provider.change(&change).await {
            Ok(changed) => accepted(&change, &changed),
            Err(error) => self.not_accepted(&change, error),
        }
    }

    fn not_accepted(&self, change: &Change, error: DnsError) -> Event {
        let why = shortened(&error.to_string());
        match &error.kind {
            Kind::Unknown | Kind::Partial { .. } => Event::Unsettled { why },
            Kind::Conflict { found } => {
                let server = self.tools.provider.capabilities().compare_and_set;
                let ours = has_ours(change, found);
                match server == CompareAndSet::Server && !ours && !self.state.doubt {
                    true => Event::NotSent {
                        why,
                        conflict: true,
                        again: false,
                    },
                    // It may have come after ours.
                    false => Event::Unsettled { why },
                }
            }
            Kind::Unavailable | Kind::RateLimited { .. } | Kind::Malformed => not_sent(&why, true),
            Kind::BadCredentials
            | Kind::Denied
            | Kind::NoZone
            | Kind::Invalid
            | Kind::Unsupported => not_sent(&why, false),
        }
    }

    /// Reads until it is clear what came of an attempt.
    pub(super) async fn settle(&self, plan: &Plan) -> Event {
        let change = match self.wanted(plan) {
            Ok(change) => change,
            Err(error) => return unread(&error.to_string()),
        };
        let rule = self.tools.provider.capabilities().ttl;
        let mut before: Option<(Left, usize)> = None;
        let mut last = String::new();
        for _ in 0..MAX_READINGS {
            self.waiting(
                "reads what came of it",
                vec![self.tools.spec.dns.zone.to_string()],
            );
            sleep(CALM).await;
            match self.tools.provider.read(&change.keys()).await {
                Err(error) => last = error.to_string(),
                Ok(seen) => {
                    let (left, why) = judged(&change, &seen, &rule);
                    let times = match before {
                        Some((same, times)) if same == left => times + 1,
                        _ => 1,
                    };
                    if times >= READINGS {
                        return Event::Settled { left, why };
                    }
                    before = Some((left, times));
                }
            }
        }
        unread(&last)
    }
}

fn unread(why: &str) -> Event {
    Event::Settled {
        left: Left::Unread,
        why: shortened(&format!("the records cannot be read: {why}")),
    }
}

fn not_sent(why: &str, again: bool) -> Event {
    Event::NotSent {
        why: shortened(why),
        conflict: false,
        again,
    }
}

fn judged(change: &Change, seen: &Observed, rule: &crate::dns::TtlRule) -> (Left, String) {
    match change::left(change, seen, rule) {
        LeftToDo::Nothing => (Left::Nothing, "it was done".to_owned()),
        LeftToDo::Conflict(keys) => {
            let keys: Vec<String> = keys.iter().map(Key::to_string).collect();
            let why = format!(
                "{} is neither as before nor as wanted: somebody else has changed it",
                keys.join(" and ")
            );
            (Left::Conflict, why)
        }
        LeftToDo::Sets(sets) => {
            let all = change
                .sets()
                .iter()
                .filter(|set| set.from != set.to)
                .count();
            match sets.len() == all {
                true => (Left::All, "nothing of it was done".to_owned()),
                false => (
                    Left::Some,
                    format!("{} of {all} sets are still to be changed", sets.len()),
                ),
            }
        }
    }
}

/// Whether something of what was to be is there.
fn has_ours(change: &Change, found: &Records) -> bool {
    change.sets().iter().any(|set| {
        let now = found.get(&set.key).map(|found| found.values());
        set.moves() && now.is_some() && now == set.to.as_ref().map(|to| to.values())
    })
}

fn accepted(change: &Change, changed: &Changed) -> Event {
    let observed = &changed.observed;
    let stored = change.sets().iter().map(|set| PlannedSet {
        record: set.key.to_string(),
        old: set.from.as_ref().map(SetText::of),
        new: observed.records.get(&set.key).map(SetText::of),
        stored_ttl: observed.records.get(&set.key).map(|set| set.ttl()),
    });
    let mut notes: Vec<String> = changed
        .clamped
        .iter()
        .map(|c| {
            format!(
                "{} has a TTL of {} s instead of {} s",
                c.key, c.got, c.wanted
            )
        })
        .collect();
    if changed.outcome == Outcome::AlreadyDone {
        notes.push("the provider had it already".to_owned());
    }
    Event::Accepted {
        receipt: changed.receipt.clone(),
        stored: stored.collect(),
        proxied: observed.proxied.iter().map(Key::to_string).collect(),
        notes,
    }
}
