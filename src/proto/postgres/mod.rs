//! PostgreSQL: logins, sessions, streaming replication.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::fixed::{self, FixedWatcher};
use super::spec::{Discovery, ProtocolKind, ServiceSpec, StaticSpec};
use super::{Found, Protocol, Refusal, Wire, WireError};
use crate::monitor::Watcher;
use crate::net::dial::Dialer;

/// The protocol's entry in `PROTOCOLS`.
pub struct Postgres;

impl Protocol for Postgres {
    fn kind(&self) -> ProtocolKind {
        ProtocolKind::Postgres
    }

    fn bind(&self, spec: &ServiceSpec) -> Result<Arc<dyn Wire>, WireError> {
        let Discovery::Static(discovery) = spec.discovery.clone() else {
            return Err(WireError::Discovery {
                protocol: "postgres",
                discovery: spec.discovery.as_str(),
            });
        };
        Ok(Arc::new(PostgresWire { discovery }))
    }
}

struct PostgresWire {
    discovery: StaticSpec,
}

impl Wire for PostgresWire {
    fn watcher(&self) -> Box<dyn Watcher> {
        Box::new(FixedWatcher {
            spec: self.discovery.clone(),
        })
    }

    fn look_around(&self, dialer: Dialer) -> Pin<Box<dyn Future<Output = Vec<Found>> + Send + '_>> {
        Box::pin(async move { fixed::look_around(&self.discovery, &dialer).await })
    }

    fn refusal(&self, _why: Refusal) -> Option<Bytes> {
        None
    }

    fn client_speaks_first(&self) -> bool {
        false
    }

    fn server_half_closes(&self) -> bool {
        false
    }
}
