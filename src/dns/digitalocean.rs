//! DigitalOcean, API version 2.
//!
//! Every record is an object of its own: sets change one after the other. What an update does not name
//! may fall back to its default (digitalocean/doctl #1021), so type, name, data and TTL are always
//! sent; a CNAME goes out with its final dot and comes back without.

use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Ask, Http, Method, TokenApi, encode};
use super::rows::{self, Row, Step};
use super::{
    Access, Call, Capabilities, CompareAndSet, DnsError, DnsSpec, Env, Key, Kind, Maker, Name,
    Observed, Proof, PropagationSignal, Provider, ProviderKind, ProviderSpec, PublishStep, Receipt,
    RecordType, SetChange, TtlRule, Undo,
};

const KIND: ProviderKind = ProviderKind::DigitalOcean;
const PER_PAGE: usize = 200;
/// One name has no more records than this.
const MAX_PAGES: usize = 5;

pub struct DigitalOcean;

impl Maker for DigitalOcean {
    fn kind(&self) -> ProviderKind {
        KIND
    }

    fn make(&self, spec: &DnsSpec, env: &Env) -> Result<Box<dyn Provider>, DnsError> {
        let ProviderSpec::DigitalOcean(settings) = &spec.provider else {
            return Err(super::wrong_settings(KIND));
        };
        let api = TokenApi {
            kind: KIND,
            default_url: "https://api.digitalocean.com",
            message: "/message",
        };
        let http = api.http(settings, spec, env)?;
        Ok(Box::new(Domain {
            http,
            path: format!("/v2/domains/{}/records", encode(spec.zone.as_str())),
            zone: spec.zone.clone(),
        }))
    }
}

struct Domain {
    http: Http,
    zone: Name,
    path: String,
}

#[derive(Deserialize)]
struct Page {
    domain_records: Vec<Record>,
    meta: Meta,
}

#[derive(Deserialize)]
struct Meta {
    total: usize,
}

#[derive(Deserialize)]
struct Record {
    id: u64,
    #[serde(rename = "type")]
    rtype: String,
    /// Relative; `@` for the zone itself.
    name: String,
    data: String,
    ttl: u64,
}

impl Domain {
    fn relative<'a>(&self, name: &'a Name) -> &'a str {
        match name.relative_to(&self.zone) {
            Some("") | None => "@",
            Some(name) => name,
        }
    }

    async fn look_up(&self, keys: &[Key]) -> Result<Observed, DnsError> {
        let names: std::collections::BTreeSet<&Name> = keys.iter().map(|key| &key.name).collect();
        let mut rows = Vec::new();
        for name in names {
            self.rows(name, keys, &mut rows).await?;
        }
        rows::observed(rows).map_err(|e| self.http.fail(Kind::Malformed, e))
    }

    async fn rows(&self, name: &Name, keys: &[Key], rows: &mut Vec<Row>) -> Result<(), DnsError> {
        let mut seen = 0;
        for number in 1..=MAX_PAGES {
            // This filter wants the whole name, although the records carry the relative one.
            let query = format!("name={}&per_page={PER_PAGE}", encode(name.as_str()));
            let ask = Ask::get(format!("{}?{query}&page={number}", self.path));
            let page: Page = self.http.json(&ask).await?;
            seen += page.domain_records.len();
            let last = page.domain_records.is_empty() || seen >= page.meta.total;
            for record in page.domain_records {
                let is = |key: &&Key| {
                    key.name == *name
                        && record.rtype == key.rtype.as_str()
                        && record.name.eq_ignore_ascii_case(self.relative(name))
                };
                if let Some(key) = keys.iter().find(is) {
                    rows.push(Row {
                        id: record.id.to_string(),
                        key: key.clone(),
                        value: record.data,
                        ttl: record.ttl,
                        proxied: false,
                    });
                }
            }
            if last {
                return Ok(());
            }
        }
        Err(self
            .http
            .fail(Kind::Unsupported, format!("{name} has too many records")))
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
        let ask = match step {
            Step::Update { row, value, ttl } => {
                let ask = Ask::write(Method::PATCH, format!("{}/{}", self.path, row.id));
                ask.json(&self.body(&row.key, value, *ttl))
            }
            Step::Create { key, value, ttl } => {
                Ask::write(Method::POST, &self.path).json(&self.body(key, value, *ttl))
            }
            Step::Delete { row } => Ask::write(Method::DELETE, format!("{}/{}", self.path, row.id)),
        };
        self.http.changed(self.http.send(&ask).await?)
    }

    fn body(&self, key: &Key, value: &str, ttl: u32) -> Value {
        let dot = if key.rtype == RecordType::Cname {
            "."
        } else {
            ""
        };
        json!({
            "type": key.rtype.as_str(),
            "name": self.relative(&key.name),
            "data": format!("{value}{dot}"),
            "ttl": ttl,
        })
    }

    async fn access(&self, keys: &[Key]) -> Result<Access, DnsError> {
        self.look_up(keys).await?;
        // Scopes are looked at before the record, and there is no record 0.
        let ask = Ask::write(Method::PATCH, format!("{}/0", self.path));
        let ask = ask.json(&json!({ "type": "A" })).harmless();
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
        seen: &'a Observed,
        _note: &'a str,
    ) -> Call<'a, Receipt> {
        Box::pin(self.change_rows(sets, seen))
    }

    fn check<'a>(&'a self, keys: &'a [Key]) -> Call<'a, Access> {
        Box::pin(self.access(keys))
    }
}
