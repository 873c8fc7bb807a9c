//! Real servers, the real sidecar and a writer that keeps a ledger.
//!
//! Tests, `make demo` and `make bench` share this crate. In the order a scenario needs them:
//!
//! - [`ports`], [`scratch`], [`process`]: free ports, temporary directories, children that never outlive us
//! - [`certs`]: certificates for loopback servers
//! - [`resp`]: a small blocking Redis client
//! - [`redis`]: one Redis server, or a master with replicas and sentinels, and what the sentinels announce
//! - [`sql`]: a small blocking MySQL client
//! - [`mariadb`]: one MariaDB server, or a Galera cluster
//! - [`postgres`]: one PostgreSQL server, or a primary with standbys, PgBouncer, and rows with a ledger
//! - [`sidecar`]: `pilotfish run` with a written config, its health, metrics and log
//! - [`dns`]: BIND, Knot, PowerDNS, and stand-ins for the providers
//! - [`etcd`]: one member or a cluster
//! - [`haproxy`]: Debian's HAProxy, with the usual Redis recipe or as a plain relay
//! - [`browser`]: a headless Chromium and its page
//! - [`writer`]: load at a fixed rate, and which acknowledged writes a server does not have
//! - [`report`]: a timeline for people
//! - [`demo`]: what `make demo` runs
//!
//! Everything is synchronous: a scenario reads from top to bottom, and the harness costs no runtime.
//!
//! ```no_run
//! use std::path::Path;
//! use std::time::{Duration, Instant};
//!
//! use pilotfish_harness::redis::{self, RedisCluster};
//! use pilotfish_harness::sidecar::{Config, Service, Sidecar, Until};
//! use pilotfish_harness::writer::{self, Mode, Writer, later_than};
//!
//! # fn main() -> anyhow::Result<()> {
//! let long = Duration::from_secs(20);
//! let mut cluster = RedisCluster::start(redis::Options::default())?;
//! let service = Service::sentinel("cache", &cluster)?.set("hold_timeout", "10s").line("max_held = 100");
//! let config = Config::new()?.line("workers = 1").service(service);
//! let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/pilotfish"); // or sidecar::binary()?
//! let sidecar = Sidecar::start(&binary, config, Until::Healthy)?;
//!
//! let announcements = cluster.announcements()?;
//! let mut options = writer::Options::new("php", sidecar.tcp("cache")?, Mode::PerRequest);
//! options.timeout = Duration::from_secs(12);
//! let writer = Writer::start(options)?;
//! writer.wait_ack_after(Instant::now(), long)?;
//!
//! let t0 = Instant::now();
//! cluster.node(0).server().kill()?; // or freeze() and thaw(), or cluster.failover(0)
//! let first = announcements.wait_announcement(t0, long)?;
//! let new = cluster.wait_new_master(0, long)?;
//! sidecar.wait_primary("cache", cluster.node(new).addr, long)?;
//! writer.wait_ack_after(first.at + Duration::from_secs(1), long)?;
//!
//! let ledger = writer.stop();
//! let missing = ledger.missing_from(cluster.node(new).conn()?)?;
//! assert_eq!(later_than(&missing, first.at, Duration::from_millis(50)), 0);
//! assert_eq!(ledger.errors().count(), 0, "{:?}", ledger.error_counts());
//! assert_eq!(sidecar.metric("held_clients", &[("service", "cache")])?, 0.0);
//! cluster.restart_node(0)?; // comes back as a master, is demoted some 10 s later
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod browser;
pub mod certs;
pub mod demo;
pub mod dns;
pub mod etcd;
pub mod haproxy;
pub mod mariadb;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod report;
pub mod resp;
pub mod scratch;
pub mod sidecar;
pub mod sql;
pub mod wait;
pub mod writer;
