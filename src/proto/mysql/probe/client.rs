//! A logged-in connection of a probe, which only ever asks SHOW. A forced failover orders things on one, too.
//!
//! Facts are from "MySQL Client/Server Protocol" in the MySQL source documentation.

use std::io;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use super::auth::{self, CACHING, NATIVE};
use super::table::{self, MOST, Reply, Table};
use crate::net::Stream;
use crate::net::dial::{DialError, Dialer};
use crate::net::tls::{Connector, TlsError};
use crate::proto::mysql::login::hello::{Greeting, SSL_REQUEST};
use crate::proto::mysql::login::keys;
use crate::proto::mysql::login::lane::{Lane, Missing, Payload};
use crate::proto::mysql::packet::{ServerError, cap, frame, printable};
use crate::proto::spec::NodeSpec;
use crate::secret::Credentials;

/// How a probe gets in. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    /// Leaves connections plain.
    pub dialer: Dialer,
    /// `None`: without TLS.
    pub tls: Option<Connector>,
    pub credentials: Credentials,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    #[error("connection closed")]
    Closed,
    #[error("{0}")]
    Refused(ServerError),
    /// It does not speak the protocol, or asks for what we do not know.
    #[error("{0}")]
    Nonsense(String),
}

impl From<Missing> for AskError {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Gone(None) => Self::Closed,
            Missing::Gone(Some(error)) => Self::Io(error),
            Missing::Nonsense(why) => Self::Nonsense(why),
        }
    }
}

const CAPABILITIES: u64 =
    cap::LONG_PASSWORD | cap::PROTOCOL_41 | cap::SECURE_CONNECTION | cap::PLUGIN_AUTH;
/// utf8mb4_general_ci, which old servers and MariaDB know as well.
const CHARSET: u8 = 45;
const COM_QUERY: u8 = 3;
/// More packets than any way to prove who one is takes.
const ROUNDS: usize = 16;

/// A connection that has logged in.
pub struct Connection {
    stream: Stream,
    lane: Lane,
    /// As the server's greeting says it.
    pub version: String,
}

impl Connection {
    /// Connects and logs in. To drop the future is to abort a handshake, which the server may count
    /// against this host (max_connect_errors).
    ///
    /// # Errors
    /// When the server is not reached, or does not let us in.
    pub async fn open(access: &Access, node: &NodeSpec) -> Result<Self, AskError> {
        let name = node.server_name.as_deref();
        let stream = access.dialer.dial(&node.addr, name, CONNECT).await?;
        let mut connection = Self {
            stream,
            lane: Lane::new(),
            version: String::new(),
        };
        let greeting = connection.read().await?;
        let hello = Greeting::read(&greeting).map_err(AskError::Nonsense)?;
        let version = greeting[1..].split(|b| *b == 0).next().unwrap_or_default();
        connection.version = printable(version);
        let mut caps = CAPABILITIES;
        if let Some(tls) = &access.tls
            && !matches!(connection.stream, Stream::Unix(_))
        {
            if hello.caps & cap::SSL == 0 {
                return Err(AskError::Nonsense("the server offers no TLS".to_owned()));
            }
            caps |= cap::SSL;
            connection = connection.start_tls(tls, node, caps).await?;
        }
        connection.log_in(access, hello, caps).await?;
        Ok(connection)
    }

    async fn start_tls(
        mut self,
        tls: &Connector,
        node: &NodeSpec,
        caps: u64,
    ) -> Result<Self, AskError> {
        self.write(&response_head(caps)).await?;
        let Stream::Tcp(tcp) = self.stream else {
            return Err(AskError::Nonsense("TLS within TLS".to_owned()));
        };
        let name = node.server_name.as_deref();
        self.stream = tls.wrap(tcp, &node.addr, name).await?;
        Ok(self)
    }

    async fn log_in(
        &mut self,
        access: &Access,
        hello: Greeting,
        caps: u64,
    ) -> Result<(), AskError> {
        let password = access
            .credentials
            .password
            .as_ref()
            .map_or("", |p| p.expose());
        let mut nonce = hello.nonce;
        // A plugin we do not know is answered with one we do: the server may then ask to switch.
        let mut plugin = match &hello.plugin[..] {
            CACHING => CACHING.to_vec(),
            _ => NATIVE.to_vec(),
        };
        let proof = auth::proof(&plugin, password, &nonce).unwrap_or_default();
        let mut out = Zeroizing::new(response_head(caps));
        out.extend_from_slice(access.credentials.username.as_bytes());
        out.push(0);
        // At most 32 bytes.
        out.push(u8::try_from(proof.len()).unwrap_or_default());
        out.extend_from_slice(&proof);
        out.extend_from_slice(&plugin);
        out.push(0);
        self.write(&out).await?;
        for _ in 0..ROUNDS {
            let packet = self.read().await?;
            match &packet[..] {
                [0, ..] => return Ok(()),
                [0xfe, request @ ..] => {
                    let end = request
                        .iter()
                        .position(|b| *b == 0)
                        .unwrap_or(request.len());
                    plugin = request[..end].to_vec();
                    nonce = request.get(end + 1..).unwrap_or_default().to_vec();
                    nonce.truncate(crate::proto::mysql::login::hello::NONCE);
                    let proof = auth::proof(&plugin, password, &nonce);
                    self.write(&proof.ok_or_else(|| unknown(&plugin))?).await?;
                }
                [1, more @ ..] if plugin == CACHING => {
                    self.full_proof(more, password, &nonce).await?;
                }
                _ => return Err(unknown(&plugin)),
            }
        }
        Err(AskError::Nonsense("the login does not end".to_owned()))
    }

