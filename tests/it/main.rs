//! Integration tests: the real sidecar in front of real servers. One binary, one module per subject.
// Nothing here decides or runs on a runtime, and a helper that fails is a test that fails.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod support;

mod kit;

mod failover;
mod galera;
mod handover;
mod liars;
mod load;
mod mysql_replication;

mod postgres;

mod clients;
mod control_side;
mod crash;
mod haproxy_front;
mod hold;
mod listeners;
mod mysql_wire;
mod mysql_wire_real;
mod operate;
mod page;
mod passive;
mod resources;
mod secrets;
mod security;
mod service_manager;
mod sql_failover;
mod standalone;
mod takeover;
