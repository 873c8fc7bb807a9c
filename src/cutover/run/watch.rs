//! Waiting for what others do: the provider, the name servers, the resolvers.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::actions::Job;
use crate::clock::Moment;
use crate::cutover::machine::Event;
use crate::cutover::plan::{Plan, PlannedSet};
use crate::cutover::tools::shortened;
use crate::dns::verify::judge::{Expected, NameServer};
use crate::dns::verify::{Sample, Signed};
use crate::dns::{Change, Key, Observed, Published, RrSet};

/// Between two questions to the provider: budgets are small there.
const ASK_PROVIDER: Duration = Duration::from_secs(2);
/// Between two samples of the resolvers.
const SAMPLE: Duration = Duration::from_secs(2);

impl Job<'_> {
    pub(super) async fn deployed(&self) -> Event {
        let clock = self.tools.env.clock;
        let deadline = clock.now() + self.tools.spec.deployed_within;
        let mut said;
        loop {
            match self.tools.provider.published(&self.state.receipt).await {
                Ok(Published::Done) => return Event::Deployed { signal: true },
                Ok(Published::NoSignal) => return Event::Deployed { signal: false },
                Ok(Published::Pending(what)) => said = what,
                Err(error) => said = error.to_string(),
            }
            if clock.now() + ASK_PROVIDER >= deadline {
                let why = format!("the provider does not say that it is deployed: {said}");
                return Event::NotDeployed {
                    why: shortened(&why),
                };
            }
            self.waiting("the provider deploys it", vec![shortened(&said)]);
            sleep(ASK_PROVIDER).await;
        }
    }

    pub(super) async fn served(&self, plan: &Plan) -> Event {
        let clock = self.tools.env.clock;
        let deadline = clock.now() + self.tools.spec.served_within;
        let not = |why: String| Event::NotServed {
            waiting_for: vec![shortened(&why)],
        };
        let change = match self.wanted(plan) {
            Ok(change) => change,
            Err(error) => return not(error.to_string()),
        };
        let expected = match self.expected(&change) {
            Ok(expected) => expected,
            Err(why) => return not(why),
        };
        if expected.keys().is_empty() {
            // The provider's own proxy answers, and says nothing about the records.
            return Event::Served {
                servers: Vec::new(),
            };
        }
        let servers = match self.delegated(deadline).await {
            Ok(servers) => servers,
            Err(why) => return not(why),
        };
        let mut before = Vec::new();
        let progress = |verdict: &crate::dns::verify::judge::Verdict| {
            let waiting = verdict.waiting_for();
            if waiting != before {
                self.waiting("every name server must answer with it", waiting.clone());
                before = waiting;
            }
        };
        let verdict = self
            .tools
            .verifier
            .served(&expected, &servers, deadline, progress)
            .await;
        match verdict.served() {
            true => Event::Served {
                servers: servers.iter().map(NameServer::to_string).collect(),
            },
            false => Event::NotServed {
                waiting_for: verdict
                    .waiting_for()
                    .iter()
                    .map(|line| shortened(line))
                    .collect(),
            },
        }
    }

    /// The name servers, asked for until somebody answers.
    async fn delegated(&self, deadline: Moment) -> Result<Vec<NameServer>, String> {
        let clock = self.tools.env.clock;
        loop {
            match self.tools.verifier.delegation().await {
                Ok(servers) => return Ok(servers),
                Err(error) if clock.now() + SAMPLE >= deadline => return Err(error.to_string()),
                Err(error) => {
                    self.waiting(
                        "nobody says who the name servers are",
                        vec![error.to_string()],
                    );
                    sleep(SAMPLE).await;
                }
            }
        }
    }

    /// With the TTLs that the provider has stored.
    fn expected(&self, change: &Change) -> Result<Expected, String> {
        let mut observed = Observed::default();
        for stored in &self.state.stored {
            if let Some((key, set)) = parsed(stored)? {
                observed.records.insert(key, set);
            }
        }
        for proxied in &self.state.proxied {
            let key: Key = proxied.parse().map_err(|_| "the journal names no record")?;
            observed.proxied.insert(key);
        }
        Ok(Expected::new(change, &observed))
    }

    pub(super) async fn converged(&self, plan: &Plan) -> Event {
        let wall = || self.tools.wall();
        let served = self.state.finish.served.as_deref();
        let served = served
            .and_then(|text| text.parse::<Timestamp>().ok())
            .unwrap_or_else(wall);
        let ttl = match self.state.back {
            true => plan
                .sets
                .iter()
                .filter_map(|set| Some(set.new.as_ref()?.ttl))
                .max(),
            false => Some(plan.stragglers_s),
        };
        let ttl = Duration::from_secs(ttl.unwrap_or(0).into());
        let end = served.saturating_add(ttl).unwrap_or(served);
        let Ok(change) = self.wanted(plan) else {
            return converged(vec!["the plan cannot be read any more".to_owned()]);
        };
        let keys = change.keys();
        let wanted = change.to();
        let mut before = Vec::new();
        loop {
            let samples = self.tools.verifier.sample(&keys).await;
            let old = stale(&samples, &wanted);
            let left = end.duration_since(wall());
            if left.is_negative() || left.is_zero() {
                let mut notes = old;
                notes.extend(self.signatures(&keys).await);
                return converged(notes);
            }
            if old != before {
                let what = format!(
                    "resolvers, until the old TTL has passed in {} s",
                    left.as_secs() + 1
                );
                self.waiting(&what, old.clone());
                before = old;
            }
            sleep(SAMPLE.min(left.unsigned_abs())).await;
        }
    }

    /// A signer that is down turns a right change into answers that nobody accepts.
    async fn signatures(&self, keys: &[Key]) -> Option<String> {
        let key = keys.first()?;
        match self.tools.verifier.validate(key).await {
            Signed::Bogus(why) => Some(format!("resolvers that validate may refuse {key}: {why}")),
            Signed::Secure | Signed::Unsigned | Signed::Unknown(_) => None,
        }
    }
}

fn converged(notes: Vec<String>) -> Event {
    Event::Converged {
        notes: notes.iter().map(|note| shortened(note)).collect(),
    }
}

fn parsed(stored: &PlannedSet) -> Result<Option<(Key, RrSet)>, String> {
    let bad = |error: crate::dns::RecordError| error.to_string();
    let key: Key = stored.record.parse().map_err(bad)?;
    let Some(text) = &stored.new else {
        return Ok(None);
    };
    let values = text.values.iter().map(String::as_str);
    let set = RrSet::parse(&key, text.ttl.into(), values).map_err(bad)?;
    Ok(Some((key, set)))
}

/// Resolvers that do not answer with what shall be, a line each.
fn stale(samples: &[Sample], wanted: &crate::dns::Records) -> Vec<String> {
    let mut lines = BTreeSet::new();
    for sample in samples {
        let line = match &sample.heard {
            Err(why) => Some(format!("{}: {why}", sample.resolver)),
            Ok(found) => {
                let found_values = found.as_ref().map(RrSet::values);
                let right = found_values == wanted.get(&sample.key).map(RrSet::values);
                (!right).then(|| match found {
                    Some(set) => format!("{} still has {set}", sample.resolver),
                    None => format!("{} has no {}", sample.resolver, sample.key),
                })
            }
        };
        lines.extend(line.map(|line| shortened(&line)));
    }
    lines.into_iter().collect()
}
