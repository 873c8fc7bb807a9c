//! A site in two regions, and the servers that answer for it: a parent zone, a primary, a secondary, a resolver.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::bind::{Bind, Options};
use super::faults::{DnsRelay, Faults};
use super::query::{self, Type};
use super::unbound::Unbound;
use super::{KEY, KEY_NAME, NAME, ZONE};
use crate::{ports, scratch};

const NS1: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const NS2: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// The addresses of `gra`, and those of `rbx`: A and AAAA.
pub const GRA: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
pub const RBX: [&str; 2] = ["192.0.2.20", "2001:db8::20"];

/// Everything but the sidecars. The servers first: they are dropped before the folder.
pub struct Site {
    pub parent: Bind,
    pub primary: Bind,
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
        let parent = Bind::parent([NS1, NS2], false, false)?;
        let second = ports::free()?;
        let options = Options {
            records: lines.iter().map(|line| (*line).to_owned()).collect(),
            notify: if lazy { Vec::new() } else { vec![second] },
            ..Options::default()
        };
        let primary = Bind::primary(&options)?;
        let secondary = Bind::secondary(primary.addr, Some(second), lazy)?;
        let unbound = Unbound::start(parent.addr, &[primary.addr, second], 0)?;
        let faults = Faults::default();
        let relay = DnsRelay::start(primary.addr, faults.clone())?;
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
        let (ns1, ns2) = (self.primary.addr, self.secondary.addr);
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
kind = "rfc2136"
zone = "{ZONE}"
server = "{relay}"
key_name = "{KEY_NAME}"
key_file = "{key}"
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
            relay = self.relay.addr,
            key = self.dir.join("tsig.key").display(),
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
        query::serial(self.primary.addr, ZONE)?.context("the primary has no zone")
    }
}
