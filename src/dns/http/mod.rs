//! Requests to a provider's API, with one rule above all: what may have changed something is never
//! sent again.
//!
//! A request is repeated when the connection was not made, when the provider says that it was too many
//! (nothing was done then), and, if it only reads, when its answer was lost or a 5xx. Nothing follows a
//! redirect: a credential goes to the host it is for.

mod hint;
mod request;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use request::Bearer;
pub use request::{Answer, Ask, Dialect, Effect, Outgoing};
pub use reqwest::Method;

use super::Env;
use super::error::{DnsError, Kind};
use super::spec::{DnsSpec, Endpoint, Patience, ProviderKind, TokenSpec};
use crate::addr::Addr;
use crate::clock::Clock;
use crate::net::resolve::Resolver;
use crate::net::tls::{TlsError, TlsMode, TlsSettings, client_config};
use crate::secret::Secret;
use hint::{Pauses, wait_hint};

/// No answer that we ask for is as long as this.
const MAX_BODY: usize = 4 << 20;

/// One provider's API.
pub struct Http {
    client: reqwest::Client,
    base: String,
    kind: ProviderKind,
    patience: Patience,
    dialect: Arc<dyn Dialect>,
    /// What a provider could repeat in its messages.
    secrets: Vec<Secret>,
    clock: Clock,
}

/// What [`Http::new`] needs besides the process' [`Env`].
pub struct Settings<'a> {
    pub kind: ProviderKind,
    pub endpoint: &'a Endpoint,
    /// Used when the endpoint names none.
    pub default_url: &'a str,
    pub patience: Patience,
    pub dialect: Arc<dyn Dialect>,
    pub secrets: Vec<Secret>,
}

/// An API whose callers prove themselves with one token.
pub struct TokenApi {
    pub kind: ProviderKind,
    /// Used when the endpoint names none.
    pub default_url: &'static str,
    /// Where the message in an error's body is, as a JSON pointer.
    pub message: &'static str,
}

impl TokenApi {
    /// # Errors
    /// As [`Http::new`].
    pub fn http(&self, token: &TokenSpec, spec: &DnsSpec, env: &Env) -> Result<Http, DnsError> {
        let settings = Settings {
            kind: self.kind,
            endpoint: &token.endpoint,
            default_url: self.default_url,
            patience: spec.patience,
            dialect: Arc::new(Bearer {
                token: token.token.clone(),
                message: self.message,
            }),
            secrets: vec![token.token.clone()],
        };
        Http::new(settings, env)
    }
}

/// What [`client`] needs.
pub struct Caller<'a> {
    /// Roots and client certificate for `https`; names are always verified.
    pub tls: &'a TlsSettings,
    /// Whether anything is asked over TLS.
    pub https: bool,
    /// One request, from connecting to the last byte of its answer.
    pub limit: Duration,
    pub resolver: Resolver,
}

/// A client that sends nothing twice, follows no redirect and keeps no connection.
///
/// # Errors
/// When the TLS settings name files that cannot be used.
pub fn client(caller: &Caller<'_>) -> Result<reqwest::Client, String> {
    builder(caller.https, caller.tls)
        .map_err(|e| format!("TLS: {e}"))?
        // Well before the other one: what was not connected was not sent either.
        .connect_timeout(caller.limit / 2)
        .timeout(caller.limit)
        .dns_resolver(Arc::new(Names(caller.resolver.clone())))
        .build()
        .map_err(|e| e.to_string())
}

/// The same without limits in time and with the system's names: those are for the caller to say.
///
/// # Errors
/// When the TLS settings name files that cannot be used.
pub fn builder(https: bool, tls: &TlsSettings) -> Result<reqwest::ClientBuilder, TlsError> {
    let tls = match https {
        true => TlsSettings {
            mode: TlsMode::VerifyFull,
            ..tls.clone()
        },
        // Never used: it spares a host without root certificates the complaint about them.
        false => TlsSettings {
            mode: TlsMode::Require,
            ..TlsSettings::default()
        },
    };
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(client_config(&tls)?)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        // A kept connection that dies under a request leaves it unknown whether it was seen.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("pilotfish/", env!("CARGO_PKG_VERSION"))))
}

