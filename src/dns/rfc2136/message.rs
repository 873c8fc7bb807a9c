//! The messages of RFC 2136, and what their answers mean.

use hickory_net::proto::op::{Message, OpCode, Query, ResponseCode, UpdateMessage};
use hickory_net::proto::rr::rdata::tsig::TsigError;
use hickory_net::proto::rr::{DNSClass, Name as WireName, Record, RecordType as WireType};

use crate::dns::error::Kind;
use crate::dns::record::{Key, Name, Records, RrSet};
use crate::dns::wire::{WireError, wire_name, wire_type, wire_values};
use crate::dns::{ChangeError, SetChange};

/// Why no message can be made of a change.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Change(#[from] ChangeError),
}

/// A question to the primary itself.
pub fn query(name: &Name, rtype: WireType) -> Result<Message, WireError> {
    let mut message = Message::query();
    message.metadata.recursion_desired = false;
    message.add_query(Query::query(wire_name(name)?, rtype));
    Ok(message)
}

fn empty_update(zone: &Name) -> Result<Message, WireError> {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Update;
    message.metadata.recursion_desired = false;
    message.add_zone(Query::query(wire_name(zone)?, WireType::SOA));
    Ok(message)
}

/// All of `sets` in one message: the prerequisites first (RFC 2136, section 2.4), then what goes, then
/// what comes. What goes first, because a CNAME and an address exclude each other (section 3.4.2.2).
///
/// # Errors
/// When a name does not lie in `zone`; the server would say NOTZONE.
pub fn update(zone: &Name, sets: &[SetChange]) -> Result<Message, MessageError> {
    let mut message = empty_update(zone)?;
    for set in sets {
        require(&mut message, zone, &set.key, set.from.as_ref())?;
    }
    for set in sets {
        let mut delete = Record::update0(wire_name(&set.key.name)?, 0, wire_type(set.key.rtype));
        delete.dns_class = DNSClass::ANY;
        message.add_update(delete);
    }
    for to in sets.iter().filter_map(|set| set.to.as_ref()) {
        for record in records(to, to.ttl())? {
            message.add_update(record);
        }
    }
    Ok(message)
}

/// An update that a server carries out only if it leaves everything as it is, and that needs the same
/// rights as one that does not: what is there is added once more (RFC 2136, section 3.4.2.2: ignored),
/// what is not there is deleted.
///
/// # Errors
/// As [`update`].
pub fn probe(zone: &Name, keys: &[Key], seen: &Records) -> Result<Message, MessageError> {
    let mut message = empty_update(zone)?;
    for key in keys {
        require(&mut message, zone, key, seen.get(key))?;
    }
    for key in keys {
        match seen.get(key) {
            Some(set) => {
                for record in records(set, set.ttl())? {
                    message.add_update(record);
                }
            }
            None => {
                let mut delete = Record::update0(wire_name(&key.name)?, 0, wire_type(key.rtype));
                delete.dns_class = DNSClass::ANY;
                message.add_update(delete);
            }
        }
    }
    Ok(message)
}

/// The set must be exactly `from` (section 2.4.2), or not there at all (section 2.4.3). TTLs are not
/// compared.
fn require(
    message: &mut Message,
    zone: &Name,
    key: &Key,
    from: Option<&RrSet>,
) -> Result<(), MessageError> {
    if !key.name.is_within(zone) {
        return Err(ChangeError::Outside(key.name.clone(), zone.clone()).into());
    }
    match from {
        Some(set) => message.add_pre_requisites(records(set, 0)?),
        None => {
            let mut absent = Record::update0(wire_name(&key.name)?, 0, wire_type(key.rtype));
            absent.dns_class = DNSClass::NONE;
            message.add_pre_requisite(absent);
        }
    }
    Ok(())
}

fn records(set: &RrSet, ttl: u32) -> Result<Vec<Record>, WireError> {
    let name: WireName = wire_name(set.name())?;
    let record = |data| Record::from_rdata(name.clone(), ttl, data);
    Ok(wire_values(set)?.into_iter().map(record).collect())
}

