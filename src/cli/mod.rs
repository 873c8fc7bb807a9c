//! The command line. One file per command family, and one variant of [`Verb`] per command.

pub mod check;
pub mod control;
pub mod events;
pub mod failover;
pub mod find;
pub mod generate;
pub mod probe;
pub mod region;
pub mod run;
pub mod sessions;
pub mod status;
mod table;
mod watch;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::addr::Addr;
use crate::admin::command::{Command, Window};
use crate::config::{LoadError, Loaded};

/// How a command ended, as the caller's shell sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    Done = 0,
    Failed = 1,
    /// Bad usage or configuration: the same command will fail again.
    Usage = 2,
    /// A safety rule forbids it now: a gate, a lock, nothing to fail over to.
    Refused = 3,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// Knows where the primary of each database is, and sends the bytes there.
#[derive(Debug, Parser)]
#[command(name = "pilotfish", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run in the foreground
    Run(RunArgs),
    /// Check the configuration, and say all that is wrong with it
    Check(CheckArgs),
    /// Show services, their primaries and replicas, sessions and health
    Status(StatusArgs),
    /// Print completions for a shell: bash, zsh, fish, elvish or powershell
    Completions(CompletionsArgs),
    /// Print the man page of all commands, or write one page per command to a directory
    Man(ManArgs),
    #[command(flatten)]
    Control(Control),
}

