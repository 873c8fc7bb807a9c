//! `pilotfish region …`: looking at the cutover, and doing it.

mod show;

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use clap::{Args, Subcommand};

use super::table::clean;
use super::{AdminArgs, ExitCode, PlainArgs, done_or_failed, find};
use crate::admin::client;
use crate::admin::command::Command;
use crate::admin::region::{Back, Move, Region};
use crate::config::LoadError;
use crate::cutover::feed::{Line, Outcome};
use crate::cutover::report::Preview;
use crate::telemetry::problem::Problem;

/// What can be asked.
#[derive(Debug, Subcommand)]
pub enum RegionVerb {
    /// Show where the records lead, what runs and what was done last
    Status(PlainArgs),
    /// Show the records to change and every gate's verdict; changes nothing
    Plan(PlanArgs),
    /// Move the site to another region
    Cutover(CutoverArgs),
    /// Move the site back home, after a longer soak
    Failback(FailbackArgs),
    /// Go on with what was interrupted, or has waited for a human
    Resume(PlainArgs),
    /// Take back what is unfinished
    Rollback(RollbackArgs),
    /// Show all runs, newest last
    History(PlainArgs),
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The region to move to
    #[arg(long, value_name = "REGION", required_unless_present = "failback")]
    to: Option<String>,
    /// With the gates of a failback
    #[arg(long)]
    failback: bool,
    /// Overrule a gate
    #[arg(long = "override", value_name = "GATE")]
    overrides: Vec<String>,
    #[command(flatten)]
    plain: PlainArgs,
}

#[derive(Debug, Args)]
pub struct CutoverArgs {
    /// The region to move to
    #[arg(long, value_name = "REGION")]
    to: String,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Debug, Args)]
pub struct FailbackArgs {
    /// The region to move back to [default: the first in the configuration]
    #[arg(long, value_name = "REGION")]
    to: Option<String>,
    #[command(flatten)]
    how: HowArgs,
}

