//! MySQL and MariaDB: logins, sessions, Galera and asynchronous replication.

mod knock;
pub mod login;
pub mod packet;
pub mod tracker;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use self::login::{Keys, Shared};
use super::fixed::{self, FixedWatcher};
use super::login::{Ends, LoginFuture};
use super::spec::{Discovery, ProtocolKind, ServiceSpec, StaticSpec};
use super::{Found, Protocol, Refusal, Wire, WireError};
use crate::monitor::Watcher;
use crate::net::dial::Dialer;
use crate::net::tls::Connector;

/// The protocol's entry in `PROTOCOLS`.
pub struct Mysql;

impl Protocol for Mysql {
    fn kind(&self) -> ProtocolKind {
        ProtocolKind::Mysql
    }

    fn bind(&self, spec: &ServiceSpec) -> Result<Arc<dyn Wire>, WireError> {
        let Discovery::Static(discovery) = spec.discovery.clone() else {
            return Err(WireError::Discovery {
                protocol: "mysql",
                discovery: spec.discovery.as_str(),
            });
        };
        Ok(Arc::new(MysqlWire {
            name: spec.name.clone(),
            discovery,
            logins: Shared {
                tls_mode: spec.tls.mode,
                connector: Connector::build(&spec.tls)?,
                keys: Keys::default(),
                in_flight: spec.in_flight,
                greeting_within: spec.limits.hold_timeout.max(spec.limits.connect_timeout),
            },
        }))
    }
}

struct MysqlWire {
    name: Arc<str>,
    discovery: StaticSpec,
    logins: Shared,
}

impl Wire for MysqlWire {
    fn watcher(&self) -> Box<dyn Watcher> {
        let spec = self.discovery.clone();
        Box::new(FixedWatcher { spec }.politely(knock::leave))
    }

    fn look_around(&self, dialer: Dialer) -> Pin<Box<dyn Future<Output = Vec<Found>> + Send + '_>> {
        Box::pin(async move { fixed::look_around(&self.discovery, &dialer).await })
    }

    fn refusal(&self, why: Refusal) -> Option<Bytes> {
        let name = &self.name;
        let text = match why {
            Refusal::NoPrimary => format!("Pilotfish: no primary for '{name}'"),
            Refusal::TooMany => format!("Pilotfish: too many connections to '{name}'"),
        };
        Some(login::refusal(&text))
    }

    fn client_speaks_first(&self) -> bool {
        false
    }

    fn logs_in(&self) -> bool {
        true
    }

    fn login<'a>(&'a self, ends: &'a mut Ends<'_>) -> Option<LoginFuture<'a>> {
        Some(Box::pin(login::run(&self.logins, ends)))
    }

    fn server_half_closes(&self) -> bool {
        false
    }
}
