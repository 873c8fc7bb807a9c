//! After the switch: who copied from the old primary copies from the new one. Nothing here can fail the switch.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::SqlScript;
use crate::addr::Addr;
use crate::proto::mysql::failover::facts::Flavor;
use crate::proto::mysql::failover::server::{LOOK, Server, quoted};

/// For a replica to be seen copying from its new source.
const WITHIN: Duration = Duration::from_secs(5);

impl SqlScript {
    pub(super) async fn follow(&mut self) -> Result<String, String> {
        let mut target = self.servers.open(&self.target).await?;
        target.run(target.flavor.reset()).await?;
        let Some((host, port)) = place(&self.target) else {
            return Err(format!(
                "{} is no address for other servers: nobody follows it",
                self.target
            ));
        };
        let (mut follow, mut trouble) = (Vec::new(), Vec::new());
        let old = self.old.as_ref();
        for addr in self.servers.all() {
            if *addr == self.target || old.is_some_and(|old| old.addr == *addr) {
                continue;
            }
            match self.redirect(addr, (&host, port)).await {
                Ok(true) => follow.push(addr.to_string()),
                Ok(false) => {}
                Err(why) => trouble.push(why),
            }
        }
        if let Some(old) = old {
            let stays = format!("{} is read-only and follows nobody", old.addr);
            let demoted = match self.feeds {
                true => self.demote(&old.addr, (&host, port)).await,
                false => Err("the account has no REPLICATION SLAVE".to_owned()),
            };
            match demoted {
                Ok(()) => follow.push(old.addr.to_string()),
                Err(why) => trouble.push(format!("{stays}: {why}")),
            }
        }
        let follow = match follow.is_empty() {
            true => "nobody".to_owned(),
            false => follow.join(" and "),
        };
        let said = format!("{follow} follows {}", self.target);
        match trouble.is_empty() {
            true => Ok(said),
            false => Err(format!("{said}; {}", trouble.join("; "))),
        }
    }

    /// Another replica of the old primary; `false`: it is none. It keeps its own account for copying.
    async fn redirect(&self, addr: &Addr, (host, port): (&str, u16)) -> Result<bool, String> {
        let mut server = self.servers.open(addr).await?;
        let facts = server.facts().await?;
        let from = self.old.as_ref().map(|old| old.server_id);
        let [source] = facts.sources.as_slice() else {
            return Ok(false);
        };
        if from.is_some_and(|id| id != source.server_id) {
            return Ok(false);
        }
        if !source.by_gtid {
            return Err(format!(
                "{addr} still follows the old one: it does not copy by global ids"
            ));
        }
        let change = match server.flavor {
            Flavor::MySql { replicas: true } => {
                format!("CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{host}', SOURCE_PORT = {port}")
            }
            _ => format!("CHANGE MASTER TO MASTER_HOST = '{host}', MASTER_PORT = {port}"),
        };
        server.run(server.flavor.stop()).await?;
        let changed = server.run(&change).await;
        server.run(server.flavor.start()).await?;
        changed?;
        copies(&mut server).await?;
        Ok(true)
    }

    /// The old primary becomes a replica, with the account of the probes.
    async fn demote(&self, addr: &Addr, (host, port): (&str, u16)) -> Result<(), String> {
        let mut server = self.servers.open(addr).await?;
        let last = server.written().await?;
        if !self.servers.open(&self.target).await?.has(&last).await? {
            let why = "it has transactions that the new primary lacks: somebody with administrative \
                       privileges wrote to it";
            return Err(why.to_owned());
        }
        let (user, password) = self.servers.login();
        let (user, password) = (quoted(user), quoted(password));
        // What a backslash means is a setting.
        server.run("SET SESSION sql_mode = ''").await?;
        let change = match server.flavor {
            Flavor::MySql { replicas: true } => {
                let way = if self.servers.with_tls() {
                    "SOURCE_SSL = 1"
                } else {
                    "GET_SOURCE_PUBLIC_KEY = 1"
                };
                format!(
                    "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{host}', SOURCE_PORT = {port}, \
                     SOURCE_USER = {user}, SOURCE_PASSWORD = {password}, SOURCE_AUTO_POSITION = 1, {way}"
                )
            }
            flavor => {
                let place = match flavor {
                    Flavor::MariaDb(..) => "MASTER_USE_GTID = slave_pos",
                    Flavor::MySql { .. } => "MASTER_AUTO_POSITION = 1",
                };
                let ssl = u8::from(self.servers.with_tls());
                format!(
                    "CHANGE MASTER TO MASTER_HOST = '{host}', MASTER_PORT = {port}, MASTER_USER = {user}, \
                     MASTER_PASSWORD = {password}, MASTER_SSL = {ssl}, {place}"
                )
            }
        };
        if let Flavor::MariaDb(..) = server.flavor {
            // What it wrote as a primary it has: its place as a replica is behind that.
            server
                .run(&format!("SET GLOBAL gtid_slave_pos = '{last}'"))
                .await?;
        }
        server.run(&change).await?;
        server.run(server.flavor.start()).await?;
        copies(&mut server).await
    }
}

async fn copies(server: &mut Server) -> Result<(), String> {
    let mut last = String::new();
    let waited = timeout(WITHIN, async {
        loop {
            let facts = server.facts().await?;
            if let [source] = facts.sources.as_slice() {
                if source.runs {
                    return Ok(());
                }
                last.clone_from(&source.error);
            }
            sleep(LOOK * 5).await;
        }
    });
    match waited.await {
        Ok(done) => done,
        Err(_) => Err(format!("it does not copy yet: {last}")),
    }
}

/// Where other servers find it: as we do.
fn place(addr: &Addr) -> Option<(String, u16)> {
    match addr {
        Addr::Ip(addr) => Some((addr.ip().to_string(), addr.port())),
        Addr::Name { host, port } => Some((host.to_string(), *port)),
        Addr::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_others_find_it() {
        assert_eq!(
            place(&"10.0.0.1:3306".parse().unwrap()),
            Some(("10.0.0.1".into(), 3306))
        );
        assert_eq!(
            place(&"[::1]:3306".parse().unwrap()),
            Some(("::1".into(), 3306))
        );
        assert_eq!(
            place(&"db1.example:3306".parse().unwrap()),
            Some(("db1.example".into(), 3306))
        );
        assert_eq!(place(&"unix:/run/x.sock".parse().unwrap()), None);
    }
}
