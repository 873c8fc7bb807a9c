//! One cutover at a time, even when every sidecar of a fleet is told to do it at once.
//!
//! A lock is held for a lease and renewed while the cutover runs. Each acquisition gets an epoch that
//! is higher than every one before it, whoever acquired: whatever carries an older epoch is stale.

pub mod dns;
pub mod etcd;
pub mod file;
pub mod word;

use std::any::Any;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use self::etcd::EtcdSpec;
use super::BoxFuture;
use crate::dns::{DnsSpec, Env, Name};

/// A lock that says nothing for so long is out of reach, for whoever only looks.
const LOOK: Duration = Duration::from_secs(4);

/// Who wants the lock, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub owner: String,
    pub purpose: String,
    /// The digest of the plan.
    pub plan: String,
    /// Without a renewal for so long the lock may be somebody else's.
    pub lease: Duration,
}

/// A lock that is held. Dropping it leaves the lock to its lease (a file is released at once).
pub struct Held {
    /// Grows with every acquisition by anybody: a fencing token.
    pub epoch: u64,
    /// What its kind of lock needs to renew and release it.
    ticket: Box<dyn Any + Send>,
}

impl Held {
    pub fn new(epoch: u64, ticket: impl Any + Send) -> Self {
        Self {
            epoch,
            ticket: Box::new(ticket),
        }
    }

    /// # Errors
    /// `Lost` when another kind of lock has made it.
    fn ticket<T: Any>(&mut self) -> Result<&mut T, LockError> {
        self.ticket.downcast_mut().ok_or(LockError::Lost)
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("epoch", &self.epoch).finish()
    }
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub owner: String,
    pub purpose: String,
    pub plan: String,
    pub epoch: u64,
    /// When its lease ends; `None`: when it ends.
    pub until: Option<Timestamp>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { owner, purpose, .. } = self;
        write!(f, "{owner} ({purpose}){}", until_text(self.until.as_ref()))
    }
}

/// Why a lock is not held. The texts hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    #[error("the lock is held by {holder}{}", until_text(until.as_ref()))]
    Busy {
        holder: String,
        until: Option<Timestamp>,
    },
    /// It was held, and is or may be somebody else's by now: nothing more may be changed.
    #[error("the lock is lost")]
    Lost,
    /// The settings, the credentials or what is there: trying again does not help.
    #[error("{0}")]
    Refused(String),
    /// Not reached, or not working for now.
    #[error("{0}")]
    Unavailable(String),
}

fn until_text(until: Option<&Timestamp>) -> String {
    until.map_or_else(String::new, |until| format!(" until {until:.0}"))
}

/// A lock. Calls are bounded in time.
pub trait Lock: Send + Sync {
    /// `dns`, `etcd` or `file`.
    fn kind(&self) -> &'static str;

    /// Takes the lock if it is free; it does not wait for it. Dropped, it may have taken it for the
    /// length of the lease.
    fn acquire<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Held, LockError>>;

    /// Makes the lease begin anew. `Unavailable` leaves it as it was; `Lost` is final. Dropped, the
    /// lease may have been renewed.
    fn renew<'a>(&'a self, held: &'a mut Held) -> BoxFuture<'a, Result<(), LockError>>;

    /// Gives the lock back. When that fails, it is free when the lease is over.
    fn release<'a>(&'a self, held: Held) -> BoxFuture<'a, Result<(), LockError>>;

    /// Who holds it now, as far as it can be seen. Cancel safe.
    fn holder<'a>(&'a self) -> BoxFuture<'a, Result<Option<Holder>, LockError>>;
}

/// Who holds the lock, for people, or `None`, also where there is no lock. Bounded in time, and cancel safe.
///
/// # Errors
/// Why that is not known, for people.
pub async fn who_holds(lock: Option<&dyn Lock>) -> Result<Option<String>, String> {
    let Some(lock) = lock else {
        return Ok(None);
    };
    match timeout(LOOK, lock.holder()).await {
        Ok(Ok(holder)) => Ok(holder.map(|holder| holder.to_string())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", LOOK.as_secs())),
    }
}

/// `[cutover] lock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockSpec {
    /// A TXT record `name` in the zone of `dns`.
    Dns {
        dns: DnsSpec,
        name: Name,
        /// How far the clocks of a fleet may be apart.
        margin: Duration,
    },
    Etcd(EtcdSpec),
    File {
        path: PathBuf,
    },
}

impl LockSpec {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Dns { .. } => "dns",
            Self::Etcd(_) => "etcd",
            Self::File { .. } => "file",
        }
    }
}

/// Makes the lock that `spec` names. Opens no connection.
///
/// # Errors
/// When there can be no such lock.
pub fn lock(spec: &LockSpec, env: &Env) -> Result<Box<dyn Lock>, LockError> {
    Ok(match spec {
        LockSpec::Dns { dns, name, margin } => {
            Box::new(self::dns::DnsLock::new(dns, name, *margin, env)?)
        }
        LockSpec::Etcd(spec) => Box::new(etcd::EtcdLock::new(spec, env)?),
        LockSpec::File { path } => Box::new(file::FileLock::new(path.clone())),
    })
}
