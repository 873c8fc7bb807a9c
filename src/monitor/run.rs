//! The one task per service that publishes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use super::hints::Hints;
use super::metrics::SharedMetrics;
use super::pin::{self, PinReceiver};
use super::{Judge, Report, Verdict};
use crate::clock::{Clock, Moment};
use crate::events::{Entry, Events};
use crate::gate::{Gate, HoldReason};
use crate::net::dial::Dialer;
use crate::topology::cell::{Published, TopologyWriter};

/// Everything a watcher needs from the rest of the sidecar, and its only way out.
pub struct Outlet {
    pub service: Arc<str>,
    pub clock: Clock,
    pub dialer: Dialer,
    pub hints: Hints,
    pub publisher: Publisher,
}

/// Carries verdicts out: topology, gate, report, log and metrics.
pub struct Publisher {
    pub service: Arc<str>,
    pub writer: TopologyWriter,
    pub gate: Arc<Gate>,
    pub report: watch::Sender<Arc<Report>>,
    pub metrics: SharedMetrics,
    pub events: Arc<Events>,
    pub pin: PinReceiver,
    /// Whether the last verdict was an operator's.
    pub pinned: bool,
    /// Whether this one is, or ends such a time.
    pub by_hand: bool,
}

impl Publisher {
    /// Makes a verdict true for everybody. The order matters: a fence shuts before a topology
    /// changes and opens after it, so that nobody passes in between to what was there before.
    pub fn publish(&mut self, clock: &Clock, verdict: &Verdict) {
        for note in &verdict.notes {
            info!(service = %self.service, "{note}");
            self.record("note", note.clone());
        }
        if verdict.fence {
            if !self.gate.holds(HoldReason::Fence) {
                self.record("fenced", "writes are held: the primary is being replaced");
            }
            self.gate.hold(HoldReason::Fence);
        }
        let now = clock.now();
        let refused = match self.writer.publish(&verdict.conclusion, now) {
            Ok(Some(published)) => {
                self.announce(verdict, &published, clock.now());
                false
            }
            Ok(None) => false,
            // A judge keeps this rule itself; the last line of defence says so and changes nothing.
            Err(error) => {
                error!(service = %self.service, %error, "verdict refused");
                true
            }
        };
        if !verdict.fence && !refused {
            if self.gate.holds(HoldReason::Fence) {
                self.record("fence-over", "writes go on");
            }
            self.gate.release(HoldReason::Fence);
        }
        self.update_report(verdict, now);
        self.metrics.with(|metrics| metrics.show(verdict));
    }

    fn record(&self, event: &'static str, message: impl Into<String>) {
        self.events.record(Entry::of(&self.service, event, message));
    }

    /// Puts an operator's word over the verdict, if there is one.
    fn overrule(&mut self, verdict: &mut Verdict) {
        let pin = self.pin.borrow_and_update().clone();
        if let Some(pin) = &pin {
            pin::overrule(verdict, pin);
        }
        self.by_hand = pin.is_some() || std::mem::replace(&mut self.pinned, pin.is_some());
    }

    /// Completes when an operator has said or undone something. Cancel safe.
    async fn pin_changed(&mut self) {
        if self.pin.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn announce(&self, verdict: &Verdict, published: &Published, now: Moment) {
        let (before, after) = (&published.before, &published.after);
        self.metrics
            .with(|metrics| metrics.published(after.generation));
        if before.primary_addr() == after.primary_addr() && after.primary.is_some() {
            return;
        }
        let took = now.since(verdict.evidence_at);
        let term = after
            .term
            .map_or_else(|| "-".to_owned(), |t| t.0.to_string());
        match after.primary_addr() {
            Some(primary) => {
                self.metrics
                    .with(|metrics| metrics.switched(after.cause.as_str()));
                // How long it took says something only where evidence decided.
                if !self.by_hand {
                    self.metrics
                        .with(|m| m.switch_seconds.record(took.as_secs_f64()));
                }
                let generation = after.generation.0;
                let (cause, ms) = (after.cause, took.as_millis());
                let message = format!(
                    "new primary {primary}: {cause}, generation {generation}, term {term}, \
                     {ms} ms after the evidence"
                );
                self.record("primary", message);
                info!(
                    event = "primary", service = %self.service, %primary, %term,
                    generation = after.generation.0, cause = %after.cause,
                    took_ms = took.as_secs_f64() * 1e3, "new primary"
                );
            }
            None => {
                warn!(
                    event = "no-primary", service = %self.service, %term,
                    generation = after.generation.0, cause = %after.cause,
                    was = before.primary_addr().map(tracing::field::display),
                    "no primary, holding"
                );
                let message = format!("no primary: {}, clients are held", after.cause);
                self.record("no-primary", message);
            }
        }
    }

    fn update_report(&self, verdict: &Verdict, now: Moment) {
        let before = self.report.borrow().clone();
        for trouble in verdict
            .troubles
            .iter()
            .filter(|t| !before.troubles.contains(t))
        {
            warn!(event = "trouble", service = %self.service, "{trouble}");
            self.record("trouble", trouble.to_string());
        }
        for trouble in before
            .troubles
            .iter()
            .filter(|t| !verdict.troubles.contains(t))
        {
            info!(event = "trouble-over", service = %self.service, "over: {trouble}");
            self.record("trouble-over", trouble.to_string());
        }
        self.report.send_replace(Arc::new(Report {
            at: now,
            fenced: verdict.fence,
            troubles: verdict.troubles.clone(),
            nodes: verdict.nodes.clone(),
            sources: verdict.sources.clone(),
        }));
    }
}

/// Feeds `judge` with what is seen and carries out its verdicts, until the channel closes.
///
/// `act` gets every verdict before it is published, to follow its wishes for probes and questions.
pub async fn drive<J: Judge>(
    judge: &mut J,
    clock: &Clock,
    seen: &mut mpsc::Receiver<J::Seen>,
    publisher: &mut Publisher,
    mut act: impl FnMut(&Verdict),
) {
    /// A judge that wants to be called again at once must not starve the control thread.
    const SOONEST: Duration = Duration::from_millis(1);
    loop {
        let mut verdict = judge.judge(clock.now());
        act(&verdict);
        publisher.overrule(&mut verdict);
        publisher.publish(clock, &verdict);
        let recheck = async {
            match verdict.recheck {
                Some(at) => {
                    tokio::time::sleep_until(clock.instant(at.max(clock.now() + SOONEST))).await
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            next = seen.recv() => match next {
                Some(observation) => judge.see(clock.now(), observation),
                None => return,
            },
            () = recheck => continue,
            () = publisher.pin_changed() => continue,
        }
        // Whatever else is waiting belongs to the same picture.
        while let Ok(observation) = seen.try_recv() {
            judge.see(clock.now(), observation);
        }
    }
}
