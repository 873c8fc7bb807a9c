//! Who may move the site: one at a time.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A call to a lock.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who wants the lock and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub owner: String,
    pub purpose: String,
    pub plan: String,
    pub lease: Duration,
}

/// What an acquired lock gives.
#[derive(Debug)]
pub struct Held {
    /// Grows with every acquisition by anybody.
    pub epoch: u64,
}

/// Who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub owner: String,
    pub purpose: String,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{holder} has it")]
    Busy { holder: String },
    #[error("it was lost")]
    Lost,
    #[error("{0}")]
    Unavailable(String),
}

pub trait Lock: Send + Sync {
    fn kind(&self) -> &'static str;
    fn acquire<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Held, LockError>>;
    fn renew<'a>(&'a self, held: &'a mut Held) -> BoxFuture<'a, Result<(), LockError>>;
    fn release<'a>(&'a self, held: Held) -> BoxFuture<'a, Result<(), LockError>>;
    fn holder<'a>(&'a self) -> BoxFuture<'a, Result<Option<Holder>, LockError>>;
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.owner, self.purpose)
    }
}
