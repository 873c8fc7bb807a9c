//! A connection to a Redis server or a sentinel, for questions and for events.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::resp::{self, Frame, Nonsense};
use crate::addr::Addr;
use crate::net::Stream;
use crate::net::dial::{DialError, Dialer};
use crate::secret::Credentials;

/// Why a server gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("connection lost: {0}")]
    Io(#[from] std::io::Error),
    #[error("connection closed")]
    Closed,
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Nonsense(#[from] Nonsense),
    /// What the server said, cut to a modest length.
    #[error("refused: {0}")]
    Refused(String),
}

/// An open, authenticated connection.
pub struct Connection {
    stream: Stream,
    buf: BytesMut,
}

impl Connection {
    /// Connects and authenticates within `limit`. Cancel safe: dropping closes.
    ///
    /// # Errors
    /// When the server is not reached, or does not accept the credentials.
    pub async fn open(
        dialer: &Dialer,
        addr: &Addr,
        server_name: Option<&str>,
        credentials: &Credentials,
        limit: Duration,
    ) -> Result<Self, AskError> {
        let opened = timeout(limit, async {
            let stream = dialer.dial(addr, server_name, limit).await?;
            let mut connection = Self {
                stream,
                buf: BytesMut::new(),
            };
            connection.authenticate(credentials).await?;
            Ok(connection)
        });
        opened.await.unwrap_or(Err(AskError::Timeout(limit)))
    }

    async fn authenticate(&mut self, credentials: &Credentials) -> Result<(), AskError> {
        let Some(password) = &credentials.password else {
            return Ok(());
        };
        let (user, password) = (
            credentials.username.as_bytes(),
            password.expose().as_bytes(),
        );
        let auth: &[&[u8]] = if user.is_empty() {
            &[b"AUTH", password]
        } else {
            &[b"AUTH", user, password]
        };
        self.send(&[auth]).await?;
        match self.receive().await? {
            Frame::SimpleString(ok) if &ok[..] == b"OK" => Ok(()),
            // A server without a password needs none; what it serves is not less true for it.
            Frame::Error(e) if e.contains("without any password configured") => Ok(()),
            Frame::Error(error) => Err(AskError::Refused(brief(&error))),
            _ => Err(Nonsense::Unexpected.into()),
        }
    }

    /// Asks all of `commands` in one write and returns as many replies, within `limit`. Not cancel
    /// safe: after a timeout or an error the connection must be dropped.
    ///
    /// # Errors
    /// When the connection fails or a reply is none. An error *reply* is a reply.
    pub async fn ask(
        &mut self,
        commands: &[&[&[u8]]],
        limit: Duration,
    ) -> Result<Vec<Frame>, AskError> {
        let asked = timeout(limit, async {
            self.send(commands).await?;
            let mut replies = Vec::with_capacity(commands.len());
            for _ in commands {
                replies.push(self.receive().await?);
            }
            Ok(replies)
        });
        asked.await.unwrap_or(Err(AskError::Timeout(limit)))
    }

    /// Sends without waiting for replies.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn send(&mut self, commands: &[&[&[u8]]]) -> Result<(), AskError> {
        let mut bytes = BytesMut::new();
        for command in commands {
            bytes.extend_from_slice(&resp::command(command));
        }
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// The next reply or event. Cancel safe: what was read stays.
    ///
    /// # Errors
    /// When the connection fails or ends, or the peer talks nonsense.
    pub async fn receive(&mut self) -> Result<Frame, AskError> {
        loop {
            if let Some(frame) = resp::take_frame(&mut self.buf)? {
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.buf).await? == 0 {
                return Err(AskError::Closed);
            }
        }
    }
}

/// A server's error text, safe to show: one line, a modest length.
pub fn brief(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(160).collect()
}
