//! What the facts mean: one function per gate, and no clock, socket or file.

use std::time::Duration;

use super::{Name, Says, Verdict};
use crate::cutover::plan::{Standing, Way};
use crate::cutover::spec::CutoverSpec;
use crate::dns::{Access, Key, Proof};

/// What a region answered to its check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub took: Duration,
    /// The region that the answer names, where it is a sidecar's health.
    pub region: Option<String>,
    /// What such an answer says about services.
    pub services: Vec<ServiceFact>,
}

impl Answer {
    pub fn is_well(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The region that answered, if it is not this one.
    pub fn stranger(&self, region: &str) -> Option<&str> {
        self.region.as_deref().filter(|said| *said != region)
    }
}

/// A service, as the sidecars of a region see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFact {
    pub name: String,
    pub required: bool,
    /// It has a primary that is proven.
    pub proven: bool,
    /// An operator, or an earlier cutover, holds its clients.
    pub held: bool,
    /// Of the nearest replica, where it is known.
    pub lag: Option<Duration>,
    pub lag_bytes: Option<u64>,
    pub why: Option<String>,
}

/// A sidecar of the old region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarFact {
    pub address: String,
    /// Services that still let clients through; the error is why it cannot be asked.
    pub open: Result<Vec<String>, String>,
}

/// What is known about the old region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FenceFacts {
    /// Whether the run will fence it itself, and has not yet.
    pub ahead: bool,
    pub sidecars: Vec<SidecarFact>,
    /// `None`: no such command.
    pub proof: Option<Result<(), String>>,
    /// What the old region answers to us; `None`: it has no check.
    pub answers: Option<Result<(), String>>,
    /// How many others cannot reach it, and how many there are.
    pub witnesses: (usize, usize),
}

/// One name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFact {
    pub name: String,
    pub inside_old_region: bool,
    /// Why it is of no use.
    pub silent: Option<String>,
    /// The longest TTL it answers with, of what moves.
    pub ttl: Option<u32>,
    pub negative_ttl: Option<u32>,
}

/// Everything the built-in gates are judged by.
#[derive(Clone, Debug)]
pub struct Facts {
    pub way: Way,
    pub to: String,
    /// Several tries; `None`: the region has no check.
    pub target: Option<Vec<Result<Answer, String>>>,
    /// What this sidecar knows, if it is in the target.
    pub here: Option<Vec<ServiceFact>>,
    /// Services whose databases the run promotes.
    pub promotes: Vec<String>,
    /// The run lets the target's clients go.
    pub opens: bool,
    pub fence: FenceFacts,
    pub standing: Standing,
    /// Where the history says they lead.
    pub left_at: Option<String>,
    /// Records that are answered by the provider's own proxy.
    pub proxied: Vec<Key>,
    /// The longest TTL that the provider holds, in seconds.
    pub held_ttl: u32,
    /// Names that get a type they do not have now.
    pub appears: Vec<Key>,
    pub servers: Result<Vec<ServerFact>, String>,
    pub access: Result<Access, String>,
    /// Who has the lock; the error is why that is not known.
    pub lock: Result<Option<String>, String>,
    /// Since the last run that changed records.
    pub since_last: Option<Duration>,
    /// How many sets the change leaves with records, per name at least one.
    pub empties: Vec<String>,
}

/// Every built-in gate's verdict, in the order of [`Name::ALL`].
pub fn judge(spec: &CutoverSpec, facts: &Facts) -> Vec<Verdict> {
    Name::ALL
        .into_iter()
        .map(|gate| {
            let (says, why) = match gate {
                Name::TargetCheck => target_check(facts),
                Name::TargetData => target_data(spec, facts),
                Name::OldRegionFenced => fenced(&facts.fence),
                Name::RecordsExpected => records_expected(facts),
                Name::TtlCeiling => ttl_ceiling(spec, facts),
                Name::NegativeTtl => negative_ttl(spec, facts),
                Name::NameServers => name_servers(facts),
                Name::Credentials => credentials(facts),
                Name::Lock => lock(facts),
                Name::Cooldown => cooldown(spec, facts),
                Name::OneRegionOn => one_region_on(spec, facts),
            };
            Verdict::of(gate, says, why)
        })
        .collect()
}

type Judged = (Says, String);

fn pass(why: impl Into<String>) -> Judged {
    (Says::Pass, why.into())
}

fn warn(why: impl Into<String>) -> Judged {
    (Says::Warn, why.into())
}

fn fail(why: impl Into<String>) -> Judged {
    (Says::Fail, why.into())
}

