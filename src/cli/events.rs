//! `pilotfish events`.

use std::io::{self, Write};
use std::path::Path;

use super::table::clean;
use crate::admin::client;
use crate::admin::command::{Command, Window, ago};
use crate::events::Event;
use crate::telemetry::problem::Problem;

/// For the command line: `10m` -> 600.
///
/// # Errors
/// When it is no such time.
pub fn since(text: &str) -> Result<u64, String> {
    ago(text).ok_or_else(|| "a time like 30s, 10m, 2h or 1d".to_owned())
}

/// Prints events, as lines for people or as they came. With `follow`, until the process ends or whoever
/// reads has seen enough.
///
/// # Errors
/// When the process cannot be asked or does not answer; the text is for people.
pub fn show(socket: &Path, window: Window, json: bool) -> Result<(), String> {
    let mut out = io::stdout().lock();
    let each = |line: &str| {
        let event = serde_json::from_str::<Event>(line).ok().filter(|_| !json);
        let text = event.map_or_else(|| line.to_owned(), |event| spelled(&event));
        writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
    };
    let (code, rest) = client::read_lines(socket, &Command::Events(window), each)
        .map_err(|error| error.to_string())?;
    if code == 200 {
        return Ok(());
    }
    let problem = serde_json::from_str::<Problem>(&rest);
    Err(problem.map_or_else(|_| format!("it answered {code}"), |p| clean(&p.detail)))
}

/// `2026-01-01T00:00:00.000Z cache primary: new primary ... (uid 0, pid 17)`
fn spelled(event: &Event) -> String {
    let service = event.service.as_deref().unwrap_or("-");
    let by = event.by.map_or_else(String::new, |by| {
        let pid = by
            .pid
            .map_or_else(String::new, |pid| format!(", pid {pid}"));
        format!(" (uid {}{pid})", by.uid)
    });
    let line = format!(
        "{} {service} {}: {}{by}",
        event.time, event.event, event.message
    );
    clean(&line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::By;

    #[test]
    fn an_event_is_one_line() {
        let mut event = Event {
            seq: 1,
            time: "2026-01-01T00:00:00.000Z".into(),
            event: "paused".into(),
            service: Some("cache".into()),
            message: "paused:\nclients wait".into(),
            by: Some(By {
                uid: 0,
                pid: Some(17),
            }),
        };
        let line = spelled(&event);
        assert!(
            line.starts_with("2026-01-01T00:00:00.000Z cache paused: paused:"),
            "{line}"
        );
        assert!(
            line.ends_with("(uid 0, pid 17)") && !line.contains('\n'),
            "{line}"
        );
        event.service = None;
        event.by = None;
        assert!(spelled(&event).contains(" - paused: "));
    }
}
