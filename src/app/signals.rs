//! The signals that the process understands.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

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

    /// SIGTERM or SIGINT. What later versions will do on SIGHUP and SIGUSR2 must not end this one.
    pub async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => warn!("SIGHUP: this version cannot reload, restart it"),
                _ = self.takeover.recv() => warn!("SIGUSR2: this version cannot be taken over"),
            }
        }
    }
}
