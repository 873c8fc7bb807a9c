//! How a process ends: told to, or because another one has taken over.

use std::sync::Weak;
use std::time::Duration;

use tracing::info;

use super::signals::Signals;
use super::takeover::elder::Successor;
use super::{App, CLOSE_WITHIN, DRAIN_LOOK};
use crate::drain::Phase;
use crate::events::Entry;

/// What clients get that came last, where the next ones wait for another process: most of PHP's sessions
/// are over by then.
const LAST_CLIENTS: Duration = Duration::from_secs(2);

/// Who serves from now on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// Nobody, for all that is known.
    Us,
    /// Another process, which accepts already.
    Successor,
}

impl App {
    /// Another process accepts clients beside us, and goes on alone: those that we have stay with us, as if
    /// we had been told to end.
    pub(super) async fn give_way(mut self, successor: Successor, signals: Signals) {
        let Successor { pid, version, .. } = &successor;
        // Before it says anything: the service manager listens to the main process alone.
        self.manager.succeeded_by(*pid);
        self.services
            .iter_mut()
            .for_each(|running| running.front.leave());
        // Before anything here could look like the end of the service.
        self.counters.stop_listening();
        info!(
            event = "succeeded",
            pid, version, "another process has taken over"
        );
        successor.over().await;
        self.leave(signals, After::Successor).await;
    }

    /// Health first, then patience, then the rest. A second signal ends the patience.
    pub(super) async fn shut_down(self, signals: Signals) {
        self.common.drain.set(Phase::Leaving);
        self.manager.stopping(self.config.drain_timeout);
        self.leave(signals, After::Us).await;
    }

    async fn leave(self, mut signals: Signals, after: After) {
        let patience = self.config.drain_timeout;
        let sessions = self.common.process.taken();
        let message = format!("shutting down, {sessions} sessions");
        self.common.events.record(Entry::new("draining", message));
        info!(event = "draining", sessions, ?patience, "draining");
        let impatient = tokio::select! {
            () = self.drained() => false,
            () = tokio::time::sleep(patience) => false,
            () = stopped(&mut signals, after) => true,
        };
        for running in &self.services {
            running.front.stop.cancel();
        }
        if self.manager.keeps() && !impatient {
            let last = async {
                for running in &self.services {
                    running.front.stopped().await;
                }
                self.emptied().await;
            };
            let _ = tokio::time::timeout(LAST_CLIENTS, last).await;
        }
        self.close(impatient).await;
        // The control listeners stay open to the end: that is where the drain shows.
        let Self {
            common, counters, ..
        } = self;
        common.supervisor.shut_down().await;
        common.threads.stop();
        drop(counters);
        info!(event = "stopped", "stopped");
    }

    async fn close(&self, impatient: bool) {
        let sessions = self.common.process.taken();
        self.common.drain.set(Phase::Closing);
        let current = self.services.iter().map(|running| running.service.clone());
        for service in current.chain(self.retired.iter().filter_map(Weak::upgrade)) {
            service.drain.set(Phase::Closing);
            service.signal.ring();
        }
        info!(event = "closing", sessions, impatient, "closing");
        if !impatient {
            let _ = tokio::time::timeout(CLOSE_WITHIN, self.emptied()).await;
            let put_back = self.controls.handovers.close();
            let _ = tokio::time::timeout(CLOSE_WITHIN, put_back).await;
        }
    }

    async fn drained(&self) {
        // First of all, so that nobody waits behind a gate that is to open again.
        self.controls.handovers.close().await;
        self.emptied().await;
    }

    async fn emptied(&self) {
        while self.common.process.taken() > 0 {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }
}

/// The signal that ends the patience. Whoever was told to end knows of one; whoever was taken over from is
/// told together with its successor when the whole service ends, and that is no impatience yet.
async fn stopped(signals: &mut Signals, after: After) {
    signals.stop().await;
    if after == After::Successor {
        signals.stop().await;
    }
}
