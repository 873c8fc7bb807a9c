//! Whether an alert leads to a cutover: the part that only decides.

use std::collections::BTreeMap;
use std::time::Duration;

use super::payload::{Group, Status};
use crate::clock::Moment;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Without word for so long an alert begins anew, in multiples of `persist`, and at least this.
const GAPS: u32 = 3;
const LEAST_GAP: Duration = Duration::from_secs(600);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Values of `alertname` that count.
    pub alerts: Vec<String>,
    /// The label that names the region which is down.
    pub region_label: String,
    /// The regions there are; the first one is home.
    pub regions: Vec<String>,
    /// How long an alert must have been firing under our eyes.
    pub persist: Duration,
    /// How often it must have been sent within that time; at least 2 make sense.
    pub repeats: u32,
    /// Between two cutovers.
    pub cooldown: Duration,
    /// Cutovers within 24 hours.
    pub per_day: u32,
    /// Whether it may lead home.
    pub failback: bool,
}

/// Why an alert that counts does not lead to a cutover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The region that is down is not the one that is on.
    NotServing {
        serving: String,
    },
    /// No region is left that nobody complains of.
    NoTarget,
    /// It would lead home, which is not allowed without an operator.
    Failback,
    Cooldown {
        left: Duration,
    },
    PerDay {
        limit: u32,
    },
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotServing { serving } => write!(f, "{serving} is on, so nothing is to be moved"),
            Self::NoTarget => f.write_str("every other region has an alert as well"),
            Self::Failback => f.write_str("it would be a failback, which is not allowed by itself"),
            Self::Cooldown { left } => {
                write!(
                    f,
                    "the last one was too recent, {} s are left",
                    left.as_secs()
                )
            }
            Self::PerDay { limit } => write!(f, "there were {limit} within a day already"),
        }
    }
}

/// What follows from a group of alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing in it counts, or it only says that something is over.
    Nothing,
    /// It has to stand for longer.
    Wait {
        region: String,
        seen: u32,
        standing: Duration,
    },
    Refuse {
        region: String,
        why: Refusal,
    },
    Start {
        from: String,
        to: String,
    },
}

/// An alert that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Streak {
    since: Moment,
    last: Moment,
    seen: u32,
}

/// What is remembered between groups. It is bounded by the regions there are and `per_day`.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    streaks: BTreeMap<String, Streak>,
    starts: Vec<Moment>,
}

impl Memory {
    /// Takes the group in, and says what follows while `serving` is on.
    pub fn see(&mut self, group: &Group, rules: &Rules, serving: &str, now: Moment) -> Decision {
        let mut spoken_of = self.note(group, rules, now);
        // If it speaks of several regions, the one that is on is what matters.
        spoken_of.sort_by_key(|region| region != serving);
        let Some(region) = spoken_of.into_iter().next() else {
            return Decision::Nothing;
        };
        let Some(streak) = self.streaks.get(&region).copied() else {
            return Decision::Nothing;
        };
        if region != serving {
            let serving = serving.to_owned();
            let why = Refusal::NotServing { serving };
            return Decision::Refuse { region, why };
        }
        let standing = streak.last.since(streak.since);
        if standing < rules.persist || streak.seen < rules.repeats {
            let seen = streak.seen;
            return Decision::Wait {
                region,
                seen,
                standing,
            };
        }
        match self.target(rules, &region, now) {
            Ok(to) => Decision::Start { from: region, to },
            Err(why) => Decision::Refuse { region, why },
        }
    }

    /// A cutover begins: it counts from now on, until [`Memory::not_started`].
    pub fn started(&mut self, now: Moment) {
        self.starts.push(now);
    }

    /// The one at `when` was refused elsewhere, and does not count.
    pub fn not_started(&mut self, when: Moment) {
        self.starts.retain(|start| *start != when);
    }

    /// The regions that fire in it.
    fn note(&mut self, group: &Group, rules: &Rules, now: Moment) -> Vec<String> {
        let gap = (rules.persist * GAPS).max(LEAST_GAP);
        self.streaks
            .retain(|_, streak| now.since(streak.last) <= gap);
        let mut firing: BTreeMap<&String, bool> = BTreeMap::new();
        for alert in &group.alerts {
            let name = alert.labels.get("alertname");
            let region = alert.labels.get(&rules.region_label);
            let (Some(name), Some(region)) = (name, region) else {
                continue;
            };
            if rules.alerts.contains(name) && rules.regions.contains(region) {
                // Several alerts of one region: as long as one fires it is down.
                *firing.entry(region).or_default() |= alert.status == Status::Firing;
            }
        }
        let mut spoken_of = Vec::new();
        for (region, fires) in firing {
            if !fires {
                self.streaks.remove(region);
                continue;
            }
            let fresh = Streak {
                since: now,
                last: now,
                seen: 0,
            };
            let streak = self.streaks.entry(region.clone()).or_insert(fresh);
            streak.last = now;
            streak.seen = streak.seen.saturating_add(1);
            spoken_of.push(region.clone());
        }
        spoken_of
    }

