//! Redis behind Sentinel: who asks whom, and what becomes of the answers.
//!
//! [`answer`] and [`event`] read what sentinels say, [`judge`] decides, [`watch`] holds the
//! connections.

mod accept;
pub mod answer;
pub mod event;
mod fence;
pub mod judge;
mod notes;
mod see;
mod tell;
pub mod view;
pub mod watch;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
