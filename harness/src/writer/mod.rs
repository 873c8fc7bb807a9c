//! Load at a fixed rate, and a [`Ledger`] of what was acknowledged.
//!
//! The schedule does not wait for answers: a write that is held does not delay the next one. As PHP does it, a write
//! is either a connection of its own ([`Mode::PerRequest`]), or goes over one of some kept connections that each carry
//! one request at a time ([`Mode::Kept`]); there, a turn is skipped when all are busy. A kept connection that was
//! closed while idle is replaced before sending, silently, as phpredis does.

mod ledger;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use ledger::{Counted, LEDGER_TABLE, Ledger, Write, later_than};

use crate::resp::{Auth, Target};
use crate::sql::Login;
use worker::Worker;

/// How requests use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    PerRequest,
    Kept { connections: usize },
}

/// What to write, where and how fast.
#[derive(Clone, Debug)]
pub struct Options {
    /// Goes into every key: must differ between writers to the same servers.
    pub label: String,
    pub target: Target,
    pub mode: Mode,
    /// Writes per second.
    pub rate: u32,
    /// For one write: connect, login, request and reply.
    pub timeout: Duration,
    pub auth: Option<Auth>,
    /// Inserts rows into [`LEDGER_TABLE`] as this account, instead of writing keys to Redis.
    pub sql: Option<Login>,
    /// Ends the load by itself, should nobody stop it.
    pub max_writes: u64,
    pub max_time: Duration,
    /// Of a connection per request: at most so many at once.
    pub max_in_flight: usize,
}

impl Options {
    /// 200 writes per second, 3 s each.
    pub fn new(label: impl Into<String>, target: impl Into<Target>, mode: Mode) -> Self {
        Self {
            label: label.into(),
            target: target.into(),
            mode,
            rate: 200,
            timeout: Duration::from_secs(3),
            auth: None,
            sql: None,
            max_writes: 100_000,
            max_time: Duration::from_secs(120),
            max_in_flight: 1000,
        }
    }
}

/// What scheduler, workers and owner share.
#[derive(Default)]
struct Shared {
    writes: Mutex<Vec<Write>>,
    recorded: Condvar,
    stop: AtomicBool,
    skipped: AtomicU64,
    reconnects: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Write>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running load. Stopped when dropped.
pub struct Writer {
    options: Options,
    shared: Arc<Shared>,
    scheduler: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(options: Options) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let schedule = Schedule {
            options: Arc::new(options.clone()),
            shared: shared.clone(),
            workers: Vec::new(),
        };
        let scheduler = std::thread::Builder::new()
            .name(format!("writer-{}", options.label))
            .spawn(move || schedule.run())
            .context("starting a writer")?;
        Ok(Self {
            options,
            shared,
            scheduler: Some(scheduler),
        })
    }

    /// What is known so far. Writes in flight are not in it.
    pub fn snapshot(&self) -> Ledger {
        Ledger {
            label: self.options.label.clone(),
            writes: self.shared.lock().clone(),
            skipped: self.shared.skipped.load(Ordering::Relaxed),
            reconnects: self.shared.reconnects.load(Ordering::Relaxed),
        }
    }

    /// Waits for a write that began after `t` and was acknowledged; returns when that was.
    pub fn wait_ack_after(&self, t: Instant, timeout: Duration) -> Result<Instant> {
        let deadline = Instant::now() + timeout;
        let mut writes = self.shared.lock();
        loop {
            if let Some(write) = writes
                .iter()
                .find(|write| write.is_acked() && write.started >= t)
            {
                return Ok(write.ended);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last = writes.last().map(|write| format!("{:?}", write.result));
                bail!(
                    "{}: no write was acknowledged for {timeout:?}; the last: {last:?}",
                    self.options.label
                );
            }
            writes = self
                .shared
                .recorded
                .wait_timeout(writes, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Sends no more, waits for what is in flight (at most the timeout of a write).
    pub fn stop(mut self) -> Ledger {
        self.end();
        self.snapshot()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(scheduler) = self.scheduler.take() {
            let _ = scheduler.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

struct Schedule {
    options: Arc<Options>,
    shared: Arc<Shared>,
    workers: Vec<Worker>,
}

impl Schedule {
    fn run(mut self) {
        let start = Instant::now();
        let period = Duration::from_secs(1) / self.options.rate.max(1);
        for seq in 0..self.options.max_writes {
            let due = start + period.saturating_mul(u32::try_from(seq).unwrap_or(u32::MAX));
            if due.duration_since(start) > self.options.max_time {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if self.shared.stop.load(Ordering::Relaxed) {
                break;
            }
            if !self.dispatch(seq) {
                self.shared.skipped.fetch_add(1, Ordering::Relaxed);
            }
        }
        // Workers end with their write in flight.
        for worker in self.workers {
            worker.join();
        }
    }

    fn dispatch(&mut self, seq: u64) -> bool {
        let (limit, first) = match self.options.mode {
            // The lowest idle one: few threads in normal times.
            Mode::PerRequest => (self.options.max_in_flight, 0),
            Mode::Kept { connections } => (connections, seq as usize % connections.max(1)),
        };
        let all = self.workers.len();
        let grow = match self.options.mode {
            Mode::PerRequest => false,
            Mode::Kept { .. } => all < limit,
        };
        if !grow {
            let turns = (0..all).map(|n| (first + n) % all.max(1));
            for index in turns {
                if self.workers[index].give(seq) {
                    return true;
                }
            }
        }
        if all >= limit {
            return false;
        }
        match Worker::start(self.options.clone(), self.shared.clone()) {
            Ok(worker) => {
                let given = worker.give(seq);
                self.workers.push(worker);
                given
            }
            Err(_) => false,
        }
    }
}
