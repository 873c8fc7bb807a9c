//! With the sentinels' help: they promote, we see to it that nothing is lost on the way.
//!
//! `SENTINEL FAILOVER` alone loses what the old master acknowledges between the promotion and the moment at
//! which it is demoted, one to ten seconds later. So the old master makes everybody who writes wait, before
//! its offset is read, until it is a replica itself; we demote it as soon as the monitor has published
//! the new one (Sentinel would after 8 s).
//!
//! A pause has a price: what sentinels publish on the master to find each other (`__sentinel__:hello`)
//! waits as well, and with it their pings. Before `down-after-milliseconds` is over the target must have
//! caught up, or they would begin a failover of their own, to any replica: so we give up at half of it.
//!
//! `--to` is honoured by `replica-priority`, changed for as long as it takes and set back. Sentinels read
//! that every 10 s, which clients need not wait for: it is done before they are held.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::plan::{Priority, Rival, favourites, fit, prefer};
use super::server::{Claim, Servers, View, view};
use super::{LOOK, MAX_BEHIND, catch_up, claim, master_offset, primary_facts};
use crate::addr::Addr;
use crate::handover::judge::choose;
use crate::handover::{
    Act, BoxFuture, Case, Ended, Handover, Old, Phase, Reason, Refused, Restore, Restored, Script,
    Step, scripted,
};
use crate::net::tls::Connector;
use crate::proto::redis::role::Role;
use crate::proto::spec::SentinelSpec;

/// How long the pause lasts once the sentinels are asked: longer than it takes them to demote the old
/// master themselves, should this process end.
const UNTIL_DEMOTED: Duration = Duration::from_secs(30);
/// For a sentinel that was asked and is not waited for any more, to give up.
const CALLED_BACK: Duration = Duration::from_secs(10);
/// Between two looks at a sentinel.
const GLANCE: Duration = Duration::from_millis(100);

/// Of one service.
pub struct SentinelFailover {
    pub spec: Arc<SentinelSpec>,
    pub tls: Connector,
}

impl Handover for SentinelFailover {
    fn prepare<'a>(&'a self, case: &'a Case) -> BoxFuture<'a, Result<Box<dyn Act>, Refused>> {
        Box::pin(self.check(case))
    }
}

/// A sentinel that would do it, and what it says.
struct Willing {
    addr: Addr,
    view: View,
}

impl SentinelFailover {
    fn servers(&self, case: &Case) -> (Servers, Servers) {
        let servers = Servers {
            dialer: case.dialer.clone(),
            credentials: self.spec.credentials.clone(),
            names: BTreeMap::new(),
        };
        let mut sentinels = servers.clone();
        sentinels.dialer.tls = self.tls.clone();
        sentinels.credentials = self.spec.sentinel_credentials.clone();
        (servers, sentinels)
    }

    /// What a sentinel calls it -> where it is reached from here.
    fn mapped(&self, addr: &Addr) -> Addr {
        self.spec.address_map.get(addr).unwrap_or(addr).clone()
    }

    async fn check(&self, case: &Case) -> Result<Box<dyn Act>, Refused> {
        let (servers, sentinels) = self.servers(case);
        let willing = self.willing(case, &sentinels).await?;
        let first = &willing[0].view;
        let announced = first.rivals.iter();
        let rivals: Vec<Rival> = announced
            .map(|r| Rival {
                addr: self.mapped(&r.addr),
                ..r.clone()
            })
            .collect();
        let chosen = self.choose(case, &servers, &rivals).await?;
        let old = match case.ask.old {
            Old::Serves => case.known.primary.clone(),
            Old::Gone => {
                self.is_gone(&servers, &first.master).await?;
                None
            }
        };
        let script = SentinelScript {
            _claim: claim(&servers, case).await?,
            spec: self.spec.clone(),
            servers,
            sentinels,
            old,
            from: self.mapped(&first.master),
            patience: first.down_after / 2,
            pause: (first.down_after / 2).min(case.left()) + GLANCE * 10,
            prefer: chosen.prefer,
            target: chosen.target,
            followers: chosen.followers,
            willing: willing.into_iter().map(|w| w.addr).collect(),
            asked: None,
            under_way: false,
        };
        Ok(scripted(script))
    }

