//! The shell of both monitors: a prober per node, and the judge that its answers go to.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::galera::GaleraJudge;
use super::galera::facts::{Facts, QUESTIONS};
use super::probe::client::Access;
use super::probe::{Prober, Said, Subject, ask_once, probe};
use super::replication::MysqlJudge;
use super::replication::facts::{Server, questions};
use crate::addr::Addr;
use crate::monitor::probers::Probers;
use crate::monitor::{Judge, Outlet, Verdict, Watcher, drive};
use crate::net::dial::Dialer;
use crate::net::tls::Connector;
use crate::proto::Found;
use crate::proto::spec::{GaleraSpec, MysqlSpec, NodeSpec, ProbeSpec};
use crate::secret::Credentials;

/// What the shell saw.
#[derive(Clone, Debug)]
pub enum Seen<T> {
    Said {
        addr: Addr,
        said: Said<T>,
    },
    /// A client's connection to it failed, or heard what only a server says that is not the primary.
    Hint(Addr),
    /// An operator wants this one to be the writer before all others; `None`: the usual order.
    Prefer(Option<Addr>),
}

/// An operator's preference among nodes that are all fit to write to. It lives as long as the service does in
/// this process, and no other sidecar knows of it.
#[derive(Clone, Debug)]
pub struct Preference(Arc<watch::Sender<Option<Addr>>>);

impl Default for Preference {
    fn default() -> Self {
        Self(Arc::new(watch::channel(None).0))
    }
}

impl Preference {
    /// Sets it, and returns what it was.
    pub fn set(&self, wish: Option<Addr>) -> Option<Addr> {
        self.0.send_replace(wish)
    }
}

/// How the primary is found.
#[derive(Clone)]
pub enum Kind {
    Galera(GaleraSpec),
    Mysql(MysqlSpec),
}

/// Watches the servers of one service.
#[derive(Clone)]
pub struct SqlWatcher {
    pub kind: Kind,
    /// The region this sidecar is in.
    pub region: Option<Arc<str>>,
    /// `None`: without TLS.
    pub tls: Option<Connector>,
    /// Only of meaning for Galera.
    pub preference: Preference,
}

const GALERA: Subject<Facts> = Subject {
    questions: |_| QUESTIONS,
    read: Facts::read,
};
const MYSQL: Subject<Server> = Subject {
    questions,
    read: Server::read,
};

/// What both kinds have.
struct Common {
    nodes: Vec<NodeSpec>,
    credentials: Credentials,
    probe: ProbeSpec,
    preference: watch::Receiver<Option<Addr>>,
}

impl Watcher for SqlWatcher {
    fn watch(self: Box<Self>, outlet: Outlet) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let common = self.common();
        let access = self.access(&outlet.dialer);
        match &self.kind {
            Kind::Galera(spec) => {
                let judge = GaleraJudge::new(spec, self.region.as_deref());
                Box::pin(run(judge, GALERA, common, access, outlet))
            }
            Kind::Mysql(spec) => {
                let judge = MysqlJudge::new(spec);
                Box::pin(run(judge, MYSQL, common, access, outlet))
            }
        }
    }
}

impl SqlWatcher {
    fn common(&self) -> Common {
        let (nodes, credentials, probe) = match &self.kind {
            Kind::Galera(it) => (&it.nodes, &it.credentials, &it.probe),
            Kind::Mysql(it) => (&it.nodes, &it.credentials, &it.probe),
        };
        Common {
            nodes: nodes.clone(),
            credentials: credentials.clone(),
            probe: probe.clone(),
            preference: self.preference.0.subscribe(),
        }
    }

    /// The servers of the config.
    pub fn nodes(&self) -> Vec<NodeSpec> {
        self.common().nodes
    }

    /// TLS begins in the middle of a login, so connections are dialled without.
    pub fn access(&self, dialer: &Dialer) -> Access {
        Access {
            dialer: Dialer {
                tls: Connector::PLAIN,
                ..dialer.clone()
            },
            tls: self.tls.clone(),
            credentials: self.common().credentials,
        }
    }

