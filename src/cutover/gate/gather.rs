//! Gathers what the gates are judged by. Everything is bounded in time and changes nothing.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use super::check;
use super::judge::{Answer, Facts, FenceFacts, ServerFact, SidecarFact, judge};
use super::{Says, Verdict};
use crate::cutover::journal::Run;
use crate::cutover::machine::{End, Order, State};
use crate::cutover::plan::{Plan, Way, standing};
use crate::cutover::tools::Tools;
use crate::dns::verify::judge::Heard;
use crate::dns::{Key, Observed, RrSet};

/// How often a target is asked in a row.
const LOOKS: usize = 2;
/// The same before a failback.
const FAILBACK_LOOKS: usize = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// What the gates of one plan are judged by, besides what is asked for.
pub struct Asked<'a> {
    pub run: &'a str,
    pub order: &'a Order,
    pub plan: &'a Plan,
    pub observed: &'a Observed,
    /// Who else has the lock; the error is why that is not known.
    pub lock: Result<Option<String>, String>,
    /// All runs that are over.
    pub history: &'a [Run],
}

/// Every gate's verdict: the built-in ones, then the operator's own. Cancel safe.
pub async fn verdicts(tools: &Tools, asked: &Asked<'_>) -> Vec<Verdict> {
    let facts = facts(tools, asked).await;
    let mut verdicts = judge(&tools.spec, &facts);
    verdicts.extend(own(tools, asked).await);
    verdicts
}

async fn own(tools: &Tools, asked: &Asked<'_>) -> Vec<Verdict> {
    let state = State::planned(asked.order, &tools.sidecar, asked.plan);
    let env = tools.env_for(asked.run, &state);
    let one = async |gate: &crate::cutover::spec::GateSpec| {
        let (ok, why) = tools.run(&gate.command, &env).await;
        Verdict::named(&gate.name, if ok { Says::Pass } else { Says::Fail }, why)
    };
    join_all(tools.spec.gates.iter().map(one)).await
}

async fn facts(tools: &Tools, asked: &Asked<'_>) -> Facts {
    let Asked { plan, observed, .. } = asked;
    let spec = &tools.spec;
    let keys = spec.watched();
    let mine: Vec<Key> = spec.records.clone();
    let target = look_at(tools, &plan.to, plan.way);
    let servers = servers(tools, plan.from.as_deref());
    let access = tools.provider.check(&mine);
    let fence = fence(tools, asked.run, plan, true);
    let (target, servers, access, fence) = tokio::join!(target, servers, access, fence);
    let held = spec
        .records
        .iter()
        .filter_map(|key| observed.records.get(key));
    let wanted = spec
        .region(&plan.to)
        .map(|region| spec.wanted(region))
        .unwrap_or_default();
    let appears = wanted
        .keys()
        .filter(|key| !observed.records.contains_key(key));
    let names = mine.iter().map(|key| &key.name);
    let empties = names.filter(|name| !wanted.keys().any(|key| key.name == **name));
    let last = asked.history.iter().rev().find(|run| changed(run));
    Facts {
        way: plan.way,
        to: plan.to.clone(),
        target,
        here: (tools.region.as_deref() == Some(plan.to.as_str())).then(|| tools.world.services()),
        promotes: plan.course.promote.clone(),
        opens: plan.course.open,
        fence,
        standing: standing(spec, observed),
        left_at: last.and_then(left_at),
        proxied: keys
            .iter()
            .filter(|key| observed.proxied.contains(key))
            .cloned()
            .collect(),
        held_ttl: held.map(RrSet::ttl).max().unwrap_or(0),
        appears: appears.cloned().collect(),
        servers,
        access: access.map_err(|error| error.to_string()),
        lock: asked.lock.clone(),
        since_last: last.and_then(|run| {
            let at: jiff::Timestamp = run.state.since.parse().ok()?;
            Some(tools.wall().duration_since(at).unsigned_abs())
        }),
        empties: empties.map(ToString::to_string).collect(),
    }
}

