//! The plan: what was seen, what shall be, and what the provider promises about the way there. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::spec::{CutoverSpec, When};
use crate::dns::change::{Change, ChangeError, Observed};
use crate::dns::record::{Key, RecordError, Records, RrSet, records};
use crate::dns::{Capabilities, PropagationSignal};

/// What an operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    Cutover,
    /// The same with a longer soak.
    Failback,
}

impl Way {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cutover => "cutover",
            Self::Failback => "failback",
        }
    }
}

/// A record set as text, so that it can be kept in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetText {
    /// Seconds.
    pub ttl: u32,
    /// In a stable order.
    pub values: Vec<String>,
}

impl SetText {
    pub fn of(set: &RrSet) -> Self {
        Self {
            ttl: set.ttl(),
            values: set.texts(),
        }
    }
}

/// One set, before and after; `None` is no records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSet {
    /// `shop.example.com A`
    pub record: String,
    pub old: Option<SetText>,
    pub new: Option<SetText>,
    /// What the provider makes of the new TTL, as far as it is known.
    pub stored_ttl: Option<u32>,
}

/// What a run does besides changing records, as the config said it when the plan was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    pub hooks_before: usize,
    pub hooks_done: usize,
    pub hooks_rollback: usize,
    pub fence: bool,
    /// Services whose databases are promoted, in this order.
    pub promote: Vec<String>,
    /// The target has sidecars that may still hold their clients, since it was fenced itself.
    #[serde(default)]
    pub open: bool,
}

/// Everything that a cutover is going to do. Its JSON is stable: the same facts give the same text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub way: Way,
    /// The region that the records lead to now; `None`: to none that is configured.
    pub from: Option<String>,
    pub to: String,
    /// The lock's: grows with every acquisition by anybody.
    pub epoch: u64,
    /// RFC 3339.
    pub made: String,
    /// From then on it must not be carried out.
    pub expires: String,
    /// Of everything that was observed.
    pub digest: String,
    pub provider: String,
    pub zone: String,
    pub sets: Vec<PlannedSet>,
    /// What the provider can promise, and what not.
    pub promises: Vec<String>,
    /// How long resolvers may go on with what they have, in seconds.
    pub stragglers_s: u32,
    pub course: Course,
    pub steps: Vec<String>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("there is no region `{0}`: there is {1}")]
    NoRegion(String, String),
    #[error("{0}")]
    Change(#[from] ChangeError),
    #[error("there would be no way back: {0}")]
    NoWayBack(ChangeError),
    #[error("the plan is damaged: {0}")]
    Damaged(String),
}

impl From<RecordError> for PlanError {
    fn from(error: RecordError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// What a plan is made of.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    pub spec: &'a CutoverSpec,
    pub way: Way,
    pub to: &'a str,
    /// All of [`CutoverSpec::watched`].
    pub observed: &'a Observed,
    pub capabilities: Capabilities,
    pub epoch: u64,
    pub now: Timestamp,
}

/// # Errors
/// When there is no such region, or the change would leave a name without records now or on the way back.
pub fn plan(given: &Given<'_>) -> Result<Plan, PlanError> {
    let Given {
        spec, to, observed, ..
    } = *given;
    let names: Vec<&str> = spec.regions.iter().map(|region| &*region.name).collect();
    let region = spec
        .region(to)
        .ok_or_else(|| PlanError::NoRegion(to.to_owned(), names.join(", ")))?;
    let old = moving(spec, observed);
    let wanted = spec.wanted(region);
    let change = Change::new(&old, &wanted, "")?;
    change.check_zone(&spec.dns.zone)?;
    change.inverse("").map_err(PlanError::NoWayBack)?;
    let set = |set: &crate::dns::SetChange| PlannedSet {
        record: set.key.to_string(),
        old: set.from.as_ref().map(SetText::of),
        new: set.to.as_ref().map(SetText::of),
        stored_ttl: set
            .to
            .as_ref()
            .map(|to| given.capabilities.ttl.effective(to.ttl())),
    };
    let from = standing(spec, observed).on().map(ToOwned::to_owned);
    let course = course(spec, given.to);
    Ok(Plan {
        way: given.way,
        from,
        to: to.to_owned(),
        epoch: given.epoch,
        made: given.now.to_string(),
        expires: given
            .now
            .saturating_add(spec.expiry)
            .unwrap_or(given.now)
            .to_string(),
        digest: digest(spec, observed),
        provider: spec.dns.provider.kind().as_str().to_owned(),
        zone: spec.dns.zone.to_string(),
        sets: change.sets().iter().map(set).collect(),
        promises: given.capabilities.promises(),
        stragglers_s: old.values().map(RrSet::ttl).max().unwrap_or(0),
        steps: steps(&course, given.capabilities.signal, spec),
        course,
    })
}

/// What there is of the records that move.
fn moving(spec: &CutoverSpec, observed: &Observed) -> Records {
    let mine = spec
        .records
        .iter()
        .filter_map(|key| observed.records.get(key));
    records(mine.cloned())
}

fn course(spec: &CutoverSpec, to: &str) -> Course {
    let hooks = |when| spec.hooks.iter().filter(|hook| hook.when == when).count();
    Course {
        hooks_before: hooks(When::BeforeApply),
        hooks_done: hooks(When::AfterDone),
        hooks_rollback: hooks(When::AfterRollback),
        fence: spec.fence.command.is_some() || spec.regions.iter().any(|r| !r.admin.is_empty()),
        promote: spec.promote.iter().map(|one| one.service.clone()).collect(),
        open: spec.region(to).is_some_and(|to| !to.admin.is_empty()),
    }
}

fn steps(course: &Course, signal: PropagationSignal, spec: &CutoverSpec) -> Vec<String> {
    let mut steps = vec!["judge every gate".to_owned()];
    if course.hooks_before > 0 {
        steps.push(format!("run {} hooks before-apply", course.hooks_before));
    }
    if course.fence {
        steps.push("fence the old region, and prove it".to_owned());
    }
    let promote = course.promote.iter();
    steps.extend(promote.map(|service| format!("promote the database of {service}")));
    if course.open {
        steps.push("let the clients of the target's sidecars go on".to_owned());
    }
    steps.push(format!("change {} record sets", spec.records.len()));
    if signal == PropagationSignal::Poll {
        steps.push("wait until the provider says that it is deployed".to_owned());
    }
    steps.push("wait until every authoritative server answers with the new records".to_owned());
    steps.push("watch resolvers until the old TTL has passed".to_owned());
    if course.hooks_done > 0 {
        steps.push(format!("run {} hooks after-done", course.hooks_done));
    }
    steps
}

/// Where the records lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All of them to this region.
    On(String),
    /// Some to one region and some to another, or to none that is known; a line for each set.
    Mixed(Vec<String>),
}

