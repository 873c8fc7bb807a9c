//! A primary and its streaming standbys.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use super::{PgConf, PgServer};
use crate::{scratch, wait};

/// How long replication may take to come up.
const STREAMING: Duration = Duration::from_secs(30);

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    pub standbys: usize,
    pub conf: PgConf,
    /// Run on the primary before the standbys are copied from it.
    pub setup: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            standbys: 1,
            conf: PgConf::default(),
            setup: Vec::new(),
        }
    }
}

/// Node 0 is the primary at the start.
pub struct PgCluster {
    nodes: Vec<PgServer>,
    dir: scratch::Dir,
}

impl PgCluster {
    /// All standbys are streaming when this returns.
    pub fn start(options: &Options) -> Result<Self> {
        let dir = scratch::Dir::new()?;
        let primary = PgServer::init_in(&dir, "pg-1", &options.conf)?;
        for sql in &options.setup {
            primary.query(sql)?;
        }
        let mut cluster = Self {
            nodes: vec![primary],
            dir,
        };
        for _ in 0..options.standbys {
            cluster.add_standby(0)?;
        }
        Ok(cluster)
    }

    /// One more standby, of node `of`, streaming when this returns. Returns its number.
    pub fn add_standby(&mut self, of: usize) -> Result<usize> {
        let name = format!("pg-{}", self.nodes.len() + 1);
        let standby = PgServer::standby_in(&self.dir, &name, &self.nodes[of])?;
        let sql = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = '{name}' AND state = 'streaming'"
        );
        wait::until_true(&format!("{name} to stream"), STREAMING, || {
            Ok(self.nodes[of].value(&sql)? == "1")
        })?;
        self.nodes.push(standby);
        Ok(self.nodes.len() - 1)
    }

    pub fn node(&self, index: usize) -> &PgServer {
        &self.nodes[index]
    }

    pub fn node_mut(&mut self, index: usize) -> &mut PgServer {
        &mut self.nodes[index]
    }

    pub fn addr(&self, index: usize) -> SocketAddr {
        self.nodes[index].addr
    }

    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.addr).collect()
    }
}
