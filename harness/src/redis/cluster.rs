//! One master, replicas, sentinels: started, watched, broken and healed.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Announcements, MASTER_NAME, RedisConf, RedisServer, Role, START, Sentinel, Tls};
use crate::resp::{Auth, Value};
use crate::{scratch, wait};

/// What to start. The defaults are those of every measurement in the documentation.
#[derive(Clone, Debug)]
pub struct Options {
    pub replicas: usize,
    pub sentinels: usize,
    pub down_after: Duration,
    pub failover_timeout: Duration,
    /// For the Redis servers.
    pub auth: Option<Auth>,
    /// For the sentinels.
    pub sentinel_auth: Option<Auth>,
    /// TLS for everything; the plaintext ports stay open for the harness.
    pub tls: Option<Tls>,
    /// Further lines for every `redis.conf`.
    pub extra_redis: Vec<String>,
    /// Further lines for every `sentinel.conf`, after `sentinel monitor`.
    pub extra_sentinel: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            replicas: 2,
            sentinels: 3,
            down_after: Duration::from_millis(500),
            failover_timeout: Duration::from_millis(3000),
            auth: None,
            sentinel_auth: None,
            tls: None,
            extra_redis: Vec::new(),
            extra_sentinel: Vec::new(),
        }
    }
}

/// Servers first, directory last: dropped in this order.
pub struct RedisCluster {
    sentinels: Vec<Sentinel>,
    nodes: Vec<RedisServer>,
    options: Options,
    _dir: scratch::Dir,
}

impl RedisCluster {
    /// Starts everything and waits until a failover would succeed. Node 0 is the master.
    pub fn start(options: Options) -> Result<Self> {
        let dir = scratch::Dir::new()?;
        let mut conf = RedisConf {
            auth: options.auth.clone(),
            tls: options.tls.clone(),
            replica_of: None,
            extra: options.extra_redis.clone(),
        };
        let master = RedisServer::start_in(&dir, "redis-1", &conf)?;
        master.wait_answering()?;
        let monitor = master.addr;
        conf.replica_of = Some(monitor);
        let mut nodes = vec![master];
        for number in 2..options.replicas + 2 {
            nodes.push(RedisServer::start_in(
                &dir,
                &format!("redis-{number}"),
                &conf,
            )?);
        }
        let cluster = Self {
            sentinels: Vec::new(),
            nodes,
            options,
            _dir: dir,
        };
        // Sentinel asks a replica it has just found at once, and then only every 10 s: let it find a good one.
        wait::until_true("the replicas to follow the master", START, || {
            cluster.replicas_follow(monitor)
        })
        .map_err(|error| {
            error.context(
                cluster
                    .nodes
                    .iter()
                    .map(|it| it.server().log_tail() + "\n")
                    .collect::<String>(),
            )
        })?;
        cluster.wait_replicated(0)?;
        cluster.with_sentinels(monitor)
    }

