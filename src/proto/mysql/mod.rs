//! MySQL and MariaDB: logins, sessions, Galera and asynchronous replication.

pub mod failover;
pub mod galera;
mod knock;
pub mod login;
pub mod node;
pub mod packet;
pub mod probe;
pub mod replication;
pub mod tracker;
pub mod watch;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use self::failover::SqlFailover;
use self::login::{Keys, Shared};
use self::watch::{Kind, Preference, SqlWatcher};
use super::fixed::{self, FixedWatcher};
use super::login::{Ends, LoginFuture};
use super::spec::{Discovery, ProtocolKind, ServiceSpec, StaticSpec};
use super::{Found, Protocol, Refusal, Wire, WireError};
use crate::handover::Handover;
use crate::monitor::Watcher;
use crate::net::dial::Dialer;
use crate::net::tls::{Connector, TlsMode};

/// The protocol's entry in `PROTOCOLS`.
pub struct Mysql;

impl Protocol for Mysql {
    fn kind(&self) -> ProtocolKind {
        ProtocolKind::Mysql
    }

    fn bind(&self, spec: &ServiceSpec) -> Result<Arc<dyn Wire>, WireError> {
        let connector = Connector::build(&spec.tls)?;
        let tls = (spec.tls.mode != TlsMode::Off).then(|| connector.clone());
        let watch = |kind| {
            Finder::Sql(SqlWatcher {
                kind,
                region: spec.region.clone(),
                tls,
                preference: Preference::default(),
            })
        };
        let finder = match spec.discovery.clone() {
            Discovery::Galera(spec) => watch(Kind::Galera(spec)),
            Discovery::Mysql(spec) => watch(Kind::Mysql(spec)),
            Discovery::Static(spec) => Finder::Static(spec),
            other => {
                return Err(WireError::Discovery {
                    protocol: "mysql",
                    discovery: other.as_str(),
                });
            }
        };
        Ok(Arc::new(MysqlWire {
            name: spec.name.clone(),
            finder,
            logins: Shared {
                tls_mode: spec.tls.mode,
                connector,
                keys: Keys::default(),
                in_flight: spec.in_flight,
                greeting_within: spec.limits.hold_timeout.max(spec.limits.connect_timeout),
            },
        }))
    }
}

/// How the primary is found.
enum Finder {
    Sql(SqlWatcher),
    Static(StaticSpec),
}

struct MysqlWire {
    name: Arc<str>,
    finder: Finder,
    logins: Shared,
}

impl Wire for MysqlWire {
    fn watcher(&self) -> Box<dyn Watcher> {
        match &self.finder {
            Finder::Sql(watcher) => Box::new(watcher.clone()),
            Finder::Static(spec) => {
                let spec = spec.clone();
                Box::new(FixedWatcher { spec }.politely(knock::leave))
            }
        }
    }

    fn handover(&self) -> Option<Arc<dyn Handover>> {
        match &self.finder {
            Finder::Sql(watcher) => Some(Arc::new(SqlFailover {
                watcher: watcher.clone(),
            })),
            Finder::Static(_) => None,
        }
    }

    fn look_around(&self, dialer: Dialer) -> Pin<Box<dyn Future<Output = Vec<Found>> + Send + '_>> {
        Box::pin(async move {
            match &self.finder {
                Finder::Sql(watcher) => watcher.look_around(&dialer).await,
                Finder::Static(spec) => fixed::look_around(spec, &dialer).await,
            }
        })
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
