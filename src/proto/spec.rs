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
    Mysql,
    Postgres,
    Tcp,
}

impl ProtocolKind {
    pub const ALL: [Self; 4] = [Self::Redis, Self::Mysql, Self::Postgres, Self::Tcp];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Mysql => "mysql",
            Self::Postgres => "postgres",
            Self::Tcp => "tcp",
        }
    }
}

/// One replicated database as the application sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    pub name: Arc<str>,
    pub protocol: ProtocolKind,
    /// The region this sidecar is in.
    pub region: Option<Arc<str>>,
    /// Counts for `/healthz`.
    pub required: bool,
    pub listen: ListenSpec,
    pub limits: Limits,
    pub discovery: Discovery,
    /// TLS to the databases; clients on this host stay plaintext.
    pub tls: TlsSettings,
    /// The operator's own way to another primary, in place of ours.
    pub failover: Option<FailoverSpec>,
    /// What a MySQL client hears whose request is in flight when its session must close.
    pub in_flight: InFlight,
}

/// `[service.failover]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailoverSpec {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long it may take; `None`: most of the failover's own time.
    pub timeout: Option<Duration>,
    /// It heeds `PILOTFISH_DRY_RUN=1`.
    pub dry_run: bool,
}

/// What happens to a request in flight when its session must close.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InFlight {
    /// The connection ends. WordPress' `wpdb` takes that for "never sent" and sends it again.
    #[default]
    Close,
    /// An error in answer to it, then the end: it may have been carried out, and nobody repeats it.
    Error,
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
    /// The nodes of a Galera or Percona XtraDB cluster: one writer, which all sidecars agree on.
    Galera(GaleraSpec),
    /// Asynchronous replication: the server that is not read-only.
    Mysql(MysqlSpec),
    /// Streaming replication: the server that is not in recovery.
    Postgres(PostgresSpec),
    /// The first node that accepts a connection.
    Static(StaticSpec),
}

impl Discovery {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Sentinel(_) => "sentinel",
            Self::Redis(_) => "redis",
            Self::Galera(_) => "galera",
            Self::Mysql(_) => "mysql",
            Self::Postgres(_) => "postgres",
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
    /// The region it is in.
    pub region: Option<String>,
}

/// How servers are probed that are asked in SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSpec {
    pub interval: Duration,
    /// A probe that takes longer has failed.
    pub timeout: Duration,
    /// How many good answers in a row make a server fit that was not.
    pub rise: u32,
    /// How many missing answers in a row make one unfit that was fit.
    pub fall: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GaleraSpec {
    /// In the order in which they are to be the writer, within a region.
    pub nodes: Vec<NodeSpec>,
    pub credentials: Credentials,
    pub probe: ProbeSpec,
    /// For how long a better node has to be fit before it takes over from a writer that is.
    pub failback_after: Duration,
    /// Whether a node that feeds another one (a donor) may be the writer.
    pub accept_donor: bool,
    /// Transactions waiting to be applied, above which a node gets no reads.
    pub max_recv_queue: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlSpec {
    pub nodes: Vec<NodeSpec>,
    pub credentials: Credentials,
    pub probe: ProbeSpec,
    /// A replica that is further behind gets no reads.
    pub max_lag: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresSpec {
    pub nodes: Vec<NodeSpec>,
    pub credentials: Credentials,
    /// The database that probes connect to.
    pub database: String,
    pub probe: ProbeSpec,
    /// A replica that is further behind gets no reads, in bytes of WAL.
    pub max_lag: u64,
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
