//! One question, one answer, over TCP: what a server serves, seen by other eyes than the product's.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Types by their number (RFC 1035, RFC 3596).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    A = 1,
    Cname = 5,
    Soa = 6,
    Aaaa = 28,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u8,
    pub authoritative: bool,
    /// Of the asked type: TTL and value, sorted. A SOA's value is its serial.
    pub records: Vec<(u32, String)>,
}

/// Asks `server` for `name`, without recursion unless `recurse`.
pub fn ask(server: SocketAddr, name: &str, rtype: Type, recurse: bool) -> Result<Reply> {
    let mut message = vec![0x12, 0x34, u8::from(recurse), 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        message.push(u8::try_from(label.len())?);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, rtype as u8, 0, 1]);
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(&u16::try_from(message.len())?.to_be_bytes())?;
    stream.write_all(&message)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    read(&answer, rtype)
}

/// The values alone.
pub fn values(server: SocketAddr, name: &str, rtype: Type, recurse: bool) -> Result<Vec<String>> {
    let records = ask(server, name, rtype, recurse)?.records;
    Ok(records.into_iter().map(|(_, value)| value).collect())
}

/// The serial that `server` answers for `zone` with authority; `None` while it has none.
pub fn serial(server: SocketAddr, zone: &str) -> Result<Option<u32>> {
    let reply = ask(server, zone, Type::Soa, false)?;
    let serial = reply.records.first().filter(|_| reply.authoritative);
    Ok(serial.map(|(_, serial)| serial.parse()).transpose()?)
}

fn read(answer: &[u8], rtype: Type) -> Result<Reply> {
    let byte = |at: usize| answer.get(at).copied().context("a short answer");
    let mut at = 12;
    for _ in 0..number(answer, 4)? {
        at = skip_name(answer, at)? + 4;
    }
    let mut records = Vec::new();
    for _ in 0..number(answer, 6)? {
        at = skip_name(answer, at)?;
        let found = number(answer, at)?;
        let ttl = u32::from(number(answer, at + 4)?) << 16 | u32::from(number(answer, at + 6)?);
        let length = usize::from(number(answer, at + 8)?);
        let start = at + 10;
        let data = answer
            .get(start..start + length)
            .context("a short record")?;
        if found == rtype as u16 {
            records.push((ttl, value(answer, start, data, rtype)?));
        }
        at = start + length;
    }
    records.sort();
    Ok(Reply {
        code: byte(3)? & 0x0f,
        authoritative: byte(2)? & 0x04 != 0,
        records,
    })
}

fn value(answer: &[u8], start: usize, data: &[u8], rtype: Type) -> Result<String> {
    Ok(match rtype {
        Type::A => Ipv4Addr::from(<[u8; 4]>::try_from(data)?).to_string(),
        Type::Aaaa => Ipv6Addr::from(<[u8; 16]>::try_from(data)?).to_string(),
        Type::Cname => name(answer, start)?,
        Type::Soa => {
            let at = skip_name(answer, skip_name(answer, start)?)?;
            let serial = answer.get(at..at + 4).context("a short SOA")?;
            u32::from_be_bytes(serial.try_into()?).to_string()
        }
    })
}

fn number(answer: &[u8], at: usize) -> Result<u16> {
    let bytes = answer.get(at..at + 2).context("a short answer")?;
    Ok(u16::from_be_bytes(bytes.try_into()?))
}

fn skip_name(answer: &[u8], mut at: usize) -> Result<usize> {
    loop {
        let length = *answer.get(at).context("a short name")?;
        at += 1;
        match length {
            0 => return Ok(at),
            0xc0.. => return Ok(at + 1),
            _ => at += usize::from(length),
        }
    }
}

fn name(answer: &[u8], mut at: usize) -> Result<String> {
    let mut labels = Vec::new();
    for _ in 0..128 {
        let length = usize::from(*answer.get(at).context("a short name")?);
        if length >= 0xc0 {
            at = usize::from(number(answer, at)? & 0x3fff);
            continue;
        }
        if length == 0 {
            return Ok(labels.join("."));
        }
        let label = answer
            .get(at + 1..at + 1 + length)
            .context("a short label")?;
        labels.push(String::from_utf8_lossy(label).into_owned());
        at += 1 + length;
    }
    bail!("a name without end")
}
