//! What is special about each wire protocol, behind three small traits.
//!
//! A protocol is a folder here and one line in [`PROTOCOLS`].

pub mod fixed;
pub mod login;
pub mod mysql;
pub mod postgres;
pub mod redis;
pub mod spec;
pub mod tcp;
pub mod track;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use self::login::{ConveyFuture, Ends, LoginFuture, OpeningFuture, ServerEnd};
use self::track::Farewell;
use crate::handover::Handover;
use crate::monitor::Watcher;
use crate::net::Stream;
use crate::net::dial::Dialer;
use crate::net::tls::TlsError;
use crate::topology::{Endpoint, Role};
pub use spec::{Discovery, ProtocolKind, ServiceSpec};

/// The protocols there are.
pub static PROTOCOLS: [&dyn Protocol; 4] =
    [&redis::Redis, &mysql::Mysql, &postgres::Postgres, &tcp::Tcp];

/// A wire protocol: makes a [`Wire`] for each service that speaks it.
pub trait Protocol: Sync + 'static {
    fn kind(&self) -> ProtocolKind;
    /// # Errors
    /// When the service's files cannot be used, or it is not one for this protocol.
    fn bind(&self, spec: &ServiceSpec) -> Result<Arc<dyn Wire>, WireError>;
}

/// Why a service cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("protocol {protocol} cannot be discovered by {discovery}")]
    Discovery {
        protocol: &'static str,
        discovery: &'static str,
    },
}

/// Why a client is told off before it was given a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `hold_timeout` passed, or `max_held` clients wait already, and there is no primary.
    NoPrimary,
    /// `max_connections` is reached.
    TooMany,
}

/// What a look at one server found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub what: String,
    /// Whether it is as a working service needs it.
    pub ok: bool,
    pub says: String,
}

/// Whether a read from a server begins with something that only a server says which is not what the
/// session takes it for: a hint to ask it, not a verdict. Called for every read, so it must cost nothing.
pub type Omen = fn(&[u8]) -> bool;

/// What one service's wire protocol asks of the data side and of the monitor.
pub trait Wire: Send + Sync {
    /// Observes the service's servers; its verdicts are what gets published.
    fn watcher(&self) -> Box<dyn Watcher>;

    /// How its primary is moved on request. `None`: only the operator knows a way.
    fn handover(&self) -> Option<Arc<dyn Handover>> {
        None
    }

    /// Connects once to everything that the service's config names, for `check --probe`. `dialer`
    /// reaches the databases. Cancel safe: dropping closes all connections.
    fn look_around(&self, dialer: Dialer) -> Pin<Box<dyn Future<Output = Vec<Found>> + Send + '_>>;

    /// What a client hears that has to go before it had a session, in its own words. `None`: it
    /// just hears the end of the connection.
    fn refusal(&self, why: Refusal) -> Option<Bytes>;

    /// Whether the client speaks first. Then a refusal waits for its first bytes, so that it is the
    /// answer to a request and not an unexpected word.
    fn client_speaks_first(&self) -> bool;

    /// Reads what a client says before it can be given a server, and answers what can be answered
    /// without one. `None`: there is nothing to be said.
    fn opening<'a>(&'a self, client: &'a mut Stream) -> Option<OpeningFuture<'a>> {
        let _ = client;
        None
    }

    /// For protocols whose sessions have no [`track::Tracker`]: what to look for in their servers' words.
    fn omen(&self, role: Role) -> Option<Omen> {
        let _ = role;
        None
    }

    /// Whether sessions begin with [`Wire::login`]. TLS to the server is then a part of it, and
    /// connections are dialled without.
    fn logs_in(&self) -> bool {
        false
    }

    /// Logs a client in on a server. `None`: bytes are just passed on, from the first on.
    fn login<'a>(&'a self, ends: &'a mut Ends<'_>) -> Option<LoginFuture<'a>> {
        let _ = ends;
        None
    }

    /// What a client hears whose login has to end, between two messages of it. `None`: it just hears the
    /// end of the connection.
    fn login_ended(&self, why: Farewell) -> Option<Bytes> {
        let _ = why;
        None
    }

    /// Says the words of an [`login::Opening::Message`] to the server they are for, which was dialled for
    /// them.
    fn convey<'a>(
        &'a self,
        server: &'a mut ServerEnd<'_>,
        (endpoint, words): (&'a Endpoint, &'a [u8]),
    ) -> ConveyFuture<'a> {
        let _ = endpoint;
        Box::pin(server.write_all(words))
    }

    /// Whether a server that ends its sending side may still read. For request-and-answer protocols
    /// the end of the server's side is the end of the session.
    fn server_half_closes(&self) -> bool;
}

/// Finds the protocol of `kind`.
pub fn protocol(kind: ProtocolKind) -> &'static dyn Protocol {
    let found = PROTOCOLS.iter().find(|p| p.kind() == kind);
    *found.expect("every kind has a line in PROTOCOLS, a test walks them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_protocol() {
        for kind in ProtocolKind::ALL {
            assert_eq!(protocol(kind).kind(), kind);
        }
    }
}
