//! One client: writes what it is given, one at a time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Mode, Options, Shared, Write, ledger};
use crate::resp::{Conn, Value};

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
    kept: Option<Conn>,
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
        let mut conn = self.connection(deadline)?;
        conn.set_timeout(left(deadline)?)?;
        let (key, value) = (ledger::key(&self.options.label, seq), seq.to_string());
        let reply = conn.command(&["SET", &key, &value])?;
        if self.options.mode != Mode::PerRequest {
            // After an error reply too: the connection is in order, only the server is not.
            self.kept = Some(conn);
        }
        match reply {
            Value::Simple(ok) if ok == "OK" => Ok(()),
            Value::Error(text) => bail!("-{text}"),
            other => bail!("an unexpected reply: {other:?}"),
        }
    }

    fn connection(&mut self, deadline: Instant) -> Result<Conn> {
        if let Some(mut conn) = self.kept.take() {
            if conn.is_usable() {
                return Ok(conn);
            }
            self.shared.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        Conn::connect_auth(
            &self.options.target,
            self.options.auth.as_ref(),
            left(deadline)?,
        )
    }
}

fn left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        bail!("timed out");
    }
    Ok(left)
}