#[derive(Debug, Args)]
struct CompletionsArgs {
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
struct ManArgs {
    /// Write pilotfish.1 and a page per command there
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What needs nothing but the admin socket.
#[derive(Debug, Subcommand)]
enum Control {
    /// Show live sessions: client, endpoint, age, bytes, state
    Sessions(SessionsArgs),
    /// Show what happened and when, newest last
    Events(EventsArgs),
    /// Have the database move its primary: nothing that was acknowledged is lost
    Failover(FailoverArgs),
    /// Make ADDR the primary until `unpin`, whatever the monitor says; survives restarts
    Pin(PinArgs),
    /// Let the monitor decide again
    Unpin(ServiceArgs),
    /// Hold everything: new clients wait, running requests finish
    Pause(ServiceArgs),
    /// Let the clients of a paused service go on
    Resume(ServiceArgs),
    /// Leave the load balancer: health says 503, listeners stay open
    Drain(PlainArgs),
    /// Come back to the load balancer
    Undrain(PlainArgs),
    /// Look at the regional cutover, and carry it out
    #[command(subcommand)]
    Region(region::RegionVerb),
    /// Follow the changed configuration file, and say what changed or why not
    Reload(PlainArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    config: ConfigArg,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Also connect to everything the configuration names, and show what was found
    #[arg(long)]
    probe: bool,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only this service
    pub service: Option<String>,
    /// Draw it anew every second, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Debug, Args)]
pub struct SessionsArgs {
    /// Only those of this service
    pub service: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on as they happen
    #[arg(long)]
    pub follow: bool,
    /// Only those of the last 30s, 10m, 2h, 1d
    #[arg(long, value_name = "TIME", value_parser = events::since)]
    pub since: Option<u64>,
    /// Print JSON, one object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Debug, Args)]
pub struct FailoverArgs {
    pub service: String,
    /// The new primary [default: the healthy replica that is least behind]
    #[arg(long, value_name = "ADDR")]
    pub to: Option<Addr>,
    /// How long it may take until the switch; then everything is put back
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::admin::command::patience)]
    pub timeout: std::time::Duration,
    /// Check everything, say what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The present primary is dead or fenced: promote without it. Refused while it answers
    #[arg(long)]
    pub old_primary_gone: bool,
    #[command(flatten)]
    pub plain: PlainArgs,
}

#[derive(Debug, Args)]
pub struct PinArgs {
    pub service: String,
    /// HOST:PORT, [V6]:PORT or unix:/PATH
    #[arg(value_name = "ADDR")]
    pub address: Addr,
    #[command(flatten)]
    pub plain: PlainArgs,
}

#[derive(Debug, Args)]
pub struct ServiceArgs {
    pub service: String,
    #[command(flatten)]
    pub plain: PlainArgs,
}

#[derive(Debug, Args)]
pub struct PlainArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// How control commands find the running process.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// The admin socket [default: the one in the configuration, else /run/pilotfish/admin.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    #[command(flatten)]
    pub config: ConfigArg,
}

#[derive(Debug, Args)]
pub struct ConfigArg {
    /// The configuration [default: $PILOTFISH_CONFIG, ./proxy.toml, /etc/pilotfish/proxy.toml]
    #[arg(short, long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Does what the arguments ask for; the first of them is the program's name.
pub fn main_with<I>(args: I) -> ExitCode
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match cli.verb {
        Verb::Run(args) => with_config(&args.config, run::run),
        Verb::Check(args) => with_config(&args.config, |loaded| check::check(loaded, args.probe)),
        Verb::Status(args) => show_status(&args),
        Verb::Completions(args) => done_or_failed(generate::completions(args.shell)),
        Verb::Man(args) => done_or_failed(generate::man(args.dir.as_deref())),
        Verb::Control(verb) => match control(&verb) {
            Ok(code) => code,
            Err(error) => {
                check::explain(&error);
                ExitCode::Usage
            }
        },
    }
}

fn control(verb: &Control) -> Result<ExitCode, LoadError> {
    let wish = |plain: &PlainArgs, command| {
        let socket = find::admin_socket(&plain.admin)?;
        Ok(control::wish(&socket, &command, plain.json))
    };
    match verb {
        Control::Sessions(args) => {
            let socket = find::admin_socket(&args.admin)?;
            let shown = sessions::show(&socket, args.service.clone(), args.json);
            Ok(done_or_failed(shown))
        }
        Control::Events(args) => {
            let socket = find::admin_socket(&args.admin)?;
            let window = Window {
                follow: args.follow,
                since: args.since,
            };
            Ok(done_or_failed(events::show(&socket, window, args.json)))
        }
        Control::Failover(args) => {
            let socket = find::admin_socket(&args.plain.admin)?;
            Ok(failover::run(&socket, args))
        }
        Control::Pin(args) => {
            let command = Command::Pin(args.service.clone(), args.address.clone());
            wish(&args.plain, command)
        }
        Control::Unpin(args) => wish(&args.plain, Command::Unpin(args.service.clone())),
        Control::Pause(args) => wish(&args.plain, Command::Pause(args.service.clone())),
        Control::Resume(args) => wish(&args.plain, Command::Resume(args.service.clone())),
        Control::Drain(args) => wish(args, Command::Drain),
        Control::Undrain(args) => wish(args, Command::Undrain),
        Control::Region(verb) => region::region(verb),
        Control::Reload(args) => wish(args, Command::Reload),
    }
}

fn show_status(args: &StatusArgs) -> ExitCode {
    let socket = match find::admin_socket(&args.admin) {
        Ok(socket) => socket,
        Err(error) => {
            check::explain(&error);
            return ExitCode::Usage;
        }
    };
    let service = args.service.as_deref();
    done_or_failed(match args.watch {
        true => watch::watch(&socket, service, args.json),
        false => status::show(&socket, service, args.json),
    })
}

/// Says on stderr why a command failed.
fn done_or_failed(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::Done,
        Err(why) => {
            // Nobody is left to tell when the terminal is gone.
            let _ = writeln!(std::io::stderr().lock(), "pilotfish: {why}");
            ExitCode::Failed
        }
    }
}

/// Help and version are no mistakes: they go to stdout and end well.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell when the terminal is gone.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::Usage
    } else {
        ExitCode::Done
    }
}

/// Goes on with a valid config, or prints what is wrong with it.
fn with_config(arg: &ConfigArg, then: impl FnOnce(Loaded) -> ExitCode) -> ExitCode {
    let loaded = find::config(arg.config.as_deref()).and_then(|path| crate::config::load(&path));
    match loaded {
        Ok(loaded) => then(loaded),
        Err(error) => {
            check::explain(&error);
            ExitCode::Usage
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_hold() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn exit_codes_of_usage() {
        for (args, code) in [
            (&["pilotfish", "--help"][..], ExitCode::Done),
            (&["pilotfish", "check", "--help"], ExitCode::Done),
            (&["pilotfish", "--version"], ExitCode::Done),
            (&["pilotfish"], ExitCode::Usage),
            (&["pilotfish", "chekc"], ExitCode::Usage),
            (&["pilotfish", "check", "--prob"], ExitCode::Usage),
            (
                &["pilotfish", "check", "-c", "/nonexistent/proxy.toml"],
                ExitCode::Usage,
            ),
        ] {
            assert_eq!(main_with(args), code, "{args:?}");
        }
    }
}
