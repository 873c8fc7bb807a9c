//! One type for every kind of connection a session can have.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// A connected byte stream, to a client or to a server.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Boxed: its buffers would make every plain session pay for it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The descriptor, where the bytes on it are the bytes of the stream (not under TLS).
    pub fn plain_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(s) => Some(s.as_fd()),
            Self::Unix(s) => Some(s.as_fd()),
            Self::Tls(_) => None,
        }
    }

    /// Runs `io` if the socket may be ready, and notes a `WouldBlock` it returns.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        io: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        match self {
            Self::Tcp(s) => s.try_io(interest, io),
            Self::Unix(s) => s.try_io(interest, io),
            Self::Tls(s) => s.get_ref().0.try_io(interest, io),
        }
    }

    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => s.poll_read_ready(cx),
            Self::Unix(s) => s.poll_read_ready(cx),
            Self::Tls(s) => s.get_ref().0.poll_read_ready(cx),
        }
    }

    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => s.poll_write_ready(cx),
            Self::Unix(s) => s.poll_write_ready(cx),
            Self::Tls(s) => s.get_ref().0.poll_write_ready(cx),
        }
    }

    /// Completes when the peer has ended its side or the connection broke. What it sent before stays
    /// unread in the kernel. Cancel safe.
    ///
    /// It watches a duplicate of the descriptor: looking past unread data means to forget that there
    /// is some, and the stream itself must not forget it.
    pub async fn peer_gone(&self) {
        let Some(watch) = self.duplicate() else {
            // No descriptor to spare: the end is then noticed when the client is served.
            return std::future::pending().await;
        };
        loop {
            let ready = match &watch {
                Self::Tcp(s) => s.ready(Interest::READABLE).await,
                Self::Unix(s) => s.ready(Interest::READABLE).await,
                Self::Tls(s) => s.get_ref().0.ready(Interest::READABLE).await,
            };
            if ready.map_or(true, |r| r.is_read_closed() || r.is_error()) {
                return;
            }
            // Data is waiting; only a later event can be the end.
            let blocked = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = watch.try_io(Interest::READABLE, blocked);
        }
    }

    fn duplicate(&self) -> Option<Self> {
        let fd = match self {
            Self::Tcp(s) => s.as_fd(),
            Self::Unix(s) => s.as_fd(),
            Self::Tls(s) => s.get_ref().0.as_fd(),
        };
        let fd = fd.try_clone_to_owned().ok()?;
        match self {
            Self::Unix(_) => UnixStream::from_std(fd.into()).ok().map(Self::Unix),
            Self::Tcp(_) | Self::Tls(_) => TcpStream::from_std(fd.into()).ok().map(Self::Tcp),
        }
    }

    /// Takes what has arrived and throws it away, so that closing sends FIN and not RST.
    pub fn discard_received(&self, limit: usize) {
        let mut scratch = [0_u8; 4096];
        let mut left = limit;
        while left > 0 {
            let read = match self {
                Self::Tcp(s) => s.try_read(&mut scratch),
                Self::Unix(s) => s.try_read(&mut scratch),
                Self::Tls(s) => s.get_ref().0.try_read(&mut scratch),
            };
            match read {
                Ok(n) if n > 0 => left = left.saturating_sub(n),
                _ => return,
            }
        }
    }

    /// The error the socket met while nobody was looking.
    pub fn take_error(&self) -> Option<io::Error> {
        let taken = match self {
            Self::Tcp(s) => s.take_error(),
            Self::Unix(s) => s.take_error(),
            Self::Tls(s) => s.get_ref().0.take_error(),
        };
        taken.ok().flatten()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_write(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
