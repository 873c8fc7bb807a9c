//! One sentinel's word on who is master, and at which epoch.

use std::collections::BTreeMap;

use super::super::client::brief;
use super::super::resp::{Frame, number, text};
use super::super::role::address;
use crate::addr::Addr;
use crate::topology::Term;

/// What a sentinel answers, taken at one moment of its event loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Names {
        master: Addr,
        epoch: Term,
        /// In TILT a sentinel's knowledge may be old; it does not count for a majority.
        tilt: bool,
        /// Replicas it knows of, fit or not.
        replicas: Vec<Addr>,
    },
    /// It does not know the master's name.
    UnknownMaster,
    /// The answers contradicted each other, because a failover happened between them: ask again.
    Torn,
    /// It refuses to answer.
    Refused(String),
}

/// The questions, asked in one write. SENTINEL MASTER gives the epoch and, on the leader of a
/// failover, the *old* address; GET-MASTER-ADDR-BY-NAME gives the address. Only when the epoch before
/// and after it is the same do the two belong together.
pub fn questions(master: &[u8]) -> [Vec<&[u8]>; 5] {
    [
        vec![b"SENTINEL", b"MASTER", master],
        vec![b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", master],
        vec![b"SENTINEL", b"MASTER", master],
        vec![b"INFO", b"sentinel"],
        vec![b"SENTINEL", b"REPLICAS", master],
    ]
}

/// Reads the replies to [`questions`]; `None` when they make no sense.
pub fn parse(replies: &[Frame]) -> Option<Answer> {
    let [before, named, after, info, replicas] = replies else {
        return None;
    };
    match (before, named) {
        (_, Frame::Null) => return Some(Answer::UnknownMaster),
        (Frame::Error(e), _) if e.contains("No such master") => return Some(Answer::UnknownMaster),
        (Frame::Error(e), _) | (_, Frame::Error(e)) => return Some(Answer::Refused(brief(e))),
        _ => {}
    }
    let Frame::Array(parts) = named else {
        return None;
    };
    let [host, port] = parts.as_slice() else {
        return None;
    };
    let master = address(host, port)?;
    let (epoch, again) = (epoch(before)?, epoch(after)?);
    if epoch != again {
        return Some(Answer::Torn);
    }
    let replicas = match replicas {
        Frame::Array(all) => all.iter().filter_map(replica).collect(),
        _ => Vec::new(),
    };
    Some(Answer::Names {
        master,
        epoch: Term(epoch),
        tilt: tilt(info),
        replicas,
    })
}

fn epoch(master: &Frame) -> Option<u64> {
    number(pairs(master)?.get("config-epoch")?)
}

fn tilt(info: &Frame) -> bool {
    text(info).is_some_and(|info| {
        info.lines()
            .any(|line| line.trim_end() == "sentinel_tilt:1")
    })
}

fn replica(entry: &Frame) -> Option<Addr> {
    let entry = pairs(entry)?;
    address(entry.get("ip")?, entry.get("port")?)
}

/// A flat list of names and values. Read as a map: fields come and go with state and version.
fn pairs(frame: &Frame) -> Option<BTreeMap<&str, &Frame>> {
    let Frame::Array(parts) = frame else {
        return None;
    };
    let entries = parts
        .chunks_exact(2)
        .filter_map(|pair| Some((text(&pair[0])?, &pair[1])));
    Some(entries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn bulk(text: &str) -> Frame {
        Frame::BulkString(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn list(parts: &[&str]) -> Frame {
        Frame::Array(parts.iter().map(|p| bulk(p)).collect())
    }

    fn master(epoch: &str) -> Frame {
        list(&[
            "name",
            "m",
            "ip",
            "10.9.9.9",
            "port",
            "1",
            "config-epoch",
            epoch,
        ])
    }

    fn replies(before: &str, after: &str) -> [Frame; 5] {
        [
            master(before),
            list(&["10.0.0.1", "6379"]),
            master(after),
            bulk("# Sentinel\r\nsentinel_masters:1\r\nsentinel_tilt:0\r\n"),
            Frame::Array(vec![list(&[
                "ip", "10.0.0.2", "port", "6379", "flags", "slave",
            ])]),
        ]
    }

    #[test]
    fn the_address_is_never_the_one_of_sentinel_master() {
        let answer = parse(&replies("7", "7")).unwrap();
        assert_eq!(
            answer,
            Answer::Names {
                master: "10.0.0.1:6379".parse().unwrap(),
                epoch: Term(7),
                tilt: false,
                replicas: vec!["10.0.0.2:6379".parse().unwrap()],
            }
        );
        assert_eq!(parse(&replies("7", "8")), Some(Answer::Torn));
    }

    #[test]
    fn tilt_unknown_names_and_refusals() {
        let mut tilting = replies("1", "1");
        tilting[3] = bulk("sentinel_tilt:1\r\n");
        assert!(matches!(
            parse(&tilting),
            Some(Answer::Names { tilt: true, .. })
        ));

        let mut unknown = replies("1", "1");
        unknown[1] = Frame::Null;
        assert_eq!(parse(&unknown), Some(Answer::UnknownMaster));
        unknown[0] = Frame::Error("ERR No such master with that name".into());
        assert_eq!(parse(&unknown), Some(Answer::UnknownMaster));

        let mut refused = replies("1", "1");
        refused[0] = Frame::Error("NOAUTH Authentication required.".into());
        assert!(matches!(parse(&refused), Some(Answer::Refused(_))));
    }

    #[test]
    fn nonsense_is_no_answer() {
        for broken in 0..3 {
            let mut replies = replies("1", "1");
            replies[broken] = list(&["x"]);
            assert_eq!(parse(&replies), None, "reply {broken}");
        }
        assert_eq!(parse(&[]), None);
        let mut bad_port = replies("1", "1");
        bad_port[1] = list(&["10.0.0.1", "0"]);
        assert_eq!(parse(&bad_port), None);
    }
}