impl Standing {
    pub fn on(&self) -> Option<&str> {
        match self {
            Self::On(region) => Some(region),
            Self::Mixed(_) => None,
        }
    }
}

/// Compares values, not TTLs. What stands beside the records that move counts as well.
pub fn standing(spec: &CutoverSpec, observed: &Observed) -> Standing {
    let values = |set: Option<&RrSet>| set.map(|set| set.values().clone());
    let watched = spec.watched();
    for region in &spec.regions {
        let wanted = spec.wanted(region);
        let is = |key: &Key| values(observed.records.get(key)) == values(wanted.get(key));
        if watched.iter().all(is) {
            return Standing::On(region.name.clone());
        }
    }
    let line = |key: &Key| {
        let found = observed.records.get(key);
        let of = spec.regions.iter().find(|region| {
            let wanted = spec.wanted(region);
            found.is_some() && values(found) == values(wanted.get(key))
        });
        let what = found.map_or_else(|| "none".to_owned(), |set| set.texts().join(" "));
        let of = of.map_or("no region", |region| region.name.as_str());
        (found.is_some() || spec.records.contains(key)).then(|| format!("{key} is {what} ({of})"))
    };
    Standing::Mixed(watched.iter().filter_map(line).collect())
}

/// Of everything observed: values, TTLs, what is missing and what is proxied.
pub fn digest(spec: &CutoverSpec, observed: &Observed) -> String {
    let mut hash = Sha256::new();
    for key in spec.watched() {
        let set = match observed.records.get(&key) {
            Some(set) => format!("{} {}", set.ttl(), set.texts().join(" ")),
            None => "-".to_owned(),
        };
        let proxied = observed.proxied.contains(&key);
        hash.update(format!("{key} {proxied} {set}\n"));
    }
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

impl Plan {
    /// Whether it is of no use any more.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.expires
            .parse::<Timestamp>()
            .is_ok_and(|end| now >= end)
    }

    /// Whether nothing is left to do, TTLs included.
    pub fn is_idle(&self) -> bool {
        self.sets.iter().all(|set| set.old == set.new)
    }

    /// # Errors
    /// When it is not one that [`plan`] has made.
    pub fn change(&self) -> Result<Change, PlanError> {
        let (old, new) = (self.side(|set| &set.old)?, self.side(|set| &set.new)?);
        let note = format!(
            "pilotfish {} to {}, epoch {}",
            self.way.as_str(),
            self.to,
            self.epoch
        );
        Ok(Change::new(&old, &new, note)?)
    }

    /// The way back.
    ///
    /// # Errors
    /// As [`Plan::change`].
    pub fn back(&self) -> Result<Change, PlanError> {
        let note = format!("pilotfish rollback from {}, epoch {}", self.to, self.epoch);
        Ok(self.change()?.inverse(note)?)
    }

    fn side(&self, side: impl Fn(&PlannedSet) -> &Option<SetText>) -> Result<Records, PlanError> {
        let mut all = BTreeMap::new();
        for planned in &self.sets {
            let key: Key = planned.record.parse()?;
            if let Some(text) = side(planned) {
                let values = text.values.iter().map(String::as_str);
                let set = RrSet::parse(&key, text.ttl.into(), values)?;
                all.insert(key, set);
            }
        }
        Ok(all)
    }

    /// The sets with both sides exchanged.
    pub fn inverse_sets(&self) -> Vec<PlannedSet> {
        let swap = |set: &PlannedSet| PlannedSet {
            record: set.record.clone(),
            old: set.new.clone(),
            new: set.old.clone(),
            stored_ttl: set.old.as_ref().map(|old| old.ttl),
        };
        self.sets.iter().map(swap).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