impl Http {
    /// # Errors
    /// When the URL is none, or the TLS settings name files that cannot be used.
    pub fn new(settings: Settings<'_>, env: &Env) -> Result<Self, DnsError> {
        let kind = settings.kind;
        let bad = |why: String| DnsError::new(kind.as_str(), Kind::Invalid, why);
        let base = settings.endpoint.url.as_deref();
        let base = base.unwrap_or(settings.default_url).trim_end_matches('/');
        let url = reqwest::Url::parse(base).map_err(|e| bad(format!("the endpoint: {e}")))?;
        let plain = matches!(url.scheme(), "http" | "https") && url.query().is_none();
        if !plain || !url.has_host() || !url.username().is_empty() || url.password().is_some() {
            return Err(bad("the endpoint is not an http or https URL".to_owned()));
        }
        let client = client(&Caller {
            tls: &settings.endpoint.tls,
            https: url.scheme() == "https",
            limit: settings.patience.request,
            resolver: env.resolver.clone(),
        });
        let client = client.map_err(bad)?;
        Ok(Self {
            client,
            base: base.to_owned(),
            kind,
            patience: settings.patience,
            dialect: settings.dialect,
            secrets: settings.secrets,
            clock: env.clock,
        })
    }

    pub fn fail(&self, kind: Kind, why: impl std::fmt::Display) -> DnsError {
        let mut why = why.to_string();
        for secret in &self.secrets {
            if secret.expose().len() >= 4 {
                why = why.replace(secret.expose(), "(masked)");
            }
        }
        DnsError::new(self.kind.as_str(), kind, why)
    }

