//! Asynchronous replication: the primary is closed, the replica gets to its last transaction, and is opened.
//!
//! The old server is closed before the new one is opened, and opened again only when the new one is seen to be
//! closed: at no time can both be written to by an account without administrative privileges. On MariaDB one
//! with READ_ONLY ADMIN can write to a closed server; its sessions are ended, and what it writes in the new
//! ones before the replica is opened is waited for.

mod follow;

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::facts::{Facts, REOPEN};
use super::server::{LOOK, Server, Servers};
use crate::addr::Addr;
use crate::handover::judge::choose;
use crate::handover::{
    Act, Case, Ended, Old, Phase, Reason, Refused, Restore, Restored, Script, Step, scripted,
};

/// For a replica without a primary to apply what it has received, before it is compared with others.
const APPLY_WITHIN: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SqlStep {
    Fence,
    CatchUp,
    Stop,
    Open,
    Follow,
}

impl Step for SqlStep {
    fn name(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::CatchUp => "catch-up",
            Self::Stop => "stop-replication",
            Self::Open => "open",
            Self::Follow => "follow",
        }
    }

    fn phase(self) -> Phase {
        match self {
            Self::Fence | Self::CatchUp | Self::Stop | Self::Open => Phase::Held,
            Self::Follow => Phase::After,
        }
    }

    fn restore(self) -> Restore {
        match self {
            Self::Fence | Self::Stop | Self::Open => Restore::OnFailure,
            Self::CatchUp | Self::Follow => Restore::Never,
        }
    }
}

struct SqlScript {
    servers: Servers,
    target: Addr,
    /// `None`: it is gone.
    old: Option<Former>,
    /// Where the target was when it was opened; set before that is tried.
    opened_at: Option<String>,
    /// Whether the old server may follow the new one with the account of the probes.
    feeds: bool,
}

/// The primary that there is.
struct Former {
    addr: Addr,
    server_id: u64,
    /// What it had committed when it was closed.
    last: String,
}

fn unreachable(why: String) -> Refused {
    Refused::new(Reason::Unreachable, why)
}

async fn ask(servers: &Servers, addr: &Addr) -> Result<Facts, Refused> {
    let asked = async { servers.open(addr).await?.facts().await };
    let facts = asked.await.map_err(unreachable)?;
    match facts.lacks() {
        Some(privilege) => {
            let user = servers.login().0;
            let why = format!("{addr}: the account {user} needs {privilege} to do this");
            Err(Refused::new(Reason::Unable, why))
        }
        None => Ok(facts),
    }
}

/// All checks; changes nothing.
pub async fn prepare(servers: Servers, case: &Case) -> Result<Box<dyn Act>, Refused> {
    let target = match case.ask.old {
        Old::Serves => choose(&case.ask, &case.known)?,
        Old::Gone => successor(&servers, case).await?,
    };
    let new = ask(&servers, &target).await?;
    let old = match (case.ask.old, &case.known.primary) {
        (Old::Serves, Some(addr)) => {
            let facts = ask(&servers, addr).await?;
            if facts.closed {
                let why = format!("{addr} is read-only already");
                return Err(Refused::new(Reason::Uncertain, why));
            }
            if let Some(why) = new.objection(&facts) {
                return Err(Refused::new(
                    Reason::UnfitTarget,
                    format!("{target}: {why}"),
                ));
            }
            Some(Former {
                addr: addr.clone(),
                server_id: facts.server_id,
                last: String::new(),
            })
        }
        _ => None,
    };
    Ok(scripted(SqlScript {
        servers,
        target,
        old,
        opened_at: None,
        feeds: new.feeds(),
    }))
}

