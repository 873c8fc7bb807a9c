//! What `make demo` runs: failovers under load, each told as a timeline, each with a verdict.
//!
//! [`stage`] sets up the servers, the sidecar and the writers; [`acts`] breaks something; [`story`] tells what
//! happened and judges it. [`galera`] does all three for a cluster of MariaDB servers, [`postgres`] for a primary with
//! a standby.

mod acts;
mod galera;
mod postgres;
mod stage;
mod story;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use acts::Act;
use stage::Stage;

/// From the first sentinel's announcement on, this long, a write may still be lost.
const GRACE: Duration = Duration::from_millis(50);

/// What the command line chose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// HAProxy with its usual recipe beside Pilotfish, under the same faults.
    pub haproxy: bool,
}

/// Runs all acts; `true` when every guarantee held.
pub fn run(binary: &Path, options: Options) -> Result<bool> {
    let start = Instant::now();
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
    let mut held = true;
    let all = Act::ALL.len() + galera::Act::ALL.len() + 1;
    for (number, act) in Act::ALL.into_iter().enumerate() {
        println!("\n== {} of {}: {} ==\n", number + 1, all, act.title());
        held &= perform(act, binary, options).with_context(|| act.title())?;
    }
    held &= galera::play(binary, options, (Act::ALL.len() + 1, all))?;
    held &= postgres::perform(binary, all).context("PostgreSQL")?;
    println!("\n{} in {} s.", verdict(held), start.elapsed().as_secs());
    Ok(held)
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