#[derive(Debug, Args)]
pub struct HowArgs {
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Why; recorded, and needed with --override
    #[arg(long)]
    reason: Option<String>,
    /// Overrule a gate that fails; recorded with the reason
    #[arg(long = "override", value_name = "GATE")]
    overrides: Vec<String>,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Why; recorded
    #[arg(long)]
    reason: Option<String>,
    /// Change nothing, and consider it settled by hand
    #[arg(long, requires = "reason")]
    give_up: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// # Errors
/// When the config, which says where the socket is, cannot be read.
pub fn region(verb: &RegionVerb) -> Result<ExitCode, LoadError> {
    let looked = |plain: &PlainArgs, region, show: fn(&str) -> String| {
        let socket = find::admin_socket(&plain.admin)?;
        Ok(look(&socket, region, plain.json, show))
    };
    match verb {
        RegionVerb::Status(plain) => looked(plain, Region::Status, show::status),
        RegionVerb::History(plain) => looked(plain, Region::History, show::history),
        RegionVerb::Plan(args) => {
            let wish = Move {
                to: args.to.clone(),
                overrides: args.overrides.clone(),
                failback: args.failback,
                ..Move::default()
            };
            let socket = find::admin_socket(&args.plain.admin)?;
            Ok(match preview(&socket, wish, args.plain.json) {
                Ok(_) => ExitCode::Done,
                Err(code) => code,
            })
        }
        RegionVerb::Cutover(args) => {
            let wish = wish(Some(args.to.clone()), &args.how, false);
            Ok(carry_out(
                &find::admin_socket(&args.how.admin)?,
                wish,
                &args.how,
            ))
        }
        RegionVerb::Failback(args) => {
            let wish = wish(args.to.clone(), &args.how, true);
            Ok(carry_out(
                &find::admin_socket(&args.how.admin)?,
                wish,
                &args.how,
            ))
        }
        RegionVerb::Resume(plain) => {
            let socket = find::admin_socket(&plain.admin)?;
            Ok(follow(&socket, Region::Resume, plain.json))
        }
        RegionVerb::Rollback(args) => {
            let socket = find::admin_socket(&args.admin)?;
            if !args.yes && !asked("Take it back?") {
                return Ok(unasked());
            }
            let back = Back {
                reason: args.reason.clone(),
                give_up: args.give_up,
            };
            Ok(follow(&socket, Region::Rollback(back), args.json))
        }
    }
}

fn wish(to: Option<String>, how: &HowArgs, failback: bool) -> Move {
    Move {
        to,
        reason: how.reason.clone(),
        overrides: how.overrides.clone(),
        digest: None,
        failback,
    }
}

/// Shows the plan, asks, and carries it out.
fn carry_out(socket: &Path, wish: Move, how: &HowArgs) -> ExitCode {
    let preview = match preview(socket, wish.clone(), how.json) {
        Ok(preview) => preview,
        Err(code) => return code,
    };
    // What is unfinished may have led them there, and may yet lead them back.
    let unfinished = preview.stopped_by.iter().any(|gate| gate == "lock");
    if preview.idle && !unfinished {
        return ExitCode::Done;
    }
    if !preview.stopped_by.is_empty() {
        let names = preview.stopped_by.join(", ");
        let _ = writeln!(io::stderr().lock(), "pilotfish: gates failed: {names}");
        return ExitCode::Refused;
    }
    if !how.yes && !asked(&format!("Move to {}?", clean(&preview.plan.to))) {
        return unasked();
    }
    let wish = Move {
        to: Some(preview.plan.to.clone()),
        digest: Some(preview.plan.digest.clone()),
        failback: false,
        ..wish
    };
    let region = match preview.plan.way {
        crate::cutover::plan::Way::Failback => Region::Failback(wish),
        crate::cutover::plan::Way::Cutover => Region::Cutover(wish),
    };
    follow(socket, region, how.json)
}

fn unasked() -> ExitCode {
    let _ = writeln!(
        io::stderr().lock(),
        "pilotfish: nothing was done; --yes does it unasked"
    );
    ExitCode::Refused
}

/// Only a human on a terminal can say yes.
fn asked(question: &str) -> bool {
    if !io::stdin().is_terminal() {
        return false;
    }
    let _ = write!(io::stderr().lock(), "{question} [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "yes")
}

/// Asks without a limit in time: gates may take long.
fn ask(socket: &Path, region: Region) -> Result<(u16, String), String> {
    let mut lines = String::new();
    let each = |line: &str| {
        lines.push_str(line);
        lines.push('\n');
        true
    };
    let answer = client::read_lines(socket, &Command::Region(region), each);
    let (code, rest) = answer.map_err(|error| error.to_string())?;
    Ok((code, lines + &rest))
}

fn refused(code: u16, body: &str) -> ExitCode {
    let problem = serde_json::from_str::<Problem>(body);
    let why = problem.map_or_else(|_| format!("it answered {code}"), |p| clean(&p.detail));
    match (done_or_failed(Err(why)), code) {
        (ExitCode::Failed, 409) => ExitCode::Refused,
        (ExitCode::Failed, 400 | 422) => ExitCode::Usage,
        (other, _) => other,
    }
}

fn look(socket: &Path, region: Region, json: bool, show: fn(&str) -> String) -> ExitCode {
    match ask(socket, region) {
        Err(why) => done_or_failed(Err(why)),
        Ok((200, body)) => {
            let text = if json { body } else { show(&body) };
            // Nobody is left to tell when the terminal is gone.
            let _ = writeln!(io::stdout().lock(), "{}", text.trim_end());
            ExitCode::Done
        }
        Ok((code, body)) => refused(code, &body),
    }
}

/// Shows the plan. The error is how the command ends.
fn preview(socket: &Path, wish: Move, json: bool) -> Result<Preview, ExitCode> {
    let (code, body) = ask(socket, Region::Plan(wish)).map_err(|why| done_or_failed(Err(why)))?;
    if code != 200 {
        return Err(refused(code, &body));
    }
    let preview: Preview = serde_json::from_str(&body).map_err(|error| {
        done_or_failed(Err(format!("it does not answer as it should: {error}")))
    })?;
    let text = if json { body } else { show::preview(&preview) };
    let _ = writeln!(io::stdout().lock(), "{}", text.trim_end());
    Ok(preview)
}

/// Shows the lines of a run until its result.
fn follow(socket: &Path, region: Region, json: bool) -> ExitCode {
    let mut out = io::stdout().lock();
    let mut result: Option<Outcome> = None;
    let each = |line: &str| {
        let parsed = serde_json::from_str::<Line>(line).ok();
        let text = match (&parsed, json) {
            (Some(line), false) => show::line(line),
            _ => line.to_owned(),
        };
        if let Some(outcome) = parsed.and_then(|line| line.result) {
            result = Some(outcome);
        }
        writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
    };
    let (code, rest) = match client::read_lines(socket, &Command::Region(region), each) {
        Ok(answer) => answer,
        Err(error) => return done_or_failed(Err(error.to_string())),
    };
    if code != 200 {
        return refused(code, &rest);
    }
    match result.map(|outcome| outcome.exit) {
        Some(0) => ExitCode::Done,
        Some(3) => ExitCode::Refused,
        Some(_) => ExitCode::Failed,
        None => done_or_failed(Err(
            "the connection ended before the run did: `pilotfish region status`".to_owned(),
        )),
    }
}
