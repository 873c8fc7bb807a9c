//! A connection of our own to one server, kept open, and the one question asked on it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Config, Connection, NoTls, SimpleQueryMessage};

use super::secure;
use crate::addr::Addr;
use crate::net::Stream;
use crate::net::dial::{DialError, Dialer};
use crate::net::tls::Connector;
use crate::secret::Credentials;

/// Everything at once, in one round trip. Functions of version 10 and later; an ordinary account may call
/// them all. `pg_control_checkpoint()` is not asked for the timeline: it lags until a checkpoint.
const QUESTION: &str = "SELECT r, \
    (SELECT system_identifier FROM pg_catalog.pg_control_system()), \
    pg_catalog.current_setting('default_transaction_read_only'), \
    CASE WHEN r THEN NULL ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END, \
    CASE WHEN r THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END - '0/0', \
    CASE WHEN r THEN pg_catalog.pg_is_wal_replay_paused() ELSE false END, \
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_wal_receiver), \
    (SELECT pg_catalog.max(received_tli) FROM pg_catalog.pg_stat_wal_receiver) \
    FROM (SELECT pg_catalog.pg_is_in_recovery() AS r OFFSET 0) AS asked";

/// What one answer, with all the notices that come along, may have at most.
const MOST_BYTES: usize = 64 * 1024;

/// A server's own word on itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    Primary {
        system: i64,
        timeline: u64,
        /// Where its log ends.
        lsn: u64,
        /// `default_transaction_read_only`: an operator has closed it.
        read_only: bool,
    },
    Standby {
        system: i64,
        /// Up to where it has replayed; `None` before the first record.
        replayed: Option<u64>,
        paused: bool,
        /// Whether it receives from somebody, and on which timeline (only monitoring accounts see that).
        receives: bool,
        timeline: Option<u64>,
    },
}

impl Says {
    pub fn system(&self) -> i64 {
        match self {
            Self::Primary { system, .. } | Self::Standby { system, .. } => *system,
        }
    }
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Says(Says),
    /// It is there and has no connection to spare, or we have not: no word on its role.
    Busy(String),
    /// Nothing came back in time. It may be lost, late or alive.
    Silent(String),
    /// It says that it does not serve, or nobody is there to say anything.
    Refused(String),
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Says(Says::Primary {
                system,
                timeline,
                read_only,
                ..
            }) => {
                let closed = if *read_only { ", read-only" } else { "" };
                write!(f, "primary on timeline {timeline}{closed}, system {system}")
            }
            Self::Says(Says::Standby { system, paused, .. }) => {
                let paused = if *paused { ", replay is paused" } else { "" };
                write!(f, "standby{paused}, system {system}")
            }
            Self::Busy(why) => write!(f, "busy: {why}"),
            Self::Silent(why) | Self::Refused(why) => f.write_str(why),
        }
    }
}

/// How one server is reached.
#[derive(Clone)]
pub struct Target {
    pub addr: Addr,
    pub server_name: Option<String>,
    pub dialer: Dialer,
    pub tls: Connector,
    pub credentials: Credentials,
    pub database: String,
    pub timeout: Duration,
}

/// An open connection.
pub struct Kept {
    client: Client,
    connection: Pin<Box<Connection<Metered, NoTlsStream>>>,
    budget: Arc<AtomicUsize>,
}

/// Why there is no answer.
enum Failure {
    /// The connection ended: another one may do.
    Lost(String),
    Final(Answer),
}

/// Why a statement was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The server says so: then it was not. Else nobody knows.
    pub by_server: bool,
    pub why: String,
}

