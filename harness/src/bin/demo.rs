//! `make demo`: see [`pilotfish_harness::demo`].

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use pilotfish_harness::{demo, scratch, sidecar};

const USAGE: &str = "usage: PILOTFISH_BIN=target/release/pilotfish demo [--haproxy] [--act=NUMBER]";

fn main() -> Result<ExitCode> {
    let mut options = demo::Options::default();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--haproxy" => options.haproxy = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(ExitCode::SUCCESS);
            }
            other if other.starts_with("--act=") => {
                let number = other.trim_start_matches("--act=");
                options.only = Some(number.parse().context("--act=NUMBER")?);
            }
            other => bail!("unknown argument {other}; {USAGE}"),
        }
    }
    scratch::clean_up_on_signal()?;
    let held = demo::run(&sidecar::binary()?, options)?;
    Ok(if held {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
