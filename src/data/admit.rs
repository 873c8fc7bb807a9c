//! Limits on sessions, held clients and refusals: plain counts, taken and given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// At most so many at a time.
#[derive(Debug)]
pub struct Limit {
    taken: AtomicUsize,
    most: usize,
}

impl Limit {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            most,
        })
    }

    /// `None` when all places are taken.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let free = |taken| (taken < self.most).then_some(taken + 1);
        let took = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, free);
        took.is_ok().then(|| Place(self.clone()))
    }

    /// How many there are at most.
    pub fn most(&self) -> usize {
        self.most
    }

    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// A place that was taken.
#[derive(Debug)]
pub struct Place(Arc<Limit>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A service's limits.
pub struct Admission {
    pub sessions: Arc<Limit>,
    pub held: Arc<Limit>,
    /// Clients that are being told off, which takes them a moment to hear.
    pub refusing: Arc<Limit>,
    /// All services together: what the file descriptors allow.
    pub process: Arc<Limit>,
}

/// A session's places; given back when it ends.
pub struct Ticket {
    _session: Place,
    _process: Place,
}

impl Admission {
    /// `None` when the service or the process is full.
    pub fn admit(&self) -> Option<Ticket> {
        Some(Ticket {
            _session: self.sessions.take()?,
            _process: self.process.take()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_process_gives_the_session_back() {
        let admission = Admission {
            sessions: Limit::new(2),
            held: Limit::new(1),
            refusing: Limit::new(1),
            process: Limit::new(1),
        };
        let first = admission.admit();
        assert!(first.is_some() && admission.admit().is_none());
        assert_eq!(admission.sessions.taken(), 1);
        drop(first);
        assert_eq!(
            (admission.sessions.taken(), admission.process.taken()),
            (0, 0)
        );
        assert!(admission.admit().is_some());
    }
}
