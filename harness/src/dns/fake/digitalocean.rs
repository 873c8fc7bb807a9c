//! DigitalOcean, API version 2.

use std::sync::Mutex;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Record, Table, bearer, beginning, lock};
use crate::dns::ZONE;
use crate::dns::http::{HttpServer, Request, Response};

const MIN_TTL: u64 = 30;
const DEFAULT_TTL: u64 = 1800;

pub fn start(token: &str) -> Result<HttpServer> {
    let (state, token) = (Mutex::new(beginning()), token.to_owned());
    HttpServer::start(move |request| match bearer(request) == token {
        true => answer(&mut lock(&state), request),
        false => error(401, "unauthorized", "Unable to authenticate you"),
    })
}

fn answer(table: &mut Table, request: &Request) -> Response {
    let parts = request.parts();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let ["v2", "domains", ZONE, "records", rest @ ..] = parts.as_slice() else {
        return not_found();
    };
    let id: u64 = rest.first().and_then(|id| id.parse().ok()).unwrap_or(0);
    match (request.method.as_str(), rest) {
        ("GET", []) => list(table, request),
        ("POST", []) => {
            let id = table.last_key_value().map_or(1, |(id, _)| id + 1);
            match read(&request.json()) {
                Ok(record) => {
                    table.insert(id, record.clone());
                    Response::json(201, &json!({ "domain_record": shown(id, &record) }))
                }
                Err(response) => response,
            }
        }
        ("PATCH" | "PUT", [_]) if table.contains_key(&id) => match read(&request.json()) {
            Ok(record) => {
                table.insert(id, record.clone());
                Response::json(200, &json!({ "domain_record": shown(id, &record) }))
            }
            Err(response) => response,
        },
        ("DELETE", [_]) if table.remove(&id).is_some() => Response::empty(204),
        _ => not_found(),
    }
}

/// The filter takes the whole name, records show the relative one.
fn list(table: &Table, request: &Request) -> Response {
    let wanted = |record: &Record| {
        let full = match record.name.as_str() {
            "" => ZONE.to_owned(),
            name => format!("{name}.{ZONE}"),
        };
        (request.query("name").is_empty() || request.query("name") == full)
            && (request.query("type").is_empty() || request.query("type") == record.rtype)
    };
    let all: Vec<Value> = table
        .iter()
        .filter(|(_, r)| wanted(r))
        .map(|(id, r)| shown(*id, r))
        .collect();
    let size: usize = request.query("per_page").parse().unwrap_or(20).min(200);
    let page: usize = request.query("page").parse().unwrap_or(1);
    let some: Vec<&Value> = all.iter().skip((page - 1) * size).take(size).collect();
    let body = json!({ "domain_records": some, "links": {}, "meta": { "total": all.len() } });
    Response::json(200, &body).with_header("ratelimit-remaining", "4999")
}

fn shown(id: u64, record: &Record) -> Value {
    let name = if record.name.is_empty() {
        "@"
    } else {
        &record.name
    };
    json!({ "id": id, "type": record.rtype, "name": name, "data": record.value,
        "priority": null, "port": null, "ttl": record.ttl, "weight": null, "flags": null, "tag": null })
}

/// What is not named falls back to its default.
fn read(body: &Value) -> Result<Record, Response> {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let (rtype, mut value) = (text("type"), text("data"));
    if rtype.is_empty() {
        return Err(error(422, "unprocessable_entity", "Type can't be blank"));
    }
    if rtype == "CNAME" {
        match value.strip_suffix('.') {
            Some(name) => value = name.to_owned(),
            None => {
                let why = "Data needs to end with a dot (.)";
                return Err(error(422, "unprocessable_entity", why));
            }
        }
    }
    let ttl = body["ttl"].as_u64().unwrap_or(DEFAULT_TTL);
    if ttl < MIN_TTL {
        return Err(error(
            422,
            "unprocessable_entity",
            "TTL must be at least 30",
        ));
    }
    let name = text("name");
    Ok(Record {
        name: if name == "@" { String::new() } else { name },
        rtype,
        value,
        ttl,
    })
}

fn not_found() -> Response {
    error(
        404,
        "not_found",
        "The resource you were accessing could not be found.",
    )
}

fn error(status: u16, id: &str, message: &str) -> Response {
    let body = json!({ "id": id, "message": message, "request_id": "4d9d8375" });
    Response::json(status, &body)
}