    /// The sentinels that can be asked, of which there must be one.
    async fn willing(&self, case: &Case, sentinels: &Servers) -> Result<Vec<Willing>, Refused> {
        let mut willing = Vec::new();
        let mut why_not = Vec::new();
        let asked = self.spec.sentinels.iter().map(|addr| async move {
            let view = view(sentinels, addr, &self.spec.master).await;
            (addr, view)
        });
        for (addr, view) in futures_util::future::join_all(asked).await {
            let view = match view {
                Ok(view) => view,
                Err(why) => {
                    why_not.push(format!("{addr}: {why}"));
                    continue;
                }
            };
            if view.busy {
                let why = format!("sentinel {addr} has a failover under way");
                return Err(Refused::new(Reason::InProgress, why));
            }
            let named = self.mapped(&view.master);
            let serves = case.ask.old == Old::Serves;
            if case
                .known
                .primary
                .as_ref()
                .is_some_and(|known| *known != named)
            {
                why_not.push(format!("{addr} names {named}"));
            } else if view.tilt {
                why_not.push(format!("{addr} is in TILT"));
            } else if serves && view.down {
                why_not.push(format!("{addr} takes {named} for dead"));
            } else {
                let addr = addr.clone();
                willing.push(Willing { addr, view });
            }
        }
        match willing.is_empty() {
            true => {
                let why = format!("no sentinel can be asked: {}", why_not.join("; "));
                Err(Refused::new(Reason::Unreachable, why))
            }
            false => Ok(willing),
        }
    }

    async fn is_gone(&self, servers: &Servers, announced: &Addr) -> Result<(), Refused> {
        let addr = self.mapped(announced);
        match servers.role(&addr).await {
            Ok(Role::Master { .. }) => {
                let why = format!("{addr} answers, and says master");
                Err(Refused::new(Reason::OldAlive, why))
            }
            _ => Ok(()),
        }
    }

    /// Who is to take over, whose priority has to change for that, and who has to catch up: everybody
    /// whom the sentinels might choose.
    async fn choose(
        &self,
        case: &Case,
        servers: &Servers,
        rivals: &[Rival],
    ) -> Result<Chosen, Refused> {
        let best = choose(&case.ask, &case.known)?;
        let favourites = favourites(rivals);
        let healthy = self.healthy(case, servers, &favourites).await?;
        let all_healthy = healthy.len() == favourites.len() && !favourites.is_empty();
        let target = match &case.ask.to {
            Some(to) => to.clone(),
            None if healthy.contains(&best) => best,
            None => healthy.first().cloned().unwrap_or(best),
        };
        if !healthy.contains(&target) {
            self.fit(case, servers, &target).await?;
        }
        let known = rivals.iter().find(|rival| rival.addr == target);
        if !known.is_some_and(|rival| rival.eligible) {
            let why = format!(
                "the sentinels would not choose {target}: they see it down, or never to be"
            );
            return Err(Refused::new(Reason::UnfitTarget, why));
        }
        let prefer = match case.ask.to.is_none() && all_healthy {
            true => Vec::new(),
            false => prefer(&target, rivals),
        };
        let followers = match prefer.is_empty() && case.ask.to.is_none() {
            true => favourites,
            false => vec![target.clone()],
        };
        Ok(Chosen {
            target,
            prefer,
            followers,
        })
    }

    /// Those of `addrs` that may take over.
    async fn healthy(
        &self,
        case: &Case,
        servers: &Servers,
        addrs: &[Addr],
    ) -> Result<Vec<Addr>, Refused> {
        let mut healthy = Vec::new();
        for addr in addrs {
            match self.fit(case, servers, addr).await {
                Ok(()) => healthy.push(addr.clone()),
                // What is the matter with the primary is the matter with all of them.
                Err(refused) if refused.reason == Reason::Unable => return Err(refused),
                Err(_) => {}
            }
        }
        Ok(healthy)
    }

