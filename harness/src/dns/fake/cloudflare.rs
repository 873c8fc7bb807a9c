//! Cloudflare, API version 4: one zone, batches as one transaction.

use std::sync::Mutex;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Record, Table, bearer, beginning, lock};
use crate::dns::ZONE;
use crate::dns::http::{HttpServer, Request, Response};

const ZONE_ID: &str = "023e105f4ecef8ad9ca31a8372d0c353";

/// With every record of the zone behind the proxy, or none.
pub fn start(token: &str, proxied: bool) -> Result<HttpServer> {
    let (state, token) = (Mutex::new(beginning()), token.to_owned());
    HttpServer::start(move |request| match bearer(request) == token {
        true => answer(&mut lock(&state), request, proxied),
        false => error(403, 9109, "Invalid access token"),
    })
}

fn answer(table: &mut Table, request: &Request, proxied: bool) -> Response {
    let parts = request.parts();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match (request.method.as_str(), parts.as_slice()) {
        ("GET", ["client", "v4", "zones"]) => {
            let zone = json!({ "id": ZONE_ID, "name": ZONE, "status": "active", "paused": false,
                "name_servers": ["a.ns.example.net", "b.ns.example.net"] });
            let found = if request.query("name") == ZONE {
                vec![zone]
            } else {
                vec![]
            };
            listed(&found)
        }
        ("GET", ["client", "v4", "zones", ZONE_ID, "dns_records"]) => {
            let wanted = |record: &Record| {
                let named = request.query("name");
                (named.is_empty() || named == full(&record.name))
                    && (request.query("type").is_empty() || request.query("type") == record.rtype)
            };
            let found: Vec<Value> = table
                .iter()
                .filter(|(_, record)| wanted(record))
                .map(|(id, record)| shown(*id, record, proxied))
                .collect();
            listed(&found)
        }
        ("POST", ["client", "v4", "zones", ZONE_ID, "dns_records", "batch"]) => {
            let mut draft = table.clone();
            match batch(&mut draft, &request.json(), proxied) {
                Ok(()) => {
                    *table = draft;
                    success(&json!({ "deletes": [], "patches": [], "puts": [], "posts": [] }))
                }
                Err(refused) => refused,
            }
        }
        _ => error(
            404,
            7003,
            "Could not route to this path, perhaps your object identifier is invalid?",
        ),
    }
}

fn full(name: &str) -> String {
    match name {
        "" => ZONE.to_owned(),
        name => format!("{name}.{ZONE}"),
    }
}

fn id_of(value: &Value) -> u64 {
    let id = value["id"].as_str().unwrap_or_default();
    u64::from_str_radix(id, 16).unwrap_or(0)
}

/// Deletes, patches, puts, posts, in this order.
fn batch(table: &mut Table, body: &Value, proxied: bool) -> Result<(), Response> {
    let list = |name: &str| body[name].as_array().cloned().unwrap_or_default();
    let gone = || error(400, 81044, "Record does not exist.");
    for delete in list("deletes") {
        table.remove(&id_of(&delete)).ok_or_else(gone)?;
    }
    for patch in list("patches") {
        let record = table.get_mut(&id_of(&patch)).ok_or_else(gone)?;
        if let Some(content) = patch["content"].as_str() {
            content.clone_into(&mut record.value);
        }
        if let Some(ttl) = patch["ttl"].as_u64() {
            record.ttl = checked_ttl(ttl)?;
        }
    }
    if !list("puts").is_empty() {
        return Err(error(400, 1004, "a PUT resets what it does not name"));
    }
    for post in list("posts") {
        let text = |name: &str| post[name].as_str().unwrap_or_default().to_owned();
        let name = text("name");
        let relative = name
            .strip_suffix(ZONE)
            .unwrap_or(&name)
            .trim_end_matches('.');
        let record = Record {
            name: relative.to_owned(),
            rtype: text("type"),
            value: text("content"),
            ttl: checked_ttl(post["ttl"].as_u64().unwrap_or(1))?,
        };
        if post["proxied"].as_bool().unwrap_or_default() != proxied {
            return Err(error(
                400,
                9004,
                "this stand-in's records are proxied as one",
            ));
        }
        exclusive(table, &record)?;
        let id = table.last_key_value().map_or(1, |(id, _)| id + 1);
        table.insert(id, record);
    }
    Ok(())
}

fn checked_ttl(ttl: u64) -> Result<u64, Response> {
    match ttl {
        1 | 60..=86400 => Ok(ttl),
        _ => Err(error(
            400,
            9021,
            "Invalid TTL. Must be between 60 and 86400 seconds, or 1 for Automatic.",
        )),
    }
}

fn exclusive(table: &Table, new: &Record) -> Result<(), Response> {
    for old in table.values().filter(|old| old.name == new.name) {
        if old.rtype == new.rtype && old.value == new.value {
            return Err(error(400, 81058, "An identical record already exists."));
        }
        if old.rtype == "CNAME" || new.rtype == "CNAME" {
            let why = "An A, AAAA, or CNAME record with that host already exists.";
            return Err(error(400, 81053, why));
        }
    }
    Ok(())
}

fn shown(id: u64, record: &Record, proxied: bool) -> Value {
    json!({ "id": format!("{id:032x}"), "type": record.rtype, "name": full(&record.name),
        "content": record.value, "ttl": if proxied { 1 } else { record.ttl }, "proxied": proxied,
        "proxiable": true, "comment": null, "tags": [], "created_on": "2026-01-01T00:00:00Z",
        "modified_on": "2026-01-01T00:00:00Z", "meta": {} })
}

fn listed(found: &[Value]) -> Response {
    Response::json(
        200,
        &json!({ "success": true, "errors": [], "messages": [], "result": found,
            "result_info": { "page": 1, "per_page": 100, "count": found.len(),
                "total_count": found.len(), "total_pages": 1 } }),
    )
}

fn success(result: &Value) -> Response {
    let body = json!({ "success": true, "errors": [], "messages": [], "result": result });
    Response::json(200, &body)
}

fn error(status: u16, code: u64, message: &str) -> Response {
    let body = json!({ "success": false, "errors": [{ "code": code, "message": message }],
        "messages": [], "result": null });
    Response::json(status, &body)
}