/// The replica that has everything that any of them has, when no server is open.
async fn successor(servers: &Servers, case: &Case) -> Result<Addr, Refused> {
    let mut replicas = Vec::new();
    for addr in servers.all() {
        let Ok(mut server) = servers.open(addr).await else {
            continue;
        };
        let facts = server.facts().await.map_err(unreachable)?;
        if !facts.closed {
            let why = format!("{addr} answers, and can be written to");
            return Err(Refused::new(Reason::OldAlive, why));
        }
        if facts.sources.is_empty() {
            continue;
        }
        let applied = timeout(APPLY_WITHIN, until_drained(&mut server)).await;
        let Ok(applied) = applied else {
            let why = format!("{addr} has not applied all that it has received");
            return Err(Refused::new(Reason::Behind, why));
        };
        applied.map_err(unreachable)?;
        let has = server.applied().await.map_err(unreachable)?;
        replicas.push((addr.clone(), server, has));
    }
    let sets: Vec<String> = replicas.iter().map(|(_, _, has)| has.clone()).collect();
    let wanted = |addr: &Addr| case.ask.to.as_ref().is_none_or(|to| to == addr);
    let mut asked = false;
    for (addr, mut server, _) in replicas.into_iter().filter(|(addr, _, _)| wanted(addr)) {
        asked = true;
        let mut complete = true;
        for set in &sets {
            complete &= server.has(set).await.map_err(unreachable)?;
        }
        if complete {
            return Ok(addr);
        }
    }
    Err(match (&case.ask.to, asked) {
        (Some(to), true) => {
            let why = format!("{to} lacks transactions that another replica has");
            Refused::new(Reason::Behind, why)
        }
        (Some(to), false) => {
            let why = format!("{to} is no replica that can be asked");
            Refused::new(Reason::UnfitTarget, why)
        }
        (None, _) => {
            let why = "no replica can be asked that has everything that the others have";
            Refused::new(Reason::NoReplica, why)
        }
    })
}

impl Script for SqlScript {
    type Step = SqlStep;

    fn target(&self) -> Option<Addr> {
        Some(self.target.clone())
    }

    fn steps(&self) -> Vec<SqlStep> {
        use SqlStep::{CatchUp, Fence, Follow, Open, Stop};
        match self.old {
            Some(_) => vec![Fence, CatchUp, Stop, Open, Follow],
            None => vec![CatchUp, Stop, Open, Follow],
        }
    }

    fn would(&self, step: SqlStep) -> String {
        let target = &self.target;
        let old = self.old.as_ref().map(|old| &old.addr);
        match (step, old) {
            (SqlStep::Fence, Some(old)) => {
                format!("{old} becomes read-only, and sessions that could write all the same end")
            }
            (SqlStep::CatchUp, Some(old)) => {
                format!("wait until {target} has applied all of {old}")
            }
            (SqlStep::Fence | SqlStep::CatchUp, None) => {
                format!("wait until {target} has applied all that it has received")
            }
            (SqlStep::Stop, _) => format!("{target} stops to replicate"),
            (SqlStep::Open, _) => format!("{target} can be written to"),
            (SqlStep::Follow, Some(old)) if self.feeds => {
                format!("{old} and the others follow {target}")
            }
            (SqlStep::Follow, Some(old)) => {
                format!("others follow {target}; {old} stays read-only and follows nobody")
            }
            (SqlStep::Follow, None) => format!("the others follow {target}"),
        }
    }

    async fn take(&mut self, step: SqlStep) -> Result<String, String> {
        match step {
            SqlStep::Fence => self.fence().await,
            SqlStep::CatchUp => self.catch_up().await,
            SqlStep::Stop => {
                let mut target = self.servers.open(&self.target).await?;
                target.run(target.flavor.stop()).await?;
                Ok(self.would(step))
            }
            SqlStep::Open => self.open().await,
            SqlStep::Follow => self.follow().await,
        }
    }

    async fn put_back(&mut self, step: SqlStep, _ended: Ended) -> Restored {
        let back = match step {
            SqlStep::Open => self.shut().await,
            SqlStep::Stop => self.resume().await,
            SqlStep::Fence => self.reopen().await,
            SqlStep::CatchUp | SqlStep::Follow => Ok(Restored::Done(String::new())),
        };
        back.unwrap_or_else(Restored::Failed)
    }
}

