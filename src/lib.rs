//! stub
pub mod addr;
pub mod admin { pub mod spec; }
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod data;
pub mod drain;
pub mod gate;
pub mod monitor;
pub mod net;
pub mod proto;
pub mod runtime;
pub mod secret;
pub mod signal;
pub mod supervise;
pub mod telemetry;
pub mod topology;