    /// Asks every node once, for `check --probe`. Cancel safe.
    pub async fn look_around(&self, dialer: &Dialer) -> Vec<Found> {
        let access = self.access(dialer);
        let mut found = Vec::new();
        let mut primaries = 0;
        for node in &self.common().nodes {
            let (fit, ok, says) = match &self.kind {
                Kind::Galera(spec) => {
                    let asked = ask_in_time(&access, node, GALERA).await;
                    let flaw = asked.map(|facts| facts.flaw(spec.accept_donor));
                    let fit = flaw == Ok(None);
                    let says = match flaw {
                        Ok(flaw) => flaw.unwrap_or_else(|| "fit to write to".to_owned()),
                        Err(why) => why,
                    };
                    (fit, fit, says)
                }
                Kind::Mysql(spec) => match ask_in_time(&access, node, MYSQL).await {
                    Ok(server) => {
                        let (fit, lags) = (server.flaw().is_none(), server.lags(spec.max_lag));
                        (fit, fit || lags.is_none(), server.to_string())
                    }
                    Err(why) => (false, false, why),
                },
            };
            primaries += usize::from(fit);
            let what = format!("mysql {}", node.addr);
            found.push(Found { what, ok, says });
        }
        let wrong = match (primaries, &self.kind) {
            (0, _) => Some("no server is fit to write to"),
            (2.., Kind::Mysql(_)) => Some("more than one server can be written to"),
            _ => None,
        };
        found.extend(wrong.map(|says| Found {
            what: "primary".to_owned(),
            ok: false,
            says: says.to_owned(),
        }));
        found
    }
}

/// A person waits for it.
const WITHIN: Duration = Duration::from_secs(2);

async fn ask_in_time<T>(
    access: &Access,
    node: &NodeSpec,
    subject: Subject<T>,
) -> Result<T, String> {
    let asked = timeout(WITHIN, ask_once(access, node, subject)).await;
    asked.unwrap_or_else(|_| Err(format!("no answer within {WITHIN:?}")))
}

/// Tells the judge of every change of preference, for ever.
async fn pass_wishes<T>(
    mut preference: watch::Receiver<Option<Addr>>,
    seen: mpsc::Sender<Seen<T>>,
) {
    loop {
        let wish = preference.borrow_and_update().clone();
        let _ = seen.send(Seen::Prefer(wish)).await;
        if preference.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn run<T, J>(
    mut judge: J,
    subject: Subject<T>,
    common: Common,
    access: Access,
    outlet: Outlet,
) where
    T: Send + 'static,
    J: Judge<Seen = Seen<T>>,
{
    let Outlet {
        clock,
        mut hints,
        mut publisher,
        ..
    } = outlet;
    let (seen_tx, mut seen) = mpsc::channel(256);
    let nodes: BTreeMap<Addr, NodeSpec> = common
        .nodes
        .iter()
        .map(|n| (n.addr.clone(), n.clone()))
        .collect();
    for node in nodes.values() {
        publisher
            .writer
            .name_endpoint(node.addr.clone(), node.server_name.clone());
    }
    let probe_seconds = publisher.metrics.probe_seconds.clone();
    let hint_tx = seen_tx.clone();
    let mut probers = Probers::new(move |addr, pace| {
        let plain = || NodeSpec {
            addr: addr.clone(),
            server_name: None,
            region: None,
        };
        let prober = Prober {
            node: nodes.get(addr).cloned().unwrap_or_else(plain),
            access: access.clone(),
            subject,
            timeout: common.probe.timeout,
            clock,
            probe_seconds: probe_seconds.clone(),
        };
        let wrap = |node: &NodeSpec, said| Seen::Said {
            addr: node.addr.clone(),
            said,
        };
        Box::pin(probe(prober, pace, seen_tx.clone(), wrap))
    });
    let pass_wishes = pass_wishes(common.preference.clone(), hint_tx.clone());
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
        () = pass_wishes => {}
    }
}
