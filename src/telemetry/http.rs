//! Health, metrics and the status page over HTTP. Nothing here changes anything.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{MethodFilter, MethodRouter, on};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;

use super::page;
use super::problem::{Problem, json, method_not_allowed};
use super::serve::{Patience, accept_loop, converse};
use super::surface::Surface;
use crate::data::admit::Limit;
use crate::net::listen::Listener;

/// What one listener may take.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Connections at a time.
    most: usize,
    patience: Patience,
}

/// A load balancer and a scraper need two connections.
const BOUNDS: Bounds = Bounds {
    most: 256,
    patience: Patience {
        head: Duration::from_secs(5),
        lifetime: Some(Duration::from_secs(60)),
        keep_alive: true,
    },
};

type Answer = Response<Full<Bytes>>;

/// Answers on `listener` until `stop`.
pub async fn serve(listener: Listener, surface: Arc<Surface>, stop: CancellationToken) {
    serve_within(BOUNDS, listener, surface, stop).await;
}

async fn serve_within(
    bounds: Bounds,
    listener: Listener,
    surface: Arc<Surface>,
    stop: CancellationToken,
) {
    let service = TowerToHyperService::new(router(surface));
    let places = Limit::new(bounds.most);
    accept_loop(&listener, &stop, |stream| {
        let place = places.take()?;
        let (service, stop) = (service.clone(), stop.clone());
        Some(async move {
            converse(stream, bounds.patience, service, stop).await;
            drop(place);
        })
    })
    .await;
}

const METHODS: &str = "GET, HEAD, OPTIONS";

/// Load balancers check with any of these (HAProxy's default is OPTIONS), and all get the answer.
pub(super) fn look<H, T, S>(handler: H) -> MethodRouter<S>
where
    H: axum::handler::Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    on(MethodFilter::GET.or(MethodFilter::OPTIONS), handler)
        .fallback(async || method_not_allowed(METHODS))
}

fn router(surface: Arc<Surface>) -> Router {
    let page = page::routes(surface.clone());
    Router::new()
        .route("/healthz", look(health))
        .route("/healthz/{service}", look(service_health))
        .route("/readyz", look(health))
        .route("/livez", look(alive))
        .route("/metrics", look(metrics))
        .fallback(unknown)
        .with_state(surface)
        .merge(page)
}

fn with_status(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
}

async fn health(State(surface): State<Arc<Surface>>) -> Answer {
    let health = surface.health();
    json(with_status(health.status.http()), &health)
}

async fn service_health(State(surface): State<Arc<Surface>>, Path(name): Path<String>) -> Answer {
    match surface.service_health(&name) {
        Some(health) => json(with_status(health.status.http()), &health),
        None => Problem::new(StatusCode::NOT_FOUND, "there is no such service").response(),
    }
}

/// Whoever gets this answer has seen the control loop turn: it is what answers.
async fn alive() -> Answer {
    json(StatusCode::OK, &serde_json::json!({ "status": "ok" }))
}

async fn metrics(State(surface): State<Arc<Surface>>) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(surface.metrics())));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

async fn unknown() -> Answer {
    let detail = "there is /, /healthz, /healthz/SERVICE, /readyz, /livez and /metrics";
    Problem::new(StatusCode::NOT_FOUND, detail).response()
}

#[cfg(test)]
mod tests;
