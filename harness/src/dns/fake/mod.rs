//! Stand-ins for providers: stateful, and kept to their documentation request by request. Each holds one
//! zone, [`ZONE`](super::ZONE), with the addresses of region 10 and a record that nobody may touch.

pub mod akamai;
pub mod cloudflare;
pub mod digitalocean;
pub mod linode;
pub mod ovh;
pub mod route53;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::http::Request;

/// One record, as most providers keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Relative to the zone.
    pub name: String,
    pub rtype: String,
    pub value: String,
    pub ttl: u64,
}

impl Record {
    fn new(name: &str, rtype: &str, value: &str) -> Self {
        Self {
            name: name.to_owned(),
            rtype: rtype.to_owned(),
            value: value.to_owned(),
            ttl: 300,
        }
    }
}

/// Records by id.
pub type Table = BTreeMap<u64, Record>;

/// Where every stand-in begins.
pub fn beginning() -> Table {
    let records = [
        Record::new("shop", "A", "192.0.2.10"),
        Record::new("shop", "AAAA", "2001:db8::10"),
        Record::new("www", "A", "192.0.2.1"),
        Record::new("", "MX", "mail.example.net"),
    ];
    (101..).zip(records).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The token of an `Authorization: Bearer`.
fn bearer(request: &Request) -> String {
    let authorization = request.header("authorization");
    authorization
        .strip_prefix("Bearer ")
        .unwrap_or_default()
        .to_owned()
}
