//! `[cutover]`, as the config says it: valid values, checked once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::auto::AutoSpec;
use super::lock::LockSpec;
use super::network::Network;
use super::notify::NotifySpec;
use crate::addr::Addr;
use crate::dns::record::{Key, RecordType, Records, RrSet, Values, records};
use crate::dns::spec::{DnsSpec, VerifySpec};

/// `[cutover]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutoverSpec {
    /// Journal and history.
    pub state_dir: PathBuf,
    /// What moves, all of it together.
    pub records: Vec<Key>,
    /// Of the records after a cutover, in seconds.
    pub ttl: u32,
    /// The longest TTL with which a cutover is not refused, in seconds.
    pub ttl_ceiling: u32,
    /// So long after a cutover there is no other one.
    pub cooldown: Duration,
    /// The same before a failback.
    pub soak: Duration,
    /// How long a plan may be carried out.
    pub expiry: Duration,
    /// How far the target's databases may be behind.
    pub target_lag: Duration,
    pub target_lag_bytes: u64,
    /// At least two; the first is home, where a failback leads to.
    pub regions: Vec<RegionSpec>,
    pub dns: DnsSpec,
    /// Without resolvers: the system's.
    pub verify: VerifySpec,
    /// How long the provider may take to say that a change is deployed.
    pub deployed_within: Duration,
    /// How long every name server may take to answer with the new records.
    pub served_within: Duration,
    pub gates: Vec<GateSpec>,
    pub hooks: Vec<HookSpec>,
    pub fence: FenceSpec,
    /// In this order.
    pub promote: Vec<PromoteSpec>,
    /// `None`: this is the only sidecar that moves the site.
    pub lock: Option<LockSpec>,
    /// Who is told when a run begins and ends.
    pub notify: Option<NotifySpec>,
    /// Who else may ask for a cutover.
    pub auto: Option<AutoSpec>,
}

/// `[[cutover.region]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    pub name: String,
    /// What the records lead to, one entry per type.
    pub values: BTreeMap<RecordType, Values>,
    pub check: Option<CheckSpec>,
    /// Admin sockets of the region's sidecars, as this host reaches them: they are paused before the
    /// records leave the region.
    pub admin: Vec<PathBuf>,
    /// What else lies in the region besides the addresses of its records.
    pub networks: Vec<Network>,
}

/// What a region must answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckSpec {
    /// `http` or `https`.
    pub url: String,
    /// The name in the TLS handshake, and in the certificate, where it is not the URL's host.
    pub sni: Option<String>,
    /// The `Host` header, where it is neither.
    pub host: Option<String>,
    /// The roots to trust; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    pub timeout: Duration,
}

/// A program of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSpec {
    /// The program and its arguments; never empty.
    pub argv: Vec<String>,
    pub timeout: Duration,
}

/// `[[cutover.gate]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateSpec {
    pub name: String,
    pub command: CommandSpec,
}

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// After the gates, before anything is changed. A failure ends the cutover.
    BeforeApply,
    AfterDone,
    AfterRollback,
}

impl When {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeApply => "before-apply",
            Self::AfterDone => "after-done",
            Self::AfterRollback => "after-rollback",
        }
    }
}

/// `[[cutover.hook]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSpec {
    pub when: When,
    pub command: CommandSpec,
}

/// `[cutover.fence]`: how it is made sure that the old region writes no more, and how it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FenceSpec {
    /// Fences it.
    pub command: Option<CommandSpec>,
    /// Takes that back, when the cutover ends before the records were changed or is rolled back.
    pub release: Option<CommandSpec>,
    /// Ends well when the region writes no more.
    pub proof: Option<CommandSpec>,
    /// Run at other places: each ends well when the region cannot be reached from there.
    pub witnesses: Vec<CommandSpec>,
}

/// `[[cutover.promote]]`: a service whose database must be made primary in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromoteSpec {
    pub service: String,
    /// The database to promote, by the region it is in.
    pub to: BTreeMap<String, Addr>,
    pub timeout: Duration,
}

impl CutoverSpec {
    pub fn region(&self, name: &str) -> Option<&RegionSpec> {
        self.regions.iter().find(|region| region.name == name)
    }

    /// What the records are when `region` is on.
    pub fn wanted(&self, region: &RegionSpec) -> Records {
        records(self.records.iter().filter_map(|key| {
            let values = region.values.get(&key.rtype)?.texts();
            // The values come from the config and were checked there, as the TTL was.
            RrSet::parse(key, self.ttl.into(), values.iter().map(String::as_str)).ok()
        }))
    }

    /// Everything that has to be looked at: what moves, and what must not stand beside it.
    pub fn watched(&self) -> Vec<Key> {
        let names: BTreeSet<_> = self.records.iter().map(|key| &key.name).collect();
        let types = [RecordType::A, RecordType::Aaaa, RecordType::Cname];
        let beside = names
            .into_iter()
            .flat_map(|name| types.map(|rtype| Key::new(name.clone(), rtype)));
        let all: BTreeSet<Key> = beside.chain(self.records.iter().cloned()).collect();
        all.into_iter().collect()
    }

    /// With `resolvers` where the config names none.
    pub fn verify_with(&self, resolvers: &[SocketAddr]) -> VerifySpec {
        let mut verify = self.verify.clone();
        if verify.resolvers.is_empty() {
            verify.resolvers = resolvers.to_vec();
        }
        verify
    }
}

impl RegionSpec {
    /// Whether `ip` is in this region, as far as the config knows.
    pub fn has(&self, ip: std::net::IpAddr) -> bool {
        let mine = self.values.values().any(|values| match (values, ip) {
            (Values::A(addrs), std::net::IpAddr::V4(ip)) => addrs.contains(&ip),
            (Values::Aaaa(addrs), std::net::IpAddr::V6(ip)) => addrs.contains(&ip),
            _ => false,
        });
        mine || self.networks.iter().any(|network| network.contains(ip))
    }
}
