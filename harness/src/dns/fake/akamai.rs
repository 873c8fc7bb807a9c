//! Akamai Edge DNS, API version 2, and GTM, API version 1.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anyhow::Result;
use serde_json::{Value, json};

use super::lock;
use crate::dns::http::{HttpServer, Request, Response};
use crate::dns::{NAME, ZONE};

/// Name and type; TTL and values.
type Sets = BTreeMap<(String, String), (u64, Vec<String>)>;

struct State {
    sets: Sets,
    version: u64,
    /// How often the zone is still asked for before its version is active.
    activating: u32,
    draft: Option<Draft>,
    property: Value,
    propagating: u32,
}

struct Draft {
    base: u64,
    sets: Sets,
    diffs: Vec<Value>,
}

/// Both APIs, for the account with this access token.
pub fn start(access_token: &str) -> Result<HttpServer> {
    let set = |rtype: &str, value: &str| {
        (
            (NAME.to_owned(), rtype.to_owned()),
            (300, vec![value.to_owned()]),
        )
    };
    let target = |id: u64, on: bool, server: String| {
        json!({ "datacenterId": id, "enabled": on, "weight": 1.0, "servers": [server],
            "handoutCName": null, "name": null })
    };
    let targets: Vec<Value> = (1..100)
        .map(|n| target(n, n == 10, format!("192.0.2.{n}")))
        .collect();
    let state = Mutex::new(State {
        sets: [set("A", "192.0.2.10"), set("AAAA", "2001:db8::10")]
            .into_iter()
            .collect(),
        version: 1,
        activating: 0,
        draft: None,
        property: json!({ "name": "shop", "type": "weighted-round-robin", "dynamicTTL": 300,
            "ipv6": false, "failoverDelay": 0, "failbackDelay": 0, "handoutMode": "normal",
            "trafficTargets": targets, "livenessTests": [] }),
        propagating: 0,
    });
    let token = format!("access_token={access_token};");
    HttpServer::start(move |request| {
        let authorization = request.header("authorization");
        if !authorization.starts_with("EG1-HMAC-SHA256 client_token=")
            || !authorization.contains(&token)
        {
            return problem(401, "Not authorized", "Inactive client token");
        }
        answer(&mut lock(&state), request)
    })
}

fn answer(state: &mut State, request: &Request) -> Response {
    let parts = request.parts();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["config-dns", "v2", "zones", ZONE, rest @ ..] => zone(state, request, rest),
        ["config-dns", "v2", "changelists", rest @ ..] => lists(state, request, rest),
        ["config-gtm", "v1", "domains", ZONE, rest @ ..] => gtm(state, request, rest),
        _ => problem(404, "Not Found", "no such zone or domain"),
    }
}

