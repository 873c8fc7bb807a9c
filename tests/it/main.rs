//! Integration tests: the real sidecar in front of real servers. One binary, one module per subject.
#![allow(clippy::disallowed_methods)] // clocks and threads: nothing here decides or runs on a runtime

mod support;

mod kit;

mod failover;
mod liars;

mod clients;
mod hold;
mod listeners;
mod resources;
mod security;
mod standalone;
