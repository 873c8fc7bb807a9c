//! Events in words.

use crate::cutover::machine::{Event, Left};

/// An event for people.
pub(super) fn text(event: &Event) -> String {
    match event {
        Event::Begun { order, sidecar } => {
            let reason = order
                .reason
                .as_ref()
                .map_or_else(String::new, |why| format!(", because {why}"));
            let overrides = match order.overrides.as_slice() {
                [] => String::new(),
                all => format!(", overriding {}", all.join(", ")),
            };
            format!(
                "{} to {} from {sidecar}{reason}{overrides}",
                order.way.as_str(),
                order.to
            )
        }
        Event::Planned { plan } => format!(
            "planned: epoch {}, from {}, {} sets, digest {}",
            plan.epoch,
            plan.from.as_deref().unwrap_or("nowhere known"),
            plan.sets.len(),
            plan.digest.get(..12).unwrap_or_default()
        ),
        Event::Refused { why, .. } => why.clone(),
        Event::Idle => "the records lead there already".to_owned(),
        Event::Judged { verdicts } => {
            let said = verdicts.iter().map(|verdict| {
                let mark = if verdict.overridden {
                    " (overridden)"
                } else {
                    ""
                };
                format!("{} {}{mark}", verdict.gate, verdict.says.as_str())
            });
            format!("gates: {}", said.collect::<Vec<_>>().join(", "))
        }
        Event::HookRan {
            when,
            index,
            ok,
            why,
            took_ms,
        } => {
            let word = if *ok { "ran" } else { "failed" };
            format!(
                "hook {} {} {word} in {took_ms} ms: {why}",
                when.as_str(),
                index + 1
            )
        }
        other => text_of_steps(other),
    }
}

/// Between the gates and the change.
fn text_of_steps(event: &Event) -> String {
    match event {
        Event::Fencing => "fences the old region".to_owned(),
        Event::Fenced { ok: true, why } => format!("fenced: {why}"),
        Event::Fenced { why, .. } => format!("fencing failed: {why}"),
        Event::Proved { verdict } => format!(
            "{} {}: {}",
            verdict.gate,
            verdict.says.as_str(),
            verdict.why
        ),
        Event::Promoting { service } => format!("promotes the database of {service}"),
        Event::Promoted {
            service,
            ok: true,
            why,
        } => format!("promoted the database of {service}: {why}"),
        Event::Promoted { service, why, .. } => {
            format!("the database of {service} was not promoted: {why}")
        }
        Event::Opened { ok: true, why } => format!("the target is open: {why}"),
        Event::Opened { why, .. } => format!("the target holds its clients: {why}"),
        Event::Sending { attempt: 1 } => "sends the change".to_owned(),
        Event::Sending { attempt } => {
            format!("sends what is left of the change, attempt {attempt}")
        }
        Event::Accepted { notes, .. } if notes.is_empty() => {
            "the provider has the change".to_owned()
        }
        Event::Accepted { notes, .. } => {
            format!("the provider has the change; {}", notes.join("; "))
        }
        other => text_of_the_change(other),
    }
}

/// From the change on.
fn text_of_the_change(event: &Event) -> String {
    match event {
        Event::Unsettled { why } => format!("not known what came of it: {why}"),
        Event::NotSent { why, .. } => format!("nothing came of it: {why}"),
        Event::Settled { left, why } => format!("{}: {why}", left_text(*left)),
        Event::Deployed { signal: true } => "the provider says that it is deployed".to_owned(),
        Event::Deployed { .. } => "the provider never says when a change is deployed".to_owned(),
        Event::NotDeployed { why } => why.clone(),
        Event::Served { servers } if servers.is_empty() => {
            "the provider's proxy answers: no name server can prove anything".to_owned()
        }
        Event::Served { servers } => {
            format!("every name server answers with it: {}", servers.join(", "))
        }
        Event::NotServed { waiting_for } => {
            format!("not every name server has it: {}", waiting_for.join("; "))
        }
        Event::Converged { notes } if notes.is_empty() => "the old TTL has passed".to_owned(),
        Event::Converged { notes } => format!("the old TTL has passed; {}", notes.join("; ")),
        Event::Released { why, .. } => format!("released the fence: {why}"),
        Event::LockLost { why } => format!("the lock was lost: {why}"),
        Event::Resumed { .. } => "goes on".to_owned(),
        Event::RollbackAsked { reason, .. } => {
            format!(
                "goes back: {}",
                reason.as_deref().unwrap_or("an operator said so")
            )
        }
        Event::GivenUp { reason, .. } => format!("an operator has taken it over: {reason}"),
        // Said by the caller.
        other => other.name().to_owned(),
    }
}

fn left_text(left: Left) -> &'static str {
    match left {
        Left::Nothing => "it was carried out",
        Left::Some => "a part of it was carried out",
        Left::All => "it was not carried out",
        Left::Conflict => "somebody else has changed the records",
        Left::Unread => "not known",
    }
}