    async fn fit(&self, case: &Case, servers: &Servers, target: &Addr) -> Result<(), Refused> {
        let facts = servers.facts(target).await;
        let facts =
            facts.map_err(|why| Refused::new(Reason::UnfitTarget, format!("{target}: {why}")))?;
        match (case.ask.old, &case.known.primary) {
            (Old::Serves, Some(primary)) => {
                let primary = primary_facts(servers, primary).await?;
                fit(target, &facts, &primary, MAX_BEHIND)
            }
            _ => Ok(()),
        }
    }
}

struct Chosen {
    target: Addr,
    prefer: Vec<Priority>,
    followers: Vec<Addr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SentinelStep {
    Prefer,
    Pause,
    CatchUp,
    Ask,
    Demote,
}

impl Step for SentinelStep {
    fn name(self) -> &'static str {
        match self {
            Self::Prefer => "prefer",
            Self::Pause => "pause-writes",
            Self::CatchUp => "catch-up",
            Self::Ask => "ask-sentinel",
            Self::Demote => "demote",
        }
    }

    fn phase(self) -> Phase {
        match self {
            Self::Prefer => Phase::Ready,
            Self::Pause | Self::CatchUp | Self::Ask => Phase::Held,
            Self::Demote => Phase::After,
        }
    }

    fn restore(self) -> Restore {
        match self {
            Self::Prefer | Self::Pause => Restore::AtEnd,
            Self::CatchUp | Self::Demote => Restore::Never,
            Self::Ask => Restore::OnFailure,
        }
    }
}

struct SentinelScript {
    /// As long as this lives.
    _claim: Option<Claim>,
    spec: Arc<SentinelSpec>,
    servers: Servers,
    sentinels: Servers,
    /// `None`: it is gone.
    old: Option<Addr>,
    /// Whom the sentinels name now, reached from here.
    from: Addr,
    target: Addr,
    prefer: Vec<Priority>,
    /// Who has to catch up.
    followers: Vec<Addr>,
    willing: Vec<Addr>,
    /// For how long the master may be paused before the sentinels are asked.
    patience: Duration,
    /// When that pause ends by itself.
    pause: Duration,
    /// The sentinel that was told to, or may have been.
    asked: Option<Addr>,
    /// It was asked, and neither done nor given up.
    under_way: bool,
}

impl Script for SentinelScript {
    type Step = SentinelStep;

    fn target(&self) -> Option<Addr> {
        Some(self.target.clone())
    }

    fn steps(&self) -> Vec<SentinelStep> {
        use SentinelStep::{Ask, CatchUp, Demote, Pause, Prefer};
        let prefer = (!self.prefer.is_empty()).then_some(Prefer);
        let rest = match &self.old {
            Some(_) => vec![Pause, CatchUp, Ask, Demote],
            None => vec![Ask],
        };
        prefer.into_iter().chain(rest).collect()
    }

    fn would(&self, step: SentinelStep) -> String {
        let (from, target) = (&self.from, &self.target);
        match step {
            SentinelStep::Prefer => {
                let changes = self.prefer.iter();
                let changes: Vec<String> = changes
                    .map(|c| format!("{} from {} to {}", c.addr, c.from, c.to))
                    .collect();
                format!(
                    "replica-priority of {}, and wait until a sentinel knows it",
                    changes.join(", ")
                )
            }
            SentinelStep::Pause => format!("other clients' writes on {from} wait"),
            SentinelStep::CatchUp => {
                let all: Vec<String> = self.followers.iter().map(Addr::to_string).collect();
                let ms = self.patience.as_millis();
                let all = all.join(", ");
                format!("wait, at most {ms} ms, until {all} has everything that {from} has")
            }
            SentinelStep::Ask => format!("SENTINEL FAILOVER, to promote {target}"),
            SentinelStep::Demote => {
                format!("{from} follows the new master, its clients have to ask again")
            }
        }
    }

