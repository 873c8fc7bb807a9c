//! The few calls of etcd's HTTP gateway that a lock needs.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::EtcdSpec;
use crate::cutover::lock::LockError;
use crate::dns;
use crate::dns::http::{Caller, body_within, client, root};
use crate::secret::Secret;

/// Answers about one key are short.
const MAX_BODY: usize = 64 * 1024;
/// gRPC's codes (<https://grpc.io/docs/guides/status-codes/>).
const NOT_FOUND: i64 = 5;
const PERMISSION_DENIED: i64 = 7;
const INVALID_ARGUMENT: i64 = 3;
const FAILED_PRECONDITION: i64 = 9;
const UNIMPLEMENTED: i64 = 12;
const UNAUTHENTICATED: i64 = 16;

/// A key that is there.
pub struct Found {
    pub value: Vec<u8>,
    /// The revision in which it was made.
    pub epoch: u64,
    /// 0: it stays.
    pub lease: i64,
}

pub struct Api {
    client: reqwest::Client,
    endpoints: Vec<Url>,
    user: Option<(String, Secret)>,
    token: Mutex<Option<Secret>>,
}

/// Why a call failed.
enum Failed {
    /// Said by etcd: the same everywhere.
    Said { code: i64, message: String },
    /// This endpoint is of no use now.
    Endpoint(String),
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct Lease {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "TTL", default)]
    ttl: String,
}

#[derive(Deserialize)]
struct KeptAlive {
    result: Lease,
}

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<Kv>,
}

#[derive(Deserialize)]
struct Kv {
    #[serde(default)]
    value: String,
    create_revision: String,
    #[serde(default)]
    lease: String,
}

#[derive(Deserialize)]
struct Txn {
    #[serde(default)]
    responses: Vec<Response>,
}

#[derive(Deserialize)]
struct Response {
    response_range: Option<Range>,
}

#[derive(Deserialize)]
struct Token {
    token: Secretly,
}

struct Secretly(Secret);

impl<'de> Deserialize<'de> for Secretly {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self(Secret::new(String::deserialize(from)?)))
    }
}

