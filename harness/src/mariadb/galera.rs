//! A Galera cluster: started, watched, broken and healed.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{MariaConf, MariaDb, START};
use crate::{ports, wait};

/// What one node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// `Primary`, `non-Primary`, `Disconnected`.
    pub cluster_status: String,
    /// `Synced`, `Donor/Desynced`, `Joining`, ...
    pub local_state: String,
    pub ready: bool,
    pub cluster_size: usize,
    pub conf_id: u64,
}

impl NodeState {
    pub fn is_synced(&self) -> bool {
        self.cluster_status == "Primary" && self.local_state == "Synced" && self.ready
    }
}

/// Node 0 founded it.
pub struct GaleraCluster {
    nodes: Vec<MariaDb>,
}

/// What founds a cluster.
const NEW: &str = "--wsrep-new-cluster";

impl GaleraCluster {
    /// Starts `size` nodes and waits until all of them are synced.
    pub fn start(size: usize) -> Result<Self> {
        Self::start_with(size, &MariaConf::default())
    }

    /// The same with further settings for all nodes.
    pub fn start_with(size: usize, conf: &MariaConf) -> Result<Self> {
        let mut groups = Vec::new();
        for _ in 0..size {
            groups.push(ports::free()?);
        }
        let mut cluster = Self { nodes: Vec::new() };
        for index in 0..size {
            let mut conf = conf.clone();
            conf.extra.extend(wsrep_lines(index, &groups)?);
            let first: &[&str] = if index == 0 { &[NEW] } else { &[] };
            let node = MariaDb::launch(&format!("galera-{}", index + 1), &conf, first)?;
            cluster.nodes.push(node);
            if index == 0 {
                cluster.wait_synced(&[0], 1)?;
            }
        }
        cluster.wait_all_synced()?;
        Ok(cluster)
    }

    pub fn nodes(&self) -> &[MariaDb] {
        &self.nodes
    }

    pub fn node(&self, index: usize) -> &MariaDb {
        &self.nodes[index]
    }

    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.addr).collect()
    }

    pub fn index_of(&self, addr: SocketAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.addr == addr)
    }

    pub fn state(&self, index: usize) -> Result<NodeState> {
        let rows = self.nodes[index].query(
            "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_cluster_status', 'wsrep_cluster_size', \
             'wsrep_cluster_conf_id', 'wsrep_local_state_comment', 'wsrep_ready')",
        )?;
        let of = |name: &str| {
            let row = rows.iter().find(|row| row[0].as_deref() == Some(name));
            row.and_then(|row| row[1].clone()).unwrap_or_default()
        };
        Ok(NodeState {
            cluster_status: of("wsrep_cluster_status"),
            local_state: of("wsrep_local_state_comment"),
            ready: of("wsrep_ready") == "ON",
            cluster_size: of("wsrep_cluster_size").parse().unwrap_or(0),
            // Of a node that is in no primary component: 2^64 - 1.
            conf_id: of("wsrep_cluster_conf_id").parse().unwrap_or(0),
        })
    }

    /// Waits until these nodes are synced members of a primary component of `size`.
    pub fn wait_synced(&self, indices: &[usize], size: usize) -> Result<()> {
        let (mut last, mut ended) = (Vec::new(), Ok(()));
        let waited = wait::until_true("the nodes to be synced", 2 * START, || {
            last.clear();
            for &index in indices {
                ended = self.nodes[index].server().check_running();
                if ended.is_err() {
                    return Ok(true);
                }
                last.push(self.state(index)?);
            }
            Ok(last
                .iter()
                .all(|it| it.is_synced() && it.cluster_size == size))
        });
        waited.and(ended).with_context(|| {
            let logs = indices.iter().map(|&it| self.nodes[it].server().log_tail());
            format!("{last:?}\n{}", logs.collect::<Vec<_>>().join("\n"))
        })
    }

    /// Waits until all nodes are in one cluster.
    pub fn wait_all_synced(&self) -> Result<()> {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.wait_synced(&all, all.len())
    }

    /// Waits until node `index` sees its cluster as it says in `is`.
    pub fn wait_state(
        &self,
        index: usize,
        timeout: Duration,
        is: impl Fn(&NodeState) -> bool,
    ) -> Result<NodeState> {
        wait::until("a node's state", timeout, || {
            let state = self.state(index)?;
            Ok(is(&state).then_some(state))
        })
    }

    /// Starts a node again that was killed or stopped; it is synced when this returns, and the others know it.
    pub fn rejoin(&mut self, index: usize) -> Result<()> {
        self.nodes[index].respawn(&[])?;
        self.wait_all_synced()
    }

    /// Starts all nodes again after all of them were killed or stopped; `first` founds the cluster anew.
    pub fn restart_all(&mut self, first: usize) -> Result<()> {
        let state = self.nodes[first].home.join("data/grastate.dat");
        let text = fs::read_to_string(&state).context("reading grastate.dat")?;
        let text = text.replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1");
        fs::write(&state, text).context("writing grastate.dat")?;
        self.nodes[first].respawn(&[NEW])?;
        self.wait_synced(&[first], 1)?;
        for index in (0..self.nodes.len()).filter(|index| *index != first) {
            self.nodes[index].respawn(&[])?;
        }
        self.wait_all_synced()
    }

    /// Cuts a node off from the others, not from its clients; `false` lets it back.
    pub fn isolate(&self, index: usize, isolated: bool) -> Result<()> {
        let option = format!("'gmcast.isolate={}'", u8::from(isolated));
        self.nodes[index].set_global("wsrep_provider_options", &option)
    }
}

/// Suspicion after 2 s: below that a third node does not always join on two cores.
fn wsrep_lines(index: usize, groups: &[SocketAddr]) -> Result<Vec<String>> {
    let own = groups[index];
    let (state, increments) = (ports::free()?, ports::free()?);
    let members: Vec<String> = groups.iter().map(ToString::to_string).collect();
    Ok(vec![
        "wsrep_on = ON".into(),
        "wsrep_provider = /usr/lib/galera/libgalera_smm.so".into(),
        "wsrep_cluster_name = pilotfish".into(),
        format!("wsrep_cluster_address = gcomm://{}", members.join(",")),
        format!("wsrep_node_name = node{}", index + 1),
        format!("wsrep_node_address = {own}"),
        "wsrep_sst_method = rsync".into(),
        format!("wsrep_sst_receive_address = {state}"),
        format!(
            "wsrep_provider_options = \"gmcast.listen_addr=tcp://{own};ist.recv_addr={increments};gcache.size=32M;\
             evs.suspect_timeout=PT2S;evs.inactive_timeout=PT5S;evs.keepalive_period=PT0.5S;\
             evs.inactive_check_period=PT0.5S\""
        ),
        "binlog_format = ROW".into(),
        "default_storage_engine = InnoDB".into(),
        "innodb_autoinc_lock_mode = 2".into(),
    ])
}
