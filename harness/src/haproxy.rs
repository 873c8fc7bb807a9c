//! Debian's HAProxy: with the usual Redis recipe, to compare failovers, or as a plain relay, to compare costs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{Launch, Server, find_program};
use crate::{ports, scratch, wait};

const START: Duration = Duration::from_secs(10);

/// What to do with connections.
#[derive(Clone, Debug)]
pub enum Recipe {
    /// All nodes with a `tcp-check` every second that wants `role:master`.
    RoleMaster {
        nodes: Vec<SocketAddr>,
        password: Option<String>,
    },
    /// The first node of a Galera cluster that passes `mysql-check` every second; the others are its backups.
    Mysql {
        nodes: Vec<SocketAddr>,
        user: String,
    },
    /// One server, no checks, two threads.
    Relay { server: SocketAddr, splice: bool },
}

/// A running HAProxy, listening on a TCP port and a Unix socket.
pub struct HaProxy {
    pub tcp: SocketAddr,
    pub unix: PathBuf,
    stats: PathBuf,
    server: Server,
    _dir: scratch::Dir,
}

impl HaProxy {
    /// Accepting when this returns, and with [`Recipe::RoleMaster`] sure of one master, with [`Recipe::Mysql`] of all nodes.
    pub fn start(recipe: &Recipe) -> Result<Self> {
        let program = find_program("haproxy")?;
        let dir = scratch::Dir::new()?;
        let (tcp, unix, stats) = (
            ports::free()?,
            dir.join("redis.sock"),
            dir.join("stats.sock"),
        );
        let conf = dir.join("haproxy.cfg");
        std::fs::write(&conf, render(recipe, tcp, &unix, &stats)).context("writing haproxy.cfg")?;
        let mut launch = Launch::new("haproxy", &program, &dir.join("haproxy.log"))?;
        // -db: in the foreground, one process.
        launch.command().args(["-db", "-f"]).arg(&conf);
        let proxy = Self {
            tcp,
            unix,
            stats,
            server: launch.start()?,
            _dir: dir,
        };
        let wanted = match recipe {
            Recipe::Mysql { nodes, .. } => nodes.len(),
            Recipe::RoleMaster { .. } | Recipe::Relay { .. } => 1,
        };
        wait::until_true("haproxy to be ready", START, || {
            proxy.server.check_running()?;
            // All servers count as up until their second failed check.
            let states = proxy.server_states()?;
            let settled = |state: &String| state == "UP" || state == "DOWN" || state == "no check";
            Ok(states.values().all(settled) && proxy.servers_up()?.len() == wanted)
        })?;
        Ok(proxy)
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The servers it would send a client to.
    pub fn servers_up(&self) -> Result<Vec<String>> {
        let states = self.server_states()?.into_iter();
        Ok(states
            .filter(|(_, state)| state == "UP" || state == "no check")
            .map(|(name, _)| name)
            .collect())
    }

    /// Each server as HAProxy's statistics show it: `UP`, `DOWN`, `UP 1/2` on the way, `no check`, or `INI` when a check
    /// has not been made yet.
    pub fn server_states(&self) -> Result<BTreeMap<String, String>> {
        let mut socket =
            UnixStream::connect(&self.stats).context("connecting to haproxy's stats socket")?;
        socket.write_all(b"show stat\n")?;
        let mut csv = String::new();
        socket.read_to_string(&mut csv)?;
        let state = |line: &str| {
            let fields: Vec<&str> = line.split(',').collect();
            let (name, status, check) = (*fields.get(1)?, *fields.get(17)?, *fields.get(36)?);
            let unchecked = status != "no check" && (check.is_empty() || check.starts_with("INI"));
            let state = if unchecked { "INI" } else { status };
            name.starts_with("node")
                .then(|| (name.to_owned(), state.to_owned()))
        };
        Ok(csv.lines().filter_map(state).collect())
    }
}

fn render(recipe: &Recipe, tcp: SocketAddr, unix: &Path, stats: &Path) -> String {
    // As root, haproxy wants maxconn below a quarter of the descriptor limit, and refuses to start otherwise.
    let maxconn = file_limit().unwrap_or(1024) / 4 - 50;
    let mut text = format!(
        "global\n  nbthread 2\n  maxconn {maxconn}\n  stats socket {}\n\
         defaults\n  mode tcp\n  maxconn {maxconn}\n  timeout connect 1s\n  timeout client 60s\n  timeout server 60s\n",
        stats.display()
    );
    let _ = write!(
        text,
        "listen redis\n  bind {tcp}\n  bind unix@{} mode 666\n",
        unix.display()
    );
    match recipe {
        Recipe::Relay { server, splice } => {
            if *splice {
                text.push_str("  option splice-auto\n");
            }
            let _ = writeln!(text, "  server node0 {server}");
        }
        Recipe::Mysql { nodes, user } => {
            let _ = write!(
                text,
                "  option mysql-check user {user}\n  \
                 default-server check inter 1s fall 2 rise 1 on-marked-down shutdown-sessions\n"
            );
            for (index, node) in nodes.iter().enumerate() {
                let backup = if index == 0 { "" } else { " backup" };
                let _ = writeln!(text, "  server node{index} {node}{backup}");
            }
        }
        Recipe::RoleMaster { nodes, password } => {
            text.push_str("  option tcp-check\n  tcp-check connect\n");
            if let Some(password) = password {
                let _ = write!(
                    text,
                    "  tcp-check send AUTH\\ {password}\\r\\n\n  tcp-check expect string +OK\n"
                );
            }
            text.push_str(concat!(
                "  tcp-check send PING\\r\\n\n  tcp-check expect string +PONG\n",
                "  tcp-check send info\\ replication\\r\\n\n  tcp-check expect string role:master\n",
                "  tcp-check send QUIT\\r\\n\n  tcp-check expect string +OK\n",
                "  default-server check inter 1s fall 2 rise 1 on-marked-down shutdown-sessions\n",
            ));
            for (index, node) in nodes.iter().enumerate() {
                let _ = writeln!(text, "  server node{index} {node}");
            }
        }
    }
    text
}

fn file_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .map(|limit| limit.clamp(1024, 100_000))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::redis::{Options, RedisCluster, RedisConf, RedisServer};
    use crate::resp::{Conn, Target, Value};
    use crate::writer::{self, Mode, Writer, later_than};

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn relays_over_both_sockets() {
        let redis = RedisServer::start(&RedisConf::default()).unwrap();
        for splice in [false, true] {
            let proxy = HaProxy::start(&Recipe::Relay {
                server: redis.addr,
                splice,
            })
            .unwrap();
            for target in [Target::from(proxy.tcp), Target::from(proxy.unix.as_path())] {
                let mut conn = Conn::connect(&target, LONG).unwrap();
                assert_eq!(
                    conn.command(&["PING"]).unwrap(),
                    Value::Simple("PONG".into())
                );
            }
            assert!(proxy.server().rss().unwrap() > 0);
        }
    }

