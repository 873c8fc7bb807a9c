//! Cloudflare, API version 4.
//!
//! A batch is one transaction of its database: deletes, then patches, then posts, and the first failure
//! undoes all of it. There is no compare-and-set; a record that was replaced meanwhile has another id
//! and makes the batch fail, one that was edited in place does not. A PUT resets what it does not name
//! and would take a record from behind the proxy, so only PATCH is used. A proxied record's TTL counts
//! for nothing and reads as 1; clients get answers with 300 s.

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::http::{Answer, Ask, Http, Method, TokenApi, encode};
use super::record::zone_text;
use super::rows::{self, Row, Step};
use super::{
    Access, Call, Capabilities, CompareAndSet, DnsError, DnsSpec, Env, Key, Kind, Maker, Name,
    Observed, Proof, PropagationSignal, Provider, ProviderKind, ProviderSpec, PublishStep, Receipt,
    RecordType, SetChange, TtlRule, Undo,
};

const KIND: ProviderKind = ProviderKind::Cloudflare;
const BASE: &str = "/client/v4";
/// What a TTL of 1, "automatic", is.
const AUTOMATIC: u64 = 300;
const PER_PAGE: usize = 100;
/// A record's id that no record has.
const NO_RECORD: &str = "00000000000000000000000000000000";
/// "Record does not exist", "An A, AAAA, or CNAME record with that host already exists", "The record
/// already exists", "An identical record already exists".
const GONE: u64 = 81044;
const EXISTS: [u64; 3] = [81053, 81057, 81058];
/// "Invalid access token" and "Authentication error".
const NOT_AUTHENTICATED: [u64; 2] = [9109, 10000];

pub struct Cloudflare;

impl Maker for Cloudflare {
    fn kind(&self) -> ProviderKind {
        KIND
    }

    fn make(&self, spec: &DnsSpec, env: &Env) -> Result<Box<dyn Provider>, DnsError> {
        let ProviderSpec::Cloudflare(settings) = &spec.provider else {
            return Err(super::wrong_settings(KIND));
        };
        let api = TokenApi {
            kind: KIND,
            default_url: "https://api.cloudflare.com",
            message: "/errors/0/message",
        };
        let http = api.http(settings, spec, env)?;
        Ok(Box::new(Zone {
            http,
            zone: spec.zone.clone(),
            id: OnceCell::new(),
        }))
    }
}

struct Zone {
    http: Http,
    zone: Name,
    id: OnceCell<String>,
}

#[derive(Deserialize)]
struct Listed<T> {
    result: Vec<T>,
    result_info: Option<PageInfo>,
}

#[derive(Deserialize)]
struct PageInfo {
    total_pages: Option<u64>,
}

#[derive(Deserialize)]
struct ZoneInfo {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Record {
    id: String,
    name: String,
    #[serde(rename = "type")]
    rtype: String,
    #[serde(default)]
    content: String,
    ttl: u64,
    #[serde(default)]
    proxied: bool,
}

impl Record {
    fn is(&self, key: &Key) -> bool {
        self.rtype == key.rtype.as_str() && self.name.eq_ignore_ascii_case(key.name.as_str())
    }
}

fn codes(answer: &Answer) -> Vec<u64> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let errors = body["errors"].as_array().cloned().unwrap_or_default();
    errors
        .iter()
        .filter_map(|error| error["code"].as_u64())
        .collect()
}

impl Zone {
    async fn id(&self) -> Result<&str, DnsError> {
        let id = self.id.get_or_try_init(|| self.find_id()).await?;
        Ok(id)
    }

