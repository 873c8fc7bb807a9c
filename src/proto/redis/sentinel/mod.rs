//! Redis behind Sentinel: who asks whom, and what becomes of the answers.
//!
//! [`answer`] and [`event`] read what sentinels say, [`judge`] decides, [`watch`] holds the
//! connections.

pub mod answer;
pub mod event;
mod fence;
pub mod judge;
mod tell;
pub mod view;
pub mod watch;
