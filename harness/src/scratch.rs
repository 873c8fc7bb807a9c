//! Temporary directories and the children in them, remembered so that an interrupted run leaves nothing behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tempfile::TempDir;

static DIRS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
static CHILDREN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A directory that is removed when dropped. Drop it after the servers that live in it.
pub struct Dir {
    dir: TempDir,
}

impl Dir {
    pub fn new() -> Result<Self> {
        // Short, because a Unix socket's path must fit into 107 bytes.
        let dir = tempfile::Builder::new()
            .prefix("pilotfish-")
            .tempdir()
            .context("making a temporary directory")?;
        lock(&DIRS).insert(dir.path().to_owned());
        Ok(Self { dir })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        lock(&DIRS).remove(self.dir.path());
    }
}

pub(crate) fn remember_child(pid: Pid) {
    lock(&CHILDREN).insert(pid.as_raw_nonzero().get());
}

pub(crate) fn forget_child(pid: Pid) {
    lock(&CHILDREN).remove(&pid.as_raw_nonzero().get());
}

/// From now on SIGINT, SIGTERM and SIGHUP end this process after its children and directories.
///
/// Children die with us anyway (see [`crate::process`]); a directory would stay.
pub fn clean_up_on_signal() -> Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .context("registering for signals")?;
    std::thread::Builder::new()
        .name("clean-up".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                clean_up();
                std::process::exit(128 + signal);
            }
        })
        .context("starting the clean-up thread")?;
    Ok(())
}

fn clean_up() {
    // Held until exit, so that no other thread starts or removes anything meanwhile.
    let children = lock(&CHILDREN);
    for pid in children.iter().filter_map(|raw| Pid::from_raw(*raw)) {
        let _ = kill_process(pid, Signal::KILL);
        // Dead before their directories go; its owner may have reaped it already.
        let _ = waitpid(Some(pid), WaitOptions::empty());
    }
    for dir in lock(&DIRS).iter() {
        let _ = std::fs::remove_dir_all(dir);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
