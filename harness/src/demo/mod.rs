//! What `make demo` runs: failovers under load, each told as a timeline, each with a verdict.
//!
//! [`stage`] sets up the servers, the sidecar and the writers; [`acts`] breaks something; [`story`] tells what
//! happened and judges it. [`galera`] does all three for a cluster of MariaDB servers, [`postgres`] for a primary with
//! a standby, [`region`] for a whole site that moves through DNS.

mod acts;
mod galera;
mod postgres;
mod region;
mod stage;
mod story;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use acts::Act;
use stage::Stage;

/// From the first sentinel's announcement on, this long, a write may still be lost.
const GRACE: Duration = Duration::from_millis(50);

/// What the command line chose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// HAProxy with its usual recipe beside Pilotfish, under the same faults.
    pub haproxy: bool,
    /// The number of the only act to play. Those of a Galera cluster follow from each other and are played both.
    pub only: Option<usize>,
}

/// Runs the acts; `true` when every guarantee held.
pub fn run(binary: &Path, options: Options) -> Result<bool> {
    let start = Instant::now();
    let (redis, galera) = (Act::ALL.len(), galera::Act::ALL.len());
    let all = redis + galera + 2;
    let wanted = |number: usize| options.only.is_none_or(|only| only == number);
    if let Some(only) = options.only.filter(|only| !(1..=all).contains(only)) {
        bail!("there is no act {only}: they are 1 to {all}");
    }
    if (1..=redis).any(wanted) {
        introduce(options);
    }
    let mut held = true;
    for (number, act) in (1..).zip(Act::ALL).filter(|(number, _)| wanted(*number)) {
        println!("\n== {number} of {all}: {} ==\n", act.title());
        held &= perform(act, binary, options).with_context(|| act.title())?;
    }
    if (redis + 1..=redis + galera).any(wanted) {
        held &= galera::play(binary, options, (redis + 1, all))?;
    }
    if wanted(all - 1) {
        held &= postgres::perform(binary, (all - 1, all)).context("PostgreSQL")?;
    }
    if wanted(all) {
        held &= region::perform(binary, (all, all)).context("the regions")?;
    }
    println!("\n{} in {} s.", verdict(held), start.elapsed().as_secs());
    Ok(held)
}

fn introduce(options: Options) {
    println!(
        "Redis through Pilotfish: one master, two replicas, three sentinels (down-after 500 ms, quorum 2)."
    );
    println!("Writers send 200 writes a second each, every one with its own key:");
    println!("  php   a connection per request, as PHP does, over the Unix socket");
    println!("  kept  4 kept connections over TCP");
    if options.haproxy {
        println!(
            "HAProxy with its usual role:master check every second gets the same load beside it."
        );
    }
}

fn perform(act: Act, binary: &Path, options: Options) -> Result<bool> {
    let stage = Stage::set_up(binary, options)?;
    let played = act.play(&stage)?;
    let told = story::tell(stage, &played)?;
    print!("{}", told.text);
    Ok(told.guarantees_held)
}

fn verdict(held: bool) -> &'static str {
    if held {
        "All guarantees held"
    } else {
        "A GUARANTEE WAS BROKEN"
    }
}