    async fn find_id(&self) -> Result<String, DnsError> {
        let path = format!("{BASE}/zones?name={}", encode(self.zone.as_str()));
        let zones: Listed<ZoneInfo> = self.ask(&Ask::get(path)).await?;
        let mine = |zone: &ZoneInfo| zone.name.eq_ignore_ascii_case(self.zone.as_str());
        match zones.result.into_iter().find(mine) {
            Some(zone) => Ok(zone.id),
            None => {
                let why = format!("the token sees no zone {}", self.zone);
                Err(self.http.fail(Kind::NoZone, why))
            }
        }
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, ask: &Ask) -> Result<T, DnsError> {
        let answer = self.success(self.http.send(ask).await?)?;
        self.http.parse(ask, &answer)
    }

    fn success(&self, answer: Answer) -> Result<Answer, DnsError> {
        let codes = codes(&answer);
        let has = |known: &[u64]| codes.iter().any(|code| known.contains(code));
        if answer.is_success() {
            return Ok(answer);
        }
        if has(&NOT_AUTHENTICATED) {
            return Err(self.http.refusal(Kind::BadCredentials, &answer));
        }
        if has(&EXISTS) || has(&[GONE]) {
            let found = super::Records::new();
            return Err(self.http.refusal(Kind::Conflict { found }, &answer));
        }
        self.http.success(answer)
    }

    async fn rows(&self, keys: &[Key]) -> Result<Vec<Row>, DnsError> {
        let id = self.id().await?;
        let names: std::collections::BTreeSet<&Name> = keys.iter().map(|key| &key.name).collect();
        let mut rows = Vec::new();
        for name in names {
            let query = format!("name={}&per_page={PER_PAGE}&page=1", encode(name.as_str()));
            let path = format!("{BASE}/zones/{id}/dns_records?{query}");
            let page: Listed<Record> = self.ask(&Ask::get(path)).await?;
            if page
                .result_info
                .and_then(|info| info.total_pages)
                .is_some_and(|n| n > 1)
            {
                let why = format!("{name} has more than {PER_PAGE} records");
                return Err(self.http.fail(Kind::Unsupported, why));
            }
            for record in page.result {
                let Some(key) = keys.iter().find(|key| record.is(key)) else {
                    continue;
                };
                let automatic = record.proxied || record.ttl == 1;
                rows.push(Row {
                    id: record.id,
                    key: key.clone(),
                    value: record.content,
                    ttl: if automatic { AUTOMATIC } else { record.ttl },
                    proxied: record.proxied,
                });
            }
        }
        Ok(rows)
    }

    async fn look_up(&self, keys: &[Key]) -> Result<Observed, DnsError> {
        let observed = rows::observed(self.rows(keys).await?);
        observed.map_err(|e| self.http.fail(Kind::Malformed, e))
    }

    async fn batch(&self, body: &Value) -> Result<Answer, DnsError> {
        let path = format!("{BASE}/zones/{}/dns_records/batch", self.id().await?);
        let answer = self
            .http
            .send(&Ask::write(Method::POST, path).json(body))
            .await?;
        self.success(answer)
    }

    async fn change_rows(
        &self,
        sets: &[SetChange],
        seen: &Observed,
        note: &str,
    ) -> Result<Receipt, DnsError> {
        let steps = rows::steps(&seen.rows, sets);
        match self.batch(&batch(&steps, &seen.rows, note)).await {
            Ok(_) => Ok(Receipt::default()),
            Err(error) if matches!(error.kind, Kind::Conflict { .. }) => {
                let keys: Vec<Key> = sets.iter().map(|set| set.key.clone()).collect();
                let found = self.look_up(&keys).await.unwrap_or_default().records;
                let kind = Kind::Conflict { found };
                Err(DnsError { kind, ..error })
            }
            Err(error) => Err(error),
        }
    }