    /// Sends `ask`, again where that is safe, within [`Patience`]. Cancel safe in that dropping closes
    /// the connection; what was sent then may have been seen.
    ///
    /// # Errors
    /// `Unknown` when it writes and may have been carried out; otherwise nothing was changed.
    pub async fn send(&self, ask: &Ask) -> Result<Answer, DnsError> {
        let mut pauses = Pauses::new(self.patience.waiting);
        loop {
            let (error, hint) = match self.once(ask).await? {
                Once::Answer(answer) => return Ok(answer),
                Once::Again { error, hint } => (error, hint),
            };
            match pauses.next(hint) {
                Some(pause) => sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    async fn once(&self, ask: &Ask) -> Result<Once, DnsError> {
        let request = self.request(ask)?;
        let lost = match ask.effect {
            Effect::Reads => Kind::Unavailable,
            Effect::Writes => Kind::Unknown,
        };
        let response = match self.client.execute(request).await {
            Ok(response) => response,
            Err(error) => {
                let sent = !(error.is_connect() || error.is_builder());
                let kind = if sent { lost } else { Kind::Unavailable };
                let error = self.fail(kind, format!("{}: {}", ask.name(), root(error)));
                return self.again(ask, sent, error);
            }
        };
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = match body(response).await {
            Ok(body) => body,
            Err(why) => {
                let error = self.fail(lost, format!("{}: {why}", ask.name()));
                return self.again(ask, true, error);
            }
        };
        let answer = Answer {
            status,
            headers,
            body,
            asked: ask.name(),
        };
        if self.dialect.throttled(status, &answer.body) {
            let header = |name: &str| answer.headers.get(name)?.to_str().ok();
            let hint = wait_hint(header, self.clock.wall_now());
            let limited = Kind::RateLimited { retry_after: hint };
            let error = self.refusal(limited, &answer);
            return Ok(Once::Again { error, hint });
        }
        if status >= 500 {
            // Also after a change was made: nobody promises that a 5xx means "not done".
            let error = self.refusal(lost, &answer);
            return self.again(ask, true, error);
        }
        Ok(Once::Answer(answer))
    }

    #[allow(clippy::unused_self)]
    fn again(&self, ask: &Ask, sent: bool, error: DnsError) -> Result<Once, DnsError> {
        if sent && ask.effect == Effect::Writes {
            return Err(error);
        }
        Ok(Once::Again { error, hint: None })
    }

    fn request(&self, ask: &Ask) -> Result<reqwest::Request, DnsError> {
        let url = format!("{}{}", self.base, ask.path);
        let parsed = reqwest::Url::parse(&url)
            .map_err(|e| self.fail(Kind::Invalid, format!("{}: {e}", ask.name())))?;
        let bytes: &[u8] = ask.body.as_ref().map_or(&[], |(body, _)| body);
        let mut request = reqwest::Request::new(ask.method.clone(), parsed);
        if !ask.anonymous {
            let signed = self.dialect.sign(&Outgoing {
                method: ask.method.as_str(),
                url: &url,
                path: &ask.path,
                body: bytes,
                now: self.clock.wall_now(),
            })?;
            for (name, value) in signed {
                let value = HeaderValue::from_str(value.expose());
                let mut value = value.map_err(|_| {
                    self.fail(Kind::Invalid, "a credential cannot be sent in a header")
                })?;
                value.set_sensitive(true);
                let name = HeaderName::from_static(name);
                request.headers_mut().insert(name, value);
            }
        }
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(ask.accept));
        if let Some((name, value)) = &ask.header {
            let value = HeaderValue::from_str(value)
                .map_err(|_| self.fail(Kind::Invalid, format!("{name}: not a header's value")))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        if let Some((body, content_type)) = &ask.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            *request.body_mut() = Some(body.clone().into());
        }
        Ok(request)
    }

    /// The error for an answer that is a refusal.
    pub fn refusal(&self, kind: Kind, answer: &Answer) -> DnsError {
        let Answer { status, asked, .. } = answer;
        let said = self.dialect.explain(&answer.body);
        let said = said.filter(|said| !said.is_empty());
        let why = match said {
            Some(said) => format!("{asked}: {status}: {said}"),
            None => format!("{asked}: {status}"),
        };
        self.fail(kind, why)
    }

    /// The answer if it is a success; else what its status usually means.
    ///
    /// # Errors
    /// When it is not a success.
    pub fn success(&self, answer: Answer) -> Result<Answer, DnsError> {
        let kind = match answer.status {
            200..=299 => return Ok(answer),
            401 => Kind::BadCredentials,
            403 => Kind::Denied,
            404 => Kind::NoZone,
            300..=399 | 405..=407 => Kind::Malformed,
            _ => Kind::Invalid,
        };
        Err(self.refusal(kind, &answer))
    }

    /// As [`success`](Self::success), for a change of one record: when that is gone, somebody else has
    /// removed or replaced it.
    ///
    /// # Errors
    /// When it is not a success.
    pub fn changed(&self, answer: Answer) -> Result<(), DnsError> {
        if answer.status == 404 {
            let found = super::Records::new();
            return Err(self.refusal(Kind::Conflict { found }, &answer));
        }
        self.success(answer).map(drop)
    }

    /// [`send`](Self::send), and the JSON of a success.
    ///
    /// # Errors
    /// As `send` and [`success`](Self::success), and when it is not the JSON that was expected.
    pub async fn json<T: DeserializeOwned>(&self, ask: &Ask) -> Result<T, DnsError> {
        let answer = self.success(self.send(ask).await?)?;
        self.parse(ask, &answer)
    }

    /// # Errors
    /// When the body is not what was expected; after a write that is an unknown outcome.
    pub fn parse<T: DeserializeOwned>(&self, ask: &Ask, answer: &Answer) -> Result<T, DnsError> {
        serde_json::from_slice(&answer.body).map_err(|error| {
            let kind = match ask.effect {
                Effect::Reads => Kind::Malformed,
                Effect::Writes => Kind::Unknown,
            };
            self.fail(kind, format!("{}: {error}", answer.asked))
        })
    }

    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// For pauses between questions of one call.
    pub fn waiting(&self) -> Duration {
        self.patience.waiting
    }
}

enum Once {
    Answer(Answer),
    /// It may be sent again; the error is for when it will not.
    Again {
        error: DnsError,
        hint: Option<Duration>,
    },
}

async fn body(response: reqwest::Response) -> Result<Vec<u8>, String> {
    body_within(response, MAX_BODY).await
}

/// The whole body, if it has at most `most` bytes.
///
/// # Errors
/// When it is longer, or does not arrive.
pub async fn body_within(mut response: reqwest::Response, most: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(root)? {
        if body.len() + chunk.len() > most {
            return Err(format!("an answer of more than {most} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The innermost cause, which says most, without the URL.
pub fn root(error: reqwest::Error) -> String {
    let timeout = error.is_timeout();
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if timeout {
        "no answer in time".to_owned()
    } else {
        cause.to_string()
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Our resolver, so that names are looked up in one way everywhere.
struct Names(Resolver);

impl reqwest::dns::Resolve for Names {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let resolver = self.0.clone();
        Box::pin(async move {
            // reqwest puts the URL's port in.
            let addr = Addr::from_parts(name.as_str(), 0)?;
            let found: Vec<SocketAddr> = resolver.resolve(&addr).await?;
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}