/// Asks `target`, on the connection in `kept` if there is one, else on a new one that is then kept. Takes
/// at most twice the target's timeout. Cancel safe: the connection is lost.
pub async fn ask(target: &Target, kept: &mut Option<Kept>) -> Answer {
    let late = || Answer::Silent(format!("no answer within {:?}", target.timeout));
    if let Some(mut connection) = kept.take() {
        match timeout(target.timeout, connection.question()).await {
            Err(_) => return late(),
            Ok(Ok(answer)) => {
                *kept = Some(connection);
                return answer;
            }
            Ok(Err(Failure::Final(answer))) => return answer,
            // It closed since; a new one tells whether it is still there.
            Ok(Err(Failure::Lost(_))) => {}
        }
    }
    let fresh = async {
        let mut connection = Kept::open(target).await?;
        let answer = connection.question().await?;
        Ok((connection, answer))
    };
    match timeout(target.timeout, fresh).await {
        Err(_) => late(),
        Ok(Ok((connection, answer))) => {
            *kept = Some(connection);
            answer
        }
        Ok(Err(Failure::Final(answer))) => answer,
        Ok(Err(Failure::Lost(why))) => Answer::Refused(why),
    }
}

impl Kept {
    async fn open(target: &Target) -> Result<Self, Failure> {
        let refused = |why: String| Failure::Final(Answer::Refused(why));
        let name = target.server_name.as_deref();
        let dialled = target.dialer.dial(&target.addr, name, target.timeout).await;
        let stream = dialled.map_err(|error| Failure::Final(unreachable(&error)))?;
        let stream = secure::connection(stream, &target.tls, (&target.addr, name)).await;
        let stream = stream.map_err(|error| refused(error.to_string()))?;
        let budget = Arc::new(AtomicUsize::new(MOST_BYTES));
        let metered = Metered {
            stream,
            budget: budget.clone(),
        };
        let mut config = Config::new();
        config
            .user(&target.credentials.username)
            .dbname(&target.database)
            .application_name("pilotfish")
            // It is encrypted already, as far as it is to be.
            .ssl_mode(SslMode::Disable);
        if let Some(password) = &target.credentials.password {
            config.password(password.expose());
        }
        let connected = config.connect_raw(metered, NoTls).await;
        let (client, connection) = connected.map_err(|error| failure(&error))?;
        Ok(Self {
            client,
            connection: Box::pin(connection),
            budget,
        })
    }

    /// Completes when the server ends the connection. Cancel safe.
    pub async fn ended(&mut self) {
        ended(&mut self.connection).await;
    }

    /// One for statements of other kinds, until it is dropped. Takes at most the target's timeout. Cancel
    /// safe.
    ///
    /// # Errors
    /// When the server is not reached, or does not let us in.
    pub async fn connect(target: &Target) -> Result<Self, String> {
        let late = || format!("no answer within {:?}", target.timeout);
        match timeout(target.timeout, Self::open(target)).await {
            Err(_) => Err(late()),
            Ok(Ok(kept)) => Ok(kept),
            Ok(Err(Failure::Lost(why))) => Err(why),
            Ok(Err(Failure::Final(answer))) => Err(answer.to_string()),
        }
    }

    /// Runs one statement, for as long as that takes; the first row as text. Not cancel safe.
    ///
    /// # Errors
    /// When the connection ends, or the server says no.
    pub async fn run(&mut self, statement: &str) -> Result<Vec<Option<String>>, Refusal> {
        self.budget.store(MOST_BYTES, Ordering::Relaxed);
        let rows = tokio::select! {
            ran = self.client.simple_query(statement) => ran.map_err(|error| Refusal {
                by_server: error.code().is_some(),
                why: said(&error),
            })?,
            why = ended(&mut self.connection) => return Err(Refusal { by_server: false, why }),
        };
        let row = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let text = |n: usize| row.and_then(|row| row.get(n)).map(ToOwned::to_owned);
        Ok((0..row.map_or(0, |row| row.len())).map(text).collect())
    }

    async fn question(&mut self) -> Result<Answer, Failure> {
        for _ in 0..2 {
            self.budget.store(MOST_BYTES, Ordering::Relaxed);
            let asked = tokio::select! {
                asked = self.client.simple_query(QUESTION) => asked,
                why = ended(&mut self.connection) => return Err(Failure::Lost(why)),
            };
            return match asked {
                Ok(rows) => Ok(read(&rows)),
                // A standby that was promoted between two parts of the question.
                Err(e) if e.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => continue,
                Err(error) => Err(failure(&error)),
            };
        }
        let why = "it cannot say whether it is in recovery".to_owned();
        Err(Failure::Final(Answer::Refused(why)))
    }
}

