//! The tasks that ask each server, started and ended as the judge wishes.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Pace;
use crate::addr::Addr;

/// Asks one server at the pace of the receiver, until that closes.
pub type Probing = Pin<Box<dyn Future<Output = ()> + Send>>;

type Make = dyn Fn(&Addr, watch::Receiver<Pace>) -> Probing + Send;

/// One prober per server. Dropping it ends them all.
pub struct Probers {
    paces: BTreeMap<Addr, watch::Sender<Pace>>,
    tasks: JoinSet<()>,
    make: Box<Make>,
}

impl Probers {
    /// `make` says how a server is asked.
    pub fn new(make: impl Fn(&Addr, watch::Receiver<Pace>) -> Probing + Send + 'static) -> Self {
        Self {
            paces: BTreeMap::new(),
            tasks: JoinSet::new(),
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
                    self.tasks.spawn((self.make)(addr, receiver));
                    self.paces.insert(addr.clone(), sender);
                }
            }
        }
    }
}
