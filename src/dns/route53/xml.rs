//! The documents of Route 53's API, version 2013-04-01. The order of elements matters.

use std::fmt::Write as _;

use quick_xml::de::from_str;
use quick_xml::escape::escape;
use serde::Deserialize;

use crate::dns::SetChange;
use crate::dns::record::{Key, RrSet};

const NAMESPACE: &str = "https://route53.amazonaws.com/doc/2013-04-01/";
/// The longest comment the API takes.
const MAX_COMMENT: usize = 256;

/// One entry of a change batch.
pub enum Action<'a> {
    Delete(&'a RrSet),
    Create(&'a RrSet),
}

/// What turns every `from` into its `to`. A DELETE must match exactly and a CREATE must be new, and
/// the batch is carried out as a whole or not at all: together they compare and set.
pub fn actions(sets: &[SetChange]) -> Vec<Action<'_>> {
    let deletes = sets
        .iter()
        .filter_map(|set| set.from.as_ref())
        .map(Action::Delete);
    let creates = sets
        .iter()
        .filter_map(|set| set.to.as_ref())
        .map(Action::Create);
    deletes.chain(creates).collect()
}

pub fn change_batch(actions: &[Action<'_>], comment: &str) -> String {
    let comment: String = comment.chars().take(MAX_COMMENT).collect();
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ChangeResourceRecordSetsRequest \
         xmlns=\"{NAMESPACE}\"><ChangeBatch><Comment>{}</Comment><Changes>",
        escape(comment)
    );
    for action in actions {
        let (verb, set) = match action {
            Action::Delete(set) => ("DELETE", set),
            Action::Create(set) => ("CREATE", set),
        };
        let _ = write!(
            xml,
            "<Change><Action>{verb}</Action><ResourceRecordSet><Name>{}</Name><Type>{}</Type>\
             <TTL>{}</TTL><ResourceRecords>",
            set.name().absolute(),
            set.rtype(),
            set.ttl()
        );
        for text in set.zone_texts() {
            let _ = write!(
                xml,
                "<ResourceRecord><Value>{}</Value></ResourceRecord>",
                escape(text)
            );
        }
        xml.push_str("</ResourceRecords></ResourceRecordSet></Change>");
    }
    xml.push_str("</Changes></ChangeBatch></ChangeResourceRecordSetsRequest>");
    xml
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListSets {
    resource_record_sets: Sets,
}

#[derive(Default, Deserialize)]
struct Sets {
    #[serde(rename = "ResourceRecordSet", default)]
    sets: Vec<Listed>,
}

/// A set as the API lists it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listed {
    pub name: String,
    #[serde(rename = "Type")]
    pub rtype: String,
    #[serde(rename = "TTL")]
    pub ttl: Option<u64>,
    pub set_identifier: Option<String>,
    pub alias_target: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    resource_records: Values,
}

#[derive(Default, Deserialize)]
struct Values {
    #[serde(rename = "ResourceRecord", default)]
    records: Vec<OneValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OneValue {
    value: String,
}

impl Listed {
    pub fn is(&self, key: &Key) -> bool {
        let name = self.name.strip_suffix('.').unwrap_or(&self.name);
        name.eq_ignore_ascii_case(key.name.as_str()) && self.rtype == key.rtype.as_str()
    }

    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.resource_records
            .records
            .iter()
            .map(|r| r.value.as_str())
    }
}

