//! The tasks that ask each server for its role, started and ended as the judge wishes.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::role::{Prober, Role, probe};
use crate::addr::Addr;
use crate::monitor::Pace;

/// Makes one observation of a server's answer.
pub type Wrap<S> = fn(Addr, Role) -> S;

/// One prober per server. Dropping it ends them all.
pub struct Probers<S> {
    paces: BTreeMap<Addr, watch::Sender<Pace>>,
    tasks: JoinSet<()>,
    seen: mpsc::Sender<S>,
    wrap: Wrap<S>,
    make: Box<dyn Fn(&Addr) -> Prober + Send>,
}

impl<S: Send + 'static> Probers<S> {
    /// `make` says how a server is asked.
    pub fn new(
        seen: mpsc::Sender<S>,
        wrap: Wrap<S>,
        make: impl Fn(&Addr) -> Prober + Send + 'static,
    ) -> Self {
        let (paces, tasks) = (BTreeMap::new(), JoinSet::new());
        Self {
            paces,
            tasks,
            seen,
            wrap,
            make: Box::new(make),
        }
    }

    /// Makes the probers those in `wanted`, at the paces there.
    pub fn follow(&mut self, wanted: &BTreeMap<Addr, Pace>) {
        // Closing its pace ends a prober.
        self.paces.retain(|addr, _| wanted.contains_key(addr));
        while self.tasks.try_join_next().is_some() {}
        for (addr, &pace) in wanted {
            match self.paces.get(addr) {
                Some(sender) => {
                    sender.send_if_modified(|now| std::mem::replace(now, pace) != pace);
                }
                None => {
                    let (sender, receiver) = watch::channel(pace);
                    self.tasks.spawn(probe(
                        (self.make)(addr),
                        receiver,
                        self.seen.clone(),
                        self.wrap,
                    ));
                    self.paces.insert(addr.clone(), sender);
                }
            }
        }
    }
}
