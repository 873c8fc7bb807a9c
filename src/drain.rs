//! How far a shutdown or a drain has come.

use std::sync::atomic::{AtomicU8, Ordering};

/// From serving to gone. It only goes down the list, but a drain that was asked for can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// -> Draining
    Serving = 0,
    /// Health says so; clients are still served. -> Serving, Closing
    Draining = 1,
    /// Sessions are closed. Final.
    Closing = 2,
}

/// The phase, for everybody to read. Only the app sets it.
#[derive(Debug, Default)]
pub struct Drain(AtomicU8);

impl Drain {
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            _ => Phase::Closing,
        }
    }

    /// Whoever sets a phase rings the services' signals afterwards.
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    pub fn is_closing(&self) -> bool {
        self.phase() == Phase::Closing
    }
}
