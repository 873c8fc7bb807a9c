//! `pilotfish failover`.

use std::io::{self, Write};
use std::path::Path;

use super::table::{Column, clean, text, wrapped};
use super::{ExitCode, FailoverArgs, done_or_failed};
use crate::admin::client;
use crate::admin::command::Command;
use crate::admin::handlers::FailoverProblem;
use crate::handover::account::{Account, Outcome};
use crate::handover::{Ask, Old};
use crate::telemetry::problem::Problem;

/// Asks the running process for it, and prints how it ended.
pub fn run(socket: &Path, args: &FailoverArgs) -> ExitCode {
    let ask = Ask {
        to: args.to.clone(),
        timeout: args.timeout,
        dry_run: args.dry_run,
        old: match args.old_primary_gone {
            true => Old::Gone,
            false => Old::Serves,
        },
    };
    let command = Command::Failover(args.service.clone(), ask);
    let (code, body) = match client::ask_blocking(socket, &command) {
        Ok(answer) => answer,
        Err(error) => return done_or_failed(Err(error.to_string())),
    };
    let account = match code {
        200 => serde_json::from_slice::<Account>(&body).ok(),
        _ => serde_json::from_slice::<FailoverProblem>(&body)
            .ok()
            .map(|problem| problem.account),
    };
    let Some(account) = account else {
        let problem = serde_json::from_slice::<Problem>(&body);
        let why = problem.map_or_else(|_| format!("it answered {code}"), |p| clean(&p.detail));
        return done_or_failed(Err(why));
    };
    let shown = match args.plain.json {
        // The account alone, whatever it says: one shape for programs.
        true => serde_json::to_string(&account).unwrap_or_default() + "\n",
        false => spelled(&account),
    };
    // Nobody is left to tell when the terminal is gone.
    let _ = io::stdout().lock().write_all(shown.as_bytes());
    match account.outcome {
        Outcome::Done | Outcome::Planned => ExitCode::Done,
        Outcome::Refused => ExitCode::Refused,
        Outcome::Failed => ExitCode::Failed,
    }
}

const COLUMNS: [Column; 4] = [
    Column("STEP", 12),
    Column("", 12),
    Column("MS", 9),
    Column("WHAT", 0),
];

/// A table of the steps, in the order in which things happened, and what is true now.
fn spelled(account: &Account) -> String {
    let ms = |ms: f64| match ms {
        0.0 => String::new(),
        ms => format!("{ms:.1}"),
    };
    let mut rows: Vec<[String; 4]> = Vec::new();
    for step in &account.steps {
        rows.push([
            step.step.clone(),
            step.outcome.as_str().to_owned(),
            ms(step.took_ms),
            step.what.clone(),
        ]);
    }
    for step in account.steps.iter().rev() {
        if let Some(back) = &step.put_back {
            rows.push([
                step.step.clone(),
                back.outcome.as_str().to_owned(),
                ms(back.took_ms),
                back.what.clone(),
            ]);
        }
    }
    let table = match rows.is_empty() {
        true => String::new(),
        false => text("", &COLUMNS, &rows) + "\n",
    };
    let word = match account.reason.as_deref() {
        Some(reason) => format!("{} ({reason})", account.outcome.as_str()),
        None => account.outcome.as_str().to_owned(),
    };
    let line = format!("{}: {word}: {}", account.service, account.message);
    table + &wrapped("", &clean(&line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::account::{BackAccount, BackOutcome, StepAccount, StepOutcome};

    #[test]
    fn a_failure_fits_a_terminal_and_says_what_is_left() {
        let account = Account {
            service: "cache".into(),
            outcome: Outcome::Failed,
            reason: Some("timeout".into()),
            message: "catch-up: not done when the time was up; one thing was not put back".into(),
            dry_run: false,
            from: None,
            to: None,
            held_ms: 1.0,
            took_ms: 2.0,
            clean: false,
            steps: vec![StepAccount {
                step: "pause-writes".into(),
                outcome: StepOutcome::Done,
                what: "x".repeat(200),
                took_ms: 1234.56,
                put_back: Some(BackAccount {
                    outcome: BackOutcome::Failed,
                    what: "connection\nrefused".into(),
                    took_ms: 0.2,
                }),
            }],
        };
        let text = spelled(&account);
        assert!(
            text.lines().all(|line| line.chars().count() <= 100),
            "{text}"
        );
        assert!(
            text.contains("pause-writes  done          1234.6"),
            "{text}"
        );
        assert!(text.contains("NOT put back  0.2"), "{text}");
        assert!(text.contains("cache: failed (timeout): catch-up"), "{text}");
    }
}
