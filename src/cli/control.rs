//! Commands that change something: asked for, done, and said in a line.

use std::io::{self, Write};
use std::path::Path;

use super::table::clean;
use super::{ExitCode, done_or_failed};
use crate::admin::client;
use crate::admin::command::Command;
use crate::admin::handlers::Done;
use crate::telemetry::problem::Problem;

/// `text` as it is, line by line, without control characters.
fn lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(clean).collect();
    lines.join("\n")
}

/// Asks the running process for `command`, and prints what came of it.
pub fn wish(socket: &Path, command: &Command, json: bool) -> ExitCode {
    let (code, body) = match client::ask_blocking(socket, command) {
        Ok(answer) => answer,
        Err(error) => return done_or_failed(Err(error.to_string())),
    };
    if code == 200 {
        let text = String::from_utf8_lossy(&body);
        let done = serde_json::from_slice::<Done>(&body).ok().filter(|_| !json);
        let line = done.map_or_else(|| text.into_owned(), |done| lines(&done.message));
        // Nobody is left to tell when the terminal is gone.
        let _ = writeln!(io::stdout().lock(), "{line}");
        return ExitCode::Done;
    }
    let problem = serde_json::from_slice::<Problem>(&body);
    let why = problem.map_or_else(|_| format!("it answered {code}"), |p| lines(&p.detail));
    match done_or_failed(Err(why)) {
        // Asked rightly, and a rule forbids it now.
        ExitCode::Failed if code == 409 => ExitCode::Refused,
        ExitCode::Failed if code == 422 => ExitCode::Usage,
        other => other,
    }
}
