//! Watches the servers of one service: a prober each, on a connection that is kept.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until};

use super::client::{self, Answer, Kept, Target};
use super::judge::{PostgresJudge, Seen};
use super::node::EAGER;
use crate::addr::Addr;
use crate::clock::Clock;
use crate::monitor::probers::Probers;
use crate::monitor::{Outlet, Pace, Verdict, Watcher, drive};
use crate::net::dial::Dialer;
use crate::net::tls::Connector;
use crate::proto::Found;
use crate::proto::spec::PostgresSpec;

/// Two questions to one server are never closer than this.
const SOONEST: Duration = Duration::from_millis(5);

/// Watches the nodes of one service.
pub struct PostgresWatcher {
    pub spec: PostgresSpec,
    pub tls: Connector,
}

impl Watcher for PostgresWatcher {
    fn watch(self: Box<Self>, outlet: Outlet) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.run(outlet))
    }
}

/// How each node is reached.
pub fn targets(spec: &PostgresSpec, tls: &Connector, dialer: &Dialer) -> BTreeMap<Addr, Target> {
    let target = |node: &crate::proto::spec::NodeSpec| {
        let target = Target {
            addr: node.addr.clone(),
            server_name: node.server_name.clone(),
            dialer: dialer.clone(),
            tls: tls.clone(),
            credentials: spec.credentials.clone(),
            database: spec.database.clone(),
            timeout: spec.probe.timeout,
        };
        (node.addr.clone(), target)
    };
    spec.nodes.iter().map(target).collect()
}

impl PostgresWatcher {
    async fn run(self: Box<Self>, outlet: Outlet) {
        let Outlet {
            clock,
            dialer,
            mut hints,
            mut publisher,
            ..
        } = outlet;
        for node in &self.spec.nodes {
            publisher
                .writer
                .name_endpoint(node.addr.clone(), node.server_name.clone());
        }
        let (seen_tx, mut seen) = mpsc::channel(256);
        let hint_tx = seen_tx.clone();
        let targets = targets(&self.spec, &self.tls, &dialer);
        let probe_seconds = publisher.metrics.probe_seconds.clone();
        let mut probers = Probers::new(move |addr, pace| {
            let prober = Prober {
                target: targets.get(addr).cloned(),
                clock,
                probe_seconds: probe_seconds.clone(),
                seen: seen_tx.clone(),
            };
            Box::pin(prober.run(pace))
        });
        let mut judge = PostgresJudge::new(&self.spec);
        let pass_hints = async move {
            while let Some(addr) = hints.recv().await {
                let _ = hint_tx.send(Seen::Hint(addr)).await;
            }
            std::future::pending::<()>().await;
        };
        let act = |verdict: &Verdict| probers.follow(&verdict.probes);
        tokio::select! {
            () = drive(&mut judge, &clock, &mut seen, &mut publisher, act) => {}
            () = pass_hints => {}
        }
    }
}

/// Asks one server.
struct Prober {
    target: Option<Target>,
    clock: Clock,
    probe_seconds: metrics::Histogram,
    seen: mpsc::Sender<Seen>,
}

impl Prober {
    /// Until `pace` closes.
    async fn run(self, mut pace: watch::Receiver<Pace>) {
        // The judge asks only for servers of the config.
        let Some(target) = &self.target else { return };
        let mut kept: Option<Kept> = None;
        loop {
            let wanted = *pace.borrow_and_update();
            let began = self.clock.now();
            let opened = kept.is_none();
            let answer = client::ask(target, &mut kept).await;
            let took = self.clock.now().since(began);
            self.probe_seconds.record(took.as_secs_f64());
            // This host was paused, and the answer lay here for as long: it proves nothing now.
            let answer = if took > target.timeout * 3 {
                Answer::Silent(format!("the answer came after {took:?}"))
            } else {
                answer
            };
            let addr = target.addr.clone();
            if self.seen.send(Seen::Answer { addr, answer }).await.is_err() {
                return;
            }
            let next = self.clock.instant(began + wanted.every);
            tokio::select! {
                () = async { sleep(SOONEST).await; sleep_until(next).await } => {}
                changed = pace.changed() => if changed.is_err() { return },
                // Nothing tells sooner that a server died. One that only closes what it accepts is asked
                // at the usual pace.
                () = client::ending(&mut kept) => {
                    kept = None;
                    if opened {
                        sleep(EAGER).await;
                    }
                }
            }
        }
    }
}

/// Asks every server once.
pub async fn look_around(spec: &PostgresSpec, tls: &Connector, dialer: &Dialer) -> Vec<Found> {
    let mut found = Vec::new();
    for (addr, target) in targets(spec, tls, dialer) {
        let answer = client::ask(&target, &mut None).await;
        found.push(Found {
            what: format!("server {addr}"),
            ok: matches!(answer, Answer::Says(_) | Answer::Busy(_)),
            says: answer.to_string(),
        });
    }
    found
}