/// What a server's refusal of an update means (RFC 2136, section 3; RFC 8945, section 5.3). `None`: it
/// was carried out. `Unknown`: it may have been.
pub fn refusal(code: ResponseCode, tsig: Option<TsigError>) -> Option<(Kind, String)> {
    let conflict = || Kind::Conflict {
        found: Records::new(),
    };
    let (kind, why) = match (code, tsig) {
        (ResponseCode::NoError, None) => return None,
        (_, Some(TsigError::BadKey)) => (
            Kind::BadCredentials,
            "the server does not know the key, or has no rule for it",
        ),
        (_, Some(TsigError::BadSig)) => (Kind::BadCredentials, "the key's secret is another one"),
        (_, Some(TsigError::BadTime)) => (
            Kind::BadCredentials,
            "the clocks here and there are too far apart",
        ),
        (_, Some(_)) => (Kind::BadCredentials, "the signature was not accepted"),
        (ResponseCode::NXRRSet, _) => (conflict(), "a record is not as expected"),
        (ResponseCode::YXRRSet | ResponseCode::YXDomain, _) => {
            (conflict(), "a record exists that is not expected")
        }
        (ResponseCode::NXDomain, _) => (conflict(), "the name does not exist"),
        (ResponseCode::Refused, _) => (Kind::Denied, "the key may not change these records"),
        (ResponseCode::NotAuth, _) => (Kind::NoZone, "the server does not keep this zone"),
        (ResponseCode::NotZone, _) => (Kind::NoZone, "a name does not lie in the zone"),
        (ResponseCode::FormErr, _) => (Kind::Invalid, "the server cannot read the update"),
        (ResponseCode::NotImp, _) => (Kind::Unsupported, "the server takes no updates"),
        // SERVFAIL may come after the change was made and before it was stored.
        (code, _) => return Some((Kind::Unknown, format!("the server says {code}"))),
    };
    Some((kind, format!("{why} ({code})")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::change::Change;
    use crate::dns::record::records as sets;

    fn set(key: &str, ttl: u64, values: &[&str]) -> RrSet {
        RrSet::parse(&key.parse().unwrap(), ttl, values.iter().copied()).unwrap()
    }

    fn zone() -> Name {
        "example.com".parse().unwrap()
    }

    /// As `class type ttl rdata`.
    fn lines(records: &[Record]) -> Vec<String> {
        let line = |r: &Record| {
            let line = format!("{} {} {} {}", r.dns_class, r.record_type(), r.ttl, r.data);
            line.trim_end_matches(" UPDATE").trim_end().to_owned()
        };
        records.iter().map(line).collect()
    }

    #[test]
    fn one_message_says_what_must_be_and_what_shall_be() {
        let from = sets([
            set("shop.example.com A", 300, &["192.0.2.1", "192.0.2.2"]),
            set("www.example.com CNAME", 60, &["shop.example.com"]),
        ]);
        let to = sets([
            set("shop.example.com A", 60, &["198.51.100.1"]),
            set("shop.example.com AAAA", 60, &["2001:db8::1"]),
            set("www.example.com A", 60, &["198.51.100.2"]),
        ]);
        let change = Change::new(&from, &to, "").unwrap();
        let message = update(&zone(), change.sets()).unwrap();
        assert_eq!(message.op_code, OpCode::Update);
        assert_eq!(message.zones()[0].query_type(), WireType::SOA);
        assert_eq!(
            lines(message.prerequisites()),
            [
                "IN A 0 192.0.2.1",
                "IN A 0 192.0.2.2",
                "NONE AAAA 0",
                "NONE A 0",
                "IN CNAME 0 shop.example.com.",
            ]
        );
        assert_eq!(
            lines(message.updates()),
            [
                "ANY A 0",
                "ANY AAAA 0",
                "ANY A 0",
                "ANY CNAME 0",
                "IN A 60 198.51.100.1",
                "IN AAAA 60 2001:db8::1",
                "IN A 60 198.51.100.2",
            ]
        );
        let again = Message::from_vec(&message.to_vec().unwrap()).unwrap();
        assert_eq!(again.updates().len(), message.updates().len());
    }

    #[test]
    fn a_probe_leaves_everything_as_it_is() {
        let seen = sets([set("shop.example.com A", 300, &["192.0.2.1"])]);
        let keys = [
            "shop.example.com A".parse().unwrap(),
            "shop.example.com AAAA".parse().unwrap(),
        ];
        let message = probe(&zone(), &keys, &seen).unwrap();
        assert_eq!(
            lines(message.prerequisites()),
            ["IN A 0 192.0.2.1", "NONE AAAA 0"]
        );
        assert_eq!(
            lines(message.updates()),
            ["IN A 300 192.0.2.1", "ANY AAAA 0"]
        );
    }

    #[test]
    fn a_name_outside_the_zone_makes_no_message() {
        let from = sets([set("shop.example.org A", 60, &["192.0.2.1"])]);
        let to = sets([set("shop.example.org A", 60, &["192.0.2.2"])]);
        let change = Change::new(&from, &to, "").unwrap();
        let error = update(&zone(), change.sets()).unwrap_err().to_string();
        assert!(error.contains("does not lie in the zone"), "{error}");
    }

    #[test]
    fn only_some_refusals_promise_that_nothing_happened() {
        assert_eq!(refusal(ResponseCode::NoError, None), None);
        let kind = |code, tsig| refusal(code, tsig).unwrap().0;
        assert_eq!(kind(ResponseCode::ServFail, None), Kind::Unknown);
        assert_eq!(kind(ResponseCode::Refused, None), Kind::Denied);
        assert_eq!(kind(ResponseCode::NotAuth, None), Kind::NoZone);
        assert_eq!(
            kind(ResponseCode::NotAuth, Some(TsigError::BadKey)),
            Kind::BadCredentials
        );
        assert!(matches!(
            kind(ResponseCode::NXRRSet, None),
            Kind::Conflict { .. }
        ));
    }
}
