//! OVHcloud DNS, API version 1 (`/1.0`).
//!
//! Records are edited one by one, and nobody sees any of it before `POST …/refresh` publishes the zone.
//! So several sets do change together, unless somebody else publishes in between. When an edit fails,
//! the ones before it are taken back and nothing is published. A TTL below 60 is stored as 60 without a
//! word. A key that may edit and not refresh is useless, and [`check`](Provider::check) says so.

mod sign;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Answer, Ask, Dialect, Http, Method, Outgoing, Settings, encode};
use super::record::zone_text;
use super::rows::{self, Row, Step};
use super::spec::{OvhRegion, OvhSpec};
use super::{
    Access, Call, Capabilities, CompareAndSet, DnsError, DnsSpec, Env, Key, Kind, Maker, Name,
    Observed, Proof, PropagationSignal, Provider, ProviderKind, ProviderSpec, PublishStep,
    Published, Receipt, RecordType, SetChange, TtlRule, Undo,
};
use crate::secret::Secret;
use sign::{Credential, Signing};

const KIND: ProviderKind = ProviderKind::Ovh;
const BASE: &str = "/1.0";

pub struct Ovh;

impl Maker for Ovh {
    fn kind(&self) -> ProviderKind {
        KIND
    }

    fn make(&self, spec: &DnsSpec, env: &Env) -> Result<Box<dyn Provider>, DnsError> {
        let ProviderSpec::Ovh(settings) = &spec.provider else {
            return Err(super::wrong_settings(KIND));
        };
        let delta = Arc::new(AtomicI64::new(0));
        let http = Http::new(
            Settings {
                kind: KIND,
                endpoint: &settings.endpoint,
                default_url: match settings.region {
                    OvhRegion::Eu => "https://eu.api.ovh.com",
                    OvhRegion::Ca => "https://ca.api.ovh.com",
                    OvhRegion::Us => "https://api.us.ovhcloud.com",
                },
                patience: spec.patience,
                dialect: Arc::new(Account {
                    spec: settings.clone(),
                    delta: delta.clone(),
                }),
                secrets: vec![
                    settings.application_secret.clone(),
                    settings.consumer_key.clone(),
                ],
            },
            env,
        )?;
        Ok(Box::new(Zone {
            http,
            delta,
            path: format!("{BASE}/domain/zone/{}", encode(spec.zone.as_str())),
            zone: spec.zone.clone(),
        }))
    }
}

struct Account {
    spec: OvhSpec,
    /// What OVH's clock is ahead of ours, in seconds.
    delta: Arc<AtomicI64>,
}

impl Dialect for Account {
    fn sign(&self, request: &Outgoing<'_>) -> Result<Vec<(&'static str, Secret)>, DnsError> {
        let timestamp = request.now.as_second() + self.delta.load(Ordering::Relaxed);
        let signing = Signing {
            application_secret: &self.spec.application_secret,
            consumer_key: &self.spec.consumer_key,
            method: request.method,
            url: request.url,
            body: request.body,
            timestamp,
        };
        Ok(vec![
            (
                "x-ovh-application",
                Secret::new(self.spec.application_key.clone()),
            ),
            ("x-ovh-consumer", self.spec.consumer_key.clone()),
            ("x-ovh-timestamp", Secret::new(timestamp.to_string())),
            ("x-ovh-signature", Secret::new(signing.signature())),
        ])
    }

    fn explain(&self, body: &[u8]) -> Option<String> {
        let body: Value = serde_json::from_slice(body).ok()?;
        Some(body.get("message")?.as_str()?.to_owned())
    }
}

struct Zone {
    http: Http,
    delta: Arc<AtomicI64>,
    zone: Name,
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    id: u64,
    sub_domain: Option<String>,
    field_type: String,
    target: String,
    ttl: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    is_deployed: bool,
    #[serde(default)]
    errors: Vec<String>,
}

impl Zone {
    /// Every call begins with OVH's time: signatures are compared with it.
    async fn set_clock(&self) -> Result<(), DnsError> {
        let ask = Ask::get(format!("{BASE}/auth/time")).anonymous();
        let theirs: i64 = self.http.json(&ask).await?;
        let ours = self.http.clock().wall_now().as_second();
        self.delta
            .store(theirs.saturating_sub(ours), Ordering::Relaxed);
        Ok(())
    }

