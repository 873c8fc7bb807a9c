//! While a new process takes over, nothing may be changed here: it would be lost. And while something is
//! being changed, no process may take over.

use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Default)]
struct State {
    frozen: bool,
    at_work: usize,
}

/// Which of the two it is.
#[derive(Debug, Default)]
pub struct Freeze(Mutex<State>);

/// Something is being changed until this goes.
#[derive(Debug)]
pub struct AtWork(Arc<Freeze>);

impl Freeze {
    fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Leave to change something; `None` while a takeover is under way.
    pub fn begin(self: &Arc<Self>) -> Option<AtWork> {
        self.with(|state| {
            state.at_work += usize::from(!state.frozen);
            (!state.frozen).then(|| AtWork(self.clone()))
        })
    }

    /// `false` while something is being changed.
    pub fn freeze(&self) -> bool {
        self.with(|state| {
            state.frozen |= state.at_work == 0;
            state.frozen
        })
    }

    pub fn thaw(&self) {
        self.with(|state| state.frozen = false);
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.with(|state| state.at_work -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_or() {
        let freeze = Arc::new(Freeze::default());
        let (one, other) = (freeze.begin().unwrap(), freeze.begin().unwrap());
        drop(one);
        assert!(!freeze.freeze());
        drop(other);
        assert!(freeze.freeze());
        assert!(freeze.begin().is_none());
        freeze.thaw();
        assert!(freeze.begin().is_some());
    }
}
