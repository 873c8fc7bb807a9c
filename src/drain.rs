//! How far a shutdown or a drain has come.

use std::sync::atomic::{AtomicU8, Ordering};

/// From serving to gone. It only goes down the list, but a drain that was asked for can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// -> Draining
    Serving = 0,
    /// An operator wants health to say so; clients are still served. -> Serving, Leaving
    Draining = 1,
    /// The process was told to end: as before, without a way back. -> Closing
    Leaving = 2,
    /// Sessions are closed. Final.
    Closing = 3,
}

/// The phase, for everybody to read. The app sets it, and an operator between the first two.
#[derive(Debug, Default)]
pub struct Drain(AtomicU8);

impl Drain {
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            2 => Phase::Leaving,
            _ => Phase::Closing,
        }
    }

    /// Whoever sets a phase rings the services' signals afterwards.
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    /// From serving to draining; `false` when it is past that.
    pub fn begin(&self) -> bool {
        self.swap(Phase::Serving, Phase::Draining)
    }

    /// Back to serving; `false` when it is not draining, or cannot be undone.
    pub fn undo(&self) -> bool {
        self.swap(Phase::Draining, Phase::Serving)
    }

    fn swap(&self, from: Phase, to: Phase) -> bool {
        let (from, to) = (from as u8, to as u8);
        let swapped = self
            .0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        swapped.is_ok()
    }

    pub fn is_closing(&self) -> bool {
        self.phase() == Phase::Closing
    }
}
