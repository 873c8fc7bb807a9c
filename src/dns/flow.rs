//! How a record set is changed, whoever keeps it: read, compare, send what is left, read back.

use std::time::Duration;

use tokio::time::sleep;

use super::change::{self, Left};
use super::{
    Capabilities, Change, Changed, CompareAndSet, DnsError, Kind, Observed, Outcome, Provider,
    PublishStep, Receipt, RecordType, SetChange,
};

/// How often a change is looked for after the provider has accepted it: some answer reads from copies
/// that lag. Half a second, then twice as long each time.
const READ_BACKS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// [`Provider::change`].
pub(super) async fn change<P>(provider: &P, change: &Change) -> Result<Changed, DnsError>
where
    P: Provider + ?Sized,
{
    let rules = provider.capabilities();
    let seen = provider.read(&change.keys()).await?;
    let sets = match change::left(change, &seen, &rules.ttl) {
        Left::Conflict(keys) => return Err(conflict(provider, &keys, seen)),
        Left::Nothing => {
            // It may have been interrupted between the change and its publication.
            let receipt = match rules.publish {
                PublishStep::Explicit => provider.send(&[], &seen, &change.note).await?,
                PublishStep::None => Receipt::default(),
            };
            return Ok(changed(Outcome::AlreadyDone, change, seen, receipt));
        }
        Left::Sets(sets) => sets,
    };
    refuse(&rules, &sets)
        .map_err(|(kind, why)| DnsError::new(provider.kind().as_str(), kind, why))?;
    let receipt = provider.send(&sets, &seen, &change.note).await?;
    let observed = read_back(provider, change, &rules).await?;
    Ok(changed(Outcome::Applied, change, observed, receipt))
}

fn changed(outcome: Outcome, change: &Change, observed: Observed, receipt: Receipt) -> Changed {
    Changed {
        outcome,
        clamped: change::clamped(change, &observed),
        observed,
        receipt,
    }
}

fn conflict<P: Provider + ?Sized>(provider: &P, keys: &[super::Key], seen: Observed) -> DnsError {
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    DnsError::new(
        provider.kind().as_str(),
        Kind::Conflict {
            found: seen.records,
        },
        format!("{} changed since it was planned", keys.join(" and ")),
    )
}

/// What this provider cannot do without a moment in which the name has no records.
fn refuse(rules: &Capabilities, sets: &[SetChange]) -> Result<(), (Kind, String)> {
    for set in sets {
        let appears = set.from.is_none() || set.to.is_none();
        if !rules.atomic && appears && set.key.rtype == RecordType::Cname {
            let why = "changing between a CNAME and addresses takes two steps here, and in between \
                       the name would have no records";
            return Err((Kind::Unsupported, format!("{}: {why}", set.key)));
        }
        let Some(ttl) = set.to.as_ref().map(super::RrSet::ttl) else {
            continue;
        };
        let stored = rules.ttl.effective(ttl);
        if stored != ttl && !rules.ttl.silent {
            let why = format!("a TTL of {ttl} s is not possible here, {stored} s is");
            return Err((Kind::Invalid, format!("{}: {why}", set.key)));
        }
    }
    Ok(())
}

async fn read_back<P>(
    provider: &P,
    change: &Change,
    rules: &Capabilities,
) -> Result<Observed, DnsError>
where
    P: Provider + ?Sized,
{
    let unknown = |why: String| DnsError::new(provider.kind().as_str(), Kind::Unknown, why);
    let mut pause = FIRST_PAUSE;
    let mut last = String::new();
    for attempt in 0..READ_BACKS {
        if attempt > 0 {
            sleep(pause).await;
            pause *= 2;
        }
        match provider.read(&change.keys()).await {
            Ok(observed) => match change::left(change, &observed, &rules.ttl) {
                Left::Nothing => return Ok(observed),
                Left::Sets(_) => last = "the records read back are still the old ones".to_owned(),
                // Ours was accepted, so whatever this is came after it.
                Left::Conflict(keys) => return Err(conflict(provider, &keys, observed)),
            },
            Err(error) => last = error.to_string(),
        }
    }
    let who = match rules.compare_and_set {
        CompareAndSet::Server => "the change was accepted as a whole",
        CompareAndSet::ReadThenWrite => "the change was accepted",
    };
    Err(unknown(format!("{who}, but it cannot be seen: {last}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::record::records;
    use crate::dns::{PropagationSignal, RrSet, TtlRule, Undo};

    const PLAIN: Capabilities = Capabilities {
        compare_and_set: CompareAndSet::ReadThenWrite,
        compares_ttl: false,
        atomic: false,
        publish: PublishStep::None,
        signal: PropagationSignal::None,
        ttl: TtlRule {
            min: 30,
            values: &[],
            silent: false,
        },
        proxied_mode: false,
        undo: Undo::Inverse,
    };

    fn set(key: &str, ttl: u64, value: &str) -> RrSet {
        RrSet::parse(&key.parse().unwrap(), ttl, [value]).unwrap()
    }

    #[test]
    fn a_gap_is_refused_and_a_ttl_that_cannot_be() {
        let a = |ttl| set("shop.example.com A", ttl, "192.0.2.1");
        let cname = set("shop.example.com CNAME", 60, "lb.example.net");
        let swap = Change::new(&records([a(60)]), &records([cname]), "").unwrap();
        assert!(matches!(
            refuse(&PLAIN, swap.sets()),
            Err((Kind::Unsupported, _))
        ));
        let atomic = Capabilities {
            atomic: true,
            ..PLAIN
        };
        assert!(refuse(&atomic, swap.sets()).is_ok());
        let short = Change::new(&records([a(60)]), &records([a(10)]), "").unwrap();
        assert!(matches!(
            refuse(&PLAIN, short.sets()),
            Err((Kind::Invalid, _))
        ));
        let mut silent = PLAIN;
        silent.ttl.silent = true;
        assert!(refuse(&silent, short.sets()).is_ok());
    }
}
