//! The gate in front of a service: open when nobody has a reason to hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::signal::Signal;

/// Who holds a service. "No primary" is not among them: that is read from the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HoldReason {
    /// The monitor: the primary is being replaced, and what it acknowledges now may be lost.
    Fence = 1,
    /// An operator: everything waits, and what runs may finish.
    Operator = 2,
    /// A forced failover: as for an operator, until it is over.
    Handover = 4,
}

impl HoldReason {
    pub const ALL: [Self; 3] = [Self::Fence, Self::Operator, Self::Handover];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::Operator => "operator",
            Self::Handover => "failover",
        }
    }
}

/// The reasons that stand. A session passes only when there is none.
#[derive(Debug)]
pub struct Gate {
    reasons: AtomicU8,
    signal: Arc<Signal>,
}

impl Gate {
    pub fn new(signal: Arc<Signal>) -> Self {
        Self {
            reasons: AtomicU8::new(0),
            signal,
        }
    }

    /// Holds for `reason`. When it returns, no byte of a client is on its way past the gate.
    pub fn hold(&self, reason: HoldReason) {
        if self.reasons.fetch_or(reason as u8, Ordering::AcqRel) & reason as u8 == 0 {
            self.signal.ring();
        }
    }

    pub fn release(&self, reason: HoldReason) {
        if self.reasons.fetch_and(!(reason as u8), Ordering::AcqRel) & reason as u8 != 0 {
            self.signal.ring();
        }
    }

    pub fn is_open(&self) -> bool {
        self.reasons.load(Ordering::Acquire) == 0
    }

    pub fn holds(&self, reason: HoldReason) -> bool {
        self.reasons.load(Ordering::Acquire) & reason as u8 != 0
    }

    /// Why it is shut; nothing when it is open.
    pub fn reasons(&self) -> impl Iterator<Item = HoldReason> + '_ {
        let all = HoldReason::ALL.into_iter();
        all.filter(|reason| self.holds(*reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::crossings;

    #[test]
    fn a_reason_rings_once_and_stands_until_released() {
        let signal = Signal::new(crossings(1));
        let gate = Gate::new(signal.clone());
        assert!(gate.is_open());
        gate.hold(HoldReason::Fence);
        gate.hold(HoldReason::Fence);
        assert!(!gate.is_open() && gate.holds(HoldReason::Fence));
        assert_eq!(signal.version(), 1);
        assert!(gate.reasons().eq([HoldReason::Fence]));
        gate.release(HoldReason::Fence);
        gate.release(HoldReason::Fence);
        assert!(gate.is_open());
        assert_eq!(signal.version(), 2);
    }
}
