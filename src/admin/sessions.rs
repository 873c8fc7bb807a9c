//! What `/v1/sessions` says; the command line reads the same types.

use serde::{Deserialize, Serialize};

use crate::telemetry::surface::Surface;
use crate::telemetry::view::ServiceView;

/// Of one answer: a person looks at far fewer, and it must not take the control side's time.
const MOST: usize = 10_000;

/// The live sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Oldest first.
    pub sessions: Vec<SessionStatus>,
    /// How many there are in all; more than are listed when there are very many.
    pub total: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    pub service: String,
    /// One more for each session of the service.
    pub id: u64,
    /// `primary` or `replica`: the listener it came through.
    pub role: String,
    /// Its address, or `unix`.
    pub client: String,
    /// `null` while it waits for one.
    pub endpoint: Option<String>,
    pub age_ms: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// `waiting`, `logging-in`, `relaying`, `idle`, `in-flight`, `in-transaction`, `pinned-…`.
    pub state: String,
}

/// Those of all services, or of the one named; `None` when there is no such service.
pub fn list(surface: &Surface, of: Option<&str>) -> Option<Sessions> {
    let shown = surface.shown();
    let wanted = |view: &&ServiceView| of.is_none_or(|name| *view.name == *name);
    let views: Vec<&ServiceView> = shown.services.iter().filter(wanted).collect();
    if of.is_some() && views.is_empty() {
        return None;
    }
    let now = surface.clock.now();
    let mut total = 0;
    let mut sessions = Vec::new();
    for view in views {
        let all = view.table.list();
        total += all.len();
        let room = MOST - sessions.len();
        sessions.extend(all.iter().take(room).map(|entry| {
            let (bytes_up, bytes_down) = entry.bytes();
            let age = now.since(entry.began).as_millis();
            SessionStatus {
                service: view.name.to_string(),
                id: entry.id,
                role: entry.role.as_str().to_owned(),
                client: entry
                    .client
                    .map_or_else(|| "unix".to_owned(), |addr| addr.to_string()),
                endpoint: entry.endpoint().map(|e| e.addr.to_string()),
                age_ms: u64::try_from(age).unwrap_or(u64::MAX),
                bytes_up,
                bytes_down,
                state: entry.stage().as_str().to_owned(),
            }
        }));
    }
    Some(Sessions { sessions, total })
}