/// # Errors
/// When the text is not the document, as in all of these.
pub fn listed(xml: &str) -> Result<Vec<Listed>, quick_xml::DeError> {
    Ok(from_str::<ListSets>(xml)?.resource_record_sets.sets)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListZones {
    hosted_zones: Zones,
}

#[derive(Deserialize)]
struct Zones {
    #[serde(rename = "HostedZone", default)]
    zones: Vec<Zone>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Zone {
    /// `/hostedzone/Z…`
    pub id: String,
    pub name: String,
    config: Option<ZoneConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ZoneConfig {
    private_zone: Option<bool>,
}

impl Zone {
    pub fn is_private(&self) -> bool {
        let config = self.config.as_ref();
        config
            .and_then(|config| config.private_zone)
            .unwrap_or_default()
    }
}

/// # Errors
/// As [`listed`].
pub fn zones(xml: &str) -> Result<Vec<Zone>, quick_xml::DeError> {
    Ok(from_str::<ListZones>(xml)?.hosted_zones.zones)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WithChangeInfo {
    change_info: ChangeInfo,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ChangeInfo {
    /// `/change/C…`
    pub id: String,
    /// `PENDING` or `INSYNC`.
    pub status: String,
}

/// # Errors
/// As [`listed`].
pub fn change_info(xml: &str) -> Result<ChangeInfo, quick_xml::DeError> {
    Ok(from_str::<WithChangeInfo>(xml)?.change_info)
}

/// Both shapes of an error: `<ErrorResponse><Error>…` and `<InvalidChangeBatch><Messages>…`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AnyError {
    error: Option<OneError>,
    messages: Option<Messages>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OneError {
    code: String,
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Messages {
    #[serde(rename = "Message", default)]
    messages: Vec<String>,
}

/// Code and message of an error, if it is one.
pub fn error(xml: &[u8]) -> Option<(String, String)> {
    let error: AnyError = from_str(std::str::from_utf8(xml).ok()?).ok()?;
    if let Some(messages) = error.messages {
        return Some((
            "InvalidChangeBatch".to_owned(),
            messages.messages.join("; "),
        ));
    }
    let error = error.error?;
    Some((error.code, error.message.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::change::Change;
    use crate::dns::record::records;

    #[test]
    fn both_shapes_of_an_error_are_understood() {
        let plain = b"<?xml version=\"1.0\"?><ErrorResponse xmlns=\"x\"><Error><Type>Sender</Type>\
            <Code>Throttling</Code><Message>Rate exceeded</Message></Error><RequestId>1</RequestId></ErrorResponse>";
        assert_eq!(
            error(plain),
            Some(("Throttling".into(), "Rate exceeded".into()))
        );
        let batch = b"<InvalidChangeBatch xmlns=\"x\"><Messages><Message>one</Message><Message>two</Message>\
            </Messages></InvalidChangeBatch>";
        assert_eq!(
            error(batch),
            Some(("InvalidChangeBatch".into(), "one; two".into()))
        );
        assert_eq!(error(b"<html>"), None);
        assert_eq!(error(b"\xff"), None);
    }

    #[test]
    fn a_batch_deletes_exactly_what_was_there() {
        let set = |value: &str| {
            let key = "shop.example.com CNAME".parse().unwrap();
            RrSet::parse(&key, 60, [value]).unwrap()
        };
        let (from, to) = (
            records([set("a.example.net")]),
            records([set("b.example.net")]),
        );
        let change = Change::new(&from, &to, "").unwrap();
        let xml = change_batch(&actions(change.sets()), "why & \"when\"");
        let delete = xml.find("<Action>DELETE</Action>").unwrap();
        assert!(delete < xml.find("<Action>CREATE</Action>").unwrap());
        assert!(xml.contains("<Name>shop.example.com.</Name><Type>CNAME</Type><TTL>60</TTL>"));
        assert!(xml.contains("<Value>a.example.net.</Value>"));
        assert!(xml.contains("why &amp; &quot;when&quot;"));
    }

    #[test]
    fn depth_is_not_a_weapon() {
        let deep = "<a>".repeat(200_000);
        assert!(listed(&format!("<L><ResourceRecordSets>{deep}")).is_err());
        let inside = format!(
            "<L><ResourceRecordSets><ResourceRecordSet><Name>x</Name><Type>A</Type><AliasTarget>{deep}"
        );
        assert!(listed(&inside).is_err());
        assert_eq!(error(deep.as_bytes()), None);
    }

    #[test]
    fn sets_and_zones_are_read() {
        let xml = "<ListResourceRecordSetsResponse xmlns=\"x\"><ResourceRecordSets><ResourceRecordSet>\
            <Name>shop.example.com.</Name><Type>A</Type><TTL>60</TTL><ResourceRecords><ResourceRecord>\
            <Value>192.0.2.1</Value></ResourceRecord><ResourceRecord><Value>192.0.2.2</Value></ResourceRecord>\
            </ResourceRecords></ResourceRecordSet><ResourceRecordSet><Name>shop.example.com.</Name>\
            <Type>AAAA</Type><AliasTarget><HostedZoneId>Z</HostedZoneId><DNSName>x</DNSName>\
            <EvaluateTargetHealth>false</EvaluateTargetHealth></AliasTarget></ResourceRecordSet>\
            </ResourceRecordSets><IsTruncated>false</IsTruncated><MaxItems>2</MaxItems>\
            </ListResourceRecordSetsResponse>";
        let sets = listed(xml).unwrap();
        assert!(sets[0].is(&"shop.example.com A".parse().unwrap()));
        assert_eq!(
            sets[0].values().collect::<Vec<_>>(),
            ["192.0.2.1", "192.0.2.2"]
        );
        assert!(sets[1].alias_target.is_some() && sets[1].ttl.is_none());
        let xml = "<ListHostedZonesByNameResponse><HostedZones><HostedZone><Id>/hostedzone/Z1</Id>\
            <Name>example.com.</Name><Config><PrivateZone>true</PrivateZone></Config></HostedZone>\
            </HostedZones></ListHostedZonesByNameResponse>";
        assert!(zones(xml).unwrap()[0].is_private());
    }
}
