//! PowerDNS' HTTP API (`webserver=yes`, `api=yes`).
//!
//! One PATCH is one transaction of its backend, so several sets change together. There is no
//! compare-and-set (PowerDNS/pdns #6247). An API key has no scopes: it may do everything or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Ask, Dialect, Http, Method, Outgoing, Settings, encode};
use super::record::{Records, RrSet};
use super::spec::PowerDnsSpec;
use super::{
    Access, Call, Capabilities, CompareAndSet, DnsError, DnsSpec, Env, Key, Kind, Maker, Name,
    Observed, Proof, PropagationSignal, Provider, ProviderKind, ProviderSpec, PublishStep, Receipt,
    SetChange, TtlRule, Undo,
};
use crate::secret::Secret;

const KIND: ProviderKind = ProviderKind::PowerDns;

pub struct PowerDns;

impl Maker for PowerDns {
    fn kind(&self) -> ProviderKind {
        KIND
    }

    fn make(&self, spec: &DnsSpec, env: &Env) -> Result<Box<dyn Provider>, DnsError> {
        let ProviderSpec::PowerDns(settings) = &spec.provider else {
            return Err(super::wrong_settings(KIND));
        };
        let PowerDnsSpec {
            endpoint,
            server_id,
            api_key,
        } = settings;
        let http = Http::new(
            Settings {
                kind: KIND,
                endpoint,
                default_url: "http://127.0.0.1:8081",
                patience: spec.patience,
                dialect: Arc::new(ApiKey(api_key.clone())),
                secrets: vec![api_key.clone()],
            },
            env,
        )?;
        let (server, zone) = (encode(server_id), encode(&spec.zone.absolute()));
        Ok(Box::new(Api {
            http,
            zone: spec.zone.clone(),
            path: format!("/api/v1/servers/{server}/zones/{zone}"),
        }))
    }
}

struct ApiKey(Secret);

impl Dialect for ApiKey {
    fn sign(&self, _request: &Outgoing<'_>) -> Result<Vec<(&'static str, Secret)>, DnsError> {
        Ok(vec![("x-api-key", self.0.clone())])
    }

    fn explain(&self, body: &[u8]) -> Option<String> {
        let body: Value = serde_json::from_slice(body).ok()?;
        Some(body.get("error")?.as_str()?.to_owned())
    }
}

struct Api {
    http: Http,
    zone: Name,
    path: String,
}

#[derive(Deserialize)]
struct Zone {
    kind: String,
    edited_serial: Option<u64>,
    #[serde(default)]
    rrsets: Vec<Rrset>,
}

#[derive(Deserialize)]
struct Rrset {
    name: String,
    #[serde(rename = "type")]
    rtype: String,
    ttl: u64,
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    content: String,
    #[serde(default)]
    disabled: bool,
}

impl Api {
    async fn zone(&self, name: &Name) -> Result<Zone, DnsError> {
        let name = encode(&name.absolute());
        // Versions before 4.7 ignore the filter and answer with the whole zone.
        let path = format!("{}?rrset_name={name}", self.path);
        self.http.json(&Ask::get(path)).await
    }

    async fn look_up(&self, keys: &[Key]) -> Result<Observed, DnsError> {
        let mut observed = Observed::default();
        let names: BTreeSet<&Name> = keys.iter().map(|key| &key.name).collect();
        for name in names {
            let zone = self.zone(name).await?;
            observed.version = zone.edited_serial.map(|serial| serial.to_string());
            let wanted: BTreeMap<(String, &str), &Key> = keys
                .iter()
                .map(|key| ((key.name.absolute(), key.rtype.as_str()), key))
                .collect();
            for found in zone.rrsets {
                let id = (found.name.to_ascii_lowercase(), found.rtype.as_str());
                if let Some(key) = wanted.get(&id).filter(|key| key.name == *name) {
                    observed.records.extend(self.set(key, &found)?);
                }
            }
        }
        Ok(observed)
    }

    fn set(&self, key: &Key, found: &Rrset) -> Result<Records, DnsError> {
        if found.records.iter().any(|record| record.disabled) {
            let why = format!("{key} has disabled records, which a change would remove");
            return Err(self.http.fail(Kind::Unsupported, why));
        }
        let values = found.records.iter().map(|record| record.content.as_str());
        let set = RrSet::parse(key, found.ttl, values);
        let set = set.map_err(|e| self.http.fail(Kind::Malformed, format!("{key}: {e}")))?;
        Ok(super::record::records([set]))
    }

    async fn patch(&self, sets: &[SetChange], note: &str) -> Result<Receipt, DnsError> {
        // A set that would conflict with a new one must be gone when that one is looked at.
        let (gone, kept): (Vec<&SetChange>, Vec<_>) = sets.iter().partition(|s| s.to.is_none());
        let rrsets: Vec<Value> = gone
            .into_iter()
            .chain(kept)
            .map(|s| patched(s, note))
            .collect();
        let ask = Ask::write(Method::PATCH, &self.path).json(&json!({ "rrsets": rrsets }));
        let answer = self.http.send(&ask).await?;
        self.http.success(answer)?;
        Ok(Receipt::default())
    }

    async fn access(&self) -> Result<Access, DnsError> {
        let zone = self.zone(&self.zone).await?;
        let kind = zone.kind.to_ascii_lowercase();
        if !["native", "master", "primary", "producer"].contains(&kind.as_str()) {
            let why = format!(
                "{} is of kind {}, a copy of another server's",
                self.zone, zone.kind
            );
            return Err(self.http.fail(Kind::Denied, why));
        }
        let why = "the server accepts the API key, and such a key has no limits";
        Ok(Access::both(Proof::Likely(why.to_owned())))
    }
}

fn patched(set: &SetChange, note: &str) -> Value {
    let (name, rtype) = (set.key.name.absolute(), set.key.rtype.as_str());
    let Some(to) = &set.to else {
        return json!({ "name": name, "type": rtype, "changetype": "DELETE" });
    };
    let record = |text| json!({ "content": text, "disabled": false });
    let records: Vec<Value> = to.zone_texts().into_iter().map(record).collect();
    json!({
        "name": name,
        "type": rtype,
        "ttl": to.ttl(),
        "changetype": "REPLACE",
        "records": records,
        "comments": [{ "content": note, "account": "pilotfish" }],
    })
}

impl Provider for Api {
    fn kind(&self) -> ProviderKind {
        KIND
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            compare_and_set: CompareAndSet::ReadThenWrite,
            compares_ttl: false,
            atomic: true,
            publish: PublishStep::None,
            signal: PropagationSignal::None,
            ttl: TtlRule::ANY,
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
        note: &'a str,
    ) -> Call<'a, Receipt> {
        Box::pin(self.patch(sets, note))
    }

    fn check<'a>(&'a self, _keys: &'a [Key]) -> Call<'a, Access> {
        Box::pin(self.access())
    }
}
