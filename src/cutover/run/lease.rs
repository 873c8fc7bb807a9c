//! The lock, for as long as a run needs it.

use std::time::Duration;

use tokio::time::{sleep_until, timeout};

use super::Tools;
use crate::clock::Moment;
use crate::cutover::lock::{Claim, Held, LockError};

/// It is free so long after whoever had it has died.
const LEASE: Duration = Duration::from_secs(60);
/// One call.
const LIMIT: Duration = Duration::from_secs(15);

/// A lock that is held.
#[derive(Debug)]
pub struct Lease {
    /// `None`: no lock is configured.
    held: Option<Held>,
    /// When it was certainly held last.
    sure: Moment,
    due: Moment,
}

impl Lease {
    /// # Errors
    /// When somebody else has it, or that cannot be found out.
    pub async fn acquire(
        tools: &Tools,
        purpose: &str,
        plan: Option<&str>,
    ) -> Result<Self, LockError> {
        let claim = Claim {
            owner: format!("{} pid {}", tools.sidecar, std::process::id()),
            purpose: purpose.to_owned(),
            plan: plan.unwrap_or_default().to_owned(),
            lease: LEASE,
        };
        let begun = tools.env.clock.now();
        let held = match &tools.lock {
            None => None,
            Some(lock) => {
                let held = timeout(LIMIT, lock.acquire(&claim)).await;
                Some(held.map_err(|_| unavailable())??)
            }
        };
        Ok(Self {
            held,
            sure: begun,
            due: begun + LEASE / 3,
        })
    }

    /// When it has to be renewed.
    pub fn due(&self) -> Moment {
        self.due
    }

    /// `None`: nobody gives one.
    pub fn epoch(&self) -> Option<u64> {
        self.held.as_ref().map(|held| held.epoch)
    }

    /// # Errors
    /// When it is lost, or has run out unrenewed.
    pub async fn renew(&mut self, tools: &Tools) -> Result<(), String> {
        let begun = tools.env.clock.now();
        let (Some(lock), Some(held)) = (&tools.lock, &mut self.held) else {
            self.due = begun + LEASE;
            return Ok(());
        };
        let renewed = timeout(LIMIT, lock.renew(held)).await;
        match renewed.unwrap_or_else(|_| Err(unavailable())) {
            Ok(()) => {
                self.sure = begun;
                self.due = begun + LEASE / 3;
                Ok(())
            }
            Err(LockError::Unavailable(why)) => {
                let now = tools.env.clock.now();
                self.due = now + LEASE / 12;
                match now.since(self.sure) < LEASE {
                    true => Ok(()),
                    false => Err(why),
                }
            }
            Err(lost) => Err(lost.to_string()),
        }
    }

    /// Gives it back; where that fails it runs out by itself.
    pub async fn release(self, tools: &Tools) {
        let (Some(lock), Some(held)) = (&tools.lock, self.held) else {
            return;
        };
        let released = timeout(LIMIT, lock.release(held)).await;
        if let Ok(Err(error)) = released {
            tracing::warn!(event = "cutover-lock", "the lock was not released: {error}");
        }
    }
}

fn unavailable() -> LockError {
    LockError::Unavailable(format!("no answer within {} s", LIMIT.as_secs()))
}

/// Until it has to be renewed; never without one. Cancel safe.
pub async fn due(at: Option<Moment>, tools: &Tools) {
    match at {
        Some(at) => sleep_until(tools.env.clock.instant(at)).await,
        None => std::future::pending().await,
    }
}
