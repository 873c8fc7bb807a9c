//! A site in two regions, and the servers that answer for it: a parent zone, a primary, a secondary, a resolver.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::bind::{Bind, Options};
use super::faults::{DnsRelay, Faults};
use super::knot::Knot;
use super::powerdns::PowerDns;
use super::query::{self, Type};
use super::unbound::Unbound;
use super::{KEY, KEY_NAME, NAME, ZONE};
use crate::{ports, scratch};

const NS1: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const NS2: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// The addresses of `gra`, and those of `rbx`: A and AAAA.
pub const GRA: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
pub const RBX: [&str; 2] = ["192.0.2.20", "2001:db8::20"];

/// What keeps the records and takes updates.
pub trait Primary {
    fn addr(&self) -> SocketAddr;
}

impl Primary for Bind {
    fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Primary for Knot {
    fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Primary for PowerDns {
    fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// Everything but the sidecars. The servers first: they are dropped before the folder.
pub struct Site<P = Bind> {
    pub parent: Bind,
    pub primary: P,
    pub secondary: Bind,
    pub unbound: Unbound,
    /// What goes wrong between a sidecar and the primary.
    pub faults: Faults,
    pub relay: DnsRelay,
    pub dir: scratch::Dir,
}

impl Site {
    /// With these lines in its zone. A lazy secondary hears of no change.
    pub fn start(lines: &[&str], lazy: bool) -> Result<Self> {
        let second = ports::free()?;
        let options = Options {
            records: lines.iter().map(|line| (*line).to_owned()).collect(),
            notify: if lazy { Vec::new() } else { vec![second] },
            ..Options::default()
        };
        Self::around(Bind::primary(&options)?, second, lazy, 0)
    }
}

impl<P: Primary> Site<P> {
    /// `primary` and a secondary at `second`. The resolver keeps every answer for `min_ttl` seconds.
    pub fn around(primary: P, second: SocketAddr, lazy: bool, min_ttl: u32) -> Result<Self> {
        let parent = Bind::parent([NS1, NS2], false, false)?;
        let first = primary.addr();
        let secondary = Bind::secondary(first, Some(second), lazy)?;
        let unbound = Unbound::start(parent.addr, &[first, second], min_ttl)?;
        let faults = Faults::default();
        let relay = DnsRelay::start(first, faults.clone())?;
        let dir = scratch::Dir::new()?;
        std::fs::write(dir.join("tsig.key"), KEY).context("writing the key")?;
        Ok(Self {
            parent,
            primary,
            secondary,
            unbound,
            faults,
            relay,
            dir,
        })
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn journal(&self) -> PathBuf {
        self.state_dir().join("cutover.journal")
    }

    /// `[cutover]` with everything in it that makes every gate pass; `checks` are the URLs that `gra` and
    /// `rbx` are asked at.
    pub fn section(&self, checks: [Option<&str>; 2]) -> String {
        self.section_for(
            checks,
            &format!(
                "kind = \"rfc2136\"\nserver = \"{}\"\nkey_name = \"{KEY_NAME}\"\nkey_file = \"{}\"",
                self.relay.addr,
                self.dir.join("tsig.key").display()
            ),
        )
    }

    /// The same with another provider: what `[cutover.dns]` says besides the zone.
    pub fn section_for(&self, checks: [Option<&str>; 2], dns: &str) -> String {
        let (ns1, ns2) = (self.primary.addr(), self.secondary.addr);
        let [gra, rbx] =
            [("gra", GRA, checks[0]), ("rbx", RBX, checks[1])].map(|(name, addrs, check)| {
                let check = check.map_or_else(String::new, |url| format!("check = \"{url}\"\n"));
                format!(
                    "[[cutover.region]]\nname = \"{name}\"\nA = [\"{}\"]\nAAAA = [\"{}\"]\n{check}",
                    addrs[0], addrs[1]
                )
            });
        format!(
            r#"[cutover]
state_dir = "{state}"
record = ["{NAME} A", "{NAME} AAAA"]
ttl = 2
cooldown = "0s"
soak = "0s"
{gra}{rbx}[cutover.dns]
zone = "{ZONE}"
{dns}
timeout = "5s"
patience = "1s"
[cutover.verify]
resolvers = ["{unbound}"]
address_map = {{ "127.0.0.1" = "{com}", "{NS1}" = "{ns1}", "{NS2}" = "{ns2}" }}
matches = 2
pause = "50ms"
question = "2500ms"
deployed_within = "5s"
served_within = "20s"
[cutover.fence]
proof = ["true"]
"#,
            state = self.state_dir().display(),
            unbound = self.unbound.addr,
            com = self.parent.addr,
        )
    }

    /// The A and the AAAA records as a server serves them.
    pub fn served(&self, server: SocketAddr) -> Result<[Vec<String>; 2]> {
        let ask = |rtype| query::values(server, NAME, rtype, false);
        Ok([ask(Type::A)?, ask(Type::Aaaa)?])
    }

    /// The primary's.
    pub fn serial(&self) -> Result<u32> {
        query::serial(self.primary.addr(), ZONE)?.context("the primary has no zone")
    }
}