    /// Waits until a write to `master` arrives at all others. A replica whose link is up need not get any yet: after a
    /// diskless synchronisation the master sends nothing before the replica's first acknowledgement, up to 1 s later.
    pub fn wait_replicated(&self, master: usize) -> Result<()> {
        const KEY: &str = "harness:replicated";
        let stamp = Value::Bulk(b"yes".to_vec());
        self.nodes[master].command(&["SET", KEY, "yes"])?;
        wait::until_true("the replicas to get a write", START, || {
            for node in &self.nodes {
                if node.command(&["GET", KEY])? != stamp {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        self.nodes[master].command(&["DEL", KEY])?;
        Ok(())
    }

    fn with_sentinels(mut self, monitor: SocketAddr) -> Result<Self> {
        for number in 1..=self.options.sentinels {
            self.sentinels
                .push(Sentinel::start(&self._dir, number, &self.options, monitor)?);
        }
        self.wait_sentinels_ready()?;
        Ok(self)
    }

    fn replicas_follow(&self, wanted: SocketAddr) -> Result<bool> {
        for node in self.nodes.iter().filter(|node| node.addr != wanted) {
            node.server().check_running()?;
            if node.role()?
                != (Role::Replica {
                    master: wanted,
                    link_up: true,
                })
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn wait_sentinels_ready(&self) -> Result<()> {
        let replicas = self.nodes.len() - 1;
        wait::until_true("the sentinels to answer", START, || {
            for sentinel in &self.sentinels {
                sentinel.server().check_running()?;
                sentinel.set_hurry(true)?;
            }
            Ok(true)
        })?;
        wait::until_true(
            "the sentinels to know each other and the replicas",
            2 * START,
            || {
                for sentinel in &self.sentinels {
                    if !sentinel.is_ready(self.sentinels.len() - 1, replicas)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            },
        )?;
        self.sentinels
            .iter()
            .try_for_each(|sentinel| sentinel.set_hurry(false))
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    pub fn node(&self, index: usize) -> &RedisServer {
        &self.nodes[index]
    }

    pub fn sentinels(&self) -> &[Sentinel] {
        &self.sentinels
    }

    pub fn sentinel(&self, index: usize) -> &Sentinel {
        &self.sentinels[index]
    }

    /// As the sentinels announce them.
    pub fn node_addrs(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.addr).collect()
    }

    pub fn sentinel_addrs(&self) -> Vec<SocketAddr> {
        self.sentinels
            .iter()
            .map(|sentinel| sentinel.addr)
            .collect()
    }

    pub fn index_of(&self, addr: SocketAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.addr == addr)
    }

    /// All nodes that answer and say master: more than one after a freeze.
    pub fn masters_by_role(&self) -> Vec<usize> {
        let says_master = |index: &usize| matches!(self.nodes[*index].role(), Ok(Role::Master));
        (0..self.nodes.len()).filter(says_master).collect()
    }

    /// The node that more than half of all sentinels name.
    pub fn master_by_majority(&self) -> Option<usize> {
        let named: Vec<SocketAddr> = self
            .sentinels
            .iter()
            .filter_map(|it| it.master_addr().ok())
            .collect();
        let votes = |addr: &SocketAddr| named.iter().filter(|other| *other == addr).count();
        let winner = named
            .iter()
            .find(|addr| votes(addr) * 2 > self.sentinels.len())?;
        self.index_of(*winner)
    }

    /// Waits until a majority names another node than `old`, and it says master.
    pub fn wait_new_master(&self, old: usize, timeout: Duration) -> Result<usize> {
        wait::until("a new master", timeout, || {
            let new = self.master_by_majority().filter(|new| *new != old);
            Ok(new.filter(|new| matches!(self.nodes[*new].role(), Ok(Role::Master))))
        })
    }

    /// Waits until every node but one replicates from that one. A returned master takes 8 to 18 s.
    pub fn wait_healed(&self, timeout: Duration) -> Result<usize> {
        wait::until("all nodes to follow one master", timeout, || {
            let Some(master) = self.master_by_majority() else {
                return Ok(None);
            };
            Ok(self
                .replicas_follow(self.nodes[master].addr)?
                .then_some(master))
        })
    }

    /// Starts a killed node again, as what it was.
    pub fn restart_node(&mut self, index: usize) -> Result<()> {
        self.nodes[index].restart()
    }

    pub fn stop_sentinel(&self, index: usize) -> Result<()> {
        self.sentinels[index].stop()
    }

    pub fn start_sentinel(&mut self, index: usize) -> Result<()> {
        self.sentinels[index].restart()
    }

    /// Replaces all sentinels by new ones on the same ports that know only `monitor`, at epoch 0.
    pub fn recreate_sentinels(&mut self, monitor: SocketAddr) -> Result<()> {
        // All at once: a remaining old one would tell the new ones its epoch.
        self.sentinels.iter().try_for_each(Sentinel::stop)?;
        for sentinel in &mut self.sentinels {
            sentinel.recreate(&self.options, monitor)?;
        }
        self.wait_sentinels_ready()
    }

    /// `SENTINEL FAILOVER`, asked of sentinel `via`. Returns when it is accepted, not when it is done.
    pub fn failover(&self, via: usize) -> Result<()> {
        let Some(sentinel) = self.sentinels.get(via) else {
            bail!("there is no sentinel {via}")
        };
        sentinel
            .command(&["SENTINEL", "FAILOVER", MASTER_NAME])
            .context("SENTINEL FAILOVER")?;
        Ok(())
    }

    /// Begins to record what all sentinels announce; subscribed when this returns.
    pub fn announcements(&self) -> Result<Announcements> {
        Announcements::start(&self.sentinels)
    }
}