    /// Why Pilotfish exists: the recipe goes on writing to a deposed master that still says `master`.
    #[test]
    fn the_recipe_loses_acknowledged_writes_in_a_planned_failover() {
        let cluster = RedisCluster::start(Options::default()).unwrap();
        let recipe = Recipe::RoleMaster {
            nodes: cluster.node_addrs(),
            password: None,
        };
        let proxy = HaProxy::start(&recipe).unwrap();
        let announcements = cluster.announcements().unwrap();
        let start = |label: &str, mode| {
            Writer::start(writer::Options::new(label, proxy.tcp, mode)).unwrap()
        };
        let writers = [
            start("php", Mode::PerRequest),
            start("kept", Mode::Kept { connections: 4 }),
        ];
        let t0 = Instant::now();
        for writer in &writers {
            writer.wait_ack_after(t0, LONG).unwrap();
        }
        cluster.failover(0).unwrap();
        let first = announcements.wait_announcement(t0, LONG).unwrap();
        let wanted = |event: &crate::redis::Announcement| event.channel == "+convert-to-slave";
        announcements
            .wait_event("the old master to be demoted", LONG, wanted)
            .unwrap();
        let new = cluster.node(cluster.wait_new_master(0, LONG).unwrap());
        for writer in writers {
            let ledger = writer.stop();
            let missing = ledger.missing_from(new.conn().unwrap()).unwrap();
            let late = later_than(&missing, first.at, Duration::from_millis(50));
            println!(
                "{}: {} of {} lost, {late} late",
                ledger.label,
                missing.len(),
                ledger.acked().count()
            );
            assert!(late > 100, "{} lost {late}", ledger.label);
        }
    }
}
