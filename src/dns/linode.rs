//! Linode (Akamai) DNS Manager, API version 4.
//!
//! Every record is an object of its own: sets change one after the other. A record's type cannot be
//! changed. TTLs are rounded to a fixed list without a word, and one given at creation has been seen to
//! be lost, so it is set once more. The name servers sit behind a cache of up to 15 minutes, so that
//! what they answer is the only proof.

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::http::{Ask, Http, Method, TokenApi};
use super::rows::{self, Row, Step};
use super::{
    Access, Call, Capabilities, CompareAndSet, DnsError, DnsSpec, Env, Key, Kind, Maker, Name,
    Observed, Proof, PropagationSignal, Provider, ProviderKind, ProviderSpec, PublishStep, Receipt,
    SetChange, TtlRule, Undo,
};

const KIND: ProviderKind = ProviderKind::Linode;
const PAGE_SIZE: u64 = 500;
/// A zone with more records than this is not read.
const MAX_PAGES: u64 = 40;
/// What 0 means for a zone.
const DEFAULT_TTL: u64 = 86400;
/// 30 and 120 are missing in some of the documentation and exist.
const TTLS: &[u32] = &[
    30, 120, 300, 3600, 7200, 14400, 28800, 57600, 86400, 172_800, 345_600, 604_800, 1_209_600,
    2_419_200,
];

pub struct Linode;

impl Maker for Linode {
    fn kind(&self) -> ProviderKind {
        KIND
    }

    fn make(&self, spec: &DnsSpec, env: &Env) -> Result<Box<dyn Provider>, DnsError> {
        let ProviderSpec::Linode(settings) = &spec.provider else {
            return Err(super::wrong_settings(KIND));
        };
        let api = TokenApi {
            kind: KIND,
            default_url: "https://api.linode.com",
            message: "/errors/0/reason",
        };
        let http = api.http(settings, spec, env)?;
        Ok(Box::new(Domain {
            http,
            zone: spec.zone.clone(),
            info: OnceCell::new(),
        }))
    }
}

struct Domain {
    http: Http,
    zone: Name,
    info: OnceCell<Info>,
}

#[derive(Clone, Copy)]
struct Info {
    id: u64,
    /// What a record with a TTL of 0 has.
    ttl: u64,
}

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
    pages: u64,
}

#[derive(Deserialize)]
struct DomainInfo {
    id: u64,
    domain: String,
    #[serde(default)]
    ttl_sec: u64,
}

#[derive(Deserialize)]
struct Record {
    id: u64,
    #[serde(rename = "type")]
    rtype: String,
    name: String,
    target: String,
    #[serde(default)]
    ttl_sec: u64,
}

impl Domain {
    async fn info(&self) -> Result<Info, DnsError> {
        self.info.get_or_try_init(|| self.find()).await.copied()
    }

    async fn find(&self) -> Result<Info, DnsError> {
        let filter = json!({ "domain": self.zone.as_str() }).to_string();
        let ask = Ask::get(format!("/v4/domains?page=1&page_size={PAGE_SIZE}"));
        let page: Page<DomainInfo> = self.http.json(&ask.header("x-filter", filter)).await?;
        let mine = |info: &&DomainInfo| info.domain.eq_ignore_ascii_case(self.zone.as_str());
        let found = page.data.iter().find(mine);
        let none = || {
            let why = format!("the token sees no domain {}", self.zone);
            self.http.fail(Kind::NoZone, why)
        };
        let info = found.ok_or_else(none)?;
        Ok(Info {
            id: info.id,
            ttl: if info.ttl_sec == 0 {
                DEFAULT_TTL
            } else {
                info.ttl_sec
            },
        })
    }

    async fn path(&self) -> Result<String, DnsError> {
        Ok(format!("/v4/domains/{}/records", self.info().await?.id))
    }

    async fn look_up(&self, keys: &[Key]) -> Result<Observed, DnsError> {
        let (path, info) = (self.path().await?, self.info().await?);
        let mut rows = Vec::new();
        for number in 1..=MAX_PAGES {
            let ask = Ask::get(format!("{path}?page={number}&page_size={PAGE_SIZE}"));
            let page: Page<Record> = self.http.json(&ask).await?;
            for record in page.data {
                let is = |key: &&Key| {
                    let name = key.name.relative_to(&self.zone);
                    name.is_some_and(|name| record.name.eq_ignore_ascii_case(name))
                        && record.rtype == key.rtype.as_str()
                };
                if let Some(key) = keys.iter().find(is) {
                    rows.push(Row {
                        id: record.id.to_string(),
                        key: key.clone(),
                        value: record.target,
                        ttl: if record.ttl_sec == 0 {
                            info.ttl
                        } else {
                            record.ttl_sec
                        },
                        proxied: false,
                    });
                }
            }
            if number >= page.pages {
                return rows::observed(rows).map_err(|e| self.http.fail(Kind::Malformed, e));
            }
        }
        Err(self
            .http
            .fail(Kind::Unsupported, "the zone has too many records"))
    }

    async fn change_rows(&self, sets: &[SetChange], seen: &Observed) -> Result<Receipt, DnsError> {
        let steps = rows::steps(&seen.rows, sets);
        for (done, step) in steps.iter().enumerate() {
            let result = self.step(step).await;
            result.map_err(|error| rows::interrupted(&steps, done, error))?;
        }
        Ok(Receipt::default())
    }

    async fn step(&self, step: &Step) -> Result<(), DnsError> {
        let path = self.path().await?;
        let (ask, body) = match step {
            Step::Update { row, value, ttl } => (
                Ask::write(Method::PUT, format!("{path}/{}", row.id)),
                json!({ "target": value, "ttl_sec": ttl }),
            ),
            Step::Delete { row } => {
                let ask = Ask::write(Method::DELETE, format!("{path}/{}", row.id));
                return self.http.changed(self.http.send(&ask).await?);
            }
            Step::Create { key, value, ttl } => {
                let name = key.name.relative_to(&self.zone).unwrap_or_default();
                let body = json!({
                    "type": key.rtype.as_str(), "name": name, "target": value, "ttl_sec": ttl,
                });
                let ask = Ask::write(Method::POST, &path).json(&body);
                let made: Record = self.http.json(&ask).await?;
                (
                    Ask::write(Method::PUT, format!("{path}/{}", made.id)),
                    json!({ "ttl_sec": ttl }),
                )
            }
        };
        self.http.changed(self.http.send(&ask.json(&body)).await?)
    }

    async fn access(&self) -> Result<Access, DnsError> {
        // Rights are looked at before the record, and there is no record 0.
        let ask = Ask::write(Method::PUT, format!("{}/0", self.path().await?));
        let ask = ask.json(&Value::Object(serde_json::Map::new())).harmless();
        let answer = self.http.send(&ask).await?;
        if answer.status != 404 {
            self.http.success(answer)?;
        }
        let why = "a change of a record that does not exist was answered with just that";
        Ok(Access::both(Proof::Likely(why.to_owned())))
    }
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
            signal: PropagationSignal::None,
            ttl: TtlRule {
                min: 30,
                values: TTLS,
                silent: true,
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
        seen: &'a Observed,
        _note: &'a str,
    ) -> Call<'a, Receipt> {
        Box::pin(self.change_rows(sets, seen))
    }

    fn check<'a>(&'a self, _keys: &'a [Key]) -> Call<'a, Access> {
        Box::pin(self.access())
    }
}
