//! Sessions: accept, admit, hold, connect, relay, close. One task owns both sockets of a session.

pub mod admit;
pub mod connect;
pub mod listener;
pub mod login;
pub mod metrics;
pub mod refuse;
pub mod relay;
pub mod session;
pub mod table;

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::clock::{Clock, Seldom};
use crate::drain::Drain;
use crate::gate::Gate;
use crate::monitor::hints::{Evidence, Teller};
use crate::net::dial::Dialer;
use crate::proto::spec::Limits;
use crate::proto::{Omen, Wire};
use crate::signal::Signal;
use crate::topology::cell::TopologyReader;
use crate::topology::pick::Fallback;
use crate::topology::{Endpoint, Role};
use admit::Admission;
use metrics::{RoleMetrics, ServiceMetrics};
use table::Table;

/// What all sessions of a service share.
pub struct Service {
    pub name: Arc<str>,
    pub wire: Arc<dyn Wire>,
    pub topology: TopologyReader,
    pub gate: Arc<Gate>,
    pub signal: Arc<Signal>,
    pub drain: Arc<Drain>,
    pub limits: Limits,
    pub fallback: Fallback,
    pub dialer: Dialer,
    pub clock: Clock,
    /// Where to say that something is the matter with an endpoint.
    pub hints: Teller,
    pub admission: Admission,
    /// Who is there.
    pub table: Arc<Table>,
    /// `max_connecting` permits: the pace at which held clients are let go.
    pub connecting: Semaphore,
    pub metrics: ServiceMetrics,
    /// When the log last heard of a login that failed.
    pub login_failures: Seldom,
}

impl Service {
    /// Tells the monitor that something is the matter with `endpoint`: a reason to ask it, not a verdict.
    pub fn hint(&self, endpoint: &Endpoint, evidence: Evidence) {
        self.metrics.hints[evidence as usize].increment(1);
        self.hints.tell(&endpoint.addr, evidence);
    }
}

/// What all sessions of one role on one data thread share.
pub struct Door {
    pub service: Arc<Service>,
    pub role: Role,
    pub thread: usize,
    /// What to look for in servers' words, where sessions are not followed.
    pub omen: Option<Omen>,
    pub metrics: RoleMetrics,
}

/// Why a session ended; each has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    ClientClosed,
    ClientError,
    UpstreamClosed,
    UpstreamError,
    /// Its endpoint is not the right one any more.
    Switched,
    /// The client left while it was held.
    HeldClientLeft,
    /// No primary within `hold_timeout`.
    HoldTimeout,
    /// `max_held` clients wait already.
    HoldFull,
    /// `max_connections` is reached.
    TooMany,
    /// No replica is fit, and the config says to refuse.
    NoReplica,
    IdleTimeout,
    /// Closed at shutdown.
    Drained,
    /// The server did not let the client in.
    LoginRefused,
    /// The login was not over in time.
    LoginTimeout,
    /// Client or server said what the protocol does not allow.
    ProtocolError,
    /// It was no session, but a request to cancel another one's query.
    CancelRequest,
}

impl EndReason {
    pub const ALL: [Self; 16] = [
        Self::ClientClosed,
        Self::ClientError,
        Self::UpstreamClosed,
        Self::UpstreamError,
        Self::Switched,
        Self::HeldClientLeft,
        Self::HoldTimeout,
        Self::HoldFull,
        Self::TooMany,
        Self::NoReplica,
        Self::IdleTimeout,
        Self::Drained,
        Self::LoginRefused,
        Self::LoginTimeout,
        Self::ProtocolError,
        Self::CancelRequest,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientClosed => "client-closed",
            Self::ClientError => "client-error",
            Self::UpstreamClosed => "upstream-closed",
            Self::UpstreamError => "upstream-error",
            Self::Switched => "switched",
            Self::HeldClientLeft => "held-client-left",
            Self::HoldTimeout => "hold-timeout",
            Self::HoldFull => "hold-full",
            Self::TooMany => "too-many",
            Self::NoReplica => "no-replica",
            Self::IdleTimeout => "idle-timeout",
            Self::Drained => "drained",
            Self::LoginRefused => "login-refused",
            Self::LoginTimeout => "login-timeout",
            Self::ProtocolError => "protocol-error",
            Self::CancelRequest => "cancel-request",
        }
    }
}
