//! DNS messages over TCP, one connection for one question; and our names in hickory's words.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hickory_net::proto::op::Message;
use hickory_net::proto::rr::rdata::{CNAME, TXT};
use hickory_net::proto::rr::{Name as WireName, RData, RecordType as WireType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::record::{Key, Name, RecordError, RecordType, RrSet};
use crate::addr::Addr;
use crate::net::Stream;
use crate::net::dial::{DialError, Dialer};

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The server has not seen the question.
    #[error("{0}")]
    NotSent(String),
    /// The server may have seen it.
    #[error("{0}")]
    NoAnswer(String),
}

impl From<DialError> for AskError {
    fn from(error: DialError) -> Self {
        Self::NotSent(error.to_string())
    }
}

/// Sends `message` and returns the bytes of the one answer to it, all within `limit`. Cancel safe:
/// dropping closes the connection.
///
/// # Errors
/// See [`AskError`]: the difference decides whether a change may be sent again.
pub async fn ask_tcp(
    dialer: &Dialer,
    server: &Addr,
    message: &[u8],
    limit: Duration,
) -> Result<Vec<u8>, AskError> {
    let mut stream = dialer.dial(server, None, limit).await?;
    match timeout(limit, exchange(&mut stream, message)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(AskError::NoAnswer(format!("{server}: {error}"))),
        Err(_) => Err(AskError::NoAnswer(format!(
            "{server}: no answer within {limit:?}"
        ))),
    }
}

/// RFC 1035, section 4.2.2: each message after its length in two bytes.
async fn exchange(stream: &mut Stream, message: &[u8]) -> std::io::Result<Vec<u8>> {
    let length = u16::try_from(message.len())
        .map_err(|_| std::io::Error::other("a message of more than 65,535 bytes"))?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await?;
    stream.flush().await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).await?;
    if answer.get(..2) != message.get(..2) {
        return Err(std::io::Error::other("an answer to another question"));
    }
    Ok(answer)
}

/// Why a name or an answer cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WireError {
    #[error("`{0}` cannot be written as a name in the DNS")]
    Name(String),
    #[error("{0}")]
    Record(#[from] RecordError),
}

/// `name` as hickory has it.
///
/// # Errors
/// When hickory is stricter than we are.
pub fn wire_name(name: impl fmt::Display) -> Result<WireName, WireError> {
    let text = name.to_string();
    let mut found = WireName::from_ascii(&text).map_err(|_| WireError::Name(text))?;
    found.set_fqdn(true);
    Ok(found)
}

pub fn wire_type(rtype: RecordType) -> WireType {
    match rtype {
        RecordType::A => WireType::A,
        RecordType::Aaaa => WireType::AAAA,
        RecordType::Cname => WireType::CNAME,
        RecordType::Txt => WireType::TXT,
    }
}

/// The values of `set` as hickory has them.
///
/// # Errors
/// As [`wire_name`].
pub fn wire_values(set: &RrSet) -> Result<Vec<RData>, WireError> {
    use super::record::Values;
    Ok(match set.values() {
        Values::A(addrs) => addrs
            .iter()
            .map(|a: &Ipv4Addr| RData::A((*a).into()))
            .collect(),
        Values::Aaaa(addrs) => addrs
            .iter()
            .map(|a: &Ipv6Addr| RData::AAAA((*a).into()))
            .collect(),
        Values::Txt(texts) => texts
            .iter()
            .map(|text| RData::TXT(TXT::new(vec![text.to_string()])))
            .collect(),
        Values::Cname(target) => {
            let target = wire_name(target)?;
            vec![RData::CNAME(CNAME(target))]
        }
    })
}

/// Whether two names are the same, whatever their case and final dot.
pub fn is_name(found: &WireName, wanted: &Name) -> bool {
    let found = found.to_ascii();
    found
        .strip_suffix('.')
        .unwrap_or(&found)
        .eq_ignore_ascii_case(wanted.as_str())
}

/// The set of `key` among the answers of `message`; `None` when it has none.
///
/// # Errors
/// When there are more values than a set may have, or a name that is none.
pub fn answered(message: &Message, key: &Key) -> Result<Option<RrSet>, WireError> {
    let mine: Vec<_> = message
        .answers
        .iter()
        .filter(|r| r.record_type() == wire_type(key.rtype) && is_name(&r.name, &key.name))
        .collect();
    let Some(ttl) = mine.iter().map(|r| r.ttl).min() else {
        return Ok(None);
    };
    let text = |data: &RData| match data {
        RData::A(addr) => addr.0.to_string(),
        RData::AAAA(addr) => addr.0.to_string(),
        RData::CNAME(name) => name.0.to_ascii(),
        // Several strings are one text, cut where it did not fit (RFC 7208, section 3.3).
        RData::TXT(txt) => String::from_utf8_lossy(&txt.txt_data.concat()).into_owned(),
        _ => String::new(),
    };
    let values: Vec<String> = mine.iter().map(|r| text(&r.data)).collect();
    let values = values.iter().map(String::as_str);
    Ok(Some(RrSet::parse(key, u64::from(ttl), values)?))
}
