//! What was measured, and what follows from it.

use std::collections::BTreeMap;

use crate::contestants::Who;
use crate::idle;
use crate::scenario::Scenario;
use crate::stats::Spread;

/// One contestant in one scenario in one round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Requests in a second.
    pub rate: f64,
    /// Of the proxy, in microseconds per request; `None` without a proxy.
    pub cpu: Option<f64>,
}

/// Bytes per idle session, in the order of the rounds.
pub type IdleResult = BTreeMap<Who, Vec<f64>>;

/// One scenario, in the order of the rounds.
#[derive(Debug)]
pub struct Row {
    pub scenario: Scenario,
    samples: BTreeMap<Who, Vec<Sample>>,
}

impl Row {
    fn rates(&self, who: Who) -> Vec<f64> {
        self.samples
            .get(&who)
            .into_iter()
            .flatten()
            .map(|sample| sample.rate)
            .collect()
    }

    fn cpus(&self, who: Who) -> Vec<f64> {
        self.samples
            .get(&who)
            .into_iter()
            .flatten()
            .filter_map(|sample| sample.cpu)
            .collect()
    }

    pub fn rate(&self, who: Who) -> Option<Spread> {
        Spread::of(self.rates(who))
    }

    pub fn cpu(&self, who: Who) -> Option<Spread> {
        Spread::of(self.cpus(who))
    }

    pub fn rate_ratio(&self, over: Who, under: Who) -> Option<Spread> {
        Spread::of_ratios(&self.rates(over), &self.rates(under))
    }

    pub fn cpu_ratio(&self, over: Who, under: Who) -> Option<Spread> {
        Spread::of_ratios(&self.cpus(over), &self.cpus(under))
    }

    /// The HAProxy that costs less here: comparing with the other would be no feat.
    pub fn peer(&self) -> Who {
        let cost = |who| self.cpu(who).map_or(f64::INFINITY, |spread| spread.median);
        if cost(Who::HaProxySplice) < cost(Who::HaProxy) {
            Who::HaProxySplice
        } else {
            Who::HaProxy
        }
    }
}

/// Everything that was measured.
#[derive(Debug)]
pub struct Results {
    pub rounds: u32,
    pub rows: Vec<Row>,
    pub idle: Option<IdleResult>,
}

/// Whether a target is met.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    pub what: String,
    pub measured: f64,
    pub target: f64,
    pub unit: &'static str,
    pub met: bool,
}

impl Results {
    pub fn new(rounds: u32) -> Self {
        Self {
            rounds,
            rows: Vec::new(),
            idle: None,
        }
    }

    pub fn add(&mut self, scenario: Scenario, who: Who, sample: Sample) {
        let known = self.rows.iter().position(|row| row.scenario == scenario);
        let at = known.unwrap_or_else(|| {
            self.rows.push(Row {
                scenario,
                samples: BTreeMap::new(),
            });
            self.rows.len() - 1
        });
        self.rows[at].samples.entry(who).or_default().push(sample);
    }

    pub fn verdicts(&self) -> Vec<Verdict> {
        let judge = |row: &Row| {
            let target = row.scenario.target()?;
            let measured = row.cpu_ratio(Who::Pilotfish, row.peer())?.median;
            let what = format!("CPU time, {}", row.scenario);
            Some(Verdict {
                what,
                measured,
                target,
                unit: "× HAProxy",
                met: measured <= target,
            })
        };
        let idle = || {
            let measured =
                Spread::of(self.idle.as_ref()?.get(&Who::Pilotfish)?.iter().copied())?.median;
            let what = "memory, idle session".to_owned();
            Some(Verdict {
                what,
                measured,
                target: idle::TARGET,
                unit: "bytes",
                met: measured <= idle::TARGET,
            })
        };
        self.rows.iter().filter_map(judge).chain(idle()).collect()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::scenario::{Kind, Socket};

    const SMALL: Scenario = Scenario {
        kind: Kind::Kept,
        socket: Socket::Tcp,
    };

    /// Two rounds, the second on a machine half as fast.
    pub fn results(pilotfish: f64) -> Results {
        let mut results = Results::new(2);
        for slow in [1.0, 2.0] {
            let cpus = [
                (Who::HaProxy, 10.0),
                (Who::HaProxySplice, 9.0),
                (Who::Pilotfish, pilotfish),
            ];
            for (who, cpu) in cpus {
                results.add(
                    SMALL,
                    who,
                    Sample {
                        rate: 1000.0 / slow,
                        cpu: Some(cpu * slow),
                    },
                );
            }
            results.add(
                SMALL,
                Who::Direct,
                Sample {
                    rate: 2000.0 / slow,
                    cpu: None,
                },
            );
        }
        results.idle = Some(BTreeMap::from([(
            Who::Pilotfish,
            vec![3400.0, 3600.0, 3500.0],
        )]));
        results
    }

    #[test]
    fn compares_with_the_cheaper_haproxy() {
        let results = results(8.1);
        assert_eq!(results.rows[0].peer(), Who::HaProxySplice);
        let verdicts = results.verdicts();
        assert_eq!(verdicts.len(), 2);
        assert!((verdicts[0].measured - 0.9).abs() < 1e-9);
        assert!(verdicts[1].met);
    }

    #[test]
    fn a_missed_target_is_seen() {
        assert!(!results(9.5).verdicts()[0].met);
        assert!(results(7.0).verdicts()[0].met);
    }
}
