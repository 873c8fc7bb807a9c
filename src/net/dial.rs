//! Connections to servers, for sessions and for probes alike.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt::set_tcp_congestion;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, UnixStream};
use tokio::time::sleep;

use super::Stream;
use super::local::LocalStream;
use super::resolve::{ResolveError, Resolver};
use super::tls::{Connector, TlsError};
use crate::addr::Addr;

/// Why a server could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("cannot resolve: {0}")]
    Resolve(#[from] ResolveError),
    #[error("connect: {0}")]
    Connect(#[source] io::Error),
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl DialError {
    /// Whether this host, not the server, is short of something.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Connect(e) if super::fds::is_resource_error(e)
            || e.kind() == io::ErrorKind::AddrNotAvailable)
    }
}

/// How connections to the servers of one kind are made. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    pub resolver: Resolver,
    pub tls: Connector,
    pub keepalive: Duration,
}

impl Dialer {
    /// Connects to `addr` within `limit`, TLS handshake included. A name's addresses are tried one
    /// after the other; when none works it is resolved anew the next time. Cancel safe: a dropped
    /// future closes the socket.
    ///
    /// # Errors
    /// The last address' error, or the name's.
    pub async fn dial(
        &self,
        addr: &Addr,
        server_name: Option<&str>,
        limit: Duration,
    ) -> Result<Stream, DialError> {
        let dialed = tokio::select! {
            biased;
            dialed = self.dial_any(addr, server_name) => dialed,
            () = later(sleep(limit)) => Err(DialError::Timeout(limit)),
        };
        if dialed.is_err() {
            self.resolver.forget(addr);
        }
        dialed
    }

    async fn dial_any(&self, addr: &Addr, server_name: Option<&str>) -> Result<Stream, DialError> {
        let tcp = match addr {
            Addr::Unix(path) => {
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(DialError::Connect)?;
                let stream = stream.into_std().map_err(DialError::Connect)?;
                let stream = LocalStream::new(stream.into()).map_err(DialError::Connect)?;
                return Ok(Stream::Unix(stream));
            }
            Addr::Ip(addr) => self.connect(*addr).await?,
            Addr::Name { .. } => {
                let mut last = None;
                let mut connected = None;
                for addr in self.resolver.resolve(addr).await? {
                    match self.connect(addr).await {
                        Ok(stream) => {
                            connected = Some(stream);
                            break;
                        }
                        Err(error) => last = Some(error),
                    }
                }
                connected.ok_or_else(|| last.unwrap_or(ResolveError::Empty.into()))?
            }
        };
        Ok(self.tls.wrap(tcp, addr, server_name).await?)
    }

    async fn connect(&self, addr: SocketAddr) -> Result<tokio::net::TcpStream, DialError> {
        let socket = match addr {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }
        .map_err(DialError::Connect)?;
        // A socket without these still carries bytes; a dead peer is then noticed later.
        let _ = socket.set_nodelay(true);
        let _ = keep_alive(&SockRef::from(&socket), self.keepalive);
        lighten(&socket, addr);
        socket.connect(addr).await.map_err(DialError::Connect)
    }
}

/// Begins with `wait` only after one look at the poller. A connect on the same host is over by then,
/// and need not pay for setting up what would end it: a timer alone costs a system call.
pub async fn later(wait: impl Future<Output = ()>) {
    tokio::task::yield_now().await;
    wait.await;
}

/// Between two processes of one host there is no network to be fair to: a socket of a loopback address
/// takes the congestion control with the least to compute per packet (the system's default may be one
/// that paces). Sockets accepted by a listener have the listener's.
pub fn lighten(socket: impl AsFd, addr: SocketAddr) {
    if addr.ip().is_loopback() {
        // Always there and allowed to everybody; without it the connection is only dearer.
        let _ = set_tcp_congestion(socket, "reno");
    }
}

/// Makes a dead peer noticed: an idle one after twice `period`, one that owes an acknowledgement
/// after `period`.
///
/// # Errors
/// When the socket does not take the options.
pub fn keep_alive(socket: &SockRef<'_>, period: Duration) -> io::Result<()> {
    // Three probes in the second half; TCP_USER_TIMEOUT overrides their count (tcp(7)).
    let interval = (period / 3).max(Duration::from_secs(1));
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(period)
            .with_interval(interval),
    )?;
    socket.set_tcp_user_timeout(Some(period))
}
