//! One look at a region from outside, as its clients see it.

use std::time::Duration;

use reqwest::header::{HOST, HeaderValue};
use serde::Deserialize;

use super::judge::{Answer, ServiceFact};
use crate::addr::Addr;
use crate::clock::Clock;
use crate::cutover::spec::CheckSpec;
use crate::dns::{Env, http};
use crate::net::tls::TlsSettings;

/// Health says little; what is longer is something else and does not matter.
const MAX_BODY: usize = 256 << 10;

/// The part of a sidecar's `/healthz` that matters here.
#[derive(Deserialize)]
struct Health {
    status: String,
    region: Option<String>,
    services: std::collections::BTreeMap<String, Service>,
}

#[derive(Deserialize)]
struct Service {
    status: String,
    primary: Option<String>,
    reason: Option<String>,
}

/// Asks once. Cancel safe.
///
/// # Errors
/// Why there was no answer, for people.
pub async fn look(spec: &CheckSpec, env: &Env) -> Result<Answer, String> {
    let clock = env.clock;
    let begun = clock.now();
    let asked = ask(spec, env);
    let (status, body) = tokio::time::timeout(spec.timeout, asked)
        .await
        .map_err(|_| format!("no answer within {} ms", spec.timeout.as_millis()))??;
    Ok(read(status, &body, took(&clock, begun)))
}

fn took(clock: &Clock, begun: crate::clock::Moment) -> Duration {
    clock.now().since(begun)
}

fn read(status: u16, body: &[u8], took: Duration) -> Answer {
    let mut answer = Answer {
        status,
        took,
        region: None,
        services: Vec::new(),
    };
    let Ok(health) = serde_json::from_slice::<Health>(body) else {
        return answer;
    };
    if !["ok", "degraded", "draining", "failing"].contains(&health.status.as_str()) {
        return answer;
    }
    answer.region = health.region;
    let fact = |(name, service): (String, Service)| ServiceFact {
        name,
        // What is not required does not change the overall state; that one is in the status code.
        required: true,
        proven: service.primary.is_some() && service.status != "failing",
        held: false,
        lag: None,
        lag_bytes: None,
        why: service.reason,
    };
    answer.services = health.services.into_iter().map(fact).collect();
    answer
}

async fn ask(spec: &CheckSpec, env: &Env) -> Result<(u16, Vec<u8>), String> {
    let mut url = reqwest::Url::parse(&spec.url).map_err(|error| error.to_string())?;
    let host = url
        .host_str()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let target = Addr::from_parts(&host, port).map_err(|error| error.to_string())?;
    let addrs = env.resolver.resolve(&target).await;
    let addrs = addrs.map_err(|error| error.to_string())?;
    let tls = TlsSettings {
        ca_file: spec.ca_file.clone(),
        ..TlsSettings::default()
    };
    let builder = http::builder(url.scheme() == "https", &tls);
    let builder = builder.map_err(|error| error.to_string())?;
    // The handshake carries the URL's host; where another name is wanted, that one stands for the
    // addresses.
    let name = spec.sni.clone().unwrap_or(host);
    if spec.sni.is_some() && url.set_host(Some(&name)).is_err() {
        return Err(format!("{name} cannot stand in a URL"));
    }
    let client = builder
        .timeout(spec.timeout)
        .resolve_to_addrs(&name, &addrs)
        .build()
        .map_err(|error| error.to_string())?;
    let mut request = client.get(url);
    if let Some(host) = &spec.host {
        let value = HeaderValue::from_str(host).map_err(|error| error.to_string())?;
        request = request.header(HOST, value);
    }
    let mut response = request.send().await.map_err(root)?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(root)? {
        if body.len() + chunk.len() > MAX_BODY {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok((status, body))
}

/// The innermost error: the outer ones repeat the URL.
fn root(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut last: &dyn std::error::Error = &error;
    while let Some(inner) = last.source() {
        last = inner;
    }
    last.to_string()
}
