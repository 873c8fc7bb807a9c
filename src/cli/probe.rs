//! `pilotfish check --probe`: what the servers that the config names say right now.

use std::io::Write;

use super::table::{self, Column};
use super::{ExitCode, done_or_failed};
use crate::app::look::look_around;
use crate::config::Loaded;

const COLUMNS: [Column; 4] = [
    Column("SERVICE", 16),
    Column("WHAT", 34),
    Column("OK", 3),
    Column("SAYS", SAYS),
];
const SAYS: usize = 60;

/// Connects to everything once; fails when something is not as a working service needs it.
pub fn probe(loaded: Loaded) -> ExitCode {
    let services = match look_around(&loaded.config) {
        Ok(services) => services,
        Err(error) => return done_or_failed(Err(error.to_string())),
    };
    let (mut rows, mut whole) = (Vec::new(), String::new());
    for service in &services {
        for found in &service.found {
            let verdict = if found.ok { "yes" } else { "NO" };
            rows.push([
                service.service.clone(),
                found.what.clone(),
                verdict.to_owned(),
                found.says.clone(),
            ]);
            if !found.ok && found.says.chars().count() > SAYS {
                whole += &format!("\n{} {}: {}\n", service.service, found.what, found.says);
            }
        }
    }
    let text = table::text("", &COLUMNS, &rows) + &whole;
    // Nobody is left to tell when the terminal is gone.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    let all_ok = services.iter().flat_map(|s| &s.found).all(|f| f.ok);
    if all_ok {
        ExitCode::Done
    } else {
        ExitCode::Failed
    }
}
