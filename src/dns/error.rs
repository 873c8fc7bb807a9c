//! What goes wrong between us and a DNS provider: which side, what kind, and what to do next.

use std::fmt;
use std::time::Duration;

use super::record::{Key, Records};

/// Who has to do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The config, or what was asked for.
    Us,
    Network,
    Provider,
    /// Somebody else changed the records.
    Editor,
}

impl Side {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Us => "us",
            Self::Network => "network",
            Self::Provider => "provider",
            Self::Editor => "another editor",
        }
    }
}

/// What may be done after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It will fail again until somebody changes something.
    Never,
    /// The same call, later: nothing was changed.
    Later,
    /// Read the records before anything else: the change may have happened, or half of it.
    ReadFirst,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The records are neither what was expected nor what is wanted: somebody else has changed them, and
    /// we have not changed them back.
    Conflict { found: Records },
    /// The change was sent and its outcome is not known. It must never be sent again unread.
    Unknown,
    /// Where sets change one after the other: these did, and then the rest failed.
    Partial { done: Vec<Key> },
    /// The credentials are not accepted.
    BadCredentials,
    /// They are, and may not do this.
    Denied,
    /// No such zone, or it is not the provider's.
    NoZone,
    /// The provider does not take what was sent.
    Invalid,
    /// The provider cannot do this safely, or the records are of a kind we do not touch.
    Unsupported,
    /// Too many requests, and waiting longer than we may. Nothing was changed.
    RateLimited { retry_after: Option<Duration> },
    /// Not reached, or reached and not working. Nothing was changed.
    Unavailable,
    /// An answer that makes no sense, to a question that changes nothing.
    Malformed,
}

impl Kind {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::Unknown => "unknown outcome",
            Self::Partial { .. } => "partly done",
            Self::BadCredentials => "bad credentials",
            Self::Denied => "not allowed",
            Self::NoZone => "no such zone",
            Self::Invalid => "refused as invalid",
            Self::Unsupported => "not supported",
            Self::RateLimited { .. } => "rate limited",
            Self::Unavailable => "unavailable",
            Self::Malformed => "malformed answer",
        }
    }
}

/// Why a call to a provider did not give what it should. Its text holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsError {
    /// `rfc2136`, `route53` …
    pub provider: &'static str,
    pub kind: Kind,
    /// For people; bounded in length.
    pub detail: String,
}

/// What a foreign message may add to ours.
const MAX_DETAIL: usize = 300;

impl DnsError {
    pub fn new(provider: &'static str, kind: Kind, detail: impl fmt::Display) -> Self {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let detail = detail.to_string();
        Self {
            provider,
            kind,
            detail: detail.chars().take(MAX_DETAIL).map(printable).collect(),
        }
    }

    pub fn side(&self) -> Side {
        match self.kind {
            Kind::Conflict { .. } => Side::Editor,
            Kind::Unknown | Kind::Unavailable => Side::Network,
            Kind::BadCredentials | Kind::Denied | Kind::NoZone => Side::Us,
            Kind::Invalid | Kind::Unsupported => Side::Us,
            Kind::Partial { .. } | Kind::RateLimited { .. } | Kind::Malformed => Side::Provider,
        }
    }

    pub fn retry(&self) -> Retry {
        match self.kind {
            Kind::Unknown | Kind::Partial { .. } => Retry::ReadFirst,
            Kind::RateLimited { .. } | Kind::Unavailable => Retry::Later,
            Kind::Conflict { .. }
            | Kind::BadCredentials
            | Kind::Denied
            | Kind::NoZone
            | Kind::Invalid
            | Kind::Unsupported
            | Kind::Malformed => Retry::Never,
        }
    }
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: {}",
            self.provider,
            self.kind.as_str(),
            self.detail
        )?;
        match &self.kind {
            Kind::Conflict { found } => {
                let found: Vec<String> = found.values().map(ToString::to_string).collect();
                write!(f, " (found: {})", found.join(", "))
            }
            Kind::Partial { done } => {
                let done: Vec<String> = done.iter().map(ToString::to_string).collect();
                write!(f, " (changed: {})", done.join(", "))
            }
            Kind::RateLimited {
                retry_after: Some(after),
            } => write!(f, " (try again in {} s)", after.as_secs()),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for DnsError {}
