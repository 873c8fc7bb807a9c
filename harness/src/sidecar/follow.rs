//! The log's lines with the time at which they appeared.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::wait::PAUSE;

type Lines = Arc<Mutex<Vec<(Instant, String)>>>;

/// Follows a file until dropped.
pub struct LogFollow {
    lines: Lines,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LogFollow {
    pub(super) fn start(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let (lines, stop) = (Lines::default(), Arc::new(AtomicBool::new(false)));
        let (list, end) = (lines.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("log-follow".into())
            .spawn(move || follow(file, &list, &end))
            .context("following a log")?;
        Ok(Self {
            lines,
            stop,
            thread: Some(thread),
        })
    }

    /// Lines seen at most some 5 ms late.
    pub fn lines(&self) -> Vec<(Instant, String)> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn follow(mut file: File, lines: &Lines, end: &AtomicBool) {
    let mut rest = String::new();
    while !end.load(Ordering::Relaxed) {
        let mut bytes = Vec::new();
        if file.read_to_end(&mut bytes).is_err() {
            return;
        }
        rest.push_str(&String::from_utf8_lossy(&bytes));
        while let Some((line, tail)) = rest.split_once('\n') {
            lines
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((Instant::now(), line.to_owned()));
            rest = tail.to_owned();
        }
        std::thread::sleep(PAUSE);
    }
}

impl Drop for LogFollow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
