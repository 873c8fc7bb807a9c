//! Whose keys are whose: a request to cancel comes on a connection of its own, and only the server that
//! issued its key can do anything with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::topology::Endpoint;

/// Process id and secret of one session, as `BackendKeyData` and `CancelRequest` carry them: 8 bytes, up
/// to 260 since protocol 3.2.
type Key = Bytes;

/// The keys of all sessions of one service. Bounded by the sessions there are.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Keys>>);

#[derive(Default)]
struct Keys {
    known: BTreeMap<Key, (u64, Arc<Endpoint>)>,
    /// Tells entries apart: two servers may issue the same key.
    count: u64,
}

impl Registry {
    /// Remembers `key` until the guard goes.
    pub fn enter(&self, key: Bytes, endpoint: Arc<Endpoint>) -> Entry {
        let mut keys = self.lock();
        keys.count += 1;
        let id = keys.count;
        keys.known.insert(key.clone(), (id, endpoint));
        Entry {
            registry: self.clone(),
            key,
            id,
        }
    }

    /// The server that issued `key`.
    pub fn find(&self, key: &[u8]) -> Option<Arc<Endpoint>> {
        let keys = self.lock();
        keys.known.get(key).map(|(_, endpoint)| endpoint.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One session's place in a [`Registry`].
pub struct Entry {
    registry: Registry,
    key: Bytes,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut keys = self.registry.lock();
        if keys.known.get(&self.key).is_some_and(|e| e.0 == self.id) {
            keys.known.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_live_as_long_as_their_sessions() {
        let registry = Registry::default();
        let server = |n| Endpoint::new(format!("10.0.0.{n}:5432").parse().unwrap(), None);
        let (a, b) = (server(1), server(2));
        let first = registry.enter(Bytes::from_static(b"same"), a);
        let second = registry.enter(Bytes::from_static(b"same"), b.clone());
        drop(first);
        assert_eq!(registry.find(b"same").unwrap().addr, b.addr);
        assert!(registry.find(b"other").is_none());
        drop(second);
        assert!(registry.find(b"same").is_none() && registry.lock().known.is_empty());
    }
}
