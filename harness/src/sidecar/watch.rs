//! Every change of a service's health, with the time at which it was seen.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value as Json;

use super::{ANSWER, request};
use crate::resp::Target;
use crate::wait::PAUSE;

/// What `/healthz` said of a service from `at` on (seen at most some 5 ms late).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub at: Instant,
    pub status: String,
    pub primary: Option<String>,
    pub generation: u64,
    pub reason: String,
}

impl Change {
    fn from(json: &Json, service: &str) -> Self {
        let about = &json["services"][service];
        let text = |key: &str| about[key].as_str().unwrap_or_default().to_owned();
        Self {
            at: Instant::now(),
            status: text("status"),
            primary: about["primary"].as_str().map(Into::into),
            generation: about["generation"].as_u64().unwrap_or_default(),
            reason: text("reason"),
        }
    }

    fn says_the_same(&self, other: &Self) -> bool {
        Self {
            at: other.at,
            ..self.clone()
        } == *other
    }
}

/// Polls until dropped.
pub struct HealthWatch {
    changes: Arc<Mutex<Vec<Change>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl HealthWatch {
    pub(super) fn start(http: SocketAddr, service: &str) -> Result<Self> {
        let (changes, stop) = (
            Arc::new(Mutex::new(Vec::<Change>::new())),
            Arc::new(AtomicBool::new(false)),
        );
        let (list, end, service) = (changes.clone(), stop.clone(), service.to_owned());
        let poll = move || {
            while !end.load(Ordering::Relaxed) {
                let answer = request(&Target::from(http), "GET", "/healthz", "", ANSWER);
                if let Some(json) = answer
                    .ok()
                    .and_then(|answer| serde_json::from_str::<Json>(&answer.body).ok())
                {
                    let change = Change::from(&json, &service);
                    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
                    if !list.last().is_some_and(|last| last.says_the_same(&change)) {
                        list.push(change);
                    }
                }
                std::thread::sleep(PAUSE);
            }
        };
        let thread = std::thread::Builder::new()
            .name("health-watch".into())
            .spawn(poll)
            .context("a health watch")?;
        Ok(Self {
            changes,
            stop,
            thread: Some(thread),
        })
    }

    /// The state when the watch began, then every change.
    pub fn changes(&self) -> Vec<Change> {
        self.changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for HealthWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
