//! A lock in etcd: a key that lives as long as a lease, made only where there is none.
//!
//! Spoken is etcd's HTTP gateway, which is its gRPC API as JSON
//! (<https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/>, etcd 3.4 and later): bytes are base64,
//! 64-bit numbers are texts. The epoch is the revision in which the key was made; revisions of a
//! cluster only grow.

mod api;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Claim, Held, Holder, Lock, LockError};
use crate::clock::{Clock, Moment};
use crate::cutover::BoxFuture;
use crate::dns;
use crate::net::tls::TlsSettings;
use crate::secret::Secret;
use api::{Api, Found};

/// `[cutover] lock` of kind `etcd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdSpec {
    /// URLs, tried in turn.
    pub endpoints: Vec<String>,
    /// The lock's key.
    pub key: String,
    /// For etcd with authentication.
    pub user: Option<(String, Secret)>,
    /// For `https`: roots and a client certificate; names are always verified.
    pub tls: TlsSettings,
    /// One request to one endpoint.
    pub timeout: Duration,
}

pub struct EtcdLock {
    api: Api,
    key: String,
    clock: Clock,
}

struct Ticket {
    lease: i64,
    length: Duration,
    /// After this nobody can be sure any more.
    good_until: Moment,
}

/// What the key says.
#[derive(Serialize, Deserialize)]
struct Who {
    owner: String,
    purpose: String,
    plan: String,
}

impl EtcdLock {
    /// # Errors
    /// When the settings cannot be used.
    pub fn new(spec: &EtcdSpec, env: &dns::Env) -> Result<Self, LockError> {
        Ok(Self {
            api: Api::new(spec, env)?,
            key: spec.key.clone(),
            clock: env.clock,
        })
    }

    /// Makes the key under `lease`, or says who has it.
    async fn take(&self, claim: &Claim, lease: i64) -> Result<Found, LockError> {
        let who = Who {
            owner: claim.owner.clone(),
            purpose: claim.purpose.clone(),
            plan: claim.plan.clone(),
        };
        let value = serde_json::to_vec(&who).map_err(|e| LockError::Refused(e.to_string()))?;
        self.api.put_if_none(&self.key, &value, lease).await
    }

    async fn who(&self, found: Found) -> Holder {
        let who: Option<Who> = serde_json::from_slice(&found.value).ok();
        let who = who.unwrap_or_else(|| Who {
            owner: "somebody else's key".to_owned(),
            purpose: "unknown".to_owned(),
            plan: String::new(),
        });
        let left = match found.lease {
            0 => None,
            lease => self.api.time_left(lease).await.ok().flatten(),
        };
        Holder {
            owner: who.owner,
            purpose: who.purpose,
            plan: who.plan,
            epoch: found.epoch,
            until: left.and_then(|left| self.wall_after(left)),
        }
    }

    fn wall_after(&self, left: Duration) -> Option<Timestamp> {
        let left = SignedDuration::try_from(left).ok()?;
        self.clock.wall_now().checked_add(left).ok()
    }
}

impl Lock for EtcdLock {
    fn kind(&self) -> &'static str {
        "etcd"
    }

    fn acquire<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Held, LockError>> {
        Box::pin(async move {
            let asked = self.clock.now();
            let (lease, length) = self.api.grant(claim.lease).await?;
            let found = match self.take(claim, lease).await {
                Ok(found) => found,
                Err(error) => {
                    // It may have been made: then it must not stay for the whole lease.
                    let _ = self.api.revoke(lease).await;
                    return Err(error);
                }
            };
            // Also when the key was made by a request whose answer was lost.
            if found.lease == lease {
                let good_until = asked + length;
                let ticket = Ticket {
                    lease,
                    length,
                    good_until,
                };
                return Ok(Held::new(found.epoch, ticket));
            }
            let _ = self.api.revoke(lease).await;
            let holder = self.who(found).await;
            Err(LockError::Busy {
                holder: holder.owner,
                until: holder.until,
            })
        })
    }

    fn renew<'a>(&'a self, held: &'a mut Held) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            let epoch = held.epoch;
            let ticket = held.ticket::<Ticket>()?;
            let asked = self.clock.now();
            let alive = match self.api.keep_alive(ticket.lease).await {
                // The lease may live, and the key be gone or another's.
                Ok(true) => self.api.get(&self.key).await.map(|found| {
                    found.is_some_and(|f| f.lease == ticket.lease && f.epoch == epoch)
                }),
                other => other,
            };
            match alive {
                Ok(true) => {
                    ticket.good_until = asked + ticket.length;
                    Ok(())
                }
                Ok(false) => Err(LockError::Lost),
                Err(_) if self.clock.now() >= ticket.good_until => Err(LockError::Lost),
                Err(error) => Err(error),
            }
        })
    }

    fn release<'a>(&'a self, mut held: Held) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            let lease = held.ticket::<Ticket>()?.lease;
            match self.api.revoke(lease).await? {
                true => Ok(()),
                false => Err(LockError::Lost),
            }
        })
    }

    fn holder<'a>(&'a self) -> BoxFuture<'a, Result<Option<Holder>, LockError>> {
        Box::pin(async move {
            match self.api.get(&self.key).await? {
                Some(found) => Ok(Some(self.who(found).await)),
                None => Ok(None),
            }
        })
    }
}
