//! Forced failover of Redis: with the sentinels' help ([`sentinel`]), or without any ([`nodes`]).
//!
//! Either way other clients stop writing first (`CLIENT PAUSE … WRITE`, Redis 6.2), then the target gets to
//! the master's offset, and only then is anybody promoted: nothing that was acknowledged is lost.
//! [`plan`] decides, without sockets; [`server`] asks.

mod nodes;
mod plan;
mod sentinel;
mod server;

pub use nodes::NodesFailover;
pub use sentinel::SentinelFailover;

use std::time::Duration;

use self::plan::Facts;
use self::server::{Claim, Servers};
use super::role::Role;
use crate::addr::Addr;
use crate::handover::{Case, Reason, Refused};

/// A target that is further behind than this is not waited for while everybody else waits.
const MAX_BEHIND: u64 = 16 << 20;
/// Between two looks at a replica that catches up.
const LOOK: Duration = Duration::from_millis(5);

/// What is asked before anything is changed: whether `primary` can be paused.
async fn primary_facts(servers: &Servers, primary: &Addr) -> Result<Facts, Refused> {
    let facts = servers.facts(primary).await;
    let facts =
        facts.map_err(|why| Refused::new(Reason::Unreachable, format!("{primary}: {why}")))?;
    if !matches!(facts.role, Role::Master { .. }) {
        let why = format!("{primary} says of itself: {}", facts.role);
        return Err(Refused::new(Reason::Uncertain, why));
    }
    if !facts.can_pause() {
        let why = format!(
            "{primary} cannot make other clients wait: CLIENT PAUSE ... WRITE is there since Redis 6.2"
        );
        return Err(Refused::new(Reason::Unable, why));
    }
    Ok(facts)
}

/// The last of the checks: two that move the same master at once could undo each other's pause, or promote
/// two replicas. A dry run only looks.
async fn claim(servers: &Servers, case: &Case) -> Result<Option<Claim>, Refused> {
    match (&case.known.primary, case.ask.dry_run) {
        (Some(primary), true) => servers.is_unclaimed(primary).await.map(|()| None),
        (Some(primary), false) => servers.claim(primary).await.map(Some),
        (None, _) => Ok(None),
    }
}

/// Waits until `target` has everything up to `goal`. Never ends when it does not.
async fn catch_up(servers: &Servers, target: &Addr, goal: u64) -> Result<(), String> {
    loop {
        match servers.role(target).await {
            Ok(Role::Replica { offset, .. }) if offset >= goal => return Ok(()),
            Ok(Role::Replica { .. }) => tokio::time::sleep(LOOK).await,
            Ok(role) => return Err(format!("{target} says of itself: {role}")),
            // It may be back before the time is up.
            Err(_) => tokio::time::sleep(LOOK * 10).await,
        }
    }
}

fn master_offset(role: &Role) -> Result<u64, String> {
    match role {
        Role::Master { offset, .. } => Ok(*offset),
        role => Err(format!("it says of itself: {role}")),
    }
}
