//! The signals that the process understands.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM, SIGINT
    Stop,
    /// SIGHUP
    Reload,
}

/// The process' signals.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    takeover: Signal,
}

impl Signals {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            takeover: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next wish. What a later version will do on SIGUSR2 must not end this one. Cancel safe.
    pub async fn next(&mut self) -> Asked {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Asked::Stop,
                _ = self.interrupt.recv() => return Asked::Stop,
                _ = self.hangup.recv() => return Asked::Reload,
                _ = self.takeover.recv() => warn!("SIGUSR2: this version cannot be taken over"),
            }
        }
    }

    /// The next wish to stop; who shuts down reloads nothing. Cancel safe.
    pub async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}
