//! What is believed about a service right now, as one immutable value.
//!
//! Only a monitor makes a [`Topology`], through the one [`cell::TopologyWriter`] of its service;
//! everybody else loads it from a [`cell::TopologyReader`].

pub mod cell;
pub mod pick;
pub mod reduce;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use crate::addr::Addr;
use crate::clock::Moment;

/// Our own counter: one more at each published change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Generation(pub u64);

/// The database's own epoch (Sentinel: config-epoch). Comparable only within one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Term(pub u64);

/// One database server. The same server is the same `Arc` in every topology of its service, so that
/// its load is counted in one place.
#[derive(Debug)]
pub struct Endpoint {
    pub addr: Addr,
    /// The name its certificate must carry, where it is not the address' host.
    pub server_name: Option<String>,
    sessions: AtomicUsize,
}

impl Endpoint {
    pub fn new(addr: Addr, server_name: Option<String>) -> Arc<Self> {
        Arc::new(Self {
            addr,
            server_name,
            sessions: AtomicUsize::new(0),
        })
    }

    /// Sessions on it now.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Counts a session until the guard goes.
    pub fn occupy(self: &Arc<Self>) -> Occupied {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Occupied(self.clone())
    }
}

/// One session's place on an endpoint.
#[derive(Debug)]
pub struct Occupied(Arc<Endpoint>);

impl Occupied {
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a listener leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Primary,
    Replica,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// Why the topology is what it is. The same word is in the log, the metric label and the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Nothing is proven yet.
    Start,
    /// The first proof after the start.
    Proven,
    /// The sentinels named another master, and it says so itself.
    Announced,
    /// The promoted replica says it is master; the sentinels have yet to name it.
    Promoted,
    /// The sentinels began to count anew, and a majority of them agreed for long enough.
    EpochReset,
    /// A majority agrees on another master without a newer epoch.
    Majority,
    /// The primary itself says it is none any more.
    RoleLost,
    /// The primary's last proof is too old, or a probe of it failed.
    Unproven,
    /// A newer master is named, but it is not proven: neither gets anything.
    Deposed,
    /// No sentinel confirmed a promotion in time.
    Unconfirmed,
    /// More than one server claims to be the primary, and none of them is the present one.
    Conflict,
    /// The same primary as before, proven again.
    Returned,
    /// The primary is the same; its term or the replicas changed.
    Refreshed,
    /// The first server of the list that accepts connections is another one.
    Reachable,
    /// An operator said so.
    Pinned,
    /// The primary is not fit any more, and this is the next server that is.
    Successor,
    /// A server that is preferred has been fit for long enough.
    Preferred,
}

impl Cause {
    pub const ALL: [Self; 17] = [
        Self::Start,
        Self::Proven,
        Self::Announced,
        Self::Promoted,
        Self::EpochReset,
        Self::Majority,
        Self::RoleLost,
        Self::Unproven,
        Self::Deposed,
        Self::Unconfirmed,
        Self::Conflict,
        Self::Returned,
        Self::Refreshed,
        Self::Reachable,
        Self::Pinned,
        Self::Successor,
        Self::Preferred,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Proven => "proven",
            Self::Announced => "announced",
            Self::Promoted => "promoted",
            Self::EpochReset => "epoch-reset",
            Self::Majority => "majority",
            Self::RoleLost => "role-lost",
            Self::Unproven => "unproven",
            Self::Deposed => "deposed",
            Self::Unconfirmed => "unconfirmed",
            Self::Conflict => "conflict",
            Self::Returned => "returned",
            Self::Refreshed => "refreshed",
            Self::Reachable => "reachable",
            Self::Pinned => "pinned",
            Self::Successor => "successor",
            Self::Preferred => "preferred",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An immutable snapshot of a service.
#[derive(Clone, Debug)]
pub struct Topology {
    pub generation: Generation,
    /// The newest term that was ever accepted; `None` where the database has none.
    pub term: Option<Term>,
    pub cause: Cause,
    /// When the primary (or its absence) became what it is.
    pub since: Moment,
    /// Whether there ever was a primary.
    pub proven: bool,
    pub primary: Option<Arc<Endpoint>>,
    /// The primary before this one, where it is still fit and sessions may end what they began.
    pub leaving: Option<Leaving>,
    /// Fit for reads.
    pub replicas: Arc<[Arc<Endpoint>]>,
}

/// A former primary whose sessions leave at their next transaction boundary.
#[derive(Clone, Debug)]
pub struct Leaving {
    pub endpoint: Arc<Endpoint>,
    /// Whoever is still there then is closed.
    pub until: Moment,
}

impl Topology {
    /// Before the first proof.
    pub fn empty(now: Moment) -> Self {
        Self {
            generation: Generation::default(),
            term: None,
            cause: Cause::Start,
            since: now,
            proven: false,
            primary: None,
            leaving: None,
            replicas: Arc::new([]),
        }
    }

    pub fn primary_addr(&self) -> Option<&Addr> {
        self.primary.as_ref().map(|endpoint| &endpoint.addr)
    }
}
