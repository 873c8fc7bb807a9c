//! Forced failover of PostgreSQL: the primary is closed, the standby gets to the end of its log and is promoted.
//!
//! The old primary is closed before the standby is promoted and stays closed from the moment on at which the
//! promotion was ordered, whatever came of that: two that take writes would each have their own history. It
//! is opened again only when nobody was told to take over. [`check`] asks what has to be known, [`server`]
//! asks and tells.

mod check;
mod server;

use tokio::time::sleep;

use self::server::{LOOK, Servers};
use crate::addr::Addr;
use crate::handover::{
    Act, BoxFuture, Case, Ended, Handover, Phase, Refused, Restore, Restored, Script, Step,
    scripted,
};
use crate::net::tls::Connector;
use crate::proto::spec::PostgresSpec;

/// Of one service.
pub struct PostgresFailover {
    pub spec: PostgresSpec,
    pub tls: Connector,
}

impl Handover for PostgresFailover {
    fn prepare<'a>(&'a self, case: &'a Case) -> BoxFuture<'a, Result<Box<dyn Act>, Refused>> {
        Box::pin(async move {
            let servers = Servers::of(&self.spec, &self.tls, &case.dialer);
            let (target, old) = check::prepare(&servers, case, self.spec.max_lag).await?;
            Ok(scripted(PostgresScript {
                servers,
                target,
                old,
                goal: 0,
                ordered: false,
            }))
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PostgresStep {
    Fence,
    CatchUp,
    Promote,
}

impl Step for PostgresStep {
    fn name(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::CatchUp => "catch-up",
            Self::Promote => "promote",
        }
    }

    fn phase(self) -> Phase {
        Phase::Held
    }

    fn restore(self) -> Restore {
        match self {
            Self::Fence => Restore::OnFailure,
            Self::CatchUp | Self::Promote => Restore::Never,
        }
    }
}

struct PostgresScript {
    servers: Servers,
    target: Addr,
    /// `None`: it is gone.
    old: Option<Addr>,
    /// Up to where the standby has to get, in bytes of the log.
    goal: u64,
    /// The standby was told to become the primary, or may have been.
    ordered: bool,
}

impl Script for PostgresScript {
    type Step = PostgresStep;

    fn target(&self) -> Option<Addr> {
        Some(self.target.clone())
    }

    fn steps(&self) -> Vec<PostgresStep> {
        match self.old {
            Some(_) => vec![
                PostgresStep::Fence,
                PostgresStep::CatchUp,
                PostgresStep::Promote,
            ],
            None => vec![PostgresStep::Promote],
        }
    }

    fn would(&self, step: PostgresStep) -> String {
        let target = &self.target;
        match (step, &self.old) {
            (PostgresStep::Fence, Some(old)) => format!(
                "default_transaction_read_only on {old}, for good, and the end of all other sessions there"
            ),
            (PostgresStep::CatchUp, Some(old)) => {
                format!("wait until {target} has replayed all of {old}")
            }
            (PostgresStep::Fence | PostgresStep::CatchUp, None) => {
                "the former primary is gone".to_owned()
            }
            (PostgresStep::Promote, _) => format!("pg_promote on {target}"),
        }
    }

    async fn take(&mut self, step: PostgresStep) -> Result<String, String> {
        match (step, self.old.clone()) {
            (PostgresStep::Fence, Some(old)) => {
                let (ended, goal) = self.servers.close(&old).await?;
                self.goal = goal;
                Ok(format!(
                    "{old} is read-only and stays so, {ended} sessions were ended; its log ends at {goal}"
                ))
            }
            (PostgresStep::CatchUp, Some(_)) => self.catch_up().await,
            (PostgresStep::Fence | PostgresStep::CatchUp, None) => Ok(self.would(step)),
            (PostgresStep::Promote, _) => self.promote().await,
        }
    }

    async fn put_back(&mut self, step: PostgresStep, _ended: Ended) -> Restored {
        match (step, &self.old) {
            (PostgresStep::Fence, Some(old)) if self.ordered => self.leave_closed(old).await,
            (PostgresStep::Fence, Some(old)) => match self.servers.reopen(old).await {
                Ok(()) => Restored::Done(format!("{old} can be written to again")),
                Err(why) => Restored::Failed(why),
            },
            _ => Restored::Done(String::new()),
        }
    }
}

impl PostgresScript {
    async fn catch_up(&self) -> Result<String, String> {
        let target = &self.target;
        loop {
            let Ok(mut server) = self.servers.open(target).await else {
                // It may be back before the time is up.
                sleep(LOOK).await;
                continue;
            };
            while let Ok(place) = server.place().await {
                if !place.in_recovery {
                    return Err(format!("{target} was promoted by somebody else"));
                }
                if place.paused {
                    return Err(format!("{target}: its replay is paused"));
                }
                if place.replayed >= self.goal {
                    return Ok(format!("{target} has replayed up to {}", place.replayed));
                }
                sleep(LOOK).await;
            }
        }
    }

    async fn promote(&mut self) -> Result<String, String> {
        let mut server = self.servers.open(&self.target).await?;
        // From here on it may happen, even if we do not hear of it.
        self.ordered = true;
        match server.promote().await {
            Ok(true) => Ok(format!("{} is the primary", self.target)),
            Ok(false) => Err(format!("{} was told, and is not primary yet", self.target)),
            Err(refusal) => {
                self.ordered = !refusal.by_server;
                Err(format!("{}: {}", self.target, refusal.why))
            }
        }
    }

    /// Never two: who was told to take over may do so at any time.
    async fn leave_closed(&self, old: &Addr) -> Restored {
        let target = &self.target;
        let place = async { self.servers.open(target).await?.place().await };
        match place.await {
            Ok(place) if !place.in_recovery => {
                Restored::Left(format!("{old} stays read-only: {target} is the primary"))
            }
            Ok(_) => Restored::Failed(format!(
                "{old} stays read-only: {target} was told to take over, and may yet"
            )),
            Err(why) => Restored::Failed(format!(
                "{old} stays read-only: {target} was told to take over, and cannot be asked: {why}"
            )),
        }
    }
}