    fn target(&mut self, rules: &Rules, from: &str, now: Moment) -> Result<String, Refusal> {
        self.starts.retain(|start| now.since(*start) < DAY);
        let fine = |region: &&String| *region != from && !self.streaks.contains_key(*region);
        let to = rules.regions.iter().find(fine).ok_or(Refusal::NoTarget)?;
        if rules.regions.first() == Some(to) && !rules.failback {
            return Err(Refusal::Failback);
        }
        if let Some(last) = self.starts.last() {
            let left = rules.cooldown.saturating_sub(now.since(*last));
            if !left.is_zero() {
                return Err(Refusal::Cooldown { left });
            }
        }
        let limit = rules.per_day;
        if self.starts.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
            return Err(Refusal::PerDay { limit });
        }
        Ok(to.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cutover::auto::payload::Alert;

    fn rules() -> Rules {
        Rules {
            alerts: vec!["RegionDown".to_owned()],
            region_label: "region".to_owned(),
            regions: ["gra", "rbx"].map(str::to_owned).to_vec(),
            persist: Duration::from_secs(180),
            repeats: 3,
            cooldown: Duration::from_secs(1800),
            per_day: 2,
            failback: false,
        }
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1000)
    }

    /// `name region`, and a `!` before it where it is resolved.
    fn group(alerts: &[&str]) -> Group {
        let alert = |text: &&str| {
            let (status, text) = match text.strip_prefix('!') {
                Some(text) => (Status::Resolved, text),
                None => (Status::Firing, *text),
            };
            let (name, region) = text.split_once(' ').unwrap();
            let labels = [("alertname", name), ("region", region)];
            let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned()));
            Alert {
                status,
                labels: BTreeMap::from(labels),
            }
        };
        Group {
            version: "4".to_owned(),
            alerts: alerts.iter().map(alert).collect(),
        }
    }

    fn start() -> Decision {
        Decision::Start {
            from: "gra".to_owned(),
            to: "rbx".to_owned(),
        }
    }

    /// One word each, for a table.
    fn word(decision: &Decision) -> &'static str {
        match decision {
            Decision::Nothing => "nothing",
            Decision::Wait { .. } => "wait",
            Decision::Start { .. } => "start",
            Decision::Refuse { why, .. } => match why {
                Refusal::NotServing { .. } => "not-serving",
                Refusal::NoTarget => "no-target",
                Refusal::Failback => "failback",
                Refusal::Cooldown { .. } => "cooldown",
                Refusal::PerDay { .. } => "per-day",
            },
        }
    }

    const DOWN: &[&str] = &["RegionDown gra"];
    const OVER: &[&str] = &["!RegionDown gra"];
    /// A name, the region that is on, and when what is said with which effect.
    type Scene = (
        &'static str,
        &'static str,
        &'static [(u64, &'static [&'static str], &'static str)],
    );
    const SCENES: &[Scene] = &[
        (
            "it stands",
            "gra",
            &[(0, DOWN, "wait"), (90, DOWN, "wait"), (180, DOWN, "start")],
        ),
        (
            "long, but said twice",
            "gra",
            &[(0, DOWN, "wait"), (200, DOWN, "wait")],
        ),
        (
            "often, but not for long",
            "gra",
            &[
                (0, DOWN, "wait"),
                (1, DOWN, "wait"),
                (2, DOWN, "wait"),
                (3, DOWN, "wait"),
            ],
        ),
        (
            "it flaps",
            "gra",
            &[
                (0, DOWN, "wait"),
                (90, DOWN, "wait"),
                (120, OVER, "nothing"),
                (180, DOWN, "wait"),
                (270, DOWN, "wait"),
                (360, DOWN, "start"),
            ],
        ),
        (
            "a long silence",
            "gra",
            &[(0, DOWN, "wait"), (90, DOWN, "wait"), (900, DOWN, "wait")],
        ),
        (
            "others' alerts",
            "gra",
            &[(0, &["DiskFull gra", "RegionDown sbg"], "nothing")],
        ),
        (
            "one of two alerts is over",
            "gra",
            &[(0, &["RegionDown gra", "!RegionDown gra"], "wait")],
        ),
        ("the region that is off", "rbx", &[(0, DOWN, "not-serving")]),
        (
            "everything is down: it is we who see nothing",
            "gra",
            &[
                (0, &["RegionDown gra", "RegionDown rbx"], "wait"),
                (90, &["RegionDown gra", "RegionDown rbx"], "wait"),
                (180, &["RegionDown gra", "RegionDown rbx"], "no-target"),
            ],
        ),
        (
            "it would lead home",
            "rbx",
            &[
                (0, &["RegionDown rbx"], "wait"),
                (90, &["RegionDown rbx"], "wait"),
                (180, &["RegionDown rbx"], "failback"),
            ],
        ),
    ];

    #[test]
    fn what_follows_from_what() {
        for (name, serving, steps) in SCENES {
            let mut memory = Memory::default();
            for (when, alerts, wanted) in *steps {
                let decision = memory.see(&group(alerts), &rules(), serving, at(*when));
                assert_eq!(word(&decision), *wanted, "{name} at {when}: {decision:?}");
            }
        }
    }

    #[test]
    fn it_happens_seldom() {
        let rules = Rules {
            failback: true,
            persist: Duration::ZERO,
            repeats: 1,
            ..rules()
        };
        let mut memory = Memory::default();
        let mut see = |when: u64, begin: bool| {
            let decision = memory.see(&group(&["RegionDown gra"]), &rules, "gra", at(when));
            if begin {
                assert_eq!(decision, start());
                memory.started(at(when));
            }
            decision
        };
        see(0, true);
        assert_eq!(word(&see(1700, false)), "cooldown");
        see(1800, true);
        assert_eq!(word(&see(7200, false)), "per-day");
        assert_eq!(word(&see(86_399, false)), "per-day");
        see(86_400, true);
        assert_eq!(word(&see(86_500, false)), "cooldown");
        memory.not_started(at(86_400));
        let decision = memory.see(&group(&["RegionDown gra"]), &rules, "gra", at(86_600));
        assert_eq!(decision, start());
    }
}