fn target_check(facts: &Facts) -> Judged {
    let to = &facts.to;
    let Some(tries) = &facts.target else {
        return warn(format!(
            "{to} has no `check`: nobody knows whether it answers"
        ));
    };
    let mut slowest = Duration::ZERO;
    for answer in tries {
        match answer {
            Err(why) => return fail(format!("{to} does not answer its check: {why}")),
            Ok(answer) if !answer.is_well() => {
                return fail(format!("{to} answers its check with {}", answer.status));
            }
            Ok(answer) => match answer.stranger(to) {
                Some(other) => {
                    return fail(format!("it is {other} that answers the check of {to}"));
                }
                None => slowest = slowest.max(answer.took),
            },
        }
    }
    match tries.len() {
        0 => fail(format!("{to} was not asked")),
        1 => pass(format!("{to} answers in {} ms", slowest.as_millis())),
        n => pass(format!(
            "{to} answers {n} times in a row, the slowest in {} ms",
            slowest.as_millis()
        )),
    }
}

fn target_data(spec: &CutoverSpec, facts: &Facts) -> Judged {
    let told = facts
        .target
        .iter()
        .flatten()
        .filter_map(|a| a.as_ref().ok());
    let told = told
        .map(|answer| &answer.services)
        .find(|list| !list.is_empty());
    let (who, services) = match (&facts.here, told) {
        (Some(here), _) => ("this sidecar", here),
        (None, Some(told)) => ("its health", told),
        (None, None) => {
            return fail(format!(
                "nobody here knows the databases of {}: run this on a sidecar of it, or let its check \
                 be a sidecar's /healthz",
                facts.to
            ));
        }
    };
    let mut bad = Vec::new();
    let mut behind = Vec::new();
    for service in services.iter().filter(|service| service.required) {
        let name = &service.name;
        let promoted = facts.promotes.contains(name);
        let late = service.lag.is_some_and(|lag| lag > spec.target_lag)
            || service
                .lag_bytes
                .is_some_and(|bytes| bytes > spec.target_lag_bytes);
        let known = service.lag.is_some() || service.lag_bytes.is_some();
        let why = service.why.as_deref().unwrap_or("no primary");
        if service.held && !facts.opens {
            bad.push(format!(
                "{name} holds its clients: `pilotfish resume {name}`"
            ));
        }
        match (service.proven, promoted) {
            (true, true) if late => bad.push(format!("{name} is too far behind")),
            (true, _) => {}
            (false, true) if known && !late => behind.push(name.as_str()),
            (false, true) if late => bad.push(format!("{name} is too far behind")),
            (false, _) => bad.push(format!("{name}: {why}")),
        }
    }
    if !bad.is_empty() {
        return fail(format!("{who} says: {}", bad.join("; ")));
    }
    match behind.is_empty() {
        true => pass(format!("{who} says that every database is proven")),
        false => pass(format!(
            "{who}: {} will be promoted, and is not far behind",
            behind.join(", ")
        )),
    }
}

/// Also asked again after the run has fenced the region.
pub fn fenced(facts: &FenceFacts) -> Judged {
    if let Some(Ok(())) = facts.proof {
        return pass("the fence's proof says that it writes no more");
    }
    let open: Vec<String> = facts
        .sidecars
        .iter()
        .filter_map(|sidecar| match &sidecar.open {
            Ok(open) if open.is_empty() => None,
            Ok(open) => Some(format!(
                "{} lets {} through",
                sidecar.address,
                open.join(", ")
            )),
            Err(why) => Some(format!("{}: {why}", sidecar.address)),
        })
        .collect();
    if facts.proof.is_none() && !facts.sidecars.is_empty() && open.is_empty() {
        return pass(format!(
            "all {} sidecars of it hold their clients",
            facts.sidecars.len()
        ));
    }
    let (cannot, of) = facts.witnesses;
    match &facts.answers {
        Some(Err(why)) if cannot > 0 && cannot * 2 > of => {
            return pass(format!(
                "unreachable from here ({why}) and from {cannot} of {of} other places"
            ));
        }
        _ => {}
    }
    if facts.ahead {
        return pass("it will be fenced before the records change, and asked again then");
    }
    let mut why = open;
    if let Some(Err(proof)) = &facts.proof {
        why.push(format!("the proof fails: {proof}"));
    }
    match &facts.answers {
        Some(Err(_)) => why.push(format!(
            "it does not answer us, which {cannot} of {of} other places confirm"
        )),
        Some(Ok(())) => why.push("it answers its check".to_owned()),
        None => {}
    }
    match why.is_empty() {
        true => fail(
            "nothing is configured that could prove it: [cutover.fence], or `admin` of the region",
        ),
        false => fail(why.join("; ")),
    }
}

