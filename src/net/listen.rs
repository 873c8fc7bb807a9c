//! Listening sockets: bound once, shared with every data thread.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::unlink;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpListener;

use super::Stream;
use super::dial::{keep_alive, lighten};
use super::inherit::{Given, Inherited};
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

/// A bound address: one socket per data thread (TCP), or one that they share (Unix). Sockets that were
/// open before us may be more or fewer than threads: see [`Bound::for_threads`].
#[derive(Debug)]
pub struct Bound {
    pub addr: Addr,
    sockets: Vec<Socket>,
    /// Whether a Unix socket's file is ours to remove.
    owns_file: bool,
    /// Whether somebody else goes on listening when this goes.
    left: bool,
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
                    owns_file: false,
                    left: false,
                })
            }
            Addr::Unix(path) => {
                clear_stale(addr, path)?;
                let socket = bind_unix(path, options.socket_mode).map_err(wrap)?;
                Ok(Self {
                    addr: addr.clone(),
                    sockets: vec![socket],
                    owns_file: true,
                    left: false,
                })
            }
        }
    }

    /// As [`Bound::bind`], with the sockets that are open already, if there are any: what waits in
    /// them is not lost. A Unix socket whose file is gone can be found by nobody, and is made anew.
    /// An inherited file stays until [`Bound::leave`] says that it is this process that listens.
    ///
    /// # Errors
    /// As [`Bound::bind`].
    pub fn open(
        addr: &Addr,
        options: ListenOptions,
        inherited: &mut Inherited,
    ) -> Result<Self, ListenError> {
        let Some(given) = inherited.take(addr) else {
            return Self::bind(addr, options);
        };
        if let Addr::Unix(path) = addr
            && !is_socket(path)
        {
            return Self::bind(addr, options);
        }
        let Given { sockets, owns_file } = given;
        let bound = Self {
            addr: addr.clone(),
            sockets,
            owns_file,
            // Whoever had it may go on, if we do not.
            left: true,
        };
        for socket in &bound.sockets {
            let prepared = bound.prepare(socket, options);
            prepared.map_err(|source| ListenError::Bind {
                addr: addr.clone(),
                source,
            })?;
        }
        Ok(bound)
    }

    /// What [`bind_tcp`] does to sockets of its own.
    fn prepare(&self, socket: &Socket, options: ListenOptions) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        if let Addr::Ip(addr) = self.addr {
            socket.set_tcp_nodelay(true)?;
            keep_alive(&SockRef::from(socket), options.keepalive)?;
            lighten(socket, addr);
        }
        Ok(())
    }

    /// Somebody else goes on listening when this goes, so that a Unix socket's file stays; or nobody
    /// does any more.
    pub fn leave(&mut self, left: bool) {
        self.left = left;
    }

    pub fn owns_file(&self) -> bool {
        self.owns_file
    }

    /// The sockets, to be passed on.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }

    /// Makes the sockets follow `options`, where they can: an address that is listened on stays so
    /// without a break when its service changes.
    pub fn adjust(&self, options: ListenOptions) {
        for socket in &self.sockets {
            match &self.addr {
                Addr::Ip(_) | Addr::Name { .. } => {
                    // A socket that does not take it keeps what it had.
                    let _ = keep_alive(&SockRef::from(socket), options.keepalive);
                }
                Addr::Unix(path) => {
                    let mode = std::fs::Permissions::from_mode(options.socket_mode);
                    let _ = std::fs::set_permissions(path, mode);
                }
            }
        }
    }

    /// Which of `threads` accepts from which socket. Every socket has somebody, since the kernel
    /// spreads clients over all of them, and every thread has one: where there are fewer sockets than
    /// threads they are shared, and where there are more, threads have several.
    ///
    /// # Errors
    /// When a descriptor cannot be duplicated.
    pub fn for_threads(&self, threads: usize) -> io::Result<Vec<(usize, ThreadSocket)>> {
        let pairs = 0..threads.max(self.sockets.len());
        let pair = |n: usize| {
            let socket = self.sockets[n % self.sockets.len()].try_clone()?;
            let unix = matches!(self.addr, Addr::Unix(_));
            Ok((n % threads.max(1), ThreadSocket { socket, unix }))
        };
        pairs.map(pair).collect()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let (true, false, Addr::Unix(path)) = (self.owns_file, self.left, &self.addr) {
            let _ = unlink(&**path);
        }
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
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

/// Where a Unix socket is bound before it gets its name, which is also what the kernel goes on to call it.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    beside.into()
}

/// Binds beside the final name and moves it there, so that clients only find a socket that listens
/// and has its mode.
fn bind_unix(path: &Path, mode: u32) -> io::Result<Socket> {
    let beside = &*beside(path);
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
    open_control(addr, mode, &mut Inherited::default())
}

/// As [`control_listener`], with the socket that is open already, if there is one.
///
/// # Errors
/// As [`Bound::bind`].
pub fn open_control(
    addr: &Addr,
    mode: u32,
    inherited: &mut Inherited,
) -> Result<(Bound, Listener), ListenError> {
    let options = ListenOptions {
        keepalive: Duration::from_secs(30),
        socket_mode: mode,
        threads: 1,
    };
    let bound = Bound::open(addr, options, inherited)?;
    let listener = match bound.for_threads(1).map(|mut all| (all.len(), all.pop())) {
        Ok((1, Some((_, socket)))) => socket.into_listener(),
        // Clients of the others would wait for ever.
        Ok(_) => Err(io::Error::other(
            "it was a service's address until now: a restart is needed",
        )),
        Err(error) => Err(error),
    };
    let listener = listener.map_err(|source| ListenError::Bind {
        addr: addr.clone(),
        source,
    })?;
    Ok((bound, listener))
}
