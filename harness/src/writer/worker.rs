//! One client: writes what it is given, one at a time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Mode, Options, Shared, Write, ledger};
use crate::resp::{self, Value};
use crate::sql;

/// Hundreds may be held at once.
const STACK: usize = 128 * 1024;

pub(super) struct Worker {
    jobs: SyncSender<u64>,
    busy: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Worker {
    pub(super) fn start(options: Arc<Options>, shared: Arc<Shared>) -> io::Result<Self> {
        let (jobs, inbox) = sync_channel(1);
        let busy = Arc::new(AtomicBool::new(false));
        let client = Client {
            options,
            shared,
            busy: busy.clone(),
            kept: None,
        };
        let thread = std::thread::Builder::new()
            .name("writer".into())
            .stack_size(STACK)
            .spawn(move || client.run(inbox))?;
        Ok(Self { jobs, busy, thread })
    }

    /// `false` when it is still busy with the last one.
    pub(super) fn give(&self, seq: u64) -> bool {
        !self.busy.swap(true, Ordering::AcqRel) && self.jobs.send(seq).is_ok()
    }

    pub(super) fn join(self) {
        drop(self.jobs);
        let _ = self.thread.join();
    }
}

struct Client {
    options: Arc<Options>,
    shared: Arc<Shared>,
    busy: Arc<AtomicBool>,
    kept: Option<Lane>,
}

impl Client {
    fn run(mut self, inbox: Receiver<u64>) {
        for seq in inbox {
            let started = Instant::now();
            let result = self.write(seq, started + self.options.timeout);
            let write = Write {
                seq,
                started,
                ended: Instant::now(),
                result: result.map_err(|e| format!("{e:#}")),
            };
            self.shared.lock().push(write);
            self.shared.recorded.notify_all();
            self.busy.store(false, Ordering::Release);
        }
    }

    fn write(&mut self, seq: u64, deadline: Instant) -> Result<()> {
        let mut lane = self.lane(deadline)?;
        let written = lane.write(&self.options.label, seq, left(deadline)?);
        if self.options.mode != Mode::PerRequest && lane.is_usable() {
            // After an error reply too: the connection is in order, only the server is not.
            self.kept = Some(lane);
        }
        written
    }

    fn lane(&mut self, deadline: Instant) -> Result<Lane> {
        if let Some(mut lane) = self.kept.take() {
            if lane.is_usable() {
                return Ok(lane);
            }
            self.shared.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        let (target, left) = (&self.options.target, left(deadline)?);
        Ok(match &self.options.sql {
            Some(login) => Lane::Sql(sql::Conn::connect(target, login, left)?),
            None => {
                let auth = self.options.auth.as_ref();
                Lane::Redis(resp::Conn::connect_auth(target, auth, left)?)
            }
        })
    }
}

/// A connection that writes.
enum Lane {
    Redis(resp::Conn),
    Sql(sql::Conn),
}

impl Lane {
    fn is_usable(&mut self) -> bool {
        match self {
            Self::Redis(conn) => conn.is_usable(),
            Self::Sql(conn) => conn.is_usable(),
        }
    }

    fn write(&mut self, label: &str, seq: u64, timeout: Duration) -> Result<()> {
        match self {
            Self::Redis(conn) => {
                conn.set_timeout(timeout)?;
                let (key, value) = (ledger::key(label, seq), seq.to_string());
                match conn.command(&["SET", &key, &value])? {
                    Value::Simple(ok) if ok == "OK" => Ok(()),
                    Value::Error(text) => bail!("-{text}"),
                    other => bail!("an unexpected reply: {other:?}"),
                }
            }
            Self::Sql(conn) => {
                conn.set_timeout(timeout)?;
                conn.query(&ledger::insert(label, seq)).map(drop)
            }
        }
    }
}

fn left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        bail!("timed out");
    }
    Ok(left)
}
