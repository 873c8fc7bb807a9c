//! The connections to the sentinels: one for questions and one for events each.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::answer::{Answer, parse, questions};
use super::event::{CHANNELS, PATTERN, Push, push, read};
use super::judge::{Seen, SentinelJudge};
use crate::addr::Addr;
use crate::monitor::backoff::Backoff;
use crate::monitor::probers::Probers;
use crate::monitor::{Outlet, Verdict, Watcher, drive};
use crate::net::dial::Dialer;
use crate::net::tls::Connector;
use crate::proto::redis::client::{AskError, Connection};
use crate::proto::redis::resp::Nonsense;
use crate::proto::redis::role::{Prober, probe};
use crate::proto::spec::SentinelSpec;
use crate::secret::Credentials;

/// Without an event each sentinel is asked this often.
const POLL: Duration = Duration::from_secs(1);
/// However many events there are, not more often than this.
const SHORTEST_POLL: Duration = Duration::from_millis(5);
/// A sentinel that takes longer is out of reach.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// A subscribed connection is pinged this often and must answer before the next one.
const PING: Duration = Duration::from_secs(1);

/// Events a second that are heeded from one sentinel. A failover has about twenty.
const MOST_EVENTS: u32 = 200;
/// Messages a second that are read at all: it may watch many masters besides ours.
const MOST_MESSAGES: u32 = 2000;

/// Watches one service through its sentinels.
pub struct SentinelWatcher {
    pub spec: SentinelSpec,
    pub sentinel_tls: Connector,
    pub hold_timeout: Duration,
}

impl Watcher for SentinelWatcher {
    fn watch(self: Box<Self>, outlet: Outlet) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.run(outlet))
    }
}

/// What one sentinel's two tasks share.
struct Source {
    index: usize,
    addr: Addr,
    master: String,
    dialer: Dialer,
    credentials: Credentials,
    seen: mpsc::Sender<Seen>,
    /// Ask again at once.
    again: Notify,
}

impl SentinelWatcher {
    async fn run(self: Box<Self>, outlet: Outlet) {
        let Outlet {
            clock,
            dialer,
            mut hints,
            mut publisher,
            ..
        } = outlet;
        let (seen_tx, mut seen) = mpsc::channel(256);
        let mut tasks = JoinSet::new();
        let sources = self.sources(&dialer, &seen_tx);
        for source in &sources {
            tasks.spawn(ask(source.clone()));
            tasks.spawn(listen(source.clone()));
        }
        let hint_tx = seen_tx.clone();
        tasks.spawn(async move {
            while let Some(addr) = hints.recv().await {
                if hint_tx.send(Seen::Hint(addr)).await.is_err() {
                    return;
                }
            }
        });
        let template = Prober {
            addr: Addr::Ip(([127, 0, 0, 1], 1).into()),
            server_name: None,
            dialer,
            credentials: self.spec.credentials.clone(),
            clock,
            probe_seconds: publisher.metrics.probe_seconds.clone(),
        };
        let mut probers = Probers::new(move |addr, pace| {
            let prober = Prober {
                addr: addr.clone(),
                ..template.clone()
            };
            let wrap = |addr, role| Seen::Role { addr, role };
            Box::pin(probe(prober, pace, seen_tx.clone(), wrap))
        });
        let mut judge = SentinelJudge::new(self.spec, self.hold_timeout);
        let mut asked = 0;
        let act = |verdict: &Verdict| {
            probers.follow(&verdict.probes);
            if std::mem::replace(&mut asked, verdict.ask_again) != verdict.ask_again {
                sources.iter().for_each(|source| source.again.notify_one());
            }
        };
        drive(&mut judge, &clock, &mut seen, &mut publisher, act).await;
    }

    fn sources(&self, dialer: &Dialer, seen: &mpsc::Sender<Seen>) -> Vec<Arc<Source>> {
        let make = |(index, addr): (usize, &Addr)| {
            Arc::new(Source {
                index,
                addr: addr.clone(),
                master: self.spec.master.clone(),
                dialer: Dialer {
                    tls: self.sentinel_tls.clone(),
                    ..dialer.clone()
                },
                credentials: self.spec.sentinel_credentials.clone(),
                seen: seen.clone(),
                again: Notify::new(),
            })
        };
        self.spec.sentinels.iter().enumerate().map(make).collect()
    }
}

fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(1))
}

/// Asks one sentinel for ever: at every event, and slowly without.
async fn ask(source: Arc<Source>) {
    let mut backoff = backoff();
    loop {
        let Err(error) = ask_connected(&source, &mut backoff).await else {
            return;
        };
        let lost = Seen::Lost {
            sentinel: source.index,
            why: error.to_string(),
        };
        if source.seen.send(lost).await.is_err() {
            return;
        }
        sleep(backoff.next(fastrand::f64())).await;
    }
}

/// Until the connection fails; `Ok` when nobody wants to know any more.
async fn ask_connected(source: &Source, backoff: &mut Backoff) -> Result<(), AskError> {
    let mut connection = open(source).await?;
    let questions = questions(source.master.as_bytes());
    let questions: Vec<&[&[u8]]> = questions.iter().map(Vec::as_slice).collect();
    loop {
        let asked = Instant::now();
        let replies = connection.ask(&questions, ANSWER_WITHIN).await?;
        // After a pause of this host the answer may be as old as the pause was long, and is there
        // before the timeout is looked at.
        if asked.elapsed() > ANSWER_WITHIN {
            return Err(AskError::Timeout(ANSWER_WITHIN));
        }
        let answer = parse(&replies).ok_or(Nonsense::Unexpected)?;
        let torn = answer == Answer::Torn;
        backoff.reset();
        if source
            .seen
            .send(Seen::Answer {
                sentinel: source.index,
                answer,
            })
            .await
            .is_err()
        {
            return Ok(());
        }
        sleep(SHORTEST_POLL).await;
        if !torn {
            let _ = timeout(POLL, source.again.notified()).await;
        }
    }
}

async fn open(source: &Source) -> Result<Connection, AskError> {
    Connection::open(
        &source.dialer,
        &source.addr,
        None,
        &source.credentials,
        ANSWER_WITHIN,
    )
    .await
}

/// Listens to one sentinel for ever. Its failures are not reported: the questions meet the same
/// ones.
async fn listen(source: Arc<Source>) {
    let mut backoff = backoff();
    loop {
        if let Ok(()) = listen_connected(&source, &mut backoff).await {
            return;
        }
        sleep(backoff.next(fastrand::f64())).await;
    }
}

async fn listen_connected(source: &Source, backoff: &mut Backoff) -> Result<(), AskError> {
    let mut connection = open(source).await?;
    let mut subscribe: Vec<&[u8]> = vec![b"SUBSCRIBE"];
    subscribe.extend(CHANNELS);
    connection
        .send(&[&subscribe, &[b"PSUBSCRIBE", PATTERN]])
        .await?;
    // What happened before the subscription is in the answer to this.
    source.again.notify_one();
    let (mut heard, mut next_ping) = (Instant::now(), Instant::now() + PING);
    let (mut second, mut messages, mut events) = (Instant::now(), 0, 0);
    loop {
        if second.elapsed() >= PING {
            (second, messages, events) = (Instant::now(), 0, 0);
        }
        if messages > MOST_MESSAGES || events > MOST_EVENTS {
            // The rest waits in the socket, and then with the sentinel, which hangs up.
            sleep_until(second + PING).await;
        }
        let frame = tokio::select! {
            frame = connection.receive() => frame?,
            () = sleep_until(next_ping) => {
                if heard.elapsed() > PING * 2 {
                    return Err(AskError::Timeout(PING * 2));
                }
                next_ping = Instant::now() + PING;
                timeout(PING, connection.send(&[&[b"PING"]])).await.map_err(|_| AskError::Timeout(PING))??;
                continue;
            }
        };
        heard = Instant::now();
        messages += 1;
        let Some(push) = push(&frame) else {
            return Err(Nonsense::Unexpected.into());
        };
        backoff.reset();
        let Push::Event { channel, payload } = push else {
            continue;
        };
        let Some(event) = read(&channel, &payload, &source.master) else {
            continue;
        };
        events += 1;
        source.again.notify_one();
        if source
            .seen
            .send(Seen::Event {
                sentinel: source.index,
                event,
            })
            .await
            .is_err()
        {
            return Ok(());
        }
    }
}