    async fn take(&mut self, step: SentinelStep) -> Result<String, String> {
        match step {
            SentinelStep::Prefer => self.make_favourite().await,
            SentinelStep::Pause => {
                self.servers.pause(&self.from, self.pause).await?;
                Ok(self.would(step))
            }
            SentinelStep::CatchUp => {
                let waited = timeout(self.patience, self.wait_for_followers()).await;
                waited.unwrap_or_else(|_| {
                    let ms = self.patience.as_millis();
                    Err(format!("not within {ms} ms: longer, and the sentinels would take the master for dead"))
                })
            }
            SentinelStep::Ask => self.ask().await,
            SentinelStep::Demote => self.demote().await,
        }
    }

    async fn put_back(&mut self, step: SentinelStep, ended: Ended) -> Restored {
        match (step, ended) {
            (SentinelStep::Prefer, _) => self.forget_favourite().await,
            (SentinelStep::Pause, Ended::Switched) => self.unpause_when_demoted().await,
            (SentinelStep::Pause, Ended::Failed) if self.under_way => Restored::Left(format!(
                "writes on {} wait until it is demoted, at most {} s: the sentinels may still replace it",
                self.from,
                UNTIL_DEMOTED.as_secs()
            )),
            (SentinelStep::Pause, Ended::Failed) => self.unpause_unless_moved().await,
            (SentinelStep::Ask, Ended::Failed) => self.call_back().await,
            _ => Restored::Done("nothing to do".to_owned()),
        }
    }
}

impl SentinelScript {
    async fn view(&self, sentinel: &Addr) -> Result<View, String> {
        view(&self.sentinels, sentinel, &self.spec.master).await
    }

    fn mapped(&self, addr: &Addr) -> Addr {
        self.spec.address_map.get(addr).unwrap_or(addr).clone()
    }

    async fn set_priority(&self, addr: &Addr, priority: u64) -> Result<(), String> {
        let value = priority.to_string();
        let set: &[&[u8]] = &[b"CONFIG", b"SET", b"replica-priority", value.as_bytes()];
        self.servers.order(addr, set).await
    }

    /// Until the first of the willing sentinels has read it, which then is the one to be asked.
    async fn make_favourite(&mut self) -> Result<String, String> {
        self.willing.truncate(1);
        for change in &self.prefer {
            self.set_priority(&change.addr, change.to).await?;
        }
        let sentinel = self.willing.first().ok_or("there is no sentinel to ask")?;
        loop {
            if let Ok(view) = self.view(sentinel).await {
                let mut rivals = view.rivals;
                for rival in &mut rivals {
                    rival.addr = self.mapped(&rival.addr);
                }
                if favourites(&rivals) == [self.target.clone()] {
                    return Ok(format!("sentinel {sentinel} would choose {}", self.target));
                }
            }
            sleep(GLANCE).await;
        }
    }

    async fn forget_favourite(&self) -> Restored {
        let mut trouble = Vec::new();
        for change in &self.prefer {
            match self.set_priority(&change.addr, change.from).await {
                // A sentinel makes servers write their configuration down, ours in it.
                Ok(()) if self.asked.is_some() => self.servers.remember(&change.addr).await,
                Ok(()) => {}
                Err(why) => trouble.push(format!("replica-priority {}: {why}", change.from)),
            }
        }
        match trouble.is_empty() {
            true => Restored::Done("replica-priority is as it was".to_owned()),
            false => Restored::Failed(trouble.join("; ")),
        }
    }

    async fn wait_for_followers(&self) -> Result<String, String> {
        let role = self.servers.role(&self.from).await;
        let goal = role.and_then(|role| master_offset(&role));
        let goal = goal.map_err(|why| format!("{}: {why}", self.from))?;
        for follower in &self.followers {
            catch_up(&self.servers, follower, goal).await?;
        }
        let all: Vec<String> = self.followers.iter().map(Addr::to_string).collect();
        Ok(format!("{} up to offset {goal}", all.join(", ")))
    }