    async fn access(&self) -> Result<Access, DnsError> {
        // As a whole or not at all, and there is no such record: nothing can come of it.
        let probe = json!({ "deletes": [{ "id": NO_RECORD }] });
        let path = format!("{BASE}/zones/{}/dns_records/batch", self.id().await?);
        let ask = Ask::write(Method::POST, path).json(&probe).harmless();
        let answer = self.http.send(&ask).await?;
        let proof = if codes(&answer).contains(&GONE) {
            Proof::Proven
        } else if matches!(answer.status, 400 | 404) && codes(&answer).is_empty() {
            Proof::Likely("a change that cannot be was refused as impossible".to_owned())
        } else {
            let answer = self.success(answer)?;
            return Err(self.http.refusal(Kind::Malformed, &answer));
        };
        Ok(Access::both(proof))
    }
}

/// Proxied records keep their proxy: what is new next to them gets it too.
fn batch(steps: &[Step], rows: &[Row], note: &str) -> Value {
    let (mut deletes, mut patches, mut posts) = (Vec::new(), Vec::new(), Vec::new());
    // Free plans take comments of 100 characters.
    let note: String = note.chars().take(100).collect();
    for step in steps {
        match step {
            Step::Delete { row } => deletes.push(json!({ "id": row.id })),
            Step::Update { row, value, ttl } => {
                let value = content(row.key.rtype, value);
                let mut patch = json!({ "id": row.id, "content": value, "comment": note });
                if !row.proxied {
                    patch["ttl"] = json!(ttl);
                }
                patches.push(patch);
            }
            Step::Create { key, value, ttl } => {
                let proxied = rows
                    .iter()
                    .any(|row| row.key.name == key.name && row.proxied);
                posts.push(json!({
                    "type": key.rtype.as_str(),
                    "name": key.name.as_str(),
                    "content": content(key.rtype, value),
                    "ttl": if proxied { 1 } else { *ttl },
                    "proxied": proxied,
                    "comment": note,
                }));
            }
        }
    }
    json!({ "deletes": deletes, "patches": patches, "puts": [], "posts": posts })
}

fn content(rtype: RecordType, text: &str) -> String {
    match rtype {
        RecordType::Txt => zone_text(rtype, text),
        RecordType::A | RecordType::Aaaa | RecordType::Cname => text.to_owned(),
    }
}

impl Provider for Zone {
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
            ttl: TtlRule {
                min: 60,
                values: &[],
                silent: false,
            },
            proxied_mode: true,
            undo: Undo::Inverse,
        }
    }

    fn read<'a>(&'a self, keys: &'a [Key]) -> Call<'a, Observed> {
        Box::pin(self.look_up(keys))
    }

    fn send<'a>(
        &'a self,
        sets: &'a [SetChange],
        seen: &'a Observed,
        note: &'a str,
    ) -> Call<'a, Receipt> {
        Box::pin(self.change_rows(sets, seen, note))
    }

    fn check<'a>(&'a self, _keys: &'a [Key]) -> Call<'a, Access> {
        Box::pin(self.access())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxied_record_stays_proxied() {
        let row = |id: &str, key: &str, value: &str| Row {
            id: id.to_owned(),
            key: key.parse().unwrap(),
            value: value.to_owned(),
            ttl: AUTOMATIC,
            proxied: true,
        };
        let rows = [row("1", "shop.example.com A", "192.0.2.1")];
        let set = |key: &str, value: &str| {
            super::super::RrSet::parse(&key.parse().unwrap(), 60, [value]).unwrap()
        };
        let to = super::super::record::records([
            set("shop.example.com A", "192.0.2.2"),
            set("shop.example.com AAAA", "2001:db8::2"),
        ]);
        let from = rows::to_records(&rows).unwrap();
        let change = super::super::Change::new(&from, &to, "").unwrap();
        let body = batch(&rows::steps(&rows, change.sets()), &rows, "");
        assert_eq!(body["patches"][0]["content"], "192.0.2.2");
        assert_eq!(body["patches"][0].get("ttl"), None);
        assert_eq!(body["patches"][0].get("proxied"), None);
        assert_eq!(body["posts"][0]["proxied"], true);
        assert_eq!(body["posts"][0]["type"], "AAAA");
    }
}
