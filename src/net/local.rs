//! Unix sockets that are watched for what a session waits for, and no more.
//!
//! The kernel says "there is room" on a Unix socket whenever the other side has read something. Watched
//! for both directions, as usual, a session that answers small requests would be woken once per answer
//! for nothing. So these are watched for reading only, until a write has to wait for the first time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;

/// Watches a descriptor on the runtime of the calling thread.
///
/// # Errors
/// When the runtime cannot take it.
pub fn watch(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // It is deprecated because of types whose descriptor could change under the runtime: an `OwnedFd`'s
    // does not.
    #[allow(deprecated)]
    AsyncFd::with_interest(socket, interest)
}

/// Accepts connections on a Unix socket.
#[derive(Debug)]
pub struct LocalListener(AsyncFd<OwnedFd>);

impl LocalListener {
    /// `socket` listens and does not block.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(watch(socket, Interest::READABLE)?))
    }

    /// The next client. Cancel safe.
    ///
    /// # Errors
    /// As accept(2).
    pub async fn accept(&self) -> io::Result<LocalStream> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let accept = |socket: &OwnedFd| Ok(rustix::net::accept_with(socket, flags)?);
        LocalStream::new(self.0.async_io(Interest::READABLE, accept).await?)
    }
}

/// A connected Unix socket.
#[derive(Debug)]
pub struct LocalStream {
    /// `None` only when the runtime could not watch it any more.
    socket: Option<AsyncFd<OwnedFd>>,
    /// Whether it is watched for writing too.
    both: bool,
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl LocalStream {
    /// `socket` is connected and does not block.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            socket: Some(watch(socket, Interest::READABLE)?),
            both: false,
        })
    }

    fn get(&self) -> io::Result<&AsyncFd<OwnedFd>> {
        self.socket.as_ref().ok_or_else(gone)
    }

    /// The descriptor; `None` when the connection is lost.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(|socket| socket.get_ref().as_fd())
    }

    /// Runs `io` if the socket may be ready, and notes a `WouldBlock` it returns.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        io: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        if interest.is_writable() && !self.both {
            return io();
        }
        self.get()?.try_io(interest, |_| io())
    }

    /// The process at the other end, as of its connect.
    ///
    /// # Errors
    /// When the kernel does not say, or there is no descriptor to spare.
    pub fn peer(&self) -> io::Result<UCred> {
        let socket = self.fd().ok_or_else(gone)?.try_clone_to_owned()?;
        UnixStream::from_std(socket.into())?.peer_cred()
    }

    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get()?.poll_read_ready(cx).map_ok(drop)
    }

    /// From the first call on, the socket is watched for writing too.
    pub fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch_both(cx)?;
        self.get()?.poll_write_ready(cx).map_ok(drop)
    }

    fn watch_both(&mut self, cx: &Context<'_>) -> io::Result<()> {
        if self.both {
            return Ok(());
        }
        let socket = self.socket.take().ok_or_else(gone)?.into_inner();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.socket = Some(watch(socket, interest)?);
        self.both = true;
        // Whoever waited for a read did so on the watch that is gone.
        cx.waker().wake_by_ref();
        Ok(())
    }
}

impl AsyncRead for LocalStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = self.get_mut().get()?;
        loop {
            let mut ready = ready!(socket.poll_read_ready(cx))?;
            let space = buf.initialize_unfilled();
            let asked = space.len();
            match rustix::net::recv(socket, space, RecvFlags::DONTWAIT) {
                Ok((n, _)) => {
                    // Less than asked for: that was all, and the poller will tell of more.
                    if n > 0 && n < asked {
                        ready.clear_ready();
                    }
                    buf.advance(n.min(asked));
                    return Poll::Ready(Ok(()));
                }
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if !this.both {
            match rustix::net::send(this.get()?, buf, flags) {
                Err(rustix::io::Errno::AGAIN) => this.watch_both(cx)?,
                sent => return Poll::Ready(Ok(sent?)),
            }
        }
        let socket = this.get()?;
        loop {
            let mut ready = ready!(socket.poll_write_ready(cx))?;
            match rustix::net::send(socket, buf, flags) {
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                sent => return Poll::Ready(Ok(sent?)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut().get()?;
        Poll::Ready(Ok(rustix::net::shutdown(socket, Shutdown::Write)?))
    }
}