/// Whether it moved records, there or back.
fn changed(run: &Run) -> bool {
    matches!(
        run.state.end,
        Some(End::Done | End::RolledBack | End::GivenUp)
    ) && run.state.touched
}

/// Where it left them; a human may have left them anywhere.
fn left_at(run: &Run) -> Option<String> {
    match run.state.end {
        Some(End::Done) => Some(run.state.order.to.clone()),
        Some(End::RolledBack) => run.state.plan.as_ref()?.from.clone(),
        _ => None,
    }
}

async fn look_at(tools: &Tools, region: &str, way: Way) -> Option<Vec<Result<Answer, String>>> {
    let check = tools.spec.region(region)?.check.as_ref()?;
    let looks = match way {
        Way::Cutover => LOOKS,
        Way::Failback => FAILBACK_LOOKS,
    };
    let mut answers = Vec::new();
    for at in 0..looks {
        if at > 0 {
            sleep(BETWEEN_LOOKS).await;
        }
        let answer = check::look(check, &tools.env).await;
        let failed = answer.is_err();
        answers.push(answer);
        if failed {
            break;
        }
    }
    Some(answers)
}

/// What is known about the region that the records are to leave. Cancel safe.
pub async fn fence(tools: &Tools, run: &str, plan: &Plan, ahead: bool) -> FenceFacts {
    let spec = &tools.spec;
    let from = plan.from.as_deref().and_then(|name| spec.region(name));
    let order = Order::of(plan);
    let state = State::planned(&order, &tools.sidecar, plan);
    let env = tools.env_for(run, &state);
    let sidecars = async {
        let one = async |admin: &std::path::PathBuf| SidecarFact {
            address: admin.display().to_string(),
            open: tools.world.open_services(admin).await,
        };
        let admin = from.map(|from| from.admin.as_slice()).unwrap_or_default();
        join_all(admin.iter().map(one)).await
    };
    let proof = async {
        let (ok, why) = tools.run(spec.fence.proof.as_ref()?, &env).await;
        Some(if ok { Ok(()) } else { Err(why) })
    };
    let answers = async {
        let answer = check::look(from?.check.as_ref()?, &tools.env).await;
        Some(match answer {
            Ok(answer) if answer.status < 500 => Ok(()),
            Ok(answer) => Err(format!("status {}", answer.status)),
            Err(why) => Err(why),
        })
    };
    let witnesses = async {
        let said = spec.fence.witnesses.iter().map(|one| tools.run(one, &env));
        let said = join_all(said).await;
        (said.iter().filter(|(ok, _)| *ok).count(), said.len())
    };
    let (sidecars, proof, answers, witnesses) = tokio::join!(sidecars, proof, answers, witnesses);
    FenceFacts {
        ahead: ahead && plan.course.fence,
        sidecars,
        proof,
        answers,
        witnesses,
    }
}

async fn servers(tools: &Tools, from: Option<&str>) -> Result<Vec<ServerFact>, String> {
    let verifier = &tools.verifier;
    let servers = verifier
        .delegation()
        .await
        .map_err(|error| error.to_string())?;
    let spec = &tools.spec;
    let old = from.and_then(|name| spec.region(name));
    let said = verifier.round(&servers, &spec.records).await;
    let fact = async |said: crate::dns::verify::judge::Said| {
        let mut silent = None;
        let mut ttl = None;
        for heard in said.sets.values() {
            match heard {
                Heard::Set {
                    authoritative: false,
                    ..
                } => {
                    silent = Some("it does not keep the zone".to_owned());
                }
                Heard::Set { set, .. } => ttl = ttl.max(set.as_ref().map(RrSet::ttl)),
                Heard::Nothing(why) => silent = Some(why.clone()),
                // Says nothing about the server.
                Heard::NoRoute => {}
            }
        }
        let soa = verifier.soa(said.server.addr).await.ok();
        ServerFact {
            name: said.server.to_string(),
            inside_old_region: old.is_some_and(|old| old.has(said.server.addr.ip())),
            silent,
            ttl,
            negative_ttl: soa.map(|soa| soa.negative_ttl),
        }
    };
    Ok(join_all(said.into_iter().map(fact)).await)
}
