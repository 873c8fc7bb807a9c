//! BIND: a primary that takes updates for one name, and secondaries.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{KEY, KEY_NAME, NAME, NOTE, ZONE, query, zone_file};
use crate::process::{Launch, Server, find_program};
use crate::{ports, scratch, wait};

const START: Duration = Duration::from_secs(20);

/// Signed by BIND itself, with keys it makes.
const SIGN: &str = "dnssec-policy default; inline-signing yes;";

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
    /// A primary of [`ZONE`] whose key may change the addresses and the CNAME of [`NAME`] and the
    /// text of [`NOTE`], and nothing else. A second key, `viewer`, may do nothing; a second zone, `example.org`, takes no updates.
    pub fn primary(options: &Options) -> Result<Self> {
        let dir = scratch::Dir::new()?;
        let lines: Vec<&str> = options.records.iter().map(String::as_str).collect();
        fs::write(dir.join("zone.db"), zone_file(&lines))?;
        let other = zone_file(&["shop A 192.0.2.1"]).replace(ZONE, "example.org");
        fs::write(dir.join("other.db"), other)?;
        let notify: String = options.notify.iter().map(place).collect();
        let sign = if options.dnssec { SIGN } else { "" };
        let zones = format!(
            "key \"{KEY_NAME}\" {{ algorithm hmac-sha256; secret \"{KEY}\"; }};\n\
             key \"viewer\" {{ algorithm hmac-sha256; secret \"{KEY}\"; }};\n\
             zone \"{ZONE}\" {{ type primary; file \"zone.db\"; {sign} notify explicit; \
             also-notify {{ {notify} }}; \
             update-policy {{ grant {KEY_NAME} name {NAME}. A AAAA CNAME; \
             grant {KEY_NAME} name {NOTE}. TXT; }}; }};\n\
             zone \"example.org\" {{ type primary; file \"other.db\"; notify no; }};\n"
        );
        Self::start(dir, options.addr, &zones)
    }

    /// A secondary of [`ZONE`] at `primary`, serving the zone when this returns. It listens on `addr`,
    /// so that a primary can be told beforehand where to send its notifications. A lazy one looks for
    /// changes only when it is notified.
    pub fn secondary(primary: SocketAddr, addr: Option<SocketAddr>, lazy: bool) -> Result<Self> {
        let primary = place(&primary);
        let refresh = if lazy { 3600 } else { 1 };
        let zones = format!(
            "zone \"{ZONE}\" {{ type secondary; file \"copy.db\"; notify no; \
             primaries {{ {primary} }}; min-refresh-time {refresh}; min-retry-time 1; }};\n"
        );
        Self::start(scratch::Dir::new()?, addr, &zones)
    }

    /// The zone above, `com`, which delegates [`ZONE`] to `ns1` and `ns2` in it with these addresses; and
    /// [`ZONE`] itself, unsigned, when `child` says so. Its own server is `ns.gtld.com` at 127.0.0.1.
    pub fn parent(glue: [IpAddr; 2], signed: bool, child: bool) -> Result<Self> {
        let dir = scratch::Dir::new()?;
        let text = format!(
            "$ORIGIN com.\n$TTL 300\n@ SOA ns.gtld hostmaster 1 3600 600 86400 5\n@ NS ns.gtld\n\
             ns.gtld A 127.0.0.1\n{ZONE}. NS ns1.{ZONE}.\n{ZONE}. NS ns2.{ZONE}.\n\
             ns1.{ZONE}. A {}\nns2.{ZONE}. A {}\n",
            glue[0], glue[1]
        );
        fs::write(dir.join("com.db"), text)?;
        let sign = if signed { SIGN } else { "" };
        let mut zones =
            format!("zone \"com\" {{ type primary; file \"com.db\"; {sign} notify no; }};\n");
        if child {
            fs::write(dir.join("zone.db"), zone_file(&["shop A 192.0.2.10"]))?;
            zones +=
                &format!("zone \"{ZONE}\" {{ type primary; file \"zone.db\"; notify no; }};\n");
        }
        let awaited = if child { ZONE } else { "com" };
        Self::start_for(dir, None, &zones, awaited)
    }

    /// The DNSKEY records that this server has made for its signed zones, as text.
    pub fn keys(&self) -> Result<String> {
        wait::until("named to make its keys", START, || {
            let mut text = String::new();
            for entry in fs::read_dir(self.dir.path())?.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with('K') && name.ends_with(".key") {
                    let record = fs::read_to_string(entry.path())?;
                    let lines = record.lines().filter(|line| !line.starts_with(';'));
                    text.extend(lines.map(|line| format!("{line}\n")));
                }
            }
            Ok((!text.is_empty()).then_some(text))
        })
    }

    fn start(dir: scratch::Dir, addr: Option<SocketAddr>, zones: &str) -> Result<Self> {
        Self::start_for(dir, addr, zones, ZONE)
    }

    fn start_for(
        dir: scratch::Dir,
        addr: Option<SocketAddr>,
        zones: &str,
        awaited: &str,
    ) -> Result<Self> {
        let addr = addr.map_or_else(ports::free, Ok)?;
        let (ip, port, path) = (addr.ip(), addr.port(), dir.path().display());
        let conf = format!(
            "options {{ directory \"{path}\"; pid-file none; lock-file none; \
             session-keyfile \"{path}/session.key\"; managed-keys-directory \"{path}\"; \
             listen-on port {port} {{ {ip}; }}; listen-on-v6 {{ none; }}; recursion no; \
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
            Ok(query::serial(bind.addr, awaited)?.is_some())
        })
        .map_err(|error| error.context(bind.server.log_tail()))?;
        Ok(bind)
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
