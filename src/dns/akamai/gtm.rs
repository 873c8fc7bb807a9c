//! Akamai Global Traffic Management, API version 1.
//!
//! The zone is a GTM domain and a name in it a property, which answers for that name. Its traffic
//! targets are made beforehand; a change enables those whose servers are wanted and disables the
//! others, so a value that no target has cannot be set. A property has one type of address, and a PUT
//! replaces all of it: what was read is written back with nothing else changed.

use serde_json::{Value, json};

use super::edgegrid;
use crate::dns::http::{Ask, Http, Method, encode};
use crate::dns::record::{RrSet, records};
use crate::dns::{
    Access, Call, Capabilities, CompareAndSet, DnsError, DnsSpec, Env, Key, Kind, Maker, Name,
    Observed, Proof, PropagationSignal, Provider, ProviderKind, ProviderSpec, PublishStep,
    Published, Receipt, RecordType, SetChange, TtlRule, Undo,
};

const KIND: ProviderKind = ProviderKind::AkamaiGtm;
const BASE: &str = "/config-gtm/v1";

pub struct Gtm;

impl Maker for Gtm {
    fn kind(&self) -> ProviderKind {
        KIND
    }

    fn make(&self, spec: &DnsSpec, env: &Env) -> Result<Box<dyn Provider>, DnsError> {
        let ProviderSpec::AkamaiGtm(settings) = &spec.provider else {
            return Err(crate::dns::wrong_settings(KIND));
        };
        Ok(Box::new(Domain {
            http: edgegrid::http(KIND, settings, spec, env)?,
            path: format!("{BASE}/domains/{}", encode(spec.zone.as_str())),
            domain: spec.zone.clone(),
        }))
    }
}

struct Domain {
    http: Http,
    domain: Name,
    path: String,
}

impl Domain {
    async fn property(&self, name: &Name) -> Result<Option<Value>, DnsError> {
        let property = match name.relative_to(&self.domain) {
            Some("") | None => {
                let why = format!("{name} is not a property of {}", self.domain);
                return Err(self.http.fail(Kind::Invalid, why));
            }
            Some(property) => property,
        };
        let ask = Ask::get(format!("{}/properties/{}", self.path, encode(property)));
        let answer = self.http.send(&ask).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        let answer = self.http.success(answer)?;
        self.http.parse(&ask, &answer).map(Some)
    }

    async fn look_up(&self, keys: &[Key]) -> Result<Observed, DnsError> {
        let mut found = Vec::new();
        for key in keys {
            let Some(property) = self.property(&key.name).await? else {
                continue;
            };
            let set = answers(&property, key);
            found.extend(set.map_err(|why| self.http.fail(Kind::Unsupported, why))?);
        }
        Ok(Observed {
            records: records(found),
            ..Observed::default()
        })
    }

    async fn change_sets(&self, sets: &[SetChange]) -> Result<Receipt, DnsError> {
        let mut done: Vec<Key> = Vec::new();
        for set in sets {
            if let Err(error) = self.change_set(set).await {
                if done.is_empty() || error.kind == Kind::Unknown {
                    return Err(error);
                }
                let kind = Kind::Partial { done };
                return Err(DnsError { kind, ..error });
            }
            done.push(set.key.clone());
        }
        Ok(Receipt::default())
    }

    async fn change_set(&self, set: &SetChange) -> Result<(), DnsError> {
        let (Some(_), Some(to)) = (&set.from, &set.to) else {
            let why = format!(
                "{}: a property can be neither made nor removed here",
                set.key
            );
            return Err(self.http.fail(Kind::Unsupported, why));
        };
        let property = self.property(&set.key.name).await?;
        let gone = || {
            self.http.fail(
                Kind::Conflict { found: records([]) },
                "the property is gone",
            )
        };
        let mut property = property.ok_or_else(gone)?;
        // Read once more just now, so compared once more.
        let found = answers(&property, &set.key);
        let found = found.map_err(|why| self.http.fail(Kind::Unsupported, why))?;
        if found != set.from {
            let kind = Kind::Conflict {
                found: records(found),
            };
            return Err(self
                .http
                .fail(kind, format!("{} changed meanwhile", set.key)));
        }
        switch(&mut property, to).map_err(|why| self.http.fail(Kind::Invalid, why))?;
        let name = set.key.name.relative_to(&self.domain).unwrap_or_default();
        let path = format!("{}/properties/{}", self.path, encode(name));
        let ask = Ask::write(Method::PUT, path).json(&property);
        self.http.success(self.http.send(&ask).await?).map(drop)
    }
}

fn targets(property: &Value) -> Vec<&Value> {
    let targets = property["trafficTargets"].as_array();
    targets
        .map(|targets| targets.iter().collect())
        .unwrap_or_default()
}

/// What a target answers for this type; empty when it is for another one.
fn answer(target: &Value, rtype: RecordType) -> Vec<&str> {
    let servers = || target["servers"].as_array().into_iter().flatten();
    match rtype {
        RecordType::Cname => target["handoutCName"].as_str().into_iter().collect(),
        RecordType::Txt => Vec::new(),
        RecordType::A => servers()
            .filter_map(Value::as_str)
            .filter(|s| !s.contains(':'))
            .collect(),
        RecordType::Aaaa => servers()
            .filter_map(Value::as_str)
            .filter(|s| s.contains(':'))
            .collect(),
    }
}