    async fn ask(&mut self) -> Result<String, String> {
        if self.old.is_some() {
            self.servers.pause(&self.from, UNTIL_DEMOTED).await?;
        }
        let name = self.spec.master.clone();
        let failover: &[&[u8]] = &[b"SENTINEL", b"FAILOVER", name.as_bytes()];
        let mut refusals = Vec::new();
        for sentinel in self.willing.clone() {
            // Before it is asked: an answer that does not come says nothing about what was done.
            self.asked = Some(sentinel.clone());
            match self.sentinels.ask(&sentinel, &[failover]).await {
                Ok(_) => return Ok(format!("sentinel {sentinel} promotes {}", self.target)),
                Err(why) => refusals.push(format!("{sentinel}: {why}")),
            }
            match self.view(&sentinel).await {
                Ok(view) if !view.busy => self.asked = None,
                _ => break,
            }
        }
        Err(refusals.join("; "))
    }

    /// A failover that a sentinel has begun cannot be called back; it can be waited for.
    async fn call_back(&mut self) -> Restored {
        let Some(sentinel) = self.asked.clone() else {
            return Restored::Done("no sentinel is at it".to_owned());
        };
        let given_up = async {
            loop {
                if let Ok(view) = self.view(&sentinel).await
                    && !view.busy
                {
                    return self.mapped(&view.master);
                }
                sleep(GLANCE).await;
            }
        };
        match timeout(CALLED_BACK, given_up).await {
            Ok(master) if master == self.from => {
                Restored::Done(format!("sentinel {sentinel} has given it up"))
            }
            Ok(master) => {
                self.under_way = true;
                Restored::Left(format!("the sentinels have made {master} master after all"))
            }
            Err(_) => {
                self.under_way = true;
                let why =
                    "is still at it, and cannot be stopped: it gives up after its failover-timeout";
                Restored::Left(format!("sentinel {sentinel} {why}"))
            }
        }
    }

    /// As Sentinel does by itself some seconds later.
    async fn demote(&mut self) -> Result<String, String> {
        let sentinel = self.asked.as_ref().ok_or("no sentinel was asked")?;
        let master = loop {
            // With `switch_on = "promotion"` the sentinel speaks after us.
            if let Ok(view) = self.view(sentinel).await
                && self.mapped(&view.master) != self.from
            {
                break view.master;
            }
            sleep(LOOK * 4).await;
        };
        self.servers.follow(&self.from, &master).await?;
        // Those that it kept waiting hear -READONLY first.
        let _ = self.servers.unpause(&self.from).await;
        self.servers.send_away(&self.from).await;
        self.servers.remember(&self.from).await;
        Ok(format!("{} follows {master}", self.from))
    }

    /// Somebody may have told the sentinels to without us, and needs the pause as we would.
    async fn unpause_unless_moved(&self) -> Restored {
        for sentinel in &self.willing {
            if let Ok(view) = self.view(sentinel).await
                && (view.busy || self.mapped(&view.master) != self.from)
            {
                return Restored::Left(format!(
                    "sentinel {sentinel} is moving the master by itself: the pause on {} ends by itself",
                    self.from
                ));
            }
        }
        self.servers.unpause(&self.from).await
    }

    async fn unpause_when_demoted(&self) -> Restored {
        match self.servers.role(&self.from).await {
            Ok(Role::Replica { .. }) => self.servers.unpause(&self.from).await,
            Ok(role) => Restored::Left(format!(
                "{} is {role}: its writers wait until the sentinels have demoted it, at most {} s",
                self.from,
                UNTIL_DEMOTED.as_secs()
            )),
            Err(why) => Restored::Left(format!("{}: {why}", self.from)),
        }
    }
}
