//! The live sessions of a service, for whoever wants to see them.
//!
//! A session keeps its own entry up to date with plain stores; nobody waits for anybody. Each data thread
//! has a shelf of its own, locked when a session begins or ends and when somebody looks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;

use crate::clock::Moment;
use crate::proto::track::{Opaque, SessionState};
use crate::topology::{Endpoint, Role};

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// It waits for an endpoint, or is being connected to one.
    Waiting,
    LoggingIn,
    /// Bytes pass, and the protocol does not say where the session stands.
    Relaying,
    Idle,
    InFlight,
    InTransaction,
    PinnedCompressed,
    PinnedEncrypted,
    PinnedUnknown,
}

impl Stage {
    const ALL: [Self; 9] = [
        Self::Waiting,
        Self::LoggingIn,
        Self::Relaying,
        Self::Idle,
        Self::InFlight,
        Self::InTransaction,
        Self::PinnedCompressed,
        Self::PinnedEncrypted,
        Self::PinnedUnknown,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::LoggingIn => "logging-in",
            Self::Relaying => "relaying",
            Self::Idle => SessionState::Idle.as_str(),
            Self::InFlight => SessionState::InFlight.as_str(),
            Self::InTransaction => SessionState::InTransaction.as_str(),
            Self::PinnedCompressed => Opaque::Compressed.as_str(),
            Self::PinnedEncrypted => Opaque::Encrypted.as_str(),
            Self::PinnedUnknown => Opaque::Unknown.as_str(),
        }
    }
}

impl From<SessionState> for Stage {
    fn from(state: SessionState) -> Self {
        match state {
            SessionState::Idle => Self::Idle,
            SessionState::InFlight => Self::InFlight,
            SessionState::InTransaction => Self::InTransaction,
            SessionState::Pinned(Opaque::Compressed) => Self::PinnedCompressed,
            SessionState::Pinned(Opaque::Encrypted) => Self::PinnedEncrypted,
            SessionState::Pinned(Opaque::Unknown) => Self::PinnedUnknown,
        }
    }
}

/// One session, as it is right now.
#[derive(Debug)]
pub struct Entry {
    pub id: u64,
    pub role: Role,
    /// `None`: it came through a Unix socket.
    pub client: Option<SocketAddr>,
    pub began: Moment,
    endpoint: ArcSwapOption<Endpoint>,
    up: AtomicU64,
    down: AtomicU64,
    stage: AtomicU8,
}

impl Entry {
    pub fn endpoint(&self) -> Option<Arc<Endpoint>> {
        self.endpoint.load_full()
    }

    /// Bytes passed on to the server, and to the client.
    pub fn bytes(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (load(&self.up), load(&self.down))
    }

    pub fn stage(&self) -> Stage {
        let index = usize::from(self.stage.load(Ordering::Relaxed));
        *Stage::ALL.get(index).unwrap_or(&Stage::Relaying)
    }

    pub fn set_endpoint(&self, endpoint: Option<Arc<Endpoint>>) {
        self.endpoint.store(endpoint);
    }

    pub fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// Only by the session itself.
    pub fn set_bytes(&self, up: u64, down: u64) {
        self.up.store(up, Ordering::Relaxed);
        self.down.store(down, Ordering::Relaxed);
    }
}

type Shelf = Mutex<BTreeMap<u64, Arc<Entry>>>;

/// All sessions of a service.
#[derive(Debug)]
pub struct Table {
    next: AtomicU64,
    shelves: Box<[Shelf]>,
}

impl Table {
    pub fn new(threads: usize) -> Arc<Self> {
        Arc::new(Self {
            next: AtomicU64::new(1),
            shelves: (0..threads.max(1)).map(|_| Shelf::default()).collect(),
        })
    }

    /// Enters a session of data thread `thread`, until the guard goes.
    pub fn enter(
        self: &Arc<Self>,
        thread: usize,
        role: Role,
        client: Option<SocketAddr>,
        began: Moment,
    ) -> Entered {
        let entry = Arc::new(Entry {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            role,
            client,
            began,
            endpoint: ArcSwapOption::empty(),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            stage: AtomicU8::new(Stage::Waiting as u8),
        });
        let thread = thread % self.shelves.len();
        self.shelf(thread, |shelf| shelf.insert(entry.id, entry.clone()));
        Entered {
            table: self.clone(),
            thread,
            entry,
        }
    }

    fn shelf<R>(&self, thread: usize, work: impl FnOnce(&mut BTreeMap<u64, Arc<Entry>>) -> R) -> R {
        let mut shelf = self.shelves[thread]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        work(&mut shelf)
    }

    /// Everybody who is there, oldest first.
    pub fn list(&self) -> Vec<Arc<Entry>> {
        let shelves = 0..self.shelves.len();
        let mut all: Vec<Arc<Entry>> = shelves
            .flat_map(|thread| self.shelf(thread, |s| s.values().cloned().collect::<Vec<_>>()))
            .collect();
        all.sort_by_key(|entry| entry.id);
        all
    }
}

/// A session's place in the table.
#[derive(Debug)]
pub struct Entered {
    table: Arc<Table>,
    thread: usize,
    pub entry: Arc<Entry>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let id = self.entry.id;
        self.table.shelf(self.thread, |shelf| shelf.remove(&id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_come_and_go() {
        let table = Table::new(2);
        let now = Moment::default();
        let first = table.enter(0, Role::Primary, None, now);
        let second = table.enter(1, Role::Replica, "127.0.0.1:5".parse().ok(), now);
        let ids = |table: &Arc<Table>| table.list().iter().map(|e| e.id).collect::<Vec<_>>();
        assert_eq!(ids(&table), [1, 2]);
        second.entry.set_bytes(3, 4);
        second
            .entry
            .set_stage(SessionState::Pinned(Opaque::Encrypted).into());
        let seen = &table.list()[1];
        assert_eq!(seen.bytes(), (3, 4));
        assert_eq!(seen.stage().as_str(), "pinned-encrypted");
        drop(first);
        assert_eq!(ids(&table), [2]);
        drop(second);
        assert!(table.list().is_empty());
    }

    #[test]
    fn stages_are_where_they_belong() {
        for (index, stage) in Stage::ALL.iter().enumerate() {
            assert_eq!(*stage as usize, index);
        }
    }
}
