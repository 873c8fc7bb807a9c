//! Real servers, the real sidecar and a writer that keeps a ledger.
//!
//! Tests, `make demo` and `make bench` share this crate. In the order a scenario needs them:
//!
//! - [`ports`], [`scratch`], [`process`]: free ports, temporary directories, children that never outlive us
//! - [`resp`]: a small blocking Redis client
//! - [`redis`]: one Redis server, or a master with replicas and sentinels, and what the sentinels announce
//! - [`sidecar`]: `pilotfish run` with a written config, its health, metrics and log
//! - [`haproxy`]: Debian's HAProxy, with the usual Redis recipe or as a plain relay
//! - [`writer`]: load at a fixed rate, and which acknowledged writes a server does not have
//! - [`report`]: a timeline for people
//! - [`demo`]: what `make demo` runs
//!
//! Everything is synchronous: a scenario reads from top to bottom, and the harness costs no runtime.

#![forbid(unsafe_code)]

pub mod demo;
pub mod haproxy;
pub mod ports;
pub mod process;
pub mod redis;
pub mod report;
pub mod resp;
pub mod scratch;
pub mod sidecar;
pub mod wait;
pub mod writer;
