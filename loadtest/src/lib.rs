//! What Pilotfish costs, beside HAProxy and beside no proxy at all.
//!
//! - [`cli`]: the commands and their options
//! - [`contestants`]: Redis itself, HAProxy with and without splicing, a plain relay, Pilotfish; all running
//! - [`scenario`]: what is asked of each of them
//! - [`generator`]: one bounded run of `redis-benchmark`, and what it said
//! - [`bench`]: all scenarios, interleaved, several rounds; the table and the targets
//! - [`idle`]: resident memory per session that does nothing
//! - [`pgbench`]: the same for PostgreSQL, with PgBouncer as another peer
//! - [`relay`]: a relay that does nothing else, to measure the others by
//! - [`sysbench`]: transactions at a MariaDB, with a table of its own
//! - [`stats`]: medians and ranges
//!
//! Everything is judged by ratios within one run: absolute figures say more about the machine than about a proxy.

#![forbid(unsafe_code)]

pub mod bench;
pub mod cli;
pub mod contestants;
pub mod generator;
pub mod idle;
pub mod pgbench;
pub mod relay;
pub mod scenario;
pub mod stats;
pub mod sysbench;
