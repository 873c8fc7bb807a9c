//! Where the newest topology lies: one swap, one writer.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::reduce::{Conclusion, OlderTerm, reduce};
use super::{Cause, Endpoint, Generation, Topology};
use crate::addr::Addr;
use crate::clock::Moment;
use crate::signal::Signal;

struct Cell {
    current: ArcSwap<Topology>,
    signal: Arc<Signal>,
}

/// Publishes. There is one per service and it cannot be cloned: the monitor owns it.
pub struct TopologyWriter {
    cell: Arc<Cell>,
    endpoints: BTreeMap<Addr, Arc<Endpoint>>,
}

/// Loads the newest topology.
#[derive(Clone)]
pub struct TopologyReader {
    cell: Arc<Cell>,
}

/// A writer and a reader of the same, empty topology.
pub fn cell(signal: Arc<Signal>, now: Moment) -> (TopologyWriter, TopologyReader) {
    let cell = Arc::new(Cell {
        current: ArcSwap::from_pointee(Topology::empty(now)),
        signal,
    });
    let writer = TopologyWriter {
        cell: cell.clone(),
        endpoints: BTreeMap::new(),
    };
    (writer, TopologyReader { cell })
}

/// What [`TopologyWriter::publish`] changed.
#[derive(Debug)]
pub struct Published {
    pub before: Arc<Topology>,
    pub after: Arc<Topology>,
}

impl TopologyWriter {
    /// Gives `addr` a certificate name of its own.
    pub fn name_endpoint(&mut self, addr: Addr, server_name: Option<String>) {
        let endpoint = Endpoint::new(addr.clone(), server_name);
        self.endpoints.insert(addr, endpoint);
    }

    /// Publishes what follows from `conclusion`; `None` when nothing changed. When it returns, no
    /// byte read from a client goes to a primary that is no longer published.
    ///
    /// # Errors
    /// An older term is refused; the topology stays.
    pub fn publish(
        &mut self,
        conclusion: &Conclusion,
        now: Moment,
    ) -> Result<Option<Published>, OlderTerm> {
        let before = self.cell.current.load_full();
        let endpoints = &mut self.endpoints;
        let next = reduce(&before, conclusion, now, |addr| {
            let known = endpoints.entry(addr.clone());
            known
                .or_insert_with(|| Endpoint::new(addr.clone(), None))
                .clone()
        })?;
        let Some(next) = next else { return Ok(None) };
        let after = Arc::new(next);
        self.cell.current.store(after.clone());
        self.cell.signal.ring();
        self.forget_unused();
        Ok(Some(Published { before, after }))
    }

    /// Servers come and go in clusters that renew themselves; the map must not keep them all.
    fn forget_unused(&mut self) {
        const KEPT: usize = 64;
        if self.endpoints.len() > KEPT {
            self.endpoints
                .retain(|_, e| Arc::strong_count(e) > 1 || e.server_name.is_some());
        }
    }
}

/// Without its monitor nothing is proven any more.
impl Drop for TopologyWriter {
    fn drop(&mut self) {
        let last = self.cell.current.load_full();
        let generation = Generation(last.generation.0 + 1);
        let (primary, replicas, cause) = (None, Arc::new([]), Cause::Unproven);
        let closed = Topology {
            generation,
            cause,
            primary,
            replicas,
            ..(*last).clone()
        };
        self.cell.current.store(Arc::new(closed));
        self.cell.signal.ring();
    }
}

impl TopologyReader {
    pub fn load(&self) -> Arc<Topology> {
        self.cell.current.load_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::crossings;
    use crate::topology::Term;

    #[test]
    fn a_lost_monitor_leaves_no_primary() {
        let signal = Signal::new(crossings(1));
        let (mut writer, reader) = cell(signal.clone(), Moment::default());
        let conclusion = Conclusion {
            leaving: None,
            primary: Some("10.0.0.1:6379".parse().unwrap()),
            term: Some(Term(1)),
            cause: Cause::Proven,
            replicas: vec![],
        };
        writer
            .publish(&conclusion, Moment::default())
            .unwrap()
            .unwrap();
        assert!(reader.load().primary.is_some());
        let version = signal.version();
        drop(writer);
        assert!(reader.load().primary.is_none() && signal.version() > version);
        assert_eq!(reader.load().generation, Generation(2));
    }
}
