//! Without sentinels: we promote and demote ourselves.
//!
//! The order is what keeps every acknowledged write: nobody else writes on the old master (it is paused
//! before its offset is read), the target has that offset, it is promoted, and the old master is demoted
//! while it is still paused: there is no moment at which two take writes. Between the two orders both say
//! master; the monitor stays with the present one then, and follows when that says replica.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::plan::{called, fit};
use super::server::{Claim, Servers};
use super::{MAX_BEHIND, catch_up, claim, master_offset, primary_facts};
use crate::addr::Addr;
use crate::handover::judge::choose;
use crate::handover::{
    Act, BoxFuture, Case, Ended, Handover, Old, Phase, Reason, Refused, Restore, Restored, Script,
    Step, scripted,
};
use crate::proto::redis::role::Role;
use crate::proto::spec::RedisSpec;

/// How long a pause outlasts the time that there is, should this process end.
const SPARE: Duration = Duration::from_secs(10);

/// Of one service.
pub struct NodesFailover {
    pub spec: Arc<RedisSpec>,
}

impl Handover for NodesFailover {
    fn prepare<'a>(&'a self, case: &'a Case) -> BoxFuture<'a, Result<Box<dyn Act>, Refused>> {
        Box::pin(self.check(case))
    }
}

impl NodesFailover {
    fn servers(&self, case: &Case) -> Servers {
        let nodes = self.spec.nodes.iter();
        Servers {
            dialer: case.dialer.clone(),
            credentials: self.spec.credentials.clone(),
            names: nodes
                .map(|n| (n.addr.clone(), n.server_name.clone()))
                .collect(),
        }
    }

    async fn check(&self, case: &Case) -> Result<Box<dyn Act>, Refused> {
        let servers = self.servers(case);
        let mut target = choose(&case.ask, &case.known)?;
        let mut ahead = None;
        if case.ask.old == Old::Gone {
            self.nobody_is_master(&servers).await?;
            let best = self.furthest(case, &servers).await;
            match case.ask.to {
                None => target = best.unwrap_or(target),
                Some(_) => ahead = best.filter(|best| *best != target),
            }
        }
        let others = |addr: &Addr| *addr != target && Some(addr) != case.known.primary.as_ref();
        let nodes = self.spec.nodes.iter().map(|node| node.addr.clone());
        let others = nodes.filter(others).collect();
        let found = servers.facts(&target).await;
        let found =
            found.map_err(|why| Refused::new(Reason::Unreachable, format!("{target}: {why}")))?;
        let old = match (case.ask.old, &case.known.primary) {
            (Old::Serves, Some(primary)) => {
                let facts = primary_facts(&servers, primary).await?;
                fit(&target, &found, &facts, MAX_BEHIND)?;
                let called = match &facts.role {
                    Role::Master { replicas, .. } => called(&target, replicas),
                    _ => target.clone(),
                };
                Some(Former {
                    addr: primary.clone(),
                    called,
                    limit: case.left() + SPARE,
                })
            }
            _ => None,
        };
        let script = NodesScript {
            _claim: claim(&servers, case).await?,
            servers,
            target,
            others,
            old,
            ahead,
            promoted: false,
        };
        Ok(scripted(script))
    }

    /// The replica that has the most, when there is no master to compare with.
    async fn furthest(&self, case: &Case, servers: &Servers) -> Option<Addr> {
        let up = case.known.nodes.iter().filter(|node| node.up);
        let asked = up.map(|node| async {
            match servers.facts(&node.address).await {
                Ok(facts) if facts.priority != Some(0) => facts.offset(),
                _ => None,
            }
            .map(|offset| (offset, &node.address))
        });
        let offsets = join_all(asked).await;
        let best = offsets
            .into_iter()
            .flatten()
            .max_by_key(|(offset, _)| *offset);
        best.map(|(_, addr)| addr.clone())
    }

