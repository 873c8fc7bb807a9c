//! Answers commands.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::command::{Asked, Command, Unknown, Window};
use super::controls::{Controls, Refusal};
use super::{sessions, status};
use crate::events::{By, Event};
use crate::handover::account::{Account, Outcome};
use crate::telemetry::problem::{Problem, json, method_not_allowed};

/// An answer, whole or bit by bit.
pub type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What came of a wish that changes something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What is true now, for people.
    pub message: String,
}

/// What runs, as the file said it, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigText {
    pub text: String,
}

/// A failover that was refused or failed: a problem, and its account beside that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailoverProblem {
    /// Its `type` is [`REFUSED`] or [`FAILED`].
    #[serde(flatten)]
    pub problem: Problem,
    #[serde(flatten)]
    pub account: Account,
}

/// A safety rule forbids it; nothing was changed. With code 409.
pub const REFUSED: &str = "urn:pilotfish:failover-refused";
/// It was begun, and put back as far as the account says. With code 500.
pub const FAILED: &str = "urn:pilotfish:failover-failed";

/// Answers whatever was asked.
pub async fn respond(controls: &Arc<Controls>, asked: &Asked<'_>, by: By) -> Answer {
    match Command::parse(asked) {
        Ok(Command::Events(window)) => events(controls, &window),
        Ok(Command::Region(region)) => super::region::answer(controls, region, by).await,
        Ok(command) => whole(answer(controls, command, by).await),
        Err(Unknown::Method { allow }) => whole(method_not_allowed(allow)),
        Err(Unknown::Content(why)) => whole(Problem::new(StatusCode::BAD_REQUEST, why).response()),
        Err(Unknown::Path) => {
            let detail = "there is GET /v1/status, /v1/services/NAME, /v1/sessions, /v1/events and /v1/config, \
                          and POST /v1/services/NAME/{failover,pause,resume,pin,unpin}, /v1/drain, /v1/undrain and /v1/reload; and /v1/region/...";
            whole(Problem::new(StatusCode::NOT_FOUND, detail).response())
        }
    }
}

pub fn whole(response: Response<Full<Bytes>>) -> Answer {
    response.map(BodyExt::boxed_unsync)
}

async fn answer(controls: &Arc<Controls>, command: Command, by: By) -> Response<Full<Bytes>> {
    let surface = &controls.surface;
    // Until it is done, or whoever asked has gone.
    let at_work = match command.method() == Method::POST {
        false => None,
        true => match controls.freeze.begin() {
            Some(at_work) => Some(at_work),
            None => return refused(&Refusal::TakenOver),
        },
    };
    let done = match command {
        Command::Status => return json(StatusCode::OK, &status::status(surface)),
        Command::Service(name) => match status::service(surface, &name) {
            Some(service) => return json(StatusCode::OK, &service),
            None => Err(controls.no_such()),
        },
        Command::Sessions(of) => match sessions::list(surface, of.as_deref()) {
            Some(list) => return json(StatusCode::OK, &list),
            None => Err(controls.no_such()),
        },
        // Streamed, and answered before.
        Command::Events(_) | Command::Region(_) => Ok(String::new()),
        Command::Pause(name) => controls.pause(&name, by),
        Command::Resume(name) => controls.resume(&name, by),
        Command::Pin(name, address) => on_disk(controls, move |c| c.pin(&name, address, by)).await,
        Command::Unpin(name) => on_disk(controls, move |c| c.unpin(&name, by)).await,
        Command::Failover(name, ask) => match controls.failover(&name, ask, by).await {
            Ok(account) => return failover(account),
            Err(refusal) => Err(refusal),
        },
        Command::Drain => Ok(controls.drain(by)),
        Command::Undrain => controls.undrain(by),
        Command::Reload => controls.reload(by).await,
        Command::Config => {
            let text = surface.config_text().to_string();
            return json(StatusCode::OK, &ConfigText { text });
        }
    };
    drop(at_work);
    match done {
        Ok(message) => json(StatusCode::OK, &Done { message }),
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> Response<Full<Bytes>> {
    Problem::new(code(refusal), refusal.to_string()).response()
}

fn failover(account: Account) -> Response<Full<Bytes>> {
    let (code, kind) = match account.outcome {
        Outcome::Done | Outcome::Planned => return json(StatusCode::OK, &account),
        Outcome::Refused => (StatusCode::CONFLICT, REFUSED),
        Outcome::Failed => (StatusCode::INTERNAL_SERVER_ERROR, FAILED),
    };
    let problem = Problem {
        kind: kind.to_owned(),
        ..Problem::new(code, account.message.clone())
    };
    let mut response = json(code, &FailoverProblem { problem, account });
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn code(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::NoService(_) => StatusCode::NOT_FOUND,
        Refusal::NotKept(_) => StatusCode::INTERNAL_SERVER_ERROR,
        Refusal::ShutsDown | Refusal::TakenOver => StatusCode::CONFLICT,
        Refusal::BadConfig(_) => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

/// What waits for the disk must not keep health waiting.
async fn on_disk(
    controls: &Arc<Controls>,
    wish: impl FnOnce(&Controls) -> Result<String, Refusal> + Send + 'static,
) -> Result<String, Refusal> {
    let controls = controls.clone();
    let done = tokio::task::spawn_blocking(move || wish(&controls)).await;
    done.unwrap_or_else(|_| Err(Refusal::NotKept("it failed on the way".to_owned())))
}

/// One JSON object a line.
fn events(controls: &Arc<Controls>, window: &Window) -> Answer {
    let first = match window.since {
        None => 0,
        Some(seconds) => controls.events.first_within(Duration::from_secs(seconds)),
    };
    let (fresh, next) = controls.events.from(first);
    let head = Frame::data(lines(&fresh));
    let body = match window.follow {
        false => Full::new(lines(&fresh)).boxed_unsync(),
        true => {
            let state = (Some(head), controls.events.clone(), next);
            let follow = stream::unfold(state, |(head, events, next)| async move {
                if let Some(head) = head {
                    return Some((Ok(head), (None, events, next)));
                }
                let mut told = events.subscribe();
                told.wait_for(|now| *now > next).await.ok()?;
                let (fresh, next) = events.from(next);
                Some((Ok(Frame::data(lines(&fresh))), (None, events, next)))
            });
            BodyExt::boxed_unsync(StreamBody::new(follow))
        }
    };
    ndjson(body)
}

/// One JSON object a line.
pub fn ndjson(body: UnsyncBoxBody<Bytes, Infallible>) -> Answer {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/x-ndjson");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn lines(events: &[Arc<Event>]) -> Bytes {
    let mut text = String::new();
    for event in events {
        // Plain strings and numbers can always be written, and a String takes them.
        if let Ok(line) = serde_json::to_string(&**event) {
            let _ = writeln!(text, "{line}");
        }
    }
    text.into()
}
