//! Unbound: the resolver between clients and name servers.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::ZONE;
use crate::process::{Launch, Server, find_program};
use crate::{ports, scratch, wait};

const START: Duration = Duration::from_secs(20);

/// One `unbound`. Directory last: dropped in this order.
pub struct Unbound {
    pub addr: SocketAddr,
    pub server: Server,
    _dir: scratch::Dir,
}

impl Unbound {
    /// Knows only `com` and [`ZONE`], and where their servers are: it asks nobody outside. It keeps every answer for at least
    /// `min_ttl` seconds, whatever its TTL.
    pub fn start(com: SocketAddr, zone: &[SocketAddr], min_ttl: u32) -> Result<Self> {
        let dir = scratch::Dir::new()?;
        let addr = ports::free()?;
        let at = |addr: &SocketAddr| format!("  stub-addr: {}@{}\n", addr.ip(), addr.port());
        let zone: String = zone.iter().map(at).collect();
        let (com, path) = (at(&com), dir.path().display());
        let conf = format!(
            "server:\n  interface: 127.0.0.1\n  port: {}\n  do-daemonize: no\n  username: \"\"\n  \
             chroot: \"\"\n  directory: \"{path}\"\n  pidfile: \"\"\n  use-syslog: no\n  logfile: \"\"\n  \
             num-threads: 1\n  do-not-query-localhost: no\n  module-config: \"iterator\"\n  \
             cache-min-ttl: {min_ttl}\n  access-control: 127.0.0.0/8 allow\n\
             remote-control:\n  control-enable: no\n\
             stub-zone:\n  name: \".\"\n{com}stub-zone:\n  name: com\n{com}stub-zone:\n  name: {ZONE}\n{zone}",
            addr.port()
        );
        let file = dir.join("unbound.conf");
        fs::write(&file, conf).context("writing unbound.conf")?;
        let program = find_program("unbound")?;
        let mut launch = Launch::new("unbound", &program, &dir.join("unbound.log"))?;
        launch.command().arg("-d").arg("-c").arg(&file);
        let unbound = Self {
            addr,
            server: launch.start()?,
            _dir: dir,
        };
        wait::until_true("unbound to listen", START, || {
            unbound.server.check_running()?;
            Ok(std::net::TcpStream::connect(addr).is_ok())
        })
        .map_err(|error| error.context(unbound.server.log_tail()))?;
        Ok(unbound)
    }
}
