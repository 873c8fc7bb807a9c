//! What is asked of an API, what comes back, and how a provider signs it.

use jiff::Timestamp;
use reqwest::Method;
use reqwest::header::HeaderMap;

use crate::dns::error::DnsError;
use crate::secret::Secret;

/// How one provider signs, and how it complains.
pub trait Dialect: Send + Sync {
    /// The headers that prove who we are.
    ///
    /// # Errors
    /// When there is nothing to sign with.
    fn sign(&self, request: &Outgoing<'_>) -> Result<Vec<(&'static str, Secret)>, DnsError>;

    /// Whether this says "too many requests", and so that nothing was done.
    fn throttled(&self, status: u16, _body: &[u8]) -> bool {
        status == 429
    }

    /// The message in an error's body, for people.
    fn explain(&self, body: &[u8]) -> Option<String>;
}

/// `Authorization: Bearer`, and where the message in an error's body is, as a JSON pointer.
pub struct Bearer {
    pub token: Secret,
    pub message: &'static str,
}

impl Dialect for Bearer {
    fn sign(&self, _request: &Outgoing<'_>) -> Result<Vec<(&'static str, Secret)>, DnsError> {
        let value = format!("Bearer {}", self.token.expose());
        Ok(vec![("authorization", Secret::new(value))])
    }

    fn explain(&self, body: &[u8]) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        Some(body.pointer(self.message)?.as_str()?.to_owned())
    }
}

/// What is about to be sent, for whoever signs it.
#[derive(Debug)]
pub struct Outgoing<'a> {
    pub method: &'a str,
    /// Scheme, host, path and query, as they go out.
    pub url: &'a str,
    /// Path and query.
    pub path: &'a str,
    pub body: &'a [u8],
    pub now: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Reads,
    Writes,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<(Vec<u8>, &'static str)>,
    pub(super) effect: Effect,
    pub(super) accept: &'static str,
    pub(super) header: Option<(&'static str, String)>,
    pub(super) anonymous: bool,
}

impl Ask {
    /// A question. `path` begins with `/`; it and its query are percent-encoded.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            body: None,
            effect: Effect::Reads,
            accept: "application/json",
            header: None,
            anonymous: false,
        }
    }

    /// A request that may change something.
    pub fn write(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            effect: Effect::Writes,
            ..Self::get(path)
        }
    }

    /// A request that changes nothing although its method might.
    pub fn harmless(mut self) -> Self {
        self.effect = Effect::Reads;
        self
    }

    /// Without credentials.
    pub fn anonymous(mut self) -> Self {
        self.anonymous = true;
        self
    }

    pub fn json(mut self, body: &serde_json::Value) -> Self {
        self.body = Some((body.to_string().into_bytes(), "application/json"));
        self
    }

    pub fn xml(mut self, body: String) -> Self {
        self.body = Some((body.into_bytes(), "application/xml"));
        self
    }

    /// One more header, which is no secret.
    pub fn header(mut self, name: &'static str, value: String) -> Self {
        self.header = Some((name, value));
        self
    }

    pub fn accept(mut self, accept: &'static str) -> Self {
        self.accept = accept;
        self
    }

    /// Method and path, without the query: for messages.
    pub(super) fn name(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{} {path}", self.method)
    }
}

/// What came back: any status that is neither "too many" nor a 5xx.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// What was asked, for messages.
    pub asked: String,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}
