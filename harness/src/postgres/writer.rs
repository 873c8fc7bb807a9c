//! Rows inserted one by one, and which of them were acknowledged.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Pg, PgServer};
use crate::resp::Target;
use crate::writer::{Ledger, Write};

/// How rows use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each row its own connection, as PHP without persistent ones.
    PerRow,
    /// One connection per client; replaced when it was closed.
    Kept,
}

/// Makes the table that all writers write to.
pub const TABLE: &str = "CREATE TABLE ledger (label text, seq bigint, PRIMARY KEY (label, seq))";

/// What a writer of `label` has put there.
pub fn rows_of(server: &PgServer, label: &str) -> Result<BTreeSet<u64>> {
    let rows = server.query(&format!("SELECT seq FROM ledger WHERE label = '{label}'"))?;
    let seqs = rows.into_iter().flatten();
    seqs.map(|text| text.parse().context("a number")).collect()
}

/// Acknowledged rows that `server` does not have.
pub fn missing(ledger: &Ledger, server: &PgServer) -> Result<Vec<Write>> {
    let there = rows_of(server, &ledger.label)?;
    let lost = |write: &&Write| !there.contains(&write.seq);
    Ok(ledger.acked().filter(lost).cloned().collect())
}

#[derive(Default)]
struct Shared {
    writes: Mutex<Vec<Write>>,
    recorded: Condvar,
    stop: AtomicBool,
    next: AtomicU64,
    reconnects: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Write>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Some clients that insert rows until stopped or dropped, each a row every few milliseconds.
pub struct RowWriter {
    label: String,
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl RowWriter {
    /// `timeout` is for one row, connecting included.
    pub fn start(
        label: &str,
        target: &Target,
        (mode, clients): (Mode, usize),
        timeout: Duration,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        for _ in 0..clients {
            let client = Client {
                label: label.to_owned(),
                target: target.clone(),
                mode,
                timeout,
                shared: shared.clone(),
                kept: None,
            };
            let thread = std::thread::Builder::new().name(format!("rows-{label}"));
            threads.push(thread.spawn(move || client.run()).context("a writer")?);
        }
        Ok(Self {
            label: label.to_owned(),
            shared,
            clients: threads,
        })
    }

    /// Waits for a row that was begun after `t` and acknowledged; returns when that was.
    pub fn wait_ack_after(&self, t: Instant, timeout: Duration) -> Result<Instant> {
        let deadline = Instant::now() + timeout;
        let mut writes = self.shared.lock();
        loop {
            let found = writes.iter().find(|w| w.is_acked() && w.started >= t);
            if let Some(write) = found {
                return Ok(write.ended);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last = writes.last().map(|write| format!("{:?}", write.result));
                bail!(
                    "{}: no row was acknowledged for {timeout:?}; the last: {last:?}",
                    self.label
                );
            }
            let waited = self.shared.recorded.wait_timeout(writes, left);
            writes = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for what is in flight.
    pub fn stop(mut self) -> Ledger {
        self.end();
        Ledger {
            label: self.label.clone(),
            writes: std::mem::take(&mut self.shared.lock()),
            skipped: 0,
            reconnects: self.shared.reconnects.load(Ordering::Relaxed),
        }
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

impl Drop for RowWriter {
    fn drop(&mut self) {
        self.end();
    }
}

struct Client {
    label: String,
    target: Target,
    mode: Mode,
    timeout: Duration,
    shared: Arc<Shared>,
    kept: Option<Pg>,
}

impl Client {
    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let seq = self.shared.next.fetch_add(1, Ordering::Relaxed);
            let started = Instant::now();
            let result = self.insert(seq).map_err(|e| format!("{e:#}"));
            let write = Write {
                seq,
                started,
                ended: Instant::now(),
                result,
            };
            self.shared.lock().push(write);
            self.shared.recorded.notify_all();
            std::thread::sleep(Duration::from_millis(4));
        }
    }

    fn insert(&mut self, seq: u64) -> Result<()> {
        let kept = self.kept.take();
        let lost = u64::from(kept.is_some());
        let mut pg = match kept.and_then(|mut pg| pg.is_usable().then_some(pg)) {
            Some(pg) => pg,
            None => {
                self.shared.reconnects.fetch_add(lost, Ordering::Relaxed);
                Pg::connect(&self.target, self.timeout)?
            }
        };
        let label = &self.label;
        pg.query(&format!("INSERT INTO ledger VALUES ('{label}', {seq})"))?;
        if self.mode == Mode::Kept {
            self.kept = Some(pg);
        }
        Ok(())
    }
}
