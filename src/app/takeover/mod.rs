//! A new process takes over from this one, and no client notices.
//!
//! The *elder* starts the *heir*: the program on disk, with its own arguments, and one end of a line as
//! standard input. Over it go an [`Offer`] and every listening socket. The heir proves its primaries and
//! says that it is ready; the elder says `Begin`; the heir accepts, beside the elder, and says that
//! it serves; only then does the elder stop accepting and say `Over`. Until that moment the elder serves as
//! if nothing had been, so whatever becomes of the heir before, nobody is refused. No socket is
//! ever closed by both, so nothing that waits in one is lost.

pub mod elder;
pub mod heir;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::addr::Addr;
use crate::events::History;
use crate::monitor::pin::Pin;
use crate::net::pass::Line;

/// What both have to agree on. A field may be added without a new number; whoever does not know it
/// ignores it.
pub const PROTOCOL: u32 = 1;
/// Tells the heir that its standard input is the line.
pub const VARIABLE: &str = "PILOTFISH_TAKEOVER";
/// Of events, in JSON.
pub const MOST_HISTORY: usize = 4 << 20;
/// Of an offer, pins, names and all.
const MOST_OFFER: usize = 16 << 20;
/// Of any other word.
const MOST_WORD: usize = 64 << 10;

/// What the elder has.
#[derive(Debug, Serialize, Deserialize)]
pub struct Offer {
    pub protocol: u32,
    pub version: String,
    pub pid: u32,
    /// Their descriptors follow, in this order.
    pub sockets: Vec<Offered>,
    /// Services that have a primary: the heir has to prove them before it is ready.
    #[serde(default)]
    pub with_primary: Vec<String>,
    #[serde(default)]
    pub estate: Estate,
}

/// The sockets of one address.
#[derive(Debug, Serialize, Deserialize)]
pub struct Offered {
    pub addr: Addr,
    pub count: usize,
    /// Whether a Unix socket's file is to be removed at the end.
    #[serde(default)]
    pub owns_file: bool,
}

/// What operators said, and what happened. Nothing about primaries: those are proven anew.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Estate {
    #[serde(default)]
    pub pins: BTreeMap<String, Pin>,
    #[serde(default)]
    pub paused: Vec<String>,
    #[serde(default)]
    pub draining: bool,
    #[serde(default)]
    pub history: History,
}

/// What the heir says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum FromHeir {
    /// It could accept now. -> `Begin`
    Ready { version: String },
    /// It accepts. -> `Over`
    Serving,
    /// It cannot, and ends.
    Sorry { why: String },
}

/// What the elder says after its offer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum FromElder {
    Begin,
    /// It accepts no more.
    Over,
}

async fn say<T: Serialize>(line: &Line, word: &T) -> std::io::Result<()> {
    line.send(&serde_json::to_vec(word)?).await
}

async fn hear<T: DeserializeOwned>(line: &Line, most: usize) -> std::io::Result<T> {
    Ok(serde_json::from_slice(&line.receive(most).await?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_version_adds_is_ignored() {
        let offer = r#"{"protocol":1,"version":"9.0","pid":7,"new":[1],
            "sockets":[{"addr":"127.0.0.1:80","count":2,"new":{}}]}"#;
        let offer: Offer = serde_json::from_str(offer).unwrap();
        assert_eq!((offer.pid, offer.sockets[0].count), (7, 2));
        assert!(!offer.sockets[0].owns_file && offer.estate.pins.is_empty());
        let word: FromHeir = serde_json::from_str(r#"{"say":"serving","new":1}"#).unwrap();
        assert!(matches!(word, FromHeir::Serving));
        assert!(serde_json::from_str::<FromHeir>(r#"{"say":"hello"}"#).is_err());
    }
}
