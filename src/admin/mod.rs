//! The admin socket: what is known of the process, and what it is told to do, as HTTP with JSON over a
//! Unix socket.
//!
//! `command` is what can be asked, the same for both sides · `server` and `peer` accept and check who
//! asks · `handlers` answer · `controls` change things, `pins` keep some of it, `freeze` is for takeovers · `status` and `sessions`
//! are the answers' shapes · `region` is the cutover's part · `client` asks.

pub mod client;
pub mod command;
pub mod controls;
pub mod freeze;
pub mod handlers;
pub mod peer;
pub mod pins;
pub mod region;
pub mod server;
pub mod sessions;
pub mod spec;

pub use crate::telemetry::status;
