//! The status page for people: `/`, and `/page/updates`, by which an open page follows what happens.
//!
//! `model` decides what is shown, `picture` and `render` draw it, `html` sees to it that only the program
//! itself writes markup. The page is whole without a script; with one it asks for what changed, and the
//! answer waits until there is something, so that a failover is seen at once and an idle page costs
//! nothing. However many look: it is drawn four times a second at most, and only so many answers wait.

mod html;
mod model;
mod picture;
mod render;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::Full;
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode, Uri};
use sha2::{Digest, Sha256};

use self::html::Html;
use self::model::Model;
use self::render::Live;
use super::http::look;
use super::status;
use super::surface::Surface;
use crate::clock::Moment;
use crate::data::admit::Limit;

type Answer = Response<Full<Bytes>>;

/// Of the timeline.
const EVENTS: usize = 100;
/// How old a drawing may be.
const FRESH: Duration = Duration::from_millis(250);
/// How long an answer waits for something to say; shorter than a connection may last.
const PATIENCE: Duration = Duration::from_secs(20);
/// Answers that wait, at a time: an eighth of the connections that the listener takes.
const WAITING: usize = 32;
/// What somebody who finds no place is asked to wait.
const LATER: HeaderValue = HeaderValue::from_static("5");

/// What the handlers share.
struct Desk {
    surface: Arc<Surface>,
    /// The newest drawing.
    drawn: Mutex<Option<(Moment, Arc<Live>)>>,
    waiting: Arc<Limit>,
    policy: HeaderValue,
}

/// The page's paths.
pub fn routes(surface: Arc<Surface>) -> Router {
    let desk = Desk {
        surface,
        drawn: Mutex::default(),
        waiting: Limit::new(WAITING),
        policy: policy(),
    };
    Router::new()
        .route("/", look(index))
        .route("/page/updates", look(updates))
        .with_state(Arc::new(desk))
}

/// Nothing from elsewhere, nothing but our own style and script, and nobody around us.
fn policy() -> HeaderValue {
    let hash = |text: &str| BASE64.encode(&Sha256::digest(text.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(render::STYLE),
        hash(render::SCRIPT)
    );
    HeaderValue::from_str(&policy).expect("base64 and plain words are fit for a header")
}

impl Desk {
    /// As of now, or a moment ago.
    fn live(&self) -> Arc<Live> {
        let surface = &self.surface;
        let now = surface.clock.now();
        // Held while it is drawn: whoever else asks wants the same drawing.
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, live)) = &*drawn
            && now.since(*at) < FRESH
        {
            return live.clone();
        }
        let status = status::status(surface);
        let events = surface.events.newest(EVENTS);
        let phase = surface.circumstances(&surface.shown()).phase;
        let model = Model::of(&status, phase, events.iter().map(AsRef::as_ref));
        let live = Arc::new(render::live(&model, surface.clock.wall(now)));
        *drawn = Some((now, live.clone()));
        live
    }

    fn answer(&self, html: &Html) -> Answer {
        let mut answer = Response::new(Full::new(Bytes::from(html.as_str().to_owned())));
        let fixed = HeaderValue::from_static;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, fixed("text/html; charset=utf-8"));
        headers.insert(CACHE_CONTROL, fixed("no-store"));
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(X_CONTENT_TYPE_OPTIONS, fixed("nosniff"));
        headers.insert(X_FRAME_OPTIONS, fixed("DENY"));
        headers.insert(REFERRER_POLICY, fixed("no-referrer"));
        let same = HeaderName::from_static("cross-origin-resource-policy");
        headers.insert(same, fixed("same-origin"));
        answer
    }
}

async fn index(State(desk): State<Arc<Desk>>) -> Answer {
    desk.answer(&render::page(&desk.live()))
}

/// The part that changes: at once when it is not what the query's `seen=` names, else as soon as it is something else,
/// else 204 after a while. Cancelled when whoever asked leaves, and its place is free again.
async fn updates(State(desk): State<Arc<Desk>>, uri: Uri) -> Answer {
    let seen = uri.query().and_then(|query| query.strip_prefix("seen="));
    let seen = seen.unwrap_or_default();
    let first = desk.live();
    if first.tag != seen {
        return for_once(desk.answer(&first.html));
    }
    let Some(_place) = desk.waiting.take() else {
        let mut later = nothing();
        later.headers_mut().insert(RETRY_AFTER, LATER);
        return later;
    };
    let changed = async {
        loop {
            tokio::time::sleep(FRESH).await;
            let live = desk.live();
            if live.tag != seen {
                return live;
            }
        }
    };
    match tokio::time::timeout(PATIENCE, changed).await {
        Ok(live) => for_once(desk.answer(&live.html)),
        Err(_) => nothing(),
    }
}

fn nothing() -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    for_once(answer)
}

/// The next question comes on a connection of its own: one that waits must not be cut off because its
/// connection is old.
fn for_once(mut answer: Answer) -> Answer {
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