fn version(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn zone(state: &mut State, request: &Request, rest: &[&str]) -> Response {
    match (request.method.as_str(), rest) {
        ("GET", []) => {
            let active = if state.activating == 0 {
                "ACTIVE"
            } else {
                "PENDING"
            };
            state.activating = state.activating.saturating_sub(1);
            let body = json!({ "zone": ZONE, "type": "PRIMARY", "versionId": version(state.version),
                "activationState": active, "lastActivationDate": "2026-01-01T00:00:00Z" });
            Response::json(200, &body)
        }
        ("GET", ["names", name, "types", rtype]) => {
            match state.sets.get(&((*name).to_owned(), (*rtype).to_owned())) {
                Some((ttl, rdata)) => Response::json(
                    200,
                    &json!({ "name": name, "type": rtype, "ttl": ttl, "rdata": rdata }),
                ),
                None => problem(404, "Not Found", "no such recordset"),
            }
        }
        _ => problem(
            405,
            "Method Not Allowed",
            "whoever uses this has not read the reference",
        ),
    }
}

fn lists(state: &mut State, request: &Request, rest: &[&str]) -> Response {
    match (request.method.as_str(), rest) {
        ("POST", []) => {
            if request.query("zone") != ZONE {
                return problem(404, "Not Found", "no such zone");
            }
            if state.draft.is_some() && request.query("overwrite") == "none" {
                return problem(409, "Conflict", "a change list exists");
            }
            state.draft = Some(Draft {
                base: state.version,
                sets: state.sets.clone(),
                diffs: Vec::new(),
            });
            let body = json!({ "zone": ZONE, "changeTag": "476754f4", "stale": false,
                "zoneVersionId": version(state.version), "lastModifiedDate": "2026-01-01T00:00:00Z" });
            Response::json(201, &body)
        }
        ("DELETE", [ZONE]) => match state.draft.take() {
            Some(_) => Response::empty(204),
            None => problem(404, "Not Found", "no change list"),
        },
        ("GET", [ZONE, "diff"]) => match &state.draft {
            Some(draft) => Response::json(200, &json!({ "diffs": draft.diffs })),
            None => problem(404, "Not Found", "no change list"),
        },
        ("GET", [ZONE, "recordsets"]) => match &state.draft {
            Some(draft) => {
                let shown = |((name, rtype), (ttl, rdata)): (
                    &(String, String),
                    &(u64, Vec<String>),
                )| {
                    json!({ "name": name, "type": rtype, "ttl": ttl, "rdata": rdata })
                };
                let sets: Vec<Value> = draft.sets.iter().map(shown).collect();
                Response::json(
                    200,
                    &json!({ "metadata": { "showAll": true }, "recordsets": sets }),
                )
            }
            None => problem(404, "Not Found", "no change list"),
        },
        ("POST", [ZONE, "recordsets", "add-change"]) => match &mut state.draft {
            Some(draft) => add_change(draft, &request.json()),
            None => problem(404, "Not Found", "no change list"),
        },
        ("POST", [ZONE, "submit"]) => submit(state),
        _ => problem(
            405,
            "Method Not Allowed",
            "whoever uses this has not read the reference",
        ),
    }
}

fn add_change(draft: &mut Draft, body: &Value) -> Response {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let key = (text("name"), text("type"));
    let rdata: Vec<String> = body["rdata"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect();
    let exists = draft.sets.contains_key(&key);
    match (text("op").as_str(), exists) {
        ("ADD", false) | ("EDIT", true) if !rdata.is_empty() => {
            let other = |(name, rtype): &(String, String)| {
                *name == key.0 && (*rtype == "CNAME") != (key.1 == "CNAME")
            };
            if draft.sets.keys().any(other) {
                return problem(
                    400,
                    "Invalid",
                    "a CNAME and other records exclude each other",
                );
            }
            draft
                .sets
                .insert(key, (body["ttl"].as_u64().unwrap_or(0), rdata));
        }
        ("DELETE", true) => {
            draft.sets.remove(&key);
        }
        (op, exists) => {
            return problem(
                400,
                "Invalid",
                &format!("{op} of a set that exists: {exists}"),
            );
        }
    }
    draft
        .diffs
        .push(json!({ "name": text("name"), "type": text("type"), "op": text("op") }));
    Response::empty(204)
}

fn submit(state: &mut State) -> Response {
    let Some(draft) = state.draft.take() else {
        return problem(404, "Not Found", "no change list");
    };
    if draft.base != state.version {
        state.draft = Some(draft);
        return problem(409, "Conflict", "the change list is stale");
    }
    state.sets = draft.sets;
    state.version += 1;
    state.activating = 2;
    Response::empty(204)
}

fn gtm(state: &mut State, request: &Request, rest: &[&str]) -> Response {
    match (request.method.as_str(), rest) {
        ("GET", ["properties", "shop"]) => Response::json(200, &state.property),
        ("PUT", ["properties", "shop"]) => {
            let property = request.json();
            // Whoever leaves something out has lost it.
            for field in [
                "name",
                "type",
                "handoutMode",
                "failoverDelay",
                "livenessTests",
            ] {
                if property.get(field) != state.property.get(field) {
                    return problem(400, "Property Validation Error", field);
                }
            }
            let ttl = property["dynamicTTL"].as_u64().unwrap_or(0);
            if !(30..=3600).contains(&ttl) {
                return problem(400, "Property Validation Error", "dynamicTTL");
            }
            state.property = property;
            state.propagating = 1;
            let body = json!({ "resource": state.property, "status": gtm_status("PENDING") });
            Response::json(200, &body)
        }
        ("GET", ["status", "current"]) => {
            let status = if state.propagating == 0 {
                "COMPLETE"
            } else {
                "PENDING"
            };
            state.propagating = state.propagating.saturating_sub(1);
            Response::json(200, &gtm_status(status))
        }
        _ => problem(404, "Not Found", "no such property"),
    }
}

fn gtm_status(status: &str) -> Value {
    json!({ "propagationStatus": status, "passingValidation": true, "message": "Current configuration",
        "propagationStatusDate": "2026-01-01T00:00:00Z", "changeId": "40e36abd" })
}

fn problem(status: u16, title: &str, detail: &str) -> Response {
    let body = json!({ "type": "about:blank", "title": title, "detail": detail, "status": status });
    Response::json(status, &body)
}