impl Api {
    /// # Errors
    /// When there is no endpoint, one is no URL, or the TLS settings cannot be used.
    pub fn new(spec: &EtcdSpec, env: &dns::Env) -> Result<Self, LockError> {
        let bad = LockError::Refused;
        let parse = |text: &String| {
            let url = Url::parse(text).ok();
            let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            url.filter(|url| url.username().is_empty() && url.password().is_none())
                .ok_or_else(|| bad("etcd: an endpoint is not an http or https URL".to_owned()))
        };
        let endpoints = spec.endpoints.iter().map(parse);
        let endpoints: Vec<Url> = endpoints.collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(bad("etcd: there is no endpoint".to_owned()));
        }
        let client = client(&Caller {
            tls: &spec.tls,
            https: endpoints.iter().any(|url| url.scheme() == "https"),
            limit: spec.timeout,
            resolver: env.resolver.clone(),
        });
        Ok(Self {
            client: client.map_err(|why| bad(format!("etcd: {why}")))?,
            endpoints,
            user: spec.user.clone(),
            token: Mutex::new(None),
        })
    }

    /// A lease of about `length`, at least a second; its number and its real length.
    pub async fn grant(&self, length: Duration) -> Result<(i64, Duration), LockError> {
        let seconds = length.as_secs().max(1);
        let body = json!({ "TTL": seconds.to_string() });
        let lease: Lease = self.call("/v3/lease/grant", &body).await?;
        let ttl = lease.ttl.parse().map_err(|_| malformed())?;
        Ok((number(&lease.id)?, Duration::from_secs(ttl)))
    }

    /// The key as it is afterwards, whether this made it or not. It can be sent again: a key that the
    /// first try made carries the same lease.
    pub async fn put_if_none(
        &self,
        key: &str,
        value: &[u8],
        lease: i64,
    ) -> Result<Found, LockError> {
        let key = BASE64.encode(key.as_bytes());
        let look = json!({ "request_range": { "key": key } });
        let body = json!({
            "compare": [{
                "key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0",
            }],
            "success": [
                { "request_put": {
                    "key": key, "value": BASE64.encode(value), "lease": lease.to_string(),
                } },
                look,
            ],
            "failure": [look],
        });
        let done: Txn = self.call("/v3/kv/txn", &body).await?;
        let ranges = done.responses.into_iter().filter_map(|r| r.response_range);
        let kv = ranges.flat_map(|range| range.kvs).next();
        found(kv.ok_or_else(malformed)?)
    }

    pub async fn get(&self, key: &str) -> Result<Option<Found>, LockError> {
        let body = json!({ "key": BASE64.encode(key.as_bytes()) });
        let range: Range = self.call("/v3/kv/range", &body).await?;
        range.kvs.into_iter().next().map(found).transpose()
    }

    /// Whether the lease is still there, and begins anew.
    pub async fn keep_alive(&self, lease: i64) -> Result<bool, LockError> {
        let body = json!({ "ID": lease.to_string() });
        let kept: KeptAlive = self.call("/v3/lease/keepalive", &body).await?;
        // A lease that is gone has no TTL.
        Ok(kept.result.ttl.parse().unwrap_or(0_i64) > 0)
    }

    /// `None`: the lease is gone.
    pub async fn time_left(&self, lease: i64) -> Result<Option<Duration>, LockError> {
        let body = json!({ "ID": lease.to_string() });
        let found: Lease = self.call("/v3/lease/timetolive", &body).await?;
        let left = found.ttl.parse().ok();
        Ok(left.map(Duration::from_secs))
    }

    /// Whether it was there.
    pub async fn revoke(&self, lease: i64) -> Result<bool, LockError> {
        let body = json!({ "ID": lease.to_string() });
        match self.ask::<Value>("/v3/lease/revoke", &body).await {
            Ok(_) => Ok(true),
            Err(Failed::Said { code, .. }) if code == NOT_FOUND => Ok(false),
            Err(failed) => Err(failed.into()),
        }
    }

    async fn call<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, LockError> {
        self.ask(path, body).await.map_err(LockError::from)
    }

    /// With a new token when there is none, or when etcd does not know it any more.
    async fn ask<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failed> {
        if self.user.is_some() && self.kept_token().is_none() {
            self.log_in().await?;
        }
        match self.everywhere(path, body).await {
            Err(Failed::Said { code, .. }) if code == UNAUTHENTICATED && self.user.is_some() => {
                self.log_in().await?;
                self.everywhere(path, body).await
            }
            done => done,
        }
    }

    fn kept_token(&self) -> Option<Secret> {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        token.clone()
    }

    async fn log_in(&self) -> Result<(), Failed> {
        let Some((name, password)) = &self.user else {
            return Ok(());
        };
        // An old one would be judged before the password.
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let body = json!({ "name": name, "password": password.expose() });
        let got: Token = self.everywhere("/v3/auth/authenticate", &body).await?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(got.token.0);
        Ok(())
    }

    /// At one endpoint after the other, until one answers.
    async fn everywhere<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failed> {
        let body = serde_json::to_vec(body).map_err(|e| Failed::Endpoint(e.to_string()))?;
        let body = Bytes::from(body);
        let mut whys = Vec::new();
        for endpoint in &self.endpoints {
            match self.once(endpoint, path, body.clone()).await {
                Err(Failed::Endpoint(why)) => {
                    let host = endpoint.host_str().unwrap_or_default();
                    let port = endpoint.port_or_known_default().unwrap_or_default();
                    whys.push(format!("{host}:{port}: {why}"));
                }
                done => return done,
            }
        }
        Err(Failed::Endpoint(whys.join("; ")))
    }

    async fn once<T: DeserializeOwned>(
        &self,
        endpoint: &Url,
        path: &str,
        body: Bytes,
    ) -> Result<T, Failed> {
        let mut url = endpoint.clone();
        url.set_path(path);
        let mut request = Request::new(Method::POST, url);
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = self.kept_token() {
            let value = HeaderValue::from_str(token.expose());
            let mut value = value.map_err(|_| Failed::Endpoint("its token is odd".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        *request.body_mut() = Some(body.into());
        let answer = self.client.execute(request).await;
        let answer = answer.map_err(|error| Failed::Endpoint(root(error)))?;
        let status = answer.status();
        let text = body_within(answer, MAX_BODY).await;
        let text = text.map_err(Failed::Endpoint)?;
        if status.is_success() {
            let parsed = serde_json::from_slice(&text);
            return parsed.map_err(|_| Failed::Endpoint("not an answer of etcd".to_owned()));
        }
        Err(complaint(status.as_u16(), &text))
    }
}

/// Only what is the same at every member is final; a member without a leader is not asked again.
fn complaint(status: u16, text: &[u8]) -> Failed {
    let Ok(said) = serde_json::from_slice::<Complaint>(text) else {
        return Failed::Endpoint(format!("it answered {status}"));
    };
    let message = if said.message.is_empty() {
        said.error
    } else {
        said.message
    };
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let message: String = message.chars().take(200).map(printable).collect();
    let code = said.code;
    match code {
        NOT_FOUND | PERMISSION_DENIED | INVALID_ARGUMENT | FAILED_PRECONDITION | UNIMPLEMENTED
        | UNAUTHENTICATED => Failed::Said { code, message },
        _ => Failed::Endpoint(format!("{status}: {message}")),
    }
}

impl From<Failed> for LockError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Said { message, .. } => Self::Refused(format!("etcd: {message}")),
            Failed::Endpoint(why) => Self::Unavailable(format!("etcd: {why}")),
        }
    }
}

fn malformed() -> LockError {
    LockError::Unavailable("etcd: an answer makes no sense".to_owned())
}

fn number(text: &str) -> Result<i64, LockError> {
    text.parse().map_err(|_| malformed())
}

fn found(kv: Kv) -> Result<Found, LockError> {
    let epoch = kv.create_revision.parse().map_err(|_| malformed())?;
    let value = BASE64.decode(kv.value.as_bytes());
    let lease = match kv.lease.as_str() {
        "" => 0,
        lease => number(lease)?,
    };
    Ok(Found {
        value: value.map_err(|_| malformed())?,
        epoch,
        lease,
    })
}