    /// caching_sha2_password, when the server does not remember the password: it wants to see it, over
    /// a connection that nobody else can read, or encrypted with its key.
    async fn full_proof(
        &mut self,
        more: &[u8],
        password: &str,
        nonce: &[u8],
    ) -> Result<(), AskError> {
        const REMEMBERED: u8 = 3;
        const SHOW: u8 = 4;
        const ASK_FOR_KEY: u8 = 2;
        match more {
            [REMEMBERED] => return Ok(()),
            [SHOW] => {}
            _ => return Err(unknown(CACHING)),
        }
        let mut bare = Zeroizing::new(password.as_bytes().to_vec());
        bare.push(0);
        if !matches!(self.stream, Stream::Tcp(_)) {
            return self.write(&bare).await;
        }
        self.write(&[ASK_FOR_KEY]).await?;
        let answer = self.read().await?;
        let [1, key @ ..] = &answer[..] else {
            return Err(unknown(CACHING));
        };
        let sealed = keys::seal(&bare, nonce, key).map_err(AskError::Nonsense)?;
        self.write(&sealed).await
    }

    /// Asks all of `questions` in one write. Not cancel safe: a dropped question's answer would be
    /// taken for the next one's.
    ///
    /// # Errors
    /// When the connection fails or the answer is none. An error in answer to a question is an answer.
    pub async fn ask(&mut self, questions: &[&str]) -> Result<Vec<Reply>, AskError> {
        let mut bytes = BytesMut::new();
        for question in questions {
            let mut payload = BytesMut::with_capacity(question.len() + 1);
            payload.put_u8(COM_QUERY);
            payload.put_slice(question.as_bytes());
            bytes.extend_from_slice(&frame(0, &payload));
        }
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await?;
        let mut replies = Vec::with_capacity(questions.len());
        for _ in questions {
            self.lane.restart(1);
            match self.read_table().await {
                Ok(table) => replies.push(Ok(table)),
                Err(AskError::Refused(error)) => replies.push(Err(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(replies)
    }

    /// Runs one statement; without a result its table is empty. Not cancel safe, as [`Self::ask`].
    ///
    /// # Errors
    /// When the connection fails, or the server says no.
    pub async fn run(&mut self, statement: &str) -> Result<Table, AskError> {
        let replies = self.ask(&[statement]).await?;
        let reply = replies.into_iter().next().ok_or(AskError::Closed)?;
        reply.map_err(AskError::Refused)
    }

    async fn read_table(&mut self) -> Result<Table, AskError> {
        let broken = || AskError::Nonsense("not an answer to SHOW".to_owned());
        let head = self.read().await?;
        let count = match &head[..] {
            // OK: it was no question.
            [0, ..] => return Ok(Table::default()),
            [count @ 1..=0xfa] => usize::from(*count),
            _ => return Err(broken()),
        };
        let mut table = Table::default();
        for _ in 0..count {
            let packet = self.read().await?;
            table
                .columns
                .push(table::column(&packet).ok_or_else(broken)?);
        }
        if !is_eof(&self.read().await?) {
            return Err(broken());
        }
        while table.rows.len() <= MOST {
            let packet = self.read().await?;
            if is_eof(&packet) {
                return Ok(table);
            }
            table
                .rows
                .push(table::row(&packet, count).ok_or_else(broken)?);
        }
        Err(AskError::Nonsense("an answer without end".to_owned()))
    }

    /// Completes when the server ends the connection, or says something unasked (why it is about to end
    /// it, usually). Cancel safe; after it completed the connection is of no use.
    pub async fn ended(&mut self) {
        let mut unasked = [0; 64];
        // Whatever it is: there is nothing more to come.
        let _ = self.stream.read(&mut unasked).await;
    }

    async fn read(&mut self) -> Result<Payload, AskError> {
        let packet = self.lane.read(&mut self.stream).await?;
        match ServerError::read(&packet) {
            Some(error) => Err(AskError::Refused(error)),
            None => Ok(packet),
        }
    }

    async fn write(&mut self, payload: &[u8]) -> Result<(), AskError> {
        Ok(self.lane.write(&mut self.stream, payload).await?)
    }
}

/// For how long a connect is waited for. Where nothing is connected there is no handshake to be finished, and
/// another try gets through sooner than a packet that the system sends again ever more seldom.
const CONNECT: Duration = Duration::from_secs(1);

fn unknown(plugin: &[u8]) -> AskError {
    let plugin = printable(plugin);
    AskError::Nonsense(format!(
        "the account logs in by {plugin}: probes can by mysql_native_password and caching_sha2_password"
    ))
}

fn is_eof(packet: &[u8]) -> bool {
    packet.first() == Some(&0xfe) && packet.len() < 9
}

/// Capability flags, largest packet, character set, filler.
fn response_head(caps: u64) -> Vec<u8> {
    // The upper half is MariaDB's own, and not set.
    let mut out = (caps as u32).to_le_bytes().to_vec();
    out.extend_from_slice(&(1_u32 << 24).to_le_bytes());
    out.push(CHARSET);
    out.resize(SSL_REQUEST, 0);
    out
}