async fn ended(connection: &mut Pin<Box<Connection<Metered, NoTlsStream>>>) -> String {
    poll_fn(|cx| {
        loop {
            match connection.poll_message(cx) {
                // Notices and notifications.
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(said(&error)),
                Poll::Ready(None) => return Poll::Ready("it closed the connection".to_owned()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

fn unreachable(error: &DialError) -> Answer {
    let why = error.to_string();
    match error {
        _ if error.is_local() => Answer::Busy(why),
        DialError::Connect(e)
            if matches!(
                e.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::NotFound
            ) =>
        {
            Answer::Refused(why)
        }
        _ => Answer::Silent(why),
    }
}

fn failure(error: &tokio_postgres::Error) -> Failure {
    let why = said(error);
    match error.code() {
        Some(&SqlState::TOO_MANY_CONNECTIONS) => Failure::Final(Answer::Busy(why)),
        Some(_) => Failure::Final(Answer::Refused(why)),
        None => Failure::Lost(why),
    }
}

/// Without the words around it: the server's own, or the system's.
fn said(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let text: String = db.message().chars().take(200).collect();
        return format!(
            "{} ({})",
            text.replace(char::is_control, " "),
            db.code().code()
        );
    }
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn read(rows: &[SimpleQueryMessage]) -> Answer {
    let row = rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let column = |n: usize| row.filter(|row| n < row.len()).and_then(|row| row.get(n));
    let nonsense = || Answer::Refused("an answer that makes no sense".to_owned());
    read_columns(column).map_or_else(nonsense, Answer::Says)
}

fn read_columns<'a>(column: impl Fn(usize) -> Option<&'a str>) -> Option<Says> {
    let number = |n: usize| column(n)?.parse::<u64>().ok();
    let yes = |n: usize| column(n).map(|text| text == "t" || text == "on");
    let system = column(1)?.parse().ok()?;
    if !yes(0)? {
        // The first of three numbers of eight hexadecimal digits.
        let file = column(3)?.get(..8)?;
        return Some(Says::Primary {
            system,
            timeline: u64::from_str_radix(file, 16).ok()?,
            lsn: number(4)?,
            read_only: yes(2)?,
        });
    }
    Some(Says::Standby {
        system,
        replayed: number(4),
        paused: yes(5)?,
        receives: number(6)? > 0,
        timeline: number(7),
    })
}

/// Reads no more than it has leave to: what a server sends is kept in memory until it is complete.
struct Metered {
    stream: Stream,
    budget: Arc<AtomicUsize>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        let left = self.budget.load(Ordering::Relaxed);
        self.budget
            .store(left.saturating_sub(read), Ordering::Relaxed);
        if read > left {
            return Poll::Ready(Err(io::Error::other("it says too much")));
        }
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Waits for the end of a connection, if there is one.
pub async fn ending(kept: &mut Option<Kept>) {
    match kept {
        Some(kept) => kept.ended().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(text: &str) -> Option<Says> {
        let all: Vec<&str> = text.split('|').collect();
        read_columns(|n| all.get(n).copied().filter(|text| !text.is_empty()))
    }

    #[test]
    fn answers_and_what_is_none() {
        let primary = columns("f|7655|off|0000000200000000000000A1|2701131776|f|0|");
        let expected = Says::Primary {
            system: 7655,
            timeline: 2,
            lsn: 2_701_131_776,
            read_only: false,
        };
        assert_eq!(primary, Some(expected));
        let standby = columns("t|7655|on||42|t|1|3");
        let expected = Says::Standby {
            system: 7655,
            replayed: Some(42),
            paused: true,
            receives: true,
            timeline: Some(3),
        };
        assert_eq!(standby, Some(expected));
        assert!(
            columns("t|7655|off|||f|0|").is_some(),
            "nothing replayed yet"
        );
        for bad in [
            "",
            "f",
            "f|x|off|00000002|1|f|0|",
            "f|1|off|zz|1|f|0|",
            "f|1|off|0000|1",
        ] {
            assert_eq!(columns(bad), None, "{bad}");
        }
    }
}
