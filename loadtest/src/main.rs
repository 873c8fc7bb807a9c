//! `make bench`: see [`pilotfish_loadtest`].

use std::process::ExitCode;

use clap::Parser;
use pilotfish_harness::scratch;
use pilotfish_loadtest::cli::{self, Cli};

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    scratch::clean_up_on_signal()?;
    cli::run(cli)
}
