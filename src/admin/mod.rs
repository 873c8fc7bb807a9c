//! The admin socket: what is known of the process, and later what it is told to do, as HTTP with JSON
//! over a Unix socket.
//!
//! `command` is what can be asked, the same for both sides · `server` and `peer` accept and check who
//! asks · `handlers` answer · `status` is the answer's shape · `client` asks.

pub mod client;
pub mod command;
pub mod handlers;
pub mod peer;
pub mod server;
pub mod spec;
pub mod status;
