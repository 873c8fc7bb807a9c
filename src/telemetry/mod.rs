//! What the sidecar tells about itself: metrics, health, log.
//!
//! `surface` is what may be seen of the process, `health` judges it, `status` tells all of it, `page` draws
//! it for people, `http` answers with it; `serve` and `problem` are HTTP as the admin socket speaks it too.

pub mod agent;
pub mod derived;
pub mod health;
pub mod http;
pub mod log;
pub mod metrics;
pub mod page;
pub mod problem;
pub mod serve;
pub mod spec;
pub mod status;
pub mod surface;
pub mod view;
pub mod words;

#[cfg(test)]
pub mod sample;
