//! `[cutover.auto]`: Alertmanager may ask for a cutover. Off unless configured.
//!
//! It is an operator that is not trusted much: it may name a region that is down, its word must stand
//! for a while, and what follows goes through the same gates as everybody's wish, without overrides.

pub mod decide;
pub mod payload;
pub mod serve;

use std::net::SocketAddr;

pub use decide::Rules;

use super::BoxFuture;
use crate::secret::Secret;

/// `[cutover.auto]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoSpec {
    /// Where Alertmanager's webhooks come in.
    pub listen: SocketAddr,
    /// What they must carry: `Authorization: Bearer …`.
    pub token: Secret,
    pub rules: Rules,
}

/// What carries a wish out.
pub trait Starter: Send + Sync {
    /// The region that is on, as the records say it. Cancel safe.
    fn serving<'a>(&'a self) -> BoxFuture<'a, Result<String, String>>;

    /// Begins a cutover to `to`, with every gate and no override, and returns when it was accepted;
    /// it does not wait for its end. Dropped, it may have begun.
    ///
    /// # Errors
    /// Why it was refused, for people.
    fn start<'a>(&'a self, to: &'a str, reason: &'a str) -> BoxFuture<'a, Result<(), String>>;
}