fn records_expected(facts: &Facts) -> Judged {
    match (&facts.standing, &facts.left_at) {
        (Standing::Mixed(lines), _) => {
            fail(format!("somebody else changed them: {}", lines.join("; ")))
        }
        (Standing::On(region), Some(left)) if region != left => warn(format!(
            "they lead to {region}, and the last cutover from here left them at {left}"
        )),
        (Standing::On(region), _) => pass(format!("they lead to {region}, as configured")),
    }
}

fn ttl_ceiling(spec: &CutoverSpec, facts: &Facts) -> Judged {
    let servers = facts.servers.as_deref().unwrap_or_default();
    let served = servers.iter().filter_map(|server| server.ttl).max();
    let ttl = served.unwrap_or(0).max(facts.held_ttl);
    if !facts.proxied.is_empty() {
        return warn("a proxy of the provider answers: its own TTL counts, which is not known");
    }
    match ttl > spec.ttl_ceiling {
        true => fail(format!(
            "the TTL is {ttl} s, above the ceiling of {} s: expect stragglers for {ttl} s; lower the TTL \
             first and wait that long",
            spec.ttl_ceiling
        )),
        false => pass(format!(
            "resolvers have the old records for at most {ttl} s"
        )),
    }
}

fn negative_ttl(spec: &CutoverSpec, facts: &Facts) -> Judged {
    let servers = facts.servers.as_deref().unwrap_or_default();
    let Some(ttl) = servers
        .iter()
        .filter_map(|server| server.negative_ttl)
        .max()
    else {
        return warn("no name server says it");
    };
    let appears: Vec<String> = facts.appears.iter().map(ToString::to_string).collect();
    if ttl <= spec.ttl_ceiling || appears.is_empty() {
        return pass(format!("\"no such record\" is kept for {ttl} s"));
    }
    fail(format!(
        "{} appears, and who asked for it before keeps \"no such record\" for {ttl} s",
        appears.join(" and ")
    ))
}

fn name_servers(facts: &Facts) -> Judged {
    let servers = match &facts.servers {
        Ok(servers) => servers,
        Err(why) => return fail(why.clone()),
    };
    let line = |server: &ServerFact| {
        let why = server.silent.as_ref()?;
        Some(format!("{}: {why}", server.name))
    };
    let silent: Vec<String> = servers.iter().filter_map(line).collect();
    if servers.is_empty() || !silent.is_empty() {
        return fail(match silent.is_empty() {
            true => "the zone has no name servers".to_owned(),
            false => silent.join("; "),
        });
    }
    let inside: Vec<&str> = servers
        .iter()
        .filter(|server| server.inside_old_region)
        .map(|server| server.name.as_str())
        .collect();
    match inside.len() {
        0 => pass(format!(
            "all {} answer, and none is inside the old region",
            servers.len()
        )),
        n if n == servers.len() => fail("all of them are inside the old region"),
        _ => warn(format!("inside the old region: {}", inside.join(", "))),
    }
}

fn credentials(facts: &Facts) -> Judged {
    match &facts.access {
        Err(why) => fail(why.clone()),
        Ok(access) => {
            let unsure = |proof: &Proof| match proof {
                Proof::Proven => None,
                Proof::Likely(seen) => Some(seen.clone()),
            };
            let seen: Vec<String> = [unsure(&access.write), unsure(&access.publish)]
                .into_iter()
                .flatten()
                .collect();
            match seen.first() {
                None => pass("they may write and publish: the provider would have done it"),
                Some(seen) => pass(format!("as far as it can be seen without a change: {seen}")),
            }
        }
    }
}

fn lock(facts: &Facts) -> Judged {
    match &facts.lock {
        Ok(None) => pass("nobody else has it"),
        Ok(Some(holder)) => fail(format!("{holder} has it")),
        Err(why) => fail(format!("it cannot be had: {why}")),
    }
}

fn cooldown(spec: &CutoverSpec, facts: &Facts) -> Judged {
    let (word, wanted) = match facts.way {
        Way::Cutover => ("cooldown", spec.cooldown),
        Way::Failback => ("soak", spec.soak),
    };
    match facts.since_last {
        None => pass("there was no cutover before"),
        Some(since) if since < wanted => fail(format!(
            "the last change was {} s ago, and the {word} is {} s",
            since.as_secs(),
            wanted.as_secs()
        )),
        Some(since) => pass(format!("the last change was {} s ago", since.as_secs())),
    }
}

fn one_region_on(spec: &CutoverSpec, facts: &Facts) -> Judged {
    if !facts.empties.is_empty() {
        return fail(format!(
            "without records afterwards: {}",
            facts.empties.join(", ")
        ));
    }
    match spec.region(&facts.to) {
        None => fail(format!("there is no region {}", facts.to)),
        Some(_) => pass(format!("{} is on afterwards, and no other", facts.to)),
    }
}

#[cfg(test)]
mod tests;
