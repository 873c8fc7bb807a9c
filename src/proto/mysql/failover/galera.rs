//! Galera and Percona XtraDB Cluster: another node comes first.
//!
//! Every node of a cluster takes writes, so nobody is promoted and nothing is fenced. When the target has
//! applied what the writer has committed, this sidecar's order of nodes is changed, and the monitor takes the
//! target because it is the first that is fit. Other sidecars are not told: a cluster has no place for such a
//! word that would not do something to the node it is put on. Two writers are no harm to its data.

use tokio::time::sleep;

use super::server::{LOOK, Servers};
use crate::addr::Addr;
use crate::handover::judge::choose;
use crate::handover::{
    Act, Case, Ended, Old, Phase, Reason, Refused, Restore, Restored, Script, Step, scripted,
};
use crate::proto::mysql::galera::facts::{Facts, QUESTIONS};
use crate::proto::mysql::watch::Preference;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GaleraStep {
    CatchUp,
    Prefer,
}

impl Step for GaleraStep {
    fn name(self) -> &'static str {
        match self {
            Self::CatchUp => "catch-up",
            Self::Prefer => "prefer",
        }
    }

    fn phase(self) -> Phase {
        Phase::Held
    }

    fn restore(self) -> Restore {
        match self {
            Self::CatchUp => Restore::Never,
            Self::Prefer => Restore::OnFailure,
        }
    }
}

struct GaleraScript {
    servers: Servers,
    preference: Preference,
    target: Addr,
    /// `None`: it is gone.
    old: Option<Addr>,
    /// What was preferred before, once that has changed.
    before: Option<Option<Addr>>,
}

/// What `wsrep_last_committed` says: the last transaction of the cluster that a node has applied.
async fn committed(servers: &Servers, addr: &Addr) -> Result<u64, String> {
    let mut server = servers.open(addr).await?;
    let table = server
        .run("SHOW GLOBAL STATUS LIKE 'wsrep_last_committed'")
        .await?;
    let number = table.named("wsrep_last_committed");
    let number = number.and_then(|text| text.parse().ok());
    number.ok_or_else(|| format!("{addr}: it does not say what it has committed"))
}

async fn facts(servers: &Servers, addr: &Addr) -> Result<Facts, String> {
    let mut server = servers.open(addr).await?;
    let mut replies = Vec::new();
    for question in QUESTIONS {
        replies.push(Ok(server.run(question).await?));
    }
    Facts::read(&replies).map_err(|why| format!("{addr}: {why}"))
}

/// All checks; changes nothing.
pub async fn prepare(
    servers: Servers,
    preference: Preference,
    (accept_donor, case): (bool, &Case),
) -> Result<Box<dyn Act>, Refused> {
    let target = choose(&case.ask, &case.known)?;
    let unreachable = |why| Refused::new(Reason::Unreachable, why);
    let new = facts(&servers, &target).await.map_err(unreachable)?;
    if let Some(flaw) = new.flaw(accept_donor) {
        let why = format!("{target} is not fit to write to: {flaw}");
        return Err(Refused::new(Reason::UnfitTarget, why));
    }
    let old = match (case.ask.old, &case.known.primary) {
        (Old::Serves, Some(old)) => {
            let writer = facts(&servers, old).await.map_err(unreachable)?;
            if writer.history != new.history || writer.component != new.component {
                let why = format!("{old} and {target} are not in one component of one cluster now");
                return Err(Refused::new(Reason::Uncertain, why));
            }
            Some(old.clone())
        }
        (_, Some(old))
            if facts(&servers, old)
                .await
                .is_ok_and(|f| f.flaw(accept_donor).is_none()) =>
        {
            let why = format!("{old} answers, and is fit to write to");
            return Err(Refused::new(Reason::OldAlive, why));
        }
        _ => None,
    };
    Ok(scripted(GaleraScript {
        servers,
        preference,
        target,
        old,
        before: None,
    }))
}

impl Script for GaleraScript {
    type Step = GaleraStep;

    fn target(&self) -> Option<Addr> {
        Some(self.target.clone())
    }

    fn steps(&self) -> Vec<GaleraStep> {
        match self.old {
            Some(_) => vec![GaleraStep::CatchUp, GaleraStep::Prefer],
            None => vec![GaleraStep::Prefer],
        }
    }

    fn would(&self, step: GaleraStep) -> String {
        let target = &self.target;
        match (step, &self.old) {
            (GaleraStep::CatchUp, Some(old)) => {
                format!("wait until {target} has applied what {old} has committed")
            }
            (GaleraStep::CatchUp, None) => "the former writer is gone".to_owned(),
            (GaleraStep::Prefer, _) => format!(
                "{target} comes first on this sidecar, until it is restarted or told otherwise; \
                 every other sidecar has to be told by itself"
            ),
        }
    }

    async fn take(&mut self, step: GaleraStep) -> Result<String, String> {
        let target = &self.target;
        match (step, &self.old) {
            (GaleraStep::CatchUp, Some(old)) => {
                let goal = committed(&self.servers, old).await?;
                while committed(&self.servers, target).await? < goal {
                    sleep(LOOK).await;
                }
                Ok(format!("{target} has applied everything up to {goal}"))
            }
            (GaleraStep::CatchUp, None) => Ok(self.would(step)),
            (GaleraStep::Prefer, _) => {
                let before = self.preference.set(Some(target.clone()));
                self.before.get_or_insert(before);
                Ok(self.would(step))
            }
        }
    }

    async fn put_back(&mut self, step: GaleraStep, _ended: Ended) -> Restored {
        match (step, self.before.take()) {
            (GaleraStep::Prefer, Some(before)) => {
                let text = match &before {
                    Some(before) => format!("{before} comes first, as before"),
                    None => "the usual order of nodes counts".to_owned(),
                };
                self.preference.set(before);
                Restored::Done(text)
            }
            _ => Restored::Done("nothing was changed".to_owned()),
        }
    }
}