    async fn nobody_is_master(&self, servers: &Servers) -> Result<(), Refused> {
        let asked = self.spec.nodes.iter().map(|node| async {
            let role = servers.role(&node.addr).await;
            (&node.addr, role)
        });
        for (addr, role) in join_all(asked).await {
            if let Ok(Role::Master { .. }) = role {
                let why = format!("{addr} answers, and says master");
                return Err(Refused::new(Reason::OldAlive, why));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodesStep {
    Pause,
    CatchUp,
    Promote,
    Demote,
    Follow,
}

impl Step for NodesStep {
    fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause-writes",
            Self::CatchUp => "catch-up",
            Self::Promote => "promote",
            Self::Demote => "demote",
            Self::Follow => "follow",
        }
    }

    fn phase(self) -> Phase {
        match self {
            Self::Pause | Self::CatchUp | Self::Promote | Self::Demote => Phase::Held,
            Self::Follow => Phase::After,
        }
    }

    fn restore(self) -> Restore {
        match self {
            Self::Pause => Restore::AtEnd,
            Self::CatchUp | Self::Follow => Restore::Never,
            Self::Promote | Self::Demote => Restore::OnFailure,
        }
    }
}

/// The master that there is.
struct Former {
    addr: Addr,
    /// What it calls the target.
    called: Addr,
    /// Of its pause.
    limit: Duration,
}

struct NodesScript {
    /// As long as this lives.
    _claim: Option<Claim>,
    servers: Servers,
    target: Addr,
    others: Vec<Addr>,
    /// `None`: it is gone.
    old: Option<Former>,
    /// A replica that has more than the target that was asked for.
    ahead: Option<Addr>,
    /// The order was given.
    promoted: bool,
}

impl Script for NodesScript {
    type Step = NodesStep;

    fn target(&self) -> Option<Addr> {
        Some(self.target.clone())
    }

    fn steps(&self) -> Vec<NodesStep> {
        use NodesStep::{CatchUp, Demote, Follow, Pause, Promote};
        let mut steps = match &self.old {
            Some(_) => vec![Pause, CatchUp, Promote, Demote],
            None => vec![Promote],
        };
        steps.push(Follow);
        steps
    }

    fn would(&self, step: NodesStep) -> String {
        let target = &self.target;
        let old = self.old.as_ref().map_or(target, |old| &old.addr);
        match step {
            NodesStep::Pause => {
                let limit = self.old.as_ref().map_or(0, |old| old.limit.as_secs());
                format!("other clients' writes on {old} wait, for at most {limit} s")
            }
            NodesStep::CatchUp => format!("wait until {target} has everything that {old} has"),
            NodesStep::Promote => match &self.ahead {
                None => format!("{target} becomes master"),
                Some(ahead) => format!("{target} becomes master, although {ahead} has more"),
            },
            NodesStep::Demote => format!("{old} follows {target}"),
            NodesStep::Follow if self.old.is_none() => format!("the others follow {target}"),
            NodesStep::Follow => format!("the others follow {target}, clients of {old} ask again"),
        }
    }

    async fn take(&mut self, step: NodesStep) -> Result<String, String> {
        let (servers, target) = (&self.servers, &self.target);
        match (step, &self.old) {
            (NodesStep::Pause, Some(old)) => {
                servers.pause(&old.addr, old.limit).await?;
                Ok(self.would(step))
            }
            (NodesStep::CatchUp, Some(old)) => {
                let role = servers.role(&old.addr).await;
                let goal = role.and_then(|role| master_offset(&role));
                let goal = goal.map_err(|why| format!("{}: {why}", old.addr))?;
                catch_up(servers, target, goal).await?;
                Ok(format!("{target} has everything up to offset {goal}"))
            }
            (NodesStep::Promote, _) => {
                self.promoted = true;
                servers.promote(target).await?;
                Ok(match &self.ahead {
                    None => format!("{target} is master"),
                    Some(ahead) => format!("{target} is master, although {ahead} has more"),
                })
            }
            (NodesStep::Demote, Some(old)) => {
                servers.follow(&old.addr, &old.called).await?;
                Ok(format!("{} follows {}", old.addr, old.called))
            }
            (NodesStep::Follow, old) => self.tidy(old.as_ref()).await,
            (NodesStep::Pause | NodesStep::CatchUp | NodesStep::Demote, None) => {
                Ok("the former master is gone".to_owned())
            }
        }
    }

    async fn put_back(&mut self, step: NodesStep, ended: Ended) -> Restored {
        match (step, &self.old, ended) {
            (NodesStep::Pause, Some(old), _) => self.servers.unpause(&old.addr).await,
            (NodesStep::Demote, Some(old), Ended::Failed) => self.reinstate(old).await,
            (NodesStep::Promote, old, Ended::Failed) => self.recall(old.as_ref()).await,
            _ => Restored::Done("nothing to do".to_owned()),
        }
    }
}

impl NodesScript {
    /// What can fail without harm: whoever asks the monitor is with the new master already.
    async fn tidy(&self, old: Option<&Former>) -> Result<String, String> {
        let master = old.map_or(&self.target, |old| &old.called);
        let mut trouble = Vec::new();
        for other in &self.others {
            if let Err(why) = self.servers.follow(other, master).await {
                trouble.push(why);
            }
        }
        if let Some(old) = old {
            // Those that it kept waiting hear -READONLY first.
            let _ = self.servers.unpause(&old.addr).await;
            self.servers.send_away(&old.addr).await;
        }
        let old = old.map(|old| &old.addr);
        for server in self.others.iter().chain([&self.target]).chain(old) {
            self.servers.remember(server).await;
        }
        match trouble.is_empty() {
            true => Ok(format!("{} others follow", self.others.len())),
            false => Err(trouble.join("; ")),
        }
    }

    /// The former master becomes one again, unless it never stopped.
    async fn reinstate(&self, old: &Former) -> Restored {
        match self.servers.role(&old.addr).await {
            Ok(Role::Master { .. }) => Restored::Done(format!("{} is master still", old.addr)),
            _ => match self.servers.promote(&old.addr).await {
                Ok(()) => Restored::Done(format!("{} is master again", old.addr)),
                Err(why) => Restored::Failed(why),
            },
        }
    }

    /// The target follows the former master again, if there is one to follow: two masters would be worse
    /// than the wrong one, and none worse than both.
    async fn recall(&self, old: Option<&Former>) -> Restored {
        if !self.promoted {
            return Restored::Done("nobody was promoted".to_owned());
        }
        let target = &self.target;
        let Some(old) = old else {
            return Restored::Left(format!("{target} stays master: there is no other"));
        };
        let master = self.servers.role(target).await;
        if let Ok(Role::Replica { .. }) = master {
            return Restored::Done(format!("{target} is a replica still"));
        }
        match self.servers.role(&old.addr).await {
            Ok(Role::Master { .. }) => match self.servers.follow(target, &old.addr).await {
                Ok(()) => Restored::Done(format!("{target} follows {} again", old.addr)),
                Err(why) => Restored::Failed(why),
            },
            Ok(role) => Restored::Left(format!("{target} stays master: {} is {role}", old.addr)),
            Err(why) => Restored::Left(format!("{target} stays master: {}: {why}", old.addr)),
        }
    }
}
