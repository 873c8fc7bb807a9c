//! PowerDNS with its SQLite backend: the HTTP API, and updates by DNS.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{KEY, KEY_NAME, ZONE, query, zone_file};
use crate::process::{Launch, Server, find_program};
use crate::{ports, scratch, wait};

const START: Duration = Duration::from_secs(20);
/// From Debian's pdns-backend-sqlite3.
const SCHEMA: &str = "/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql";

/// One `pdns_server`. Directory last: dropped in this order.
pub struct PowerDns {
    pub addr: SocketAddr,
    /// The HTTP API.
    pub api: SocketAddr,
    pub server: Server,
    _dir: scratch::Dir,
}

impl PowerDns {
    /// A primary of [`ZONE`], with an API key and a key for updates; a second one, `viewer`, may do
    /// nothing. Its serial grows with every change, so that secondaries hear of it.
    pub fn start(api_key: &str, records: &[&str]) -> Result<Self> {
        let dir = scratch::Dir::new()?;
        let (addr, api) = (ports::free()?, ports::free()?);
        let path = dir.path().display();
        let conf = format!(
            "launch=gsqlite3\ngsqlite3-database={path}/pdns.db\ngsqlite3-pragma-synchronous=0\n\
             local-address=127.0.0.1\nlocal-port={}\nsocket-dir={path}\nprimary=yes\n\
             webserver=yes\nwebserver-address=127.0.0.1\nwebserver-port={}\napi=yes\n\
             api-key={api_key}\ndnsupdate=yes\nallow-dnsupdate-from=127.0.0.0/8\n\
             query-cache-ttl=0\ncache-ttl=0\nreceiver-threads=1\ndistributor-threads=1\n",
            addr.port(),
            api.port()
        );
        fs::write(dir.join("pdns.conf"), conf).context("writing pdns.conf")?;
        fs::write(dir.join("zone.db"), zone_file(records))?;
        let schema = fs::File::open(SCHEMA).with_context(|| format!("opening {SCHEMA}"))?;
        run(Command::new(find_program("sqlite3")?)
            .arg(dir.join("pdns.db"))
            .stdin(schema))?;
        let zone_path = dir.join("zone.db").display().to_string();
        for words in [
            vec!["load-zone", ZONE, &zone_path],
            vec!["import-tsig-key", KEY_NAME, "hmac-sha256", KEY],
            vec!["import-tsig-key", "viewer", "hmac-sha256", KEY],
            vec!["set-meta", ZONE, "TSIG-ALLOW-DNSUPDATE", KEY_NAME],
            vec!["set-meta", ZONE, "SOA-EDIT-API", "INCREASE"],
            vec!["set-meta", ZONE, "SOA-EDIT-DNSUPDATE", "INCREASE"],
        ] {
            let mut command = Command::new(find_program("pdnsutil")?);
            run(command.arg(format!("--config-dir={path}")).args(words))?;
        }
        let mut launch = Launch::new(
            "pdns_server",
            &find_program("pdns_server")?,
            &dir.join("log"),
        )?;
        launch.command().arg(format!("--config-dir={path}")).args([
            "--guardian=no",
            "--daemon=no",
            "--disable-syslog",
            "--write-pid=no",
        ]);
        let powerdns = Self {
            addr,
            api,
            server: launch.start()?,
            _dir: dir,
        };
        wait::until_true("pdns_server to serve its zone", START, || {
            powerdns.server.check_running()?;
            std::net::TcpStream::connect(powerdns.api)?;
            Ok(query::serial(powerdns.addr, ZONE)?.is_some())
        })
        .map_err(|error| error.context(powerdns.server.log_tail()))?;
        Ok(powerdns)
    }
}

fn run(command: &mut Command) -> Result<()> {
    let out = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !out.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    Ok(())
}
