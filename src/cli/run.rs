//! `pilotfish run`.

use std::io::Write;

use super::ExitCode;
use crate::config::Loaded;

/// Runs in the foreground until a signal.
pub fn run(loaded: Loaded) -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match crate::app::run(loaded.config) {
        Ok(()) => ExitCode::Done,
        Err(error) => {
            // The log may be filtered; whoever started this must see why it did not.
            let _ = writeln!(std::io::stderr().lock(), "pilotfish: {error}");
            ExitCode::Failed
        }
    }
}
