//! OVHcloud DNS, API version 1: edits are seen by the API at once and by the world after a refresh.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Value, json};

use super::{Record, Table, beginning, lock};
use crate::dns::ZONE;
use crate::dns::http::{HttpServer, Request, Response};

/// How far OVH's clock is ahead: more than it forgives in a signature.
const AHEAD: u64 = 7200;
const MIN_TTL: u64 = 60;

struct State {
    edited: Table,
    served: Table,
    /// How often it is still asked for before a refresh is done.
    deploying: u32,
}

/// Everything a consumer key needs, or all of it but the refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    Full,
    NoRefresh,
}

pub fn start(consumer_key: &str, rights: Rights) -> Result<HttpServer> {
    let state = Mutex::new(State {
        edited: beginning(),
        served: beginning(),
        deploying: 0,
    });
    let consumer_key = consumer_key.to_owned();
    HttpServer::start(move |request| answer(&mut lock(&state), request, &consumer_key, rights))
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map(|now| now.as_secs()).unwrap_or_default() + AHEAD
}

fn answer(state: &mut State, request: &Request, consumer_key: &str, rights: Rights) -> Response {
    let path = request.path.strip_prefix("/1.0").unwrap_or_default();
    if path == "/auth/time" {
        return Response::json(200, &json!(now()));
    }
    if request.header("x-ovh-consumer") != consumer_key {
        return error(403, "This credential does not exist");
    }
    let time: u64 = request
        .header("x-ovh-timestamp")
        .parse()
        .unwrap_or_default();
    if now().abs_diff(time) > 60 || !request.header("x-ovh-signature").starts_with("$1$") {
        return error(400, "Invalid signature");
    }
    let zone = format!("/domain/zone/{ZONE}");
    if path == "/auth/currentCredential" {
        return Response::json(200, &credential(&zone, rights));
    }
    let Some(rest) = path.strip_prefix(zone.as_str()) else {
        return error(404, "This service does not exist");
    };
    in_zone(state, request, rest, rights)
}

fn in_zone(state: &mut State, request: &Request, rest: &str, rights: Rights) -> Response {
    let parts: Vec<&str> = rest.trim_matches('/').split('/').collect();
    let id: u64 = parts.get(1).and_then(|id| id.parse().ok()).unwrap_or(0);
    match (request.method.as_str(), parts.as_slice()) {
        ("GET", [""]) => Response::json(
            200,
            &json!({ "name": ZONE, "nameServers": ["dns1.example.net", "ns1.example.net"],
                "hasDnsAnycast": false, "dnssecSupported": true, "lastUpdate": "2026-01-01T00:00:00Z" }),
        ),
        ("GET", ["record"]) => {
            let wanted = |r: &Record| {
                r.rtype == request.query("fieldType") && r.name == request.query("subDomain")
            };
            let ids: Vec<u64> = state
                .edited
                .iter()
                .filter(|(_, r)| wanted(r))
                .map(|(id, _)| *id)
                .collect();
            Response::json(200, &json!(ids))
        }
        ("GET", ["record", _]) => match state.edited.get(&id) {
            Some(record) => Response::json(200, &shown(id, record)),
            None => not_there(),
        },
        ("POST", ["record"]) => create(&mut state.edited, &request.json()),
        ("PUT", ["record", _]) => match state.edited.get_mut(&id) {
            Some(record) => update(record, &request.json()),
            None => not_there(),
        },
        ("DELETE", ["record", _]) => match state.edited.remove(&id) {
            Some(_) => Response::json(200, &Value::Null),
            None => not_there(),
        },
        ("POST", ["refresh"]) if rights == Rights::NoRefresh => {
            error(403, "This call has not been granted")
        }
        ("POST", ["refresh"]) => {
            state.served = state.edited.clone();
            state.deploying = 1;
            Response::json(200, &Value::Null)
        }
        ("GET", ["status"]) => {
            let deployed = state.deploying == 0 && state.served == state.edited;
            state.deploying = state.deploying.saturating_sub(1);
            let body = json!({ "isDeployed": deployed, "errors": [], "warnings": [] });
            Response::json(200, &body)
        }
        _ => error(404, "Got an invalid (or empty) URL"),
    }
}

fn credential(zone: &str, rights: Rights) -> Value {
    let rule = |method: &str, path: String| json!({ "method": method, "path": path });
    let mut rules = vec![
        rule("GET", "/auth/*".to_owned()),
        rule("GET", zone.to_owned()),
        rule("GET", format!("{zone}/*")),
        rule("PUT", format!("{zone}/record/*")),
        rule("POST", format!("{zone}/record")),
        rule("DELETE", format!("{zone}/record/*")),
    ];
    if rights == Rights::Full {
        rules.push(rule("POST", format!("{zone}/refresh")));
    }
    json!({ "status": "validated", "rules": rules, "expiration": null, "applicationId": 1 })
}

fn shown(id: u64, record: &Record) -> Value {
    json!({ "id": id, "zone": ZONE, "subDomain": record.name, "fieldType": record.rtype,
        "target": record.value, "ttl": record.ttl })
}

fn create(table: &mut Table, body: &Value) -> Response {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let record = Record {
        name: text("subDomain"),
        rtype: text("fieldType"),
        value: text("target"),
        ttl: body["ttl"].as_u64().unwrap_or(3600).max(MIN_TTL),
    };
    let id = table.last_key_value().map_or(1, |(id, _)| id + 1);
    let answer = Response::json(200, &shown(id, &record));
    table.insert(id, record);
    answer
}

fn update(record: &mut Record, body: &Value) -> Response {
    if body.get("fieldType").is_some() {
        return error(400, "fieldType is read-only");
    }
    if let Some(target) = body["target"].as_str() {
        target.clone_into(&mut record.value);
    }
    if let Some(ttl) = body["ttl"].as_u64() {
        record.ttl = ttl.max(MIN_TTL);
    }
    Response::json(200, &Value::Null)
}

fn not_there() -> Response {
    error(404, "The requested object (id) does not exist")
}

fn error(status: u16, message: &str) -> Response {
    let body = json!({ "class": "Client::Error", "message": message });
    Response::json(status, &body).with_header("x-ovh-queryid", "EU.ext-1.1")
}
