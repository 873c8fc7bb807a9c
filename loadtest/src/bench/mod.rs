//! All scenarios, interleaved, several rounds.

mod result;
pub(crate) mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cli::{BenchArgs, binary};
use crate::contestants::{Contestants, Who};
use crate::generator;
use crate::idle::{self, Through};
use crate::scenario::Scenario;
use result::{IdleResult, Results, Sample};

/// For what a proxy does a moment after the load has ended.
const SETTLE: Duration = Duration::from_millis(50);

const IDLE: &str = "idle";

/// Measures, prints, and says whether the targets are met.
///
/// # Errors
/// When something cannot be started or measured.
pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    let pilotfish = binary(args.pilotfish.as_deref())?;
    let other = args
        .other
        .as_deref()
        .map(|path| binary(Some(path)))
        .transpose()?;
    let rounds = if args.quick { 2 } else { args.rounds };
    let chosen = |name: &str| {
        args.only.is_empty() || args.only.iter().any(|word| name.contains(word.as_str()))
    };
    let scenarios: Vec<Scenario> = Scenario::all()
        .into_iter()
        .filter(|scenario| chosen(&scenario.to_string()))
        .collect();

    let mut results = Results::new(rounds);
    if !scenarios.is_empty() {
        let contestants = Contestants::start(&pilotfish, other.as_deref())?;
        for round in 0..rounds {
            for &scenario in &scenarios {
                println!("round {} of {rounds}: {scenario}", round + 1);
                one_round(&contestants, scenario, (round, args.quick), &mut results)?;
            }
        }
    }
    if chosen(IDLE) {
        println!("{} idle sessions", idle::SESSIONS);
        let mut through = vec![
            (Who::HaProxy, Through::HaProxy),
            (Who::Pilotfish, Through::Pilotfish(pilotfish)),
        ];
        through.extend(other.map(|path| (Who::Other, Through::Pilotfish(path))));
        results.idle = Some(idle_rounds(&through, rounds.min(3))?);
    }

    let text = table::render(&results);
    println!("\n{text}");
    if let Some(path) = &args.out {
        std::fs::write(path, &text).with_context(|| format!("writing {}", path.display()))?;
    }
    let missed = results.verdicts().iter().any(|verdict| !verdict.met);
    Ok(if args.assert && missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Each contestant once. Another one begins in each round, so that none always has the warmest machine.
fn one_round(
    contestants: &Contestants,
    scenario: Scenario,
    (round, quick): (u32, bool),
    results: &mut Results,
) -> Result<()> {
    let mut order = contestants.all();
    let shift = round as usize % order.len();
    order.rotate_left(shift);
    for who in order {
        let sample = measure(contestants, who, scenario, quick)
            .with_context(|| format!("{scenario}, {}", who.as_str()))?;
        results.add(scenario, who, sample);
    }
    Ok(())
}

fn measure(contestants: &Contestants, who: Who, scenario: Scenario, quick: bool) -> Result<Sample> {
    let target = contestants.target(who, scenario.socket)?;
    let server = contestants.proxy(who).map(|proxy| proxy.server());
    let before = server.map(|server| server.cpu()).transpose()?;
    let load = generator::run(&target, scenario.arguments(), scenario.requests(quick))?;
    std::thread::sleep(SETTLE);
    let after = server.map(|server| server.cpu()).transpose()?;
    let used = before
        .zip(after)
        .map(|(before, after)| after.saturating_sub(before));
    let cpu = used.map(|used| used.as_secs_f64() * 1e6 / f64::from(load.requests));
    Ok(Sample {
        rate: load.rate,
        cpu,
    })
}

fn idle_rounds(through: &[(Who, Through)], rounds: u32) -> Result<IdleResult> {
    let mut result = IdleResult::default();
    for _ in 0..rounds {
        for (who, through) in through {
            let idle = idle::measure(through, idle::SESSIONS)
                .with_context(|| format!("idle sessions, {}", who.as_str()))?;
            result.entry(*who).or_default().push(idle.per_session());
        }
    }
    Ok(result)
}
