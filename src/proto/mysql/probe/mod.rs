//! The task that keeps asking one server, over a connection that is kept.
//!
//! Three rules are special to this protocol. A server counts handshakes that were not finished, and after
//! too many of them refuses the host (error 1129): so a handshake that is late is not given up, but left
//! to finish while its absence is reported. A question that is late leaves its connection waiting too, and
//! another one is tried beside it. And a connection that ends while nobody asks is a reason to ask at once:
//! that is how the death of a server is noticed within a millisecond.

pub mod auth;
pub mod client;
pub mod table;

use std::future::{Future, pending};
use std::io::ErrorKind;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use self::client::{Access, AskError, Connection};
use self::table::Reply;
use crate::clock::{Clock, Moment};
use crate::monitor::Pace;
use crate::monitor::backoff::Backoff;
use crate::net::dial::DialError;
use crate::proto::spec::NodeSpec;

/// What came of asking a server once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said<T> {
    /// It answered.
    Answer(T),
    /// It has no room for another connection.
    Busy(String),
    /// It, or its host, refused to be asked.
    Refused(String),
    /// Nothing that could be understood came in time.
    Silent(String),
}

/// What servers are asked, and what their answers mean.
pub struct Subject<T> {
    /// The questions for a server of this version.
    pub questions: fn(version: &str) -> &'static [&'static str],
    /// The answers to them, or why they are none.
    pub read: fn(&[Reply]) -> Result<T, String>,
}

impl<T> Clone for Subject<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Subject<T> {}

/// What a prober needs to ask one server.
#[derive(Clone)]
pub struct Prober<T> {
    pub node: NodeSpec,
    pub access: Access,
    pub subject: Subject<T>,
    /// Without an answer for so long, the server was silent.
    pub timeout: Duration,
    pub clock: Clock,
    pub probe_seconds: metrics::Histogram,
}

/// A server that answers after this many timeouts has answered for another time.
const TOO_LATE: u32 = 3;
/// For how long a late handshake or answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

type Asked = Result<(Connection, Vec<Reply>), AskError>;

/// A question under way.
struct Work {
    asked: Pin<Box<dyn Future<Output = Asked> + Send>>,
    began: Moment,
    /// It has to connect first.
    opens: bool,
}

/// The connections to one server.
struct Line<'a, T> {
    prober: &'a Prober<T>,
    idle: Option<Connection>,
    work: Option<Work>,
    /// A question that is late, on a connection that is logged in.
    late: Option<Work>,
}

/// Asks until `pace` closes, and reports every round to `seen` as what `wrap` makes of it.
pub async fn probe<T: Send + 'static, S: Send>(
    prober: Prober<T>,
    mut pace: watch::Receiver<Pace>,
    seen: mpsc::Sender<S>,
    wrap: impl Fn(&NodeSpec, Said<T>) -> S + Send,
) {
    let mut line = Line {
        prober: &prober,
        idle: None,
        work: None,
        late: None,
    };
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(250));
    loop {
        let wanted = *pace.borrow_and_update();
        let began = prober.clock.now();
        let said = line.round().await;
        let took = prober.clock.now().since(began);
        prober.probe_seconds.record(took.as_secs_f64());
        let pause = match &said {
            Said::Answer(_) => {
                backoff.reset();
                wanted.every
            }
            // It has had its time.
            Said::Silent(_) if took >= prober.timeout => Duration::ZERO,
            _ => backoff.next(fastrand::f64()).min(wanted.every),
        };
        if seen.send(wrap(&prober.node, said)).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = line.ended() => {}
            changed = pace.changed() => if changed.is_err() { return },
        }
    }
}

/// Asks once, for a person who waits for it.
///
/// # Errors
/// Says why there is no answer.
pub async fn ask_once<T>(
    access: &Access,
    node: &NodeSpec,
    subject: Subject<T>,
) -> Result<T, String> {
    let mut connection = Connection::open(access, node)
        .await
        .map_err(|e| e.to_string())?;
    let questions = (subject.questions)(&connection.version);
    let replies = connection.ask(questions).await.map_err(|e| e.to_string())?;
    (subject.read)(&replies)
}

impl<T> Line<'_, T> {
    /// Asks, and waits for at most the timeout.
    async fn round(&mut self) -> Said<T> {
        let deadline = Instant::now() + self.prober.timeout;
        loop {
            self.begin();
            let (asked, began, opens) = tokio::select! {
                biased;
                done = finish(&mut self.work) => done,
                done = finish(&mut self.late) => done,
                () = sleep_until(deadline) => return self.silent(),
            };
            let age = self.prober.clock.now().since(began);
            match asked {
                // An answer to a question of long ago: the connection is good, and is asked anew.
                Ok((connection, _)) if age > self.prober.timeout * TOO_LATE => {
                    self.idle.get_or_insert(connection);
                }
                Ok((connection, replies)) => {
                    self.idle = Some(connection);
                    return match (self.prober.subject.read)(&replies) {
                        Ok(answer) => Said::Answer(answer),
                        Err(why) => Said::Silent(why),
                    };
                }
                // It was closed since it was last used; one new try tells that from a server that is down.
                Err(_) if !opens => {}
                Err(error) => return refused(&error),
            }
        }
    }

    /// Sees to it that there is a question under way.
    fn begin(&mut self) {
        let now = self.prober.clock.now();
        let old = |work: &mut Work| now.since(work.began) > PATIENCE;
        self.late.take_if(old);
        self.work.take_if(old);
        if self.work.is_some() {
            return;
        }
        let (kept, subject) = (self.idle.take(), self.prober.subject.questions);
        let opens = kept.is_none();
        let (access, node) = (self.prober.access.clone(), self.prober.node.clone());
        let asked = async move {
            let mut connection = match kept {
                Some(connection) => connection,
                None => Connection::open(&access, &node).await?,
            };
            let questions = subject(&connection.version);
            let replies = connection.ask(questions).await?;
            Ok((connection, replies))
        };
        self.work = Some(Work {
            asked: Box::pin(asked),
            began: now,
            opens,
        });
    }

    /// A connection that carries no answer may be the only thing that is wrong.
    fn silent(&mut self) -> Said<T> {
        if let Some(work) = self.work.take_if(|work| !work.opens) {
            self.late = Some(work);
        }
        Said::Silent(format!("no answer within {:?}", self.prober.timeout))
    }

    /// Completes when the idle connection ends.
    async fn ended(&mut self) {
        match &mut self.idle {
            Some(connection) => connection.ended().await,
            None => pending().await,
        }
        self.idle = None;
    }
}

async fn finish(work: &mut Option<Work>) -> (Asked, Moment, bool) {
    let Some(under_way) = work else {
        return pending().await;
    };
    let asked = under_way.asked.as_mut().await;
    let (began, opens) = (under_way.began, under_way.opens);
    *work = None;
    (asked, began, opens)
}

/// "Too many connections", and the same for one account.
const BUSY: [u16; 2] = [1040, 1203];

fn refused<T>(error: &AskError) -> Said<T> {
    let why = error.to_string();
    match error {
        AskError::Refused(server) if BUSY.contains(&server.code) => Said::Busy(why),
        AskError::Refused(_) | AskError::Closed => Said::Refused(why),
        AskError::Io(io) | AskError::Dial(DialError::Connect(io)) => match io.kind() {
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            // Of a Unix socket.
            | ErrorKind::NotFound => Said::Refused(why),
            _ => Said::Silent(why),
        },
        AskError::Dial(_) | AskError::Tls(_) | AskError::Nonsense(_) => Said::Silent(why),
    }
}

#[cfg(test)]
mod tests;
