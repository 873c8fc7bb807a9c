//! PostgreSQL: logins, sessions, streaming replication.
//!
//! In the order a session meets them: [`opening`] what a client says before it has a server, [`login`]
//! the way in (with [`secure`] for TLS), [`tracker`] where it stands (from [`frames`] and [`ledger`]),
//! [`cancel`] whose key is whose. Who is primary: [`watch`] asks on a [`client`] per server, [`judge`]
//! decides. [`failover`] makes a standby the primary on request.

pub mod cancel;
pub mod client;
pub mod failover;
pub mod frames;
pub mod judge;
pub mod ledger;
pub mod login;
pub mod message;
pub mod node;
pub mod opening;
pub mod secure;
pub mod tracker;
pub mod watch;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use self::failover::PostgresFailover;
use self::login::Desk;
use self::message::{fatal, state};
use self::watch::PostgresWatcher;
use super::fixed::{self, FixedWatcher};
use super::login::{ConveyFuture, Ends, LoginFuture, OpeningFuture, ServerEnd};
use super::spec::{Discovery, PostgresSpec, ProtocolKind, ServiceSpec, StaticSpec};
use super::track::Farewell;
use super::{Found, Protocol, Refusal, Wire, WireError};
use crate::handover::Handover;
use crate::monitor::Watcher;
use crate::net::Stream;
use crate::net::dial::Dialer;
use crate::net::tls::Connector;
use crate::topology::Endpoint;

/// The protocol's entry in `PROTOCOLS`.
pub struct Postgres;

impl Protocol for Postgres {
    fn kind(&self) -> ProtocolKind {
        ProtocolKind::Postgres
    }

    fn bind(&self, spec: &ServiceSpec) -> Result<Arc<dyn Wire>, WireError> {
        let finder = match spec.discovery.clone() {
            Discovery::Postgres(spec) => Finder::Recovery(Box::new(spec)),
            Discovery::Static(spec) => Finder::Static(spec),
            other => {
                return Err(WireError::Discovery {
                    protocol: "postgres",
                    discovery: other.as_str(),
                });
            }
        };
        Ok(Arc::new(PostgresWire {
            name: spec.name.clone(),
            finder,
            desk: Desk {
                tls: Connector::build(&spec.tls)?,
                registry: cancel::Registry::default(),
            },
        }))
    }
}

/// How the primary is found.
enum Finder {
    /// The server that is not in recovery.
    Recovery(Box<PostgresSpec>),
    Static(StaticSpec),
}

struct PostgresWire {
    name: Arc<str>,
    finder: Finder,
    desk: Desk,
}

impl Wire for PostgresWire {
    fn watcher(&self) -> Box<dyn Watcher> {
        match &self.finder {
            Finder::Recovery(spec) => Box::new(PostgresWatcher {
                spec: (**spec).clone(),
                tls: self.desk.tls.clone(),
            }),
            Finder::Static(spec) => Box::new(FixedWatcher { spec: spec.clone() }),
        }
    }

    fn handover(&self) -> Option<Arc<dyn Handover>> {
        match &self.finder {
            Finder::Recovery(spec) => Some(Arc::new(PostgresFailover {
                spec: (**spec).clone(),
                tls: self.desk.tls.clone(),
            })),
            Finder::Static(_) => None,
        }
    }

    fn look_around(&self, dialer: Dialer) -> Pin<Box<dyn Future<Output = Vec<Found>> + Send + '_>> {
        Box::pin(async move {
            match &self.finder {
                Finder::Recovery(spec) => watch::look_around(spec, &self.desk.tls, &dialer).await,
                Finder::Static(spec) => fixed::look_around(spec, &dialer).await,
            }
        })
    }

    fn refusal(&self, why: Refusal) -> Option<Bytes> {
        let name = &self.name;
        Some(match why {
            Refusal::NoPrimary => fatal(
                state::CANNOT_CONNECT_NOW,
                &format!("Pilotfish: no primary for '{name}', try again"),
            ),
            Refusal::TooMany => fatal(
                state::TOO_MANY_CONNECTIONS,
                &format!("Pilotfish: too many clients for '{name}' already"),
            ),
        })
    }

    fn client_speaks_first(&self) -> bool {
        true
    }

    fn opening<'a>(&'a self, client: &'a mut Stream) -> Option<OpeningFuture<'a>> {
        Some(Box::pin(opening::read(client, &self.desk.registry)))
    }

    fn logs_in(&self) -> bool {
        true
    }

    fn login<'a>(&'a self, ends: &'a mut Ends<'_>) -> Option<LoginFuture<'a>> {
        Some(Box::pin(login::log_in(&self.desk, ends)))
    }

    fn login_ended(&self, why: Farewell) -> Option<Bytes> {
        let text = match why {
            Farewell::Switched => "Pilotfish moves to another primary",
            Farewell::Drained => "Pilotfish shuts down",
            Farewell::Idle => "the login took too long",
            Farewell::ServerLost => "the connection to the server is lost",
        };
        let text = format!("terminating connection: {text}");
        Some(fatal(state::ADMIN_SHUTDOWN, &text))
    }

    fn convey<'a>(
        &'a self,
        server: &'a mut ServerEnd<'_>,
        (endpoint, words): (&'a Endpoint, &'a [u8]),
    ) -> ConveyFuture<'a> {
        Box::pin(async move {
            // The key in a request to cancel is a secret too.
            let secured = secure::session(server, &self.desk.tls, endpoint).await;
            secured.map_err(io::Error::other)?;
            server.write_all(words).await?;
            server.flush().await
        })
    }

    fn server_half_closes(&self) -> bool {
        false
    }
}
