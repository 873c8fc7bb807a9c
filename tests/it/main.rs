//! Integration tests: the real sidecar in front of real servers. One binary, one module per subject.

mod kit;

mod failover;
mod liars;

mod clients;
mod hold;
mod listeners;
mod resources;
mod security;
mod standalone;
