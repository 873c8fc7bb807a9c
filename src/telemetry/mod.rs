//! What the sidecar tells about itself: metrics, health, log.

pub mod metrics;
pub mod spec;
pub mod view;
