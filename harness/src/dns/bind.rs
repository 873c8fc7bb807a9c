//! BIND: a primary that takes updates for one name, and secondaries.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{KEY, KEY_NAME, NAME, ZONE, query, zone_file};
use crate::process::{Launch, Server, find_program};
use crate::{ports, scratch, wait};

const START: Duration = Duration::from_secs(20);

/// What a server is told besides the zone.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Lines of the zone file.
    pub records: Vec<String>,
    /// Who is told about changes.
    pub notify: Vec<SocketAddr>,
    /// Sign the zone by itself.
    pub dnssec: bool,
    /// Where to listen; `None`: a free port.
    pub addr: Option<SocketAddr>,
}

/// One `named`. Directory last: dropped in this order.
pub struct Bind {
    pub addr: SocketAddr,
    pub server: Server,
    dir: scratch::Dir,
}

impl Bind {
    /// A primary of [`ZONE`] whose key may change the addresses and the CNAME of [`NAME`], and nothing
    /// else. A second key, `viewer`, may do nothing; a second zone, `example.org`, takes no updates.
    pub fn primary(options: &Options) -> Result<Self> {
        let dir = scratch::Dir::new()?;
        let lines: Vec<&str> = options.records.iter().map(String::as_str).collect();
        fs::write(dir.join("zone.db"), zone_file(&lines))?;
        let other = zone_file(&["shop A 192.0.2.1"]).replace(ZONE, "example.org");
        fs::write(dir.join("other.db"), other)?;
        let notify: String = options.notify.iter().map(place).collect();
        let sign = if options.dnssec {
            "dnssec-policy default; inline-signing yes;"
        } else {
            ""
        };
        let zones = format!(
            "key \"{KEY_NAME}\" {{ algorithm hmac-sha256; secret \"{KEY}\"; }};\n\
             key \"viewer\" {{ algorithm hmac-sha256; secret \"{KEY}\"; }};\n\
             zone \"{ZONE}\" {{ type primary; file \"zone.db\"; {sign} notify explicit; \
             also-notify {{ {notify} }}; \
             update-policy {{ grant {KEY_NAME} name {NAME}. A AAAA CNAME; }}; }};\n\
             zone \"example.org\" {{ type primary; file \"other.db\"; notify no; }};\n"
        );
        Self::start(dir, options.addr, &zones)
    }

    /// A secondary of [`ZONE`] at `primary`, serving the zone when this returns. It listens on `addr`,
    /// so that a primary can be told beforehand where to send its notifications.
    pub fn secondary(primary: SocketAddr, addr: Option<SocketAddr>) -> Result<Self> {
        let primary = place(&primary);
        let zones = format!(
            "zone \"{ZONE}\" {{ type secondary; file \"copy.db\"; notify no; \
             primaries {{ {primary} }}; min-refresh-time 1; min-retry-time 1; }};\n"
        );
        Self::start(scratch::Dir::new()?, addr, &zones)
    }

    fn start(dir: scratch::Dir, addr: Option<SocketAddr>, zones: &str) -> Result<Self> {
        let addr = addr.map_or_else(ports::free, Ok)?;
        let (port, path) = (addr.port(), dir.path().display());
        let conf = format!(
            "options {{ directory \"{path}\"; pid-file none; lock-file none; \
             session-keyfile \"{path}/session.key\"; managed-keys-directory \"{path}\"; \
             listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no; \
             dnssec-validation no; allow-transfer {{ any; }}; notify-delay 0; \
             minimal-responses yes; }};\ncontrols {{ }};\n{zones}"
        );
        let file = dir.join("named.conf");
        fs::write(&file, conf).context("writing named.conf")?;
        let mut launch = Launch::new("named", &program(&dir)?, &dir.join("named.log"))?;
        // -g: in the foreground, everything to stderr.
        launch.command().args(["-g", "-n", "1", "-c"]).arg(&file);
        let bind = Self {
            addr,
            server: launch.start()?,
            dir,
        };
        wait::until_true("named to serve its zone", START, || {
            bind.server.check_running()?;
            Ok(query::serial(bind.addr, ZONE)?.is_some())
        })
        .map_err(|error| error.context(bind.server.log_tail()))?;
        Ok(bind)
    }

    /// Ends it with SIGKILL.
    pub fn kill(&self) -> Result<()> {
        self.server.kill()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

fn place(addr: &SocketAddr) -> String {
    format!("{} port {};", addr.ip(), addr.port())
}

/// Debian's AppArmor profile lets `/usr/sbin/named` read no temporary directory; a copy of it elsewhere
/// has no profile.
fn program(dir: &scratch::Dir) -> Result<PathBuf> {
    let program = find_program("named")?;
    let armed = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if armed.trim() != "Y" {
        return Ok(program);
    }
    let copy = dir.join("named");
    fs::copy(&program, &copy).context("copying named")?;
    Ok(copy)
}
