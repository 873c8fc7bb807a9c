//! The receiver: HTTP around [`super::decide`].

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use metrics::Counter;
use ring::hmac;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::decide::{Decision, Memory};
use super::{AutoSpec, Rules, Starter, payload};
use crate::clock::{Clock, Seldom};
use crate::events::{Entry, Events};
use crate::net::listen::Listener;
use crate::secret::Secret;
use crate::telemetry::metrics::{Described, Kind, Registry};
use crate::telemetry::problem::{Problem, json, method_not_allowed};
use crate::telemetry::serve::{Patience, accept_loop, converse};

/// The one path there is.
pub const PATH: &str = "/v1/alertmanager";
/// Alertmanager sends a group in one request; a thousand alerts fit.
const MAX_BODY: usize = 1 << 20;
/// Connections at a time.
const MOST: usize = 32;
const PATIENCE: Patience = Patience {
    head: Duration::from_secs(5),
    lifetime: Some(Duration::from_secs(60)),
    keep_alive: true,
};
/// For the records' word on which region is on, and for a cutover to be accepted.
const ASKING: Duration = Duration::from_secs(30);

pub const DESCRIBED: &[Described] = &[Described(
    "pilotfish_auto_alerts_total",
    Kind::Counter,
    "Alertmanager's requests for a cutover, by what became of them",
)];

type Answer = Response<Full<Bytes>>;

/// What became of a request: the label of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Started,
    Noted,
    Nothing,
    Refused,
    Unauthorized,
    Invalid,
    Failed,
}

impl Fate {
    const ALL: [Self; 7] = [
        Self::Started,
        Self::Noted,
        Self::Nothing,
        Self::Refused,
        Self::Unauthorized,
        Self::Invalid,
        Self::Failed,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Noted => "noted",
            Self::Nothing => "nothing",
            Self::Refused => "refused",
            Self::Unauthorized => "unauthorized",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
        }
    }
}

/// Compares in a time that says nothing about the token: tags under a key that nobody else has are
/// compared, not the texts.
struct Token {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Token {
    fn new(token: &Secret) -> Result<Self, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random);
        let tag = hmac::sign(&key, token.expose().as_bytes());
        Ok(Self { key, tag })
    }

    fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (all.next(), all.next()) else {
            return false;
        };
        let value = value.as_bytes();
        let Some((scheme, token)) = value.split_at_checked(7) else {
            return false;
        };
        !token.is_empty()
            && scheme.eq_ignore_ascii_case(b"bearer ")
            && hmac::verify(&self.key, token, self.tag.as_ref()).is_ok()
    }
}

/// What the receiver needs from the process.
pub struct Means {
    pub clock: Clock,
    pub events: Arc<Events>,
    pub registry: Registry,
    pub starter: Arc<dyn Starter>,
}

/// Receives Alertmanager's webhooks.
pub struct Receiver {
    token: Token,
    rules: Rules,
    means: Means,
    memory: Mutex<Memory>,
    strangers: Seldom,
    fates: Vec<Counter>,
}

impl Receiver {
    /// # Errors
    /// When the system has no random numbers.
    pub fn new(spec: &AutoSpec, means: Means) -> Result<Arc<Self>, getrandom::Error> {
        means.registry.describe(DESCRIBED);
        let count = |fate: Fate| {
            let labels = [("outcome", fate.as_str())];
            means.registry.counter(DESCRIBED[0].0, &labels)
        };
        let fates = Fate::ALL.map(count).into();
        Ok(Arc::new(Self {
            token: Token::new(&spec.token)?,
            rules: spec.rules.clone(),
            memory: Mutex::default(),
            strangers: Seldom::default(),
            fates,
            means,
        }))
    }

