//! A process that a child of ours started, and that outlives it.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::{scratch, wait};

/// Known by its pid, and killed when dropped. Somebody else reaps it.
pub struct Orphan {
    pid: Pid,
}

impl Orphan {
    pub fn new(pid: i32) -> Result<Self> {
        let pid = Pid::from_raw(pid).context("no pid")?;
        scratch::remember_child(pid);
        Ok(Self { pid })
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// A zombie has ended too: who reaps it may take its time.
    pub fn is_running(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let state = stat.ok().and_then(|stat| {
            let (_, rest) = stat.rsplit_once(')')?;
            rest.trim_start().chars().next()
        });
        state.is_some_and(|state| !"ZX".contains(state))
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid, signal).with_context(|| format!("sending {signal:?}"))
    }

    /// Waits for its end.
    pub fn wait(&self, timeout: Duration) -> Result<()> {
        let what = format!("process {} to end", self.pid());
        wait::until_true(&what, timeout, || Ok(!self.is_running()))
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = kill_process(self.pid, Signal::KILL);
        }
        scratch::forget_child(self.pid);
    }
}
