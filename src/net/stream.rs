//! One type for every kind of connection a session can have.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::local::{self, LocalStream};

/// A connected byte stream, to a client or to a server.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(LocalStream),
    /// Boxed: its buffers would make every plain session pay for it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The descriptor, where the bytes on it are the bytes of the stream (not under TLS).
    pub fn plain_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(s) => Some(s.as_fd()),
            Self::Unix(s) => s.fd(),
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

    pub fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
        let watch = self.any_fd().and_then(|fd| fd.try_clone_to_owned().ok());
        let Some(Ok(watch)) = watch.map(|fd| local::watch(fd, Interest::READABLE)) else {
            // No descriptor to spare: the end is then noticed when the client is served.
            return std::future::pending().await;
        };
        loop {
            let Ok(mut ready) = watch.readable().await else {
                return;
            };
            if ready.ready().is_read_closed() || ready.ready().is_error() {
                return;
            }
            // Data is waiting; only a later event can be the end.
            ready.clear_ready();
        }
    }

    fn any_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(s) => Some(s.as_fd()),
            Self::Unix(s) => s.fd(),
            Self::Tls(s) => Some(s.get_ref().0.as_fd()),
        }
    }

    /// Takes what has arrived and throws it away, so that closing sends FIN and not RST.
    pub fn discard_received(&self, limit: usize) {
        let mut scratch = [0_u8; 4096];
        let mut left = limit;
        while let Some(fd) = self.any_fd().filter(|_| left > 0) {
            match rustix::net::recv(fd, &mut scratch, RecvFlags::DONTWAIT) {
                Ok((n, _)) if n > 0 => left = left.saturating_sub(n),
                _ => return,
            }
        }
    }

    /// The error the socket met while nobody was looking.
    pub fn take_error(&self) -> Option<io::Error> {
        let error = rustix::net::sockopt::socket_error(self.any_fd()?);
        error.ok()?.err().map(io::Error::from)
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
