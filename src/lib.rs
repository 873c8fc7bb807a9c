//! Pilotfish knows where the primary of each database is, and sends the bytes there.
//!
//! # Layout
//!
//! In the order a connection meets them:
//!
//! - [`config`]: `proxy.toml`, from text to values that never have to be checked again
//! - [`app`]: the composition root; everything is made and wired there, top to bottom
//! - [`runtime`], [`supervise`]: one control thread, N data threads, and the only place that spawns
//! - [`net`]: sockets; the only module that names `tokio::net`
//! - [`data`]: a session: accept, admit, hold, connect, relay, close
//! - [`gate`], [`signal`], [`drain`]: what holds sessions, what makes them look again, how they end
//! - [`topology`]: what is believed about a service, as one immutable value with one writer
//! - [`monitor`]: the task per service that turns observations into a published topology
//! - [`handover`]: forced failover: the database is asked for another primary, step by step, and back
//! - [`proto`]: what is special about each wire protocol, and how its primary is found
//! - [`events`]: what happened and when, for operators
//! - [`cutover`]: a site's move to another region: locks, hooks, word to others
//! - [`dns`]: the records that lead to a region, at whichever provider, and the proof that they are served
//! - [`cutover`]: moving a site to another region by changing them, with checks before and proof after
//! - [`telemetry`]: health, metrics and log
//! - [`admin`], [`cli`]: the admin socket and the command line that talks to it
//! - [`command`]: operators' own commands, run and bounded
//! - [`addr`], [`clock`], [`secret`]: small words that everybody uses
//!
//! Decisions are pure: [`topology::reduce`], [`topology::pick`] and the judges of [`proto`] read no
//! clock and open no socket. `docs/architecture.md` follows a connection through all of this and
//! lists the invariants.

#![forbid(unsafe_code)]

pub mod addr;
pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod cutover;
pub mod data;
pub mod dns;
pub mod drain;
pub mod events;
pub mod gate;
pub mod handover;
pub mod monitor;
pub mod net;
pub mod proto;
pub mod runtime;
pub mod secret;
pub mod signal;
pub mod supervise;
pub mod telemetry;
pub mod topology;
