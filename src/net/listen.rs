//! Listening sockets: bound once, shared with every data thread.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::unlink;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpListener;

use super::Stream;
use super::dial::{keep_alive, lighten};
use super::local::LocalListener;
use crate::addr::Addr;

const BACKLOG: i32 = 4096;

/// How accepted TCP connections behave. They inherit the listener's options (tcp(7)), which saves
/// five system calls per connection.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    pub keepalive: Duration,
    pub socket_mode: u32,
    /// One socket per data thread on the same port.
    pub threads: usize,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {addr}: {source}")]
    Bind { addr: Addr, source: io::Error },
    #[error("cannot listen on {addr}: another process is listening there")]
    Taken { addr: Addr },
    #[error("cannot listen on {addr}: it is not a socket, and it is not ours to remove")]
    NotASocket { addr: Addr },
    #[error("cannot listen on {addr}: a name has to be an address here")]
    Name { addr: Addr },
}

/// A bound address: one socket per data thread (TCP), or one that they share (Unix).
#[derive(Debug)]
pub struct Bound {
    pub addr: Addr,
    sockets: Vec<Socket>,
    /// Removed when this goes.
    path: Option<Box<Path>>,
}

impl Bound {
    /// Binds and listens.
    ///
    /// # Errors
    /// When the address is taken, not ours, or not bindable.
    pub fn bind(addr: &Addr, options: ListenOptions) -> Result<Self, ListenError> {
        let wrap = |source| ListenError::Bind {
            addr: addr.clone(),
            source,
        };
        match addr {
            Addr::Name { .. } => Err(ListenError::Name { addr: addr.clone() }),
            Addr::Ip(ip) => {
                bind_alone(*ip).map_err(|e| taken_or(addr, e))?;
                let sockets: io::Result<Vec<Socket>> = (0..options.threads)
                    .map(|_| bind_tcp(*ip, options.keepalive))
                    .collect();
                Ok(Self {
                    addr: addr.clone(),
                    sockets: sockets.map_err(wrap)?,
                    path: None,
                })
            }
            Addr::Unix(path) => {
                clear_stale(addr, path)?;
                let socket = bind_unix(path, options.socket_mode).map_err(wrap)?;
                Ok(Self {
                    addr: addr.clone(),
                    sockets: vec![socket],
                    path: Some(path.clone()),
                })
            }
        }
    }

    /// Makes the sockets follow `options`, where they can: an address that is listened on stays so
    /// without a break when its service changes.
    pub fn adjust(&self, options: ListenOptions) {
        for socket in &self.sockets {
            match &self.path {
                None => {
                    // A socket that does not take it keeps what it had.
                    let _ = keep_alive(&SockRef::from(socket), options.keepalive);
                }
                Some(path) => {
                    let mode = std::fs::Permissions::from_mode(options.socket_mode);
                    let _ = std::fs::set_permissions(path, mode);
                }
            }
        }
    }

    /// The socket for one data thread.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub fn for_thread(&self, thread: usize) -> io::Result<ThreadSocket> {
        let socket = &self.sockets[thread % self.sockets.len()];
        Ok(ThreadSocket {
            socket: socket.try_clone()?,
            unix: self.path.is_some(),
        })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = unlink(&**path);
        }
    }
}

/// A listening socket on its way to the thread that will accept from it.
#[derive(Debug)]
pub struct ThreadSocket {
    socket: Socket,
    unix: bool,
}

impl ThreadSocket {
    /// Registers with the runtime of the calling thread.
    ///
    /// # Errors
    /// When the runtime cannot take it.
    pub fn into_listener(self) -> io::Result<Listener> {
        Ok(if self.unix {
            Listener::Unix(LocalListener::new(self.socket.into())?)
        } else {
            Listener::Tcp(TcpListener::from_std(self.socket.into())?)
        })
    }
}

/// Accepts on one thread.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(LocalListener),
}

impl Listener {
    /// The next client. Cancel safe.
    ///
    /// # Errors
    /// Never a reason to stop listening: see `data::listener`.
    pub async fn accept(&self) -> io::Result<Stream> {
        Ok(self.accept_from().await?.0)
    }

    /// As [`Listener::accept`], with the client's address, which on a Unix socket nobody has.
    ///
    /// # Errors
    /// As [`Listener::accept`].
    pub async fn accept_from(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                Ok((Stream::Tcp(stream), Some(from)))
            }
            Self::Unix(listener) => Ok((Stream::Unix(listener.accept().await?), None)),
        }
    }
}

/// Fails when somebody listens there already; with SO_REUSEPORT two sidecars would silently share the
/// clients.
fn bind_alone(addr: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())
}

fn taken_or(addr: &Addr, source: io::Error) -> ListenError {
    let addr = addr.clone();
    match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken { addr },
        _ => ListenError::Bind { addr, source },
    }
}

fn bind_tcp(addr: SocketAddr, keepalive: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    keep_alive(&SockRef::from(&socket), keepalive)?;
    lighten(&socket, addr);
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Removes a socket file nobody listens on, as a crash leaves it.
fn clear_stale(addr: &Addr, path: &Path) -> Result<(), ListenError> {
    let Ok(found) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(ListenError::NotASocket { addr: addr.clone() });
    }
    let refused = match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => false,
        Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
    };
    if !refused {
        return Err(ListenError::Taken { addr: addr.clone() });
    }
    unlink(path).map_err(|e| ListenError::Bind {
        addr: addr.clone(),
        source: e.into(),
    })
}

/// Binds beside the final name and moves it there, so that clients only find a socket that listens
/// and has its mode.
fn bind_unix(path: &Path, mode: u32) -> io::Result<Socket> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let _ = unlink(beside);
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&socket2::SockAddr::unix(beside)?)?;
    socket.listen(BACKLOG)?;
    std::fs::set_permissions(beside, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(beside, path)?;
    Ok(socket)
}

/// A listening socket for the control side's own HTTP.
///
/// # Errors
/// As [`Bound::bind`].
pub fn control_listener(addr: &Addr, mode: u32) -> Result<(Bound, Listener), ListenError> {
    let options = ListenOptions {
        keepalive: Duration::from_secs(30),
        socket_mode: mode,
        threads: 1,
    };
    let bound = Bound::bind(addr, options)?;
    let listener = bound.for_thread(0).and_then(ThreadSocket::into_listener);
    let listener = listener.map_err(|source| ListenError::Bind {
        addr: addr.clone(),
        source,
    })?;
    Ok((bound, listener))
}