impl SqlScript {
    async fn fence(&mut self) -> Result<String, String> {
        let Some(old) = &mut self.old else {
            return Ok("the former primary is gone".to_owned());
        };
        let mut server = self.servers.open(&old.addr).await?;
        let ended = server.close().await?;
        old.last = server.written().await?;
        Ok(format!(
            "{} is read-only, {ended} sessions were ended",
            old.addr
        ))
    }

    async fn catch_up(&mut self) -> Result<String, String> {
        let mut target = self.servers.open(&self.target).await?;
        let Some(old) = &mut self.old else {
            until_drained(&mut target).await?;
            return Ok("all that it has received is applied".to_owned());
        };
        let mut server = self.servers.open(&old.addr).await?;
        loop {
            // Those who may write to a closed server may have done so.
            old.last = server.written().await?;
            if target.has(&old.last).await? {
                return Ok(format!("{} has applied {}", self.target, named(&old.last)));
            }
            if let [source] = target.facts().await?.sources.as_slice()
                && !source.runs
            {
                return Err(format!(
                    "{}: its replication has stopped {}",
                    self.target, source.error
                ));
            }
            sleep(LOOK).await;
        }
    }

    /// Only a target that has everything is opened.
    async fn open(&mut self) -> Result<String, String> {
        let mut target = self.servers.open(&self.target).await?;
        if let Some(old) = &self.old {
            let mut server = self.servers.open(&old.addr).await?;
            let last = server.written().await?;
            if !target.has(&last).await? {
                return Err(format!(
                    "somebody writes to {} although it is read-only",
                    old.addr
                ));
            }
            if !server.facts().await?.closed {
                return Err(format!("somebody has made {} writable again", old.addr));
            }
        }
        self.opened_at = Some(target.written().await?);
        target.run(REOPEN).await?;
        Ok(format!("{} can be written to", self.target))
    }

    /// Closes the target again, unless somebody has used it: then that is the truth now.
    async fn shut(&mut self) -> Result<Restored, String> {
        let target = &self.target;
        let Some(before) = &self.opened_at else {
            return Ok(Restored::Done(format!("{target} was not opened")));
        };
        let mut server = self.servers.open(target).await?;
        if server.facts().await?.closed {
            return Ok(Restored::Done(format!("{target} is read-only")));
        }
        server.close().await?;
        if server.written().await? == *before {
            return Ok(Restored::Done(format!("{target} is read-only again")));
        }
        server.run(REOPEN).await?;
        let why = format!("{target} stays open: it was written to, and is the primary from now on");
        Ok(Restored::Left(why))
    }

    async fn resume(&mut self) -> Result<Restored, String> {
        let target = &self.target;
        let mut server = self.servers.open(target).await?;
        if !server.facts().await?.closed {
            return Ok(Restored::Left(format!(
                "{target} is open, and follows nobody"
            )));
        }
        server.run(server.flavor.start()).await?;
        Ok(Restored::Done(format!("{target} replicates again")))
    }

    /// Two that can be written to would be worse than none.
    async fn reopen(&mut self) -> Result<Restored, String> {
        let Some(old) = &self.old else {
            return Ok(Restored::Done(String::new()));
        };
        if self.opened_at.is_some() {
            let closed = async { self.servers.open(&self.target).await?.facts().await };
            let stays = format!("{} stays read-only", old.addr);
            match closed.await {
                Ok(facts) if facts.closed => {}
                Ok(_) => return Ok(Restored::Left(format!("{stays}: {} is open", self.target))),
                Err(why) => return Err(format!("{stays}: the new server may be open, and {why}")),
            }
        }
        let mut server = self.servers.open(&old.addr).await?;
        server.run(REOPEN).await?;
        Ok(Restored::Done(format!(
            "{} can be written to again",
            old.addr
        )))
    }
}

async fn until_drained(server: &mut Server) -> Result<(), String> {
    loop {
        let facts = server.facts().await?;
        if facts.sources.iter().all(|source| source.drained) {
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

fn named(position: &str) -> &str {
    match position {
        "" => "everything: nothing was ever written",
        position => position.get(..200).unwrap_or(position),
    }
}