    /// Answers on `listener` until `stop`.
    pub async fn serve(self: Arc<Self>, listener: Listener, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(MOST));
        accept_loop(&listener, &stop, |stream| {
            let place = places.clone().try_acquire_owned().ok()?;
            let (desk, stop) = (self.clone(), stop.clone());
            Some(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let desk = desk.clone();
                    async move { Ok::<_, Infallible>(desk.answer(request).await) }
                });
                converse(stream, PATIENCE, service, stop).await;
                drop(place);
            })
        })
        .await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        if head.uri.path() != PATH {
            return Problem::new(StatusCode::NOT_FOUND, format!("there is {PATH}")).response();
        }
        if head.method != Method::POST {
            return method_not_allowed("POST");
        }
        // Before anything of the body is read.
        if !self.token.is_in(&head.headers) {
            return self.stranger();
        }
        let body = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                let why = format!("more than {MAX_BODY} bytes");
                return self.problem(Fate::Invalid, StatusCode::PAYLOAD_TOO_LARGE, why);
            }
            Err(_) => {
                let why = "the body did not arrive";
                return self.problem(Fate::Invalid, StatusCode::BAD_REQUEST, why);
            }
        };
        let group = match payload::parse(&body) {
            Ok(group) => group,
            Err(why) => return self.problem(Fate::Invalid, StatusCode::UNPROCESSABLE_ENTITY, why),
        };
        self.consider(&group).await
    }

    async fn consider(&self, group: &payload::Group) -> Answer {
        let serving = bounded(self.means.starter.serving()).await;
        let serving = match serving {
            Ok(serving) => serving,
            Err(why) => {
                let why = format!("it is not known which region is on: {why}");
                self.event("auto-failed", &why);
                return self.problem(Fate::Failed, StatusCode::SERVICE_UNAVAILABLE, why);
            }
        };
        let now = self.means.clock.now();
        let decision = {
            let mut memory = self.memory();
            let decision = memory.see(group, &self.rules, &serving, now);
            if matches!(decision, Decision::Start { .. }) {
                memory.started(now);
            }
            decision
        };
        match decision {
            Decision::Nothing => self.accepted(Fate::Nothing, "nothing in it counts".to_owned()),
            Decision::Wait {
                region,
                seen,
                standing,
            } => {
                let standing = standing.as_secs();
                let said = format!("{region} is said to be down: {seen} times within {standing} s");
                self.event("auto-noted", &said);
                self.accepted(Fate::Noted, said)
            }
            Decision::Refuse { region, why } => {
                let said = format!("{region} is said to be down, and nothing is moved: {why}");
                self.event("auto-refused", &said);
                self.problem(Fate::Refused, StatusCode::FORBIDDEN, said)
            }
            Decision::Start { from, to } => {
                let reason = format!("Alertmanager says that {from} is down");
                match bounded(self.means.starter.start(&to, &reason)).await {
                    Ok(()) => {
                        let said = format!("{reason}: moving to {to}");
                        self.event("auto-started", &said);
                        self.accepted(Fate::Started, said)
                    }
                    Err(why) => {
                        self.memory().not_started(now);
                        let said = format!("{reason}, and moving to {to} was refused: {why}");
                        self.event("auto-refused", &said);
                        self.problem(Fate::Refused, StatusCode::FORBIDDEN, said)
                    }
                }
            }
        }
    }

    fn stranger(&self) -> Answer {
        if self.strangers.may_speak(self.means.clock.now()) {
            let said = "a request for a cutover without the right token";
            warn!(event = "auto-unauthorized", "{said}");
            self.event("auto-unauthorized", said);
        }
        let why = "a bearer token is needed, and it must be the right one";
        let mut answer = self.problem(Fate::Unauthorized, StatusCode::UNAUTHORIZED, why);
        let scheme = HeaderValue::from_static("Bearer");
        answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        answer
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, event: &'static str, said: &str) {
        self.means.events.record(Entry::new(event, said));
    }

    fn count(&self, fate: Fate) {
        self.fates[fate as usize].increment(1);
    }

    fn problem(&self, fate: Fate, status: StatusCode, why: impl Into<String>) -> Answer {
        self.count(fate);
        Problem::new(status, why).response()
    }

    fn accepted(&self, fate: Fate, said: String) -> Answer {
        self.count(fate);
        let body = json!({ "outcome": fate.as_str(), "detail": said });
        json(StatusCode::ACCEPTED, &body)
    }
}

async fn bounded<T>(call: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| Err("no answer in time".to_owned());
    tokio::time::timeout(ASKING, call)
        .await
        .unwrap_or_else(late)
}

#[cfg(test)]
mod tests;
