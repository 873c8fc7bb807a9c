//! The beginning of a session where it is more than bytes passed on: greetings, TLS, passwords.
//!
//! The data side owns the sockets and the rule that nothing read from a client is written to a server
//! that is no longer the right one; a protocol talks to both through [`Ends`].

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::track::Tracker;
use crate::net::Stream;
use crate::net::tls::{Connector, TlsError};
use crate::topology::Endpoint;

/// A login under way. Dropping it leaves both connections open, at whatever was said last.
pub type LoginFuture<'a> = Pin<Box<dyn Future<Output = Result<LoggedIn, LoginError>> + Send + 'a>>;

/// Reading what a client says before it gets a server. Dropping it loses what was read.
pub type OpeningFuture<'a> = Pin<Box<dyn Future<Output = Result<Opening, LoginError>> + Send + 'a>>;

/// Saying something to a server that answers nothing. Dropping it leaves it half said.
pub type ConveyFuture<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

/// What a client that speaks first wants.
#[derive(Clone, Debug)]
pub enum Opening {
    /// A session; these are its first words, for the login.
    Session(Bytes),
    /// To say these words to one server, wherever the primary is, and nothing else (PostgreSQL's
    /// CancelRequest). `None`: nobody knows which server that would be.
    Message {
        to: Option<Arc<Endpoint>>,
        words: Bytes,
    },
}

/// A session that can begin.
pub struct LoggedIn {
    pub tracker: Box<dyn Tracker>,
    /// Read from the client beyond the login, and passed on to nobody.
    pub early_up: Bytes,
    /// The same from the server.
    pub early_down: Bytes,
}

/// Why a login came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The server refused, and the client has heard why.
    #[error("the server refused: {0}")]
    Refused(String),
    /// The client's connection ended or broke.
    #[error("the client left")]
    ClientLeft,
    /// The server's connection ended or broke, or it said that it cannot serve now. While the client
    /// has heard nothing, another try is as good as the first.
    #[error("the server failed: {0}")]
    Server(String),
    /// The client does not speak the protocol.
    #[error("the client says what the protocol does not allow: {0}")]
    ClientNonsense(String),
    /// The server does not speak the protocol.
    #[error("the server says what the protocol does not allow: {0}")]
    ServerNonsense(String),
}

/// Leave to write to the server: it is the right one as far as is known this very moment.
pub trait Leave: Send + Sync {
    /// Runs `write` while nothing can change that. `false`: it was not run, since something has; the
    /// task is woken when it may try again.
    fn attempt(&self, write: &mut dyn FnMut()) -> bool;
}

/// Both ends of a session that logs in.
pub struct Ends<'a> {
    pub client: ClientEnd,
    pub server: ServerEnd<'a>,
    /// The server's address and the name its certificate must carry.
    pub endpoint: Arc<Endpoint>,
    /// What the client said first, where it was read already.
    pub opening: Bytes,
}

/// The client's end. Remembers whether the client has heard anything: after that, nobody else can go on
/// with its login.
pub struct ClientEnd {
    stream: Stream,
    /// Shared with whoever has to know while a login is under way.
    heard: Arc<AtomicBool>,
    cut: bool,
}

impl ClientEnd {
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            heard: Arc::default(),
            cut: false,
        }
    }

    /// Whether a byte was written to the client.
    pub fn has_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// The same, to be asked while a login has the end.
    pub fn heard(&self) -> Arc<AtomicBool> {
        self.heard.clone()
    }

    /// Writes `words`, which are whole messages. Dropped before its end, it may leave the client in the
    /// middle of one: see [`ClientEnd::is_cut`].
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn say(&mut self, words: &[u8]) -> io::Result<()> {
        self.cut = true;
        let said = self.write_all(words).await;
        self.cut = said.is_err();
        said
    }

    /// Whether the client may have heard half a message, so that it can be told nothing more.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Whether the client came through a Unix socket, which some clients hold to be as good as TLS.
    pub fn is_unix(&self) -> bool {
        matches!(self.stream, Stream::Unix(_))
    }

    pub fn into_stream(self) -> Stream {
        self.stream
    }
}

impl AsyncRead for ClientEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientEnd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if matches!(written, Poll::Ready(Ok(n)) if n > 0) {
            self.heard.store(true, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The server's end. Writing waits while the session must not write.
pub struct ServerEnd<'a> {
    /// `None` only after TLS failed, which ends the login.
    stream: Option<Stream>,
    leave: &'a dyn Leave,
}

impl<'a> ServerEnd<'a> {
    pub fn new(stream: Stream, leave: &'a dyn Leave) -> Self {
        Self {
            stream: Some(stream),
            leave,
        }
    }

    /// Puts TLS around the connection from the next byte on. Not cancel safe: the connection is lost.
    ///
    /// # Errors
    /// When the handshake fails; the connection is then gone.
    pub async fn start_tls(
        &mut self,
        tls: &Connector,
        endpoint: &Endpoint,
    ) -> Result<(), TlsError> {
        if let Some(Stream::Tcp(tcp)) = self.stream.take_if(|s| matches!(s, Stream::Tcp(_))) {
            let name = endpoint.server_name.as_deref();
            self.stream = Some(tls.wrap(tcp, &endpoint.addr, name).await?);
        }
        Ok(())
    }

    /// The connection, for the long life after the login.
    pub fn into_stream(self) -> Option<Stream> {
        self.stream
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for ServerEnd<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_read(cx, buf),
            None => Poll::Ready(Err(gone())),
        }
    }
}

impl AsyncWrite for ServerEnd<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with_leave(|stream| stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_leave(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_leave(|stream| stream.poll_shutdown(cx))
    }
}

impl ServerEnd<'_> {
    fn with_leave<R>(
        self: Pin<&mut Self>,
        mut io: impl FnMut(Pin<&mut Stream>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(Err(gone()));
        };
        let mut done = Poll::Pending;
        // Refused: `Pending`, and the data side polls again when there is leave.
        this.leave
            .attempt(&mut || done = io(Pin::new(&mut *stream)));
        done
    }
}
