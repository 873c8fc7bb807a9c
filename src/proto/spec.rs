//! A service as the config describes it: valid values, checked once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::addr::Addr;
use crate::net::tls::TlsSettings;
use crate::secret::Credentials;
/// What replica listeners do while no replica is fit.
pub use crate::topology::pick::Fallback as ReplicaFallback;

/// The wire protocols a service can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolKind {
    Redis,
    Tcp,
}

impl ProtocolKind {
    pub const ALL: [Self; 2] = [Self::Redis, Self::Tcp];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Tcp => "tcp",
        }
    }
}

/// One replicated database as the application sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    pub name: Arc<str>,
    pub protocol: ProtocolKind,
    /// Counts for `/healthz`.
    pub required: bool,
    pub listen: ListenSpec,
    pub limits: Limits,
    pub discovery: Discovery,
    /// TLS to the databases; clients on this host stay plaintext.
    pub tls: TlsSettings,
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSpec {
    /// Leads to the primary.
    pub primary: Vec<Addr>,
    /// Leads to replicas.
    pub replica: Vec<Addr>,
    pub replica_fallback: ReplicaFallback,
    /// Permission bits of Unix sockets.
    pub socket_mode: u32,
}

/// The service's bounds and times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub hold_timeout: Duration,
    pub max_held: usize,
    pub max_connections: usize,
    pub max_connecting: usize,
    pub connect_timeout: Duration,
    /// `None`: idle sessions stay.
    pub idle_timeout: Option<Duration>,
    pub tcp_keepalive: Duration,
}

/// How the service's primary is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    Sentinel(SentinelSpec),
    /// Redis without sentinels: the node whose ROLE is master.
    Redis(RedisSpec),
    /// The first node that accepts a connection.
    Static(StaticSpec),
}

impl Discovery {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Sentinel(_) => "sentinel",
            Self::Redis(_) => "redis",
            Self::Static(_) => "static",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelSpec {
    /// The name under which the sentinels know the service.
    pub master: String,
    /// All of them: a majority is counted over these, not over the ones in reach.
    pub sentinels: Vec<Addr>,
    /// For the Redis servers.
    pub credentials: Credentials,
    pub sentinel_credentials: Credentials,
    pub sentinel_tls: TlsSettings,
    pub minority: Minority,
    pub fence: FenceOn,
    pub switch_on: SwitchOn,
    pub probe_interval: Duration,
    /// What sentinels announce -> what can be reached from here.
    pub address_map: BTreeMap<Addr, Addr>,
}

/// What to do when most sentinels are out of reach at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Minority {
    Serve,
    Hold,
}

/// The event that starts holding writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceOn {
    /// A replica is being promoted.
    Failover,
    /// The sentinels agree that the master is down.
    Odown,
    /// Nothing before the switch itself.
    Switch,
}

/// What makes a new primary: the sentinels' word, or the promoted replica's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchOn {
    Announcement,
    Promotion,
}

/// A server that the config names itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    pub addr: Addr,
    /// The name its certificate must carry, where it is not the address' host.
    pub server_name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSpec {
    pub nodes: Vec<NodeSpec>,
    pub credentials: Credentials,
    pub probe_interval: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticSpec {
    pub nodes: Vec<NodeSpec>,
    pub probe_interval: Duration,
}
