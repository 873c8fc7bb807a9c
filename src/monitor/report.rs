//! What a monitor knows, for people: the same values feed status, health and the log.

use std::fmt;

use serde::Serialize;

use crate::addr::Addr;
use crate::clock::Moment;

/// Something an operator should know about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No sentinel answers.
    NoSentinel { of: usize },
    /// Fewer than a majority of the configured sentinels count.
    Minority { count: usize, of: usize },
    /// Sentinels answer, and do not know the name.
    UnknownMaster { master: String },
    /// The sentinels that answer name different masters.
    Disagreement { named: Vec<Addr> },
    /// The sentinels name it, but it is not proven.
    NotProven { addr: Addr, why: String },
    /// The sentinels' epochs went back.
    EpochWentBack { from: u64, to: u64 },
    /// A promotion that no sentinel confirmed yet.
    Provisional { addr: Addr },
    /// Writes are held while the primary is being replaced.
    Fenced { why: &'static str },
    /// Several servers say they are the primary.
    Conflict { addrs: Vec<Addr> },
    /// No server says it is the primary.
    NoPrimary,
    /// An operator has said who is primary.
    Pinned {
        addr: Addr,
        /// Whom the monitor would have published.
        instead_of: Option<Addr>,
    },
    /// No server is fit to write to.
    NoneFit,
    /// Servers that should be one cluster are not.
    Parted { addrs: Vec<Addr>, how: &'static str },
    /// A server must not be taken for what it says it is.
    Stray { addr: Addr, why: String },
    /// A source refuses us or talks nonsense.
    Source { name: String, why: String },
}

impl Trouble {
    /// A word for it, for a metric's label.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoSentinel { .. } => "no-sentinel",
            Self::Minority { .. } => "minority",
            Self::UnknownMaster { .. } => "unknown-master",
            Self::Disagreement { .. } => "disagreement",
            Self::NotProven { .. } => "not-proven",
            Self::EpochWentBack { .. } => "epoch-went-back",
            Self::Provisional { .. } => "provisional",
            Self::Fenced { .. } => "fenced",
            Self::Conflict { .. } => "conflict",
            Self::NoPrimary => "no-primary",
            Self::Pinned { .. } => "pinned",
            Self::NoneFit => "none-fit",
            Self::Parted { .. } => "parted",
            Self::Stray { .. } => "stray",
            Self::Source { .. } => "source",
        }
    }

    /// Whether the service is less safe or less available than it should be. The rest is shown in
    /// status and changes no health.
    pub fn degrades(&self) -> bool {
        !matches!(self, Self::Source { .. } | Self::Fenced { .. })
    }
}

fn list(addrs: &[Addr]) -> String {
    let all: Vec<String> = addrs.iter().map(Addr::to_string).collect();
    all.join(", ")
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSentinel { of } => write!(f, "none of {of} sentinels in reach"),
            Self::Minority { count, of } => {
                write!(f, "no majority: {count} of {of} sentinels in reach")
            }
            Self::UnknownMaster { master } => {
                write!(f, "no sentinel knows a master named '{master}'")
            }
            Self::Disagreement { named } => write!(f, "sentinels disagree: {}", list(named)),
            Self::NotProven { addr, why } => write!(f, "{addr} is not proven as master: {why}"),
            Self::EpochWentBack { from, to } => {
                write!(f, "config-epoch went back from {from} to {to}")
            }
            Self::Provisional { addr } => {
                write!(f, "promotion of {addr} is not confirmed by a sentinel yet")
            }
            Self::Fenced { why } => write!(f, "writes are held: {why}"),
            Self::Conflict { addrs } => write!(f, "several masters: {}", list(addrs)),
            Self::NoPrimary => f.write_str("no server says it is master"),
            Self::Pinned { addr, instead_of } => {
                write!(f, "pinned to {addr} by an operator")?;
                match instead_of {
                    Some(other) => write!(f, " instead of {other}"),
                    None => Ok(()),
                }
            }
            Self::NoneFit => f.write_str("no server is fit to write to"),
            Self::Parted { addrs, how } => write!(f, "{how}: {}", list(addrs)),
            Self::Stray { addr, why } => write!(f, "{addr} is refused: {why}"),
            Self::Source { name, why } => write!(f, "{name}: {why}"),
        }
    }
}

/// One server, as last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeReport {
    pub address: Addr,
    /// `master`, `replica`, `busy`, `down`, `unknown`, in the database's own words.
    pub role: &'static str,
    pub up: bool,
    /// Behind the primary, in bytes of its replication stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<u64>,
    /// Behind the primary, in seconds, where the database counts those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<u64>,
    /// Why it is not fit, or what it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// One source of evidence that is no database server (a sentinel).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceReport {
    pub address: Addr,
    pub up: bool,
    /// What it names or what is wrong with it.
    pub says: String,
}

/// All of it, as of `at`.
#[derive(Clone, Debug)]
pub struct Report {
    pub at: Moment,
    pub fenced: bool,
    pub troubles: Vec<Trouble>,
    pub nodes: Vec<NodeReport>,
    pub sources: Vec<SourceReport>,
}

impl Report {
    pub fn empty(at: Moment) -> Self {
        Self {
            at,
            fenced: false,
            troubles: Vec::new(),
            nodes: Vec::new(),
            sources: Vec::new(),
        }
    }

    /// Everything that is the matter in one line; `None` when all is well.
    pub fn reason(&self) -> Option<String> {
        let all: Vec<String> = self.troubles.iter().map(Trouble::to_string).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    pub fn degraded(&self) -> bool {
        self.troubles.iter().any(Trouble::degrades)
    }
}
