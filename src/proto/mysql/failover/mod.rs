//! Forced failover of MySQL and MariaDB: [`galera`] changes the order of nodes, [`replication`] closes one server
//! and opens another. [`facts`] and [`gtid`] decide, without sockets; [`server`] asks and tells.

pub mod facts;
mod galera;
pub mod gtid;
mod replication;
mod server;

use self::server::Servers;
use super::watch::{Kind, SqlWatcher};
use crate::handover::{Act, BoxFuture, Case, Handover, Refused};

/// Of one service.
pub struct SqlFailover {
    /// The same that watches: for Galera the two share the order of preference.
    pub watcher: SqlWatcher,
}

impl Handover for SqlFailover {
    fn prepare<'a>(&'a self, case: &'a Case) -> BoxFuture<'a, Result<Box<dyn Act>, Refused>> {
        let servers = Servers::of(&self.watcher, &case.dialer);
        Box::pin(async move {
            match &self.watcher.kind {
                Kind::Galera(spec) => {
                    let preference = self.watcher.preference.clone();
                    galera::prepare(servers, preference, (spec.accept_donor, case)).await
                }
                Kind::Mysql(_) => replication::prepare(servers, case).await,
            }
        })
    }
}
