//! `pilotfish run`.

use super::{ExitCode, done_or_failed};
use crate::config::Loaded;
use crate::telemetry::log;
use crate::telemetry::spec::LogFormat;

/// Runs in the foreground until a signal. The log may be filtered; why it did not start is on stderr
/// in any case.
pub fn run(loaded: Loaded) -> ExitCode {
    let spec = &loaded.config.log;
    if let Err(error) = log::init(&spec.filter, spec.format == LogFormat::Json) {
        return done_or_failed(Err(error.to_string()));
    }
    for warning in loaded.warning_lines() {
        tracing::warn!(event = "config", "{warning}");
    }
    done_or_failed(crate::app::run(loaded).map_err(|error| error.to_string()))
}