fn is_on(target: &Value) -> bool {
    target["enabled"] == true && target["weight"].as_f64().is_none_or(|weight| weight > 0.0)
}

/// The set that the enabled targets make up.
fn answers(property: &Value, key: &Key) -> Result<Option<RrSet>, String> {
    let on = targets(property).into_iter().filter(|target| is_on(target));
    let values: Vec<&str> = on.flat_map(|target| answer(target, key.rtype)).collect();
    if values.is_empty() {
        return Ok(None);
    }
    let ttl = property["dynamicTTL"].as_u64().unwrap_or(60);
    let set = RrSet::parse(key, ttl, values).map_err(|e| format!("{key}: {e}"))?;
    Ok(Some(set))
}

/// Enables exactly the targets that answer what is wanted.
fn switch(property: &mut Value, to: &RrSet) -> Result<(), String> {
    let key = to.key();
    property["dynamicTTL"] = json!(to.ttl());
    let wanted = |target: &Value| {
        let values = answer(target, key.rtype);
        let set = RrSet::parse(&key, 0, values.iter().copied()).ok();
        let texts = to.texts();
        set.is_some_and(|set| set.texts().iter().all(|text| texts.contains(text)))
    };
    for target in property["trafficTargets"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        let on = wanted(target);
        target["enabled"] = json!(on);
        // An enabled target without weight gets no traffic.
        if on && target["weight"].as_f64() == Some(0.0) {
            target["weight"] = json!(1.0);
        }
    }
    let made = answers(property, &key)?;
    if made.as_ref() != Some(to) {
        let made = made.map_or_else(|| "nothing".to_owned(), |set| set.to_string());
        return Err(format!(
            "no traffic targets make up {to}; the best they can is {made}"
        ));
    }
    Ok(())
}

impl Provider for Domain {
    fn kind(&self) -> ProviderKind {
        KIND
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            compare_and_set: CompareAndSet::ReadThenWrite,
            compares_ttl: false,
            atomic: false,
            publish: PublishStep::None,
            signal: PropagationSignal::Poll,
            ttl: TtlRule {
                min: 30,
                values: &[],
                silent: false,
            },
            proxied_mode: false,
            undo: Undo::Inverse,
        }
    }

    fn read<'a>(&'a self, keys: &'a [Key]) -> Call<'a, Observed> {
        Box::pin(self.look_up(keys))
    }

    fn send<'a>(
        &'a self,
        sets: &'a [SetChange],
        _seen: &'a Observed,
        _note: &'a str,
    ) -> Call<'a, Receipt> {
        Box::pin(self.change_sets(sets))
    }

    fn published<'a>(&'a self, _receipt: &'a Receipt) -> Call<'a, Published> {
        Box::pin(async move {
            let ask = Ask::get(format!("{}/status/current", self.path));
            let status: Value = self.http.json(&ask).await?;
            let message = status["message"].as_str().unwrap_or_default();
            Ok(match status["propagationStatus"].as_str() {
                Some("COMPLETE") => Published::Done,
                Some("DENIED") => {
                    let why = format!("the change was denied: {message}");
                    return Err(self.http.fail(Kind::Invalid, why));
                }
                other => Published::Pending(other.unwrap_or("no status").to_owned()),
            })
        })
    }

    fn check<'a>(&'a self, keys: &'a [Key]) -> Call<'a, Access> {
        Box::pin(async move {
            self.look_up(keys).await?;
            let why =
                "the properties can be read; whether they can be written, only a change shows";
            Ok(Access::both(Proof::Likely(why.to_owned())))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property() -> Value {
        json!({
            "name": "shop", "type": "failover", "dynamicTTL": 300, "handoutMode": "normal",
            "trafficTargets": [
                { "datacenterId": 1, "enabled": true, "weight": 1.0, "servers": ["192.0.2.10", "192.0.2.11"] },
                { "datacenterId": 2, "enabled": false, "weight": 0.0, "servers": ["192.0.2.20"] },
            ],
        })
    }

    #[test]
    fn targets_are_switched_and_nothing_else() {
        let key: Key = "shop.example.akadns.net A".parse().unwrap();
        let mut changed = property();
        let to = RrSet::parse(&key, 60, ["192.0.2.20"]).unwrap();
        switch(&mut changed, &to).unwrap();
        assert_eq!(answers(&changed, &key), Ok(Some(to)));
        assert_eq!(changed["handoutMode"], "normal");
        assert_eq!(changed["trafficTargets"][0]["enabled"], false);
        assert_eq!(changed["trafficTargets"][0]["weight"], 1.0);
        let half = RrSet::parse(&key, 60, ["192.0.2.10"]).unwrap();
        let error = switch(&mut property(), &half).unwrap_err();
        assert!(error.contains("the best they can"), "{error}");
        let aaaa = Key::new(key.name, RecordType::Aaaa);
        assert_eq!(answers(&property(), &aaaa), Ok(None));
    }
}
