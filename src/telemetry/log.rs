//! The log: lines on standard error, which belongs to whoever started us (journald, a container).

use std::fmt::Write;
use std::io::{IsTerminal, stderr};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("`{filter}` is not a log filter: {source}")]
    Filter { filter: String, source: ParseError },
    #[error("there is a log already: {0}")]
    Twice(#[from] TryInitError),
}

/// Starts the log of this process: text with RFC 3339 times in UTC, or one JSON object per line. From
/// then on a panic is one line in it.
///
/// # Errors
/// When the filter does not parse, or the process has a log already.
pub fn init(filter: &str, json: bool) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(filter).map_err(|source| LogError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr);
    if json {
        log.json().flatten_event(true).finish().try_init()?;
    } else {
        let colours = stderr().is_terminal();
        log.with_ansi(colours).finish().try_init()?;
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Panics are the process', as the hook is: there is one count of them.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// How many panics there have been since the log was started.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// The default hook writes several lines and an address that nobody can use.
fn log_panic(info: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    let thread = std::thread::current();
    let place = info.location().map(ToString::to_string);
    let said = info.payload();
    let said = said
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| said.downcast_ref::<String>().map(String::as_str));
    error!(
        event = "panic",
        thread = thread.name().unwrap_or("unnamed"),
        place = place.as_deref().unwrap_or("unknown"),
        "panicked: {}",
        one_line(said.unwrap_or("with a value that is no text"))
    );
}

/// A panic's text may quote what was read from somebody: it must not forge lines or fill the log.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 300;
    let mut line = String::new();
    for c in text.chars().take(LONGEST) {
        if c.is_control() {
            // Writing to a String does not fail.
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_named() {
        let error = init("pilotfish=loud", false).unwrap_err().to_string();
        assert!(
            error.contains("`pilotfish=loud` is not a log filter"),
            "{error}"
        );
    }

    #[test]
    fn a_panic_cannot_forge_lines() {
        assert_eq!(one_line("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(one_line(&"x".repeat(10_000)).len(), 300);
    }

    const FORMAT: &str = "PILOTFISH_TEST_LOG";

    /// A log is for a process, so it takes one to look at it: what `logged` runs.
    fn log_something(format: &str) {
        init("info,pilotfish::noise=off", format == "json").unwrap();
        assert!(init("info", false).is_err(), "there is one already");
        tracing::info!(
            event = "primary",
            service = "cache",
            generation = 3,
            "new primary"
        );
        tracing::debug!("too fine");
        tracing::error!(target: "pilotfish::noise", "not wanted");
        let _ = std::thread::spawn(|| panic!("first line\nsecond line")).join();
    }

    fn logged(format: &str) -> Vec<String> {
        let child = std::process::Command::new("/proc/self/exe")
            .args(["--exact", "telemetry::log::tests::each_event_is_one_line"])
            .arg("--nocapture")
            .env(FORMAT, format)
            .output()
            .unwrap();
        assert!(child.status.success());
        let text = String::from_utf8(child.stderr).unwrap();
        text.lines().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn each_event_is_one_line() {
        if let Ok(format) = std::env::var(FORMAT) {
            return log_something(&format);
        }
        let lines = logged("text");
        assert_eq!(lines.len(), 2, "{lines:?}");
        let (time, rest) = lines[0].split_once(' ').unwrap();
        assert!(
            time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok(),
            "{time}"
        );
        for said in ["INFO", "new primary", "event=\"primary\"", "generation=3"] {
            assert!(rest.contains(said), "{rest}");
        }
        assert!(
            lines[1].contains("panicked: first line\\nsecond line"),
            "{}",
            lines[1]
        );
        assert!(lines[1].contains("src/telemetry/log.rs:"), "{}", lines[1]);

        let lines = logged("json");
        assert_eq!(lines.len(), 2, "{lines:?}");
        let event: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(event["level"], "INFO");
        assert_eq!(event["message"], "new primary");
        assert_eq!(
            (&event["service"], &event["generation"]),
            (&"cache".into(), &3.into())
        );
        assert!(event["timestamp"].as_str().unwrap().ends_with('Z'));
        let panic: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!(panic["event"], "panic");
    }
}
