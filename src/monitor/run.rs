//! The one task per service that publishes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use super::metrics::MonitorMetrics;
use super::{Judge, Report, Verdict};
use crate::addr::Addr;
use crate::clock::{Clock, Moment};
use crate::gate::{Gate, HoldReason};
use crate::net::dial::Dialer;
use crate::topology::cell::{Published, TopologyWriter};

/// Everything a watcher needs from the rest of the sidecar, and its only way out.
pub struct Outlet {
    pub service: Arc<str>,
    pub clock: Clock,
    pub dialer: Dialer,
    /// Addresses that failed when a client was to be connected: a hint to probe, not a verdict.
    pub hints: mpsc::Receiver<Addr>,
    pub publisher: Publisher,
}

/// Carries verdicts out: topology, gate, report, log and metrics.
pub struct Publisher {
    pub service: Arc<str>,
    pub writer: TopologyWriter,
    pub gate: Arc<Gate>,
    pub report: watch::Sender<Arc<Report>>,
    pub metrics: MonitorMetrics,
}

impl Publisher {
    /// Makes a verdict true for everybody. The order matters: a fence shuts before a topology
    /// changes and opens after it, so that nobody passes in between to what was there before.
    pub fn publish(&mut self, clock: &Clock, verdict: &Verdict) {
        for note in &verdict.notes {
            info!(service = %self.service, "{note}");
        }
        if verdict.fence {
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
            self.gate.release(HoldReason::Fence);
        }
        self.update_report(verdict, now);
        self.metrics.show(verdict);
    }

    fn announce(&self, verdict: &Verdict, published: &Published, now: Moment) {
        let (before, after) = (&published.before, &published.after);
        self.metrics.published(after.generation);
        if before.primary_addr() == after.primary_addr() && after.primary.is_some() {
            return;
        }
        let took = now.since(verdict.evidence_at);
        let term = after
            .term
            .map_or_else(|| "-".to_owned(), |t| t.0.to_string());
        match after.primary_addr() {
            Some(primary) => {
                self.metrics.switched(after.cause.as_str());
                self.metrics.switch_seconds.record(took.as_secs_f64());
                info!(
                    event = "primary", service = %self.service, %primary, %term,
                    generation = after.generation.0, cause = %after.cause,
                    took_ms = took.as_secs_f64() * 1e3, "new primary"
                );
            }
            None => warn!(
                event = "no-primary", service = %self.service, %term,
                generation = after.generation.0, cause = %after.cause,
                was = before.primary_addr().map(tracing::field::display),
                "no primary, holding"
            ),
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
        }
        for trouble in before
            .troubles
            .iter()
            .filter(|t| !verdict.troubles.contains(t))
        {
            info!(event = "trouble-over", service = %self.service, "over: {trouble}");
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
        let verdict = judge.judge(clock.now());
        act(&verdict);
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
        }
        // Whatever else is waiting belongs to the same picture.
        while let Ok(observation) = seen.try_recv() {
            judge.see(clock.now(), observation);
        }
    }
}
