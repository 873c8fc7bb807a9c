//! Linode DNS Manager, API version 4.

use std::sync::Mutex;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Record, Table, bearer, beginning, lock};
use crate::dns::ZONE;
use crate::dns::http::{HttpServer, Request, Response};

const DOMAIN: u64 = 1234;
const TTLS: [u64; 14] = [
    30, 120, 300, 3600, 7200, 14400, 28800, 57600, 86400, 172_800, 345_600, 604_800, 1_209_600,
    2_419_200,
];

pub fn start(token: &str) -> Result<HttpServer> {
    let (state, token) = (Mutex::new(beginning()), token.to_owned());
    HttpServer::start(move |request| match bearer(request) == token {
        true => answer(&mut lock(&state), request),
        false => error(401, "Invalid Token"),
    })
}

fn answer(table: &mut Table, request: &Request) -> Response {
    let parts = request.parts();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let id = parts.get(4).and_then(|id| id.parse().ok());
    let domain = DOMAIN.to_string();
    match (request.method.as_str(), parts.as_slice()) {
        ("GET", ["v4", "domains"]) => {
            let filter: Value =
                serde_json::from_str(request.header("x-filter")).unwrap_or_default();
            let domain = json!({ "id": DOMAIN, "domain": ZONE, "type": "master", "status": "active",
                "ttl_sec": 0, "soa_email": "hostmaster@example.com" });
            let found = if filter["domain"] == ZONE {
                vec![domain]
            } else {
                vec![]
            };
            page(&found, request)
        }
        ("GET", ["v4", "domains", d, "records"]) if *d == domain => {
            let records: Vec<Value> = table
                .iter()
                .map(|(id, record)| shown(*id, record))
                .collect();
            page(&records, request)
        }
        ("POST", ["v4", "domains", d, "records"]) if *d == domain => create(table, &request.json()),
        ("PUT", ["v4", "domains", d, "records", _]) if *d == domain => {
            match table.get_mut(&id.unwrap_or(0)) {
                None => error(404, "Not found"),
                Some(record) => update(id.unwrap_or(0), record, &request.json()),
            }
        }
        ("DELETE", ["v4", "domains", d, "records", _]) if *d == domain => {
            match table.remove(&id.unwrap_or(0)) {
                None => error(404, "Not found"),
                Some(_) => Response::json(200, &json!({})),
            }
        }
        _ => error(404, "Not found"),
    }
}

fn page(all: &[Value], request: &Request) -> Response {
    let size: usize = request.query("page_size").parse().unwrap_or(100);
    let number: usize = request.query("page").parse().unwrap_or(1);
    if !(25..=500).contains(&size) {
        return error(400, "Must be within 25 and 500");
    }
    let shown: Vec<&Value> = all.iter().skip((number - 1) * size).take(size).collect();
    let pages = all.len().div_ceil(size).max(1);
    Response::json(
        200,
        &json!({ "data": shown, "page": number, "pages": pages, "results": all.len() }),
    )
}

fn shown(id: u64, record: &Record) -> Value {
    json!({ "id": id, "type": record.rtype, "name": record.name, "target": record.value,
        "ttl_sec": record.ttl, "priority": 0, "weight": 0, "port": 0, "service": null,
        "protocol": null, "tag": null, "created": "2026-01-01T00:00:00", "updated": "2026-01-01T00:00:00" })
}

/// "Any other value will be rounded to the nearest valid value."
fn rounded(ttl: u64) -> u64 {
    let nearest = TTLS.into_iter().min_by_key(|valid| valid.abs_diff(ttl));
    if ttl == 0 { 0 } else { nearest.unwrap_or(ttl) }
}

fn create(table: &mut Table, body: &Value) -> Response {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let record = Record {
        name: text("name"),
        rtype: text("type"),
        value: text("target"),
        // What was asked for is not kept at creation.
        ttl: 0,
    };
    if record.rtype.is_empty() || record.value.is_empty() {
        return error(400, "type and target are required");
    }
    let id = table.last_key_value().map_or(1, |(id, _)| id + 1);
    let answer = Response::json(200, &shown(id, &record));
    table.insert(id, record);
    answer
}

fn update(id: u64, record: &mut Record, body: &Value) -> Response {
    if body.get("type").is_some() {
        return error(400, "type is not an editable field");
    }
    if let Some(target) = body["target"].as_str() {
        target.clone_into(&mut record.value);
    }
    if let Some(ttl) = body["ttl_sec"].as_u64() {
        record.ttl = rounded(ttl);
    }
    Response::json(200, &shown(id, record))
}

fn error(status: u16, reason: &str) -> Response {
    Response::json(status, &json!({ "errors": [{ "reason": reason }] }))
}
