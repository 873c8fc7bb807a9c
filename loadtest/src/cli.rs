//! The commands and their options.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::idle::Through;
use crate::pgbench::{self, PgbenchArgs};
use crate::relay::{self, RelayArgs};
use crate::sysbench::{self, SysbenchArgs};
use crate::{bench, idle};

/// What Pilotfish costs, beside HAProxy and beside no proxy at all.
#[derive(Debug, Parser)]
#[command(name = "pilotfish-loadtest", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Throughput and CPU time per request and per connection, memory per idle session
    Bench(BenchArgs),
    /// sysbench's transactions at a MariaDB
    Sysbench(SysbenchArgs),
    /// Resident memory per idle session, as JSON
    Idle(IdleArgs),
    /// pgbench at a PostgreSQL, beside HAProxy and PgBouncer in session mode
    Pgbench(PgbenchArgs),
    /// A relay that does nothing else: started by `bench`
    #[command(hide = true)]
    Relay(RelayArgs),
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// How often everything is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// A quarter of the requests, two rounds: to see that it works
    #[arg(long)]
    pub quick: bool,
    /// Only scenarios whose name contains one of these words ("idle" is one)
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Also write the result to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Fail when a target is missed
    #[arg(long)]
    pub assert: bool,
    /// The pilotfish to measure [default: $PILOTFISH_BIN, else the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub pilotfish: Option<PathBuf>,
    /// Another pilotfish, to compare with the first
    #[arg(long, value_name = "PATH")]
    pub other: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct IdleArgs {
    #[arg(long, default_value_t = idle::SESSIONS)]
    sessions: usize,
    #[arg(long, value_enum, default_value_t = ThroughArg::Pilotfish)]
    through: ThroughArg,
    /// The pilotfish to measure [default: $PILOTFISH_BIN, else the one beside this program]
    #[arg(long, value_name = "PATH")]
    pilotfish: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ThroughArg {
    Pilotfish,
    Haproxy,
}

/// Does what was asked.
///
/// # Errors
/// When something cannot be started or measured; a missed target is an exit code.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Bench(args) => bench::run(&args),
        Command::Sysbench(args) => sysbench::run(&args),
        Command::Pgbench(args) => pgbench::run(&args),
        Command::Relay(args) => relay::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Idle(args) => {
            let through = match args.through {
                ThroughArg::Pilotfish => Through::Pilotfish(binary(args.pilotfish.as_deref())?),
                ThroughArg::Haproxy => Through::HaProxy,
            };
            println!("{}", idle::measure(&through, args.sessions)?.json());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The binary that was named, or `PILOTFISH_BIN`, or the one of the same build.
pub(crate) fn binary(named: Option<&std::path::Path>) -> Result<PathBuf> {
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("pilotfish"));
    let path = named
        .map(Into::into)
        .or_else(|| std::env::var_os("PILOTFISH_BIN").map(PathBuf::from))
        .or_else(beside)
        .context("no idea where pilotfish is: name it with --pilotfish")?;
    path.canonicalize().with_context(|| {
        format!(
            "{}: build it first, or name it with --pilotfish",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["x", "bench", "--rounds", "0"]).is_err());
        assert!(Cli::try_parse_from(["x", "bench", "--only", "small,idle", "--assert"]).is_ok());
    }

    #[test]
    fn a_binary_that_is_not_there_is_named() {
        let error = binary(Some(std::path::Path::new("/no/such/pilotfish"))).unwrap_err();
        assert!(format!("{error:#}").contains("/no/such/pilotfish"));
    }
}
