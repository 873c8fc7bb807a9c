//! MySQL and MariaDB: logins, sessions, Galera and asynchronous replication.

pub mod galera;
pub mod login;
pub mod node;
pub mod packet;
pub mod probe;
pub mod replication;
pub mod watch;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use self::watch::{Kind, SqlWatcher};
use super::fixed::{self, FixedWatcher};
use super::spec::{Discovery, ProtocolKind, ServiceSpec, StaticSpec};
use super::{Found, Protocol, Refusal, Wire, WireError};
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
        let tls = Connector::build(&spec.tls)?;
        let tls = (spec.tls.mode != TlsMode::Off).then_some(tls);
        let watch = |kind| {
            Finder::Sql(SqlWatcher {
                kind,
                region: spec.region.clone(),
                tls,
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
        Ok(Arc::new(MysqlWire { finder }))
    }
}

/// How the primary is found.
enum Finder {
    Sql(SqlWatcher),
    Static(StaticSpec),
}

struct MysqlWire {
    finder: Finder,
}

impl Wire for MysqlWire {
    fn watcher(&self) -> Box<dyn Watcher> {
        match &self.finder {
            Finder::Sql(watcher) => Box::new(watcher.clone()),
            Finder::Static(spec) => Box::new(FixedWatcher { spec: spec.clone() }),
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