    fn relative<'a>(&self, name: &'a Name) -> &'a str {
        name.relative_to(&self.zone).unwrap_or_default()
    }

    fn success(&self, answer: Answer) -> Result<Answer, DnsError> {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let text = body["message"]
            .as_str()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let kind = match answer.status {
            400 if text.contains("signature") => Kind::BadCredentials,
            403 if text.contains("granted") || text.contains("authorized") => Kind::Denied,
            403 => Kind::BadCredentials,
            _ => return self.http.success(answer),
        };
        Err(self.http.refusal(kind, &answer))
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, ask: &Ask) -> Result<T, DnsError> {
        let answer = self.success(self.http.send(ask).await?)?;
        self.http.parse(ask, &answer)
    }

    async fn look_up(&self, keys: &[Key]) -> Result<Observed, DnsError> {
        self.set_clock().await?;
        // Without it a zone of somebody else would look like one without records.
        let _: Value = self.ask(&Ask::get(&self.path)).await?;
        let mut rows = Vec::new();
        for key in keys {
            let name = encode(self.relative(&key.name));
            let query = format!("fieldType={}&subDomain={name}", key.rtype);
            let ids: Vec<u64> = self
                .ask(&Ask::get(format!("{}/record?{query}", self.path)))
                .await?;
            if ids.len() > super::record::MAX_VALUES {
                return Err(self
                    .http
                    .fail(Kind::Unsupported, format!("{key} has too many records")));
            }
            for id in ids {
                let record: Record = self
                    .ask(&Ask::get(format!("{}/record/{id}", self.path)))
                    .await?;
                let name = record.sub_domain.unwrap_or_default();
                // The filter has been known to match more than it was given.
                if name.eq_ignore_ascii_case(self.relative(&key.name))
                    && record.field_type == key.rtype.as_str()
                {
                    rows.push(Row {
                        id: record.id.to_string(),
                        key: key.clone(),
                        value: self.absolute(key.rtype, &record.target),
                        ttl: record.ttl,
                        proxied: false,
                    });
                }
            }
        }
        rows::observed(rows).map_err(|e| self.http.fail(Kind::Malformed, e))
    }

    /// The target of a CNAME is relative to the zone unless it ends with a dot.
    fn absolute(&self, rtype: RecordType, target: &str) -> String {
        match rtype {
            RecordType::Cname if !target.ends_with('.') => format!("{target}.{}", self.zone),
            _ => target.to_owned(),
        }
    }

    async fn change_rows(&self, sets: &[SetChange], seen: &Observed) -> Result<Receipt, DnsError> {
        self.set_clock().await?;
        let steps = rows::steps(&seen.rows, sets);
        let mut made = Vec::new();
        for (done, step) in steps.iter().enumerate() {
            match self.step(step).await {
                Ok(id) => made.extend(id),
                // Nothing was edited yet, and this step was not either.
                Err(error) if done == 0 && error.kind != Kind::Unknown => return Err(error),
                Err(error) => return Err(self.take_back(&steps[..=done], &made, error).await),
            }
        }
        let refresh = Ask::write(Method::POST, format!("{}/refresh", self.path));
        self.success(self.http.send(&refresh).await?)?;
        Ok(Receipt::default())
    }

    /// The id of what was created.
    async fn step(&self, step: &Step) -> Result<Option<u64>, DnsError> {
        let record = format!("{}/record", self.path);
        match step {
            Step::Update { row, value, ttl } => {
                let ask = Ask::write(Method::PUT, format!("{record}/{}", row.id));
                let body = json!({
                    "subDomain": self.relative(&row.key.name),
                    "target": zone_text(row.key.rtype, value),
                    "ttl": ttl,
                });
                self.changed(&ask.json(&body)).await?;
                Ok(None)
            }
            Step::Create { key, value, ttl } => {
                let body = json!({
                    "fieldType": key.rtype.as_str(),
                    "subDomain": self.relative(&key.name),
                    "target": zone_text(key.rtype, value),
                    "ttl": ttl,
                });
                let made: Record = self
                    .ask(&Ask::write(Method::POST, record).json(&body))
                    .await?;
                Ok(Some(made.id))
            }
            Step::Delete { row } => {
                self.changed(&Ask::write(Method::DELETE, format!("{record}/{}", row.id)))
                    .await?;
                Ok(None)
            }
        }
    }

    async fn changed(&self, ask: &Ask) -> Result<(), DnsError> {
        let answer = self.http.send(ask).await?;
        if answer.status == 404 {
            return self.http.changed(answer);
        }
        self.success(answer).map(drop)
    }

    /// Puts back what the `tried` steps have edited; the last one may or may not have. Nothing of it was
    /// published. When that fails too, or the last step's outcome is unknown, so is the whole.
    async fn take_back(&self, tried: &[Step], made: &[u64], error: DnsError) -> DnsError {
        let mut failed = None;
        for step in tried.iter().rev() {
            let back = match step {
                Step::Update { row, .. } => Step::Update {
                    row: row.clone(),
                    value: row.value.trim_end_matches('.').to_owned(),
                    ttl: u32::try_from(row.ttl).unwrap_or(super::record::MAX_TTL),
                },
                // Deletes come last, so only the last one tried can be half done; it is not published.
                Step::Create { .. } | Step::Delete { .. } => continue,
            };
            if let Err(error) = self.step(&back).await {
                failed = Some(error);
            }
        }
        for id in made {
            let ask = Ask::write(Method::DELETE, format!("{}/record/{id}", self.path));
            if let Err(error) = self.changed(&ask).await {
                failed = Some(error);
            }
        }
        let deleted = tried.iter().any(|step| matches!(step, Step::Delete { .. }));
        match failed {
            None if !deleted || tried.len() == 1 => error,
            _ => DnsError {
                kind: Kind::Unknown,
                detail: format!(
                    "edited, not published, and not all taken back: {}",
                    error.detail
                ),
                ..error
            },
        }
    }

    async fn access(&self) -> Result<Access, DnsError> {
        self.set_clock().await?;
        let _: Value = self.ask(&Ask::get(&self.path)).await?;
        let ask = Ask::get(format!("{BASE}/auth/currentCredential"));
        let credential: Credential = self.ask(&ask).await?;
        if credential.status != "validated" {
            let why = format!("the consumer key is {}", credential.status);
            return Err(self.http.fail(Kind::BadCredentials, why));
        }
        let path = format!("/domain/zone/{}", self.zone);
        for (method, rest, so) in [
            ("PUT", "/record/1", "records cannot be changed"),
            ("POST", "/record", "records cannot be added"),
            ("DELETE", "/record/1", "records cannot be removed"),
            ("POST", "/refresh", "changes would never be served"),
        ] {
            let path = format!("{path}{rest}");
            if !credential.allows(method, &path) {
                let why = format!("the consumer key may not {method} {path}: {so}");
                return Err(self.http.fail(Kind::Denied, why));
            }
        }
        Ok(Access::both(Proof::Proven))
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
            // Nearly: anybody's refresh publishes what is edited so far.
            atomic: false,
            publish: PublishStep::Explicit,
            signal: PropagationSignal::Poll,
            ttl: TtlRule {
                min: 60,
                values: &[],
                silent: true,
            },
            proxied_mode: false,
            undo: Undo::Native,
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

    fn published<'a>(&'a self, _receipt: &'a Receipt) -> Call<'a, Published> {
        Box::pin(async move {
            self.set_clock().await?;
            let status: Status = self.ask(&Ask::get(format!("{}/status", self.path))).await?;
            Ok(match (status.is_deployed, status.errors.first()) {
                (_, Some(error)) => Published::Pending(error.clone()),
                (true, None) => Published::Done,
                (false, None) => Published::Pending("the zone is not deployed yet".to_owned()),
            })
        })
    }

    fn check<'a>(&'a self, _keys: &'a [Key]) -> Call<'a, Access> {
        Box::pin(self.access())
    }
}
