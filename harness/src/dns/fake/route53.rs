//! Amazon Route 53, API version 2013-04-01, with the comparison that moto lacks: a DELETE must match what
//! is there, a CREATE must be new, and the batch is all or nothing. Signatures are moto's to check; here
//! the credential's name is enough.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anyhow::Result;

use super::lock;
use crate::dns::http::{HttpServer, Request, Response};
use crate::dns::{NAME, ZONE};

pub const ZONE_ID: &str = "Z0123456789EXAMPLE";
pub const ACCESS_KEY_ID: &str = "AKIDEXAMPLE";

/// Name and type; TTL and values.
type Sets = BTreeMap<(String, String), (u64, Vec<String>)>;

#[derive(Default)]
struct State {
    sets: Sets,
    /// Each change is asked about once before it is in sync.
    pending: BTreeMap<String, u32>,
}

pub fn start() -> Result<HttpServer> {
    let set = |rtype: &str, value: &str| {
        let key = (format!("{NAME}."), rtype.to_owned());
        (key, (300, vec![value.to_owned()]))
    };
    let sets = [set("A", "192.0.2.10"), set("AAAA", "2001:db8::10")];
    let state = Mutex::new(State {
        sets: sets.into_iter().collect(),
        pending: BTreeMap::new(),
    });
    HttpServer::start(move |request| answer(&mut lock(&state), request))
}

fn answer(state: &mut State, request: &Request) -> Response {
    let credential = format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY_ID}/");
    let authorization = request.header("authorization");
    if !authorization.starts_with(&credential) {
        return error(
            403,
            "InvalidClientTokenId",
            "The security token is invalid.",
        );
    }
    let parts = request.parts();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match (request.method.as_str(), parts.as_slice()) {
        ("GET", ["2013-04-01", "hostedzonesbyname"]) => xml(&format!(
            "<ListHostedZonesByNameResponse><HostedZones><HostedZone><Id>/hostedzone/{ZONE_ID}</Id>\
             <Name>{ZONE}.</Name><CallerReference>1</CallerReference><Config>\
             <PrivateZone>false</PrivateZone></Config></HostedZone></HostedZones>\
             <IsTruncated>false</IsTruncated><MaxItems>10</MaxItems></ListHostedZonesByNameResponse>"
        )),
        ("GET", ["2013-04-01", "hostedzone", ZONE_ID, "rrset"]) => list(state, request),
        ("POST", ["2013-04-01", "hostedzone", ZONE_ID, "rrset"]) => change(state, request),
        ("GET", ["2013-04-01", "change", id]) => status(state, id),
        _ => error(404, "NoSuchHostedZone", "No hosted zone found"),
    }
}

/// From the asked position on, in order, as many as asked.
fn list(state: &State, request: &Request) -> Response {
    let from = (
        request.query("name").to_owned(),
        request.query("type").to_owned(),
    );
    let count = request.query("maxitems").parse().unwrap_or(300);
    let mut sets = String::new();
    for ((name, rtype), (ttl, values)) in state.sets.range(from..).take(count) {
        let values: String = values
            .iter()
            .map(|v| format!("<ResourceRecord><Value>{v}</Value></ResourceRecord>"))
            .collect();
        sets.push_str(&format!(
            "<ResourceRecordSet><Name>{name}</Name><Type>{rtype}</Type><TTL>{ttl}</TTL>\
             <ResourceRecords>{values}</ResourceRecords></ResourceRecordSet>"
        ));
    }
    xml(&format!(
        "<ListResourceRecordSetsResponse><ResourceRecordSets>{sets}</ResourceRecordSets>\
         <IsTruncated>false</IsTruncated><MaxItems>{count}</MaxItems></ListResourceRecordSetsResponse>"
    ))
}

fn change(state: &mut State, request: &Request) -> Response {
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let mut sets = state.sets.clone();
    for part in elements(&body, "Change") {
        let one = |name| {
            elements(part, name)
                .first()
                .copied()
                .unwrap_or_default()
                .to_owned()
        };
        let key = (one("Name"), one("Type"));
        let mut values: Vec<String> = elements(part, "Value")
            .into_iter()
            .map(str::to_owned)
            .collect();
        values.sort();
        let set = (one("TTL").parse().unwrap_or_default(), values);
        let refused = match one("Action").as_str() {
            "DELETE" if sets.get(&key) == Some(&set) => {
                sets.remove(&key);
                None
            }
            "DELETE" => Some("but the values provided do not match the current values"),
            "CREATE" if sets.contains_key(&key) => Some("but it already exists"),
            "CREATE" => {
                sets.insert(key.clone(), set);
                None
            }
            _ => Some("an action that this stand-in does not know"),
        };
        if let Some(why) = refused {
            let why = format!("Tried to change [name='{}', type='{}'] {why}", key.0, key.1);
            let text = format!(
                "<InvalidChangeBatch><Messages><Message>{why}</Message></Messages></InvalidChangeBatch>"
            );
            return with_status(400, &text);
        }
    }
    state.sets = sets;
    let id = format!("C{:07}", state.pending.len() + 1);
    state.pending.insert(id.clone(), 1);
    change_info("ChangeResourceRecordSetsResponse", &id, "PENDING")
}

fn status(state: &mut State, id: &str) -> Response {
    let Some(left) = state.pending.get_mut(id) else {
        return error(
            404,
            "NoSuchChange",
            "A change with the specified ID does not exist.",
        );
    };
    let status = if *left > 0 { "PENDING" } else { "INSYNC" };
    *left = left.saturating_sub(1);
    change_info("GetChangeResponse", id, status)
}

fn change_info(root: &str, id: &str, status: &str) -> Response {
    xml(&format!(
        "<{root}><ChangeInfo><Id>/change/{id}</Id><Status>{status}</Status>\
         <SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo></{root}>"
    ))
}

/// The texts of all elements of this name, however deep.
fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let parts = xml.split(open.as_str()).skip(1);
    parts
        .map(|part| part.split(close.as_str()).next().unwrap_or_default())
        .collect()
}

fn error(status: u16, code: &str, message: &str) -> Response {
    with_status(
        status,
        &format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message>\
             </Error><RequestId>1</RequestId></ErrorResponse>"
        ),
    )
}

fn xml(text: &str) -> Response {
    with_status(200, text)
}

fn with_status(status: u16, text: &str) -> Response {
    Response::Answer {
        status,
        headers: vec![("content-type".into(), "text/xml".into())],
        body: format!("<?xml version=\"1.0\"?>\n{text}").into_bytes(),
    }
}
