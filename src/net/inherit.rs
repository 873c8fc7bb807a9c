//! Listening sockets that were open before this process began: handed over by the process before, or
//! kept by the service manager. Whoever connected meanwhile waits in them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use socket2::Socket;
use tracing::{info, warn};

use super::listen::beside;
use crate::addr::Addr;

/// How [`beside`] ends.
const BESIDE: &str = "new";

/// More descriptors than that are a mistake.
pub const MOST: usize = 16 * 1024;

/// What is open for one address.
#[derive(Debug)]
pub struct Given {
    pub sockets: Vec<Socket>,
    /// Whether a Unix socket's file is ours to remove at the end.
    pub owns_file: bool,
}

/// All that is open, until somebody takes it.
#[derive(Debug, Default)]
pub struct Inherited {
    given: BTreeMap<Addr, Given>,
    /// What the service manager calls them.
    names: BTreeMap<Addr, String>,
}

impl Inherited {
    /// What the service manager passes (sd_listen_fds(3)): sockets of a `.socket` unit, and those
    /// that we asked it to keep. What is neither TCP nor Unix, or does not listen, is closed. To be
    /// called once, before there are threads.
    pub fn from_service_manager() -> Self {
        let number = |name| std::env::var(name).ok()?.parse::<usize>().ok();
        if number("LISTEN_FDS").is_none_or(|count| count > MOST) {
            return Self::default();
        }
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut listen = ListenFd::from_env();
        let mut all = Self::default();
        for index in 0..listen.len() {
            let name = names.next().unwrap_or_default();
            let fd: Option<OwnedFd> = match listen.take_tcp_listener(index) {
                Ok(socket) => socket.map(Into::into),
                Err(_) => listen
                    .take_unix_listener(index)
                    .ok()
                    .flatten()
                    .map(Into::into),
            };
            let socket = fd
                .map(Socket::from)
                .filter(|s| socket_acceptconn(s) == Ok(true));
            match socket.and_then(|socket| Some((address(&socket)?, socket))) {
                Some((addr, socket)) => {
                    info!(event = "inherited", %addr, name, "open already");
                    all.names.insert(addr.clone(), name.to_owned());
                    // Only we bind like that.
                    let owns_file = matches!(&addr, Addr::Unix(path)
                        if path.extension().is_some_and(|end| end == BESIDE));
                    all.add(addr, socket, owns_file);
                }
                None => warn!(
                    index,
                    name, "not a TCP or Unix socket that listens: not used"
                ),
            }
        }
        all
    }

    /// Adds one that was handed over.
    pub fn add(&mut self, addr: Addr, socket: Socket, owns_file: bool) {
        let given = self.given.entry(addr).or_insert_with(|| Given {
            sockets: Vec::new(),
            owns_file,
        });
        // A socket of a `.socket` unit that was kept as well comes twice.
        let inode = |socket: &Socket| rustix::fs::fstat(socket).map(|stat| stat.st_ino);
        if !given
            .sockets
            .iter()
            .any(|known| inode(known) == inode(&socket))
        {
            given.sockets.push(socket);
        }
    }

    /// What is open for `addr`; the service manager knows Unix sockets of ours by the name that they were
    /// bound under.
    pub fn take(&mut self, addr: &Addr) -> Option<Given> {
        if let Some(given) = self.given.remove(addr) {
            return Some(given);
        }
        let Addr::Unix(path) = addr else { return None };
        self.given.remove(&Addr::Unix(beside(path).into()))
    }

    /// Closes what nobody took, and says so; the files of Unix sockets go with it. Returns where that was,
    /// and what the service manager calls it: kept open there, clients would wait in it for ever.
    pub fn discard(self) -> Vec<(Addr, Option<String>)> {
        let Self { given, mut names } = self;
        let close = |(addr, given): (Addr, Given)| {
            warn!(event = "not-inherited", %addr, "was listened on, and is not in the configuration");
            if let Addr::Unix(path) = &addr
                && given.owns_file
            {
                let file = match path.extension().is_some_and(|end| end == BESIDE) {
                    true => path.with_extension(""),
                    false => path.to_path_buf(),
                };
                let _ = rustix::fs::unlink(file);
            }
            let name = names.remove(&addr).filter(|name| !name.is_empty());
            (addr, name)
        };
        given.into_iter().map(close).collect()
    }
}

/// Where a socket listens; `None` for one without a name.
fn address(socket: &Socket) -> Option<Addr> {
    let addr = socket.local_addr().ok()?;
    match (addr.as_socket(), addr.as_pathname()) {
        (Some(ip), _) => Some(Addr::Ip(ip)),
        (None, Some(path)) => Some(Addr::Unix(<Box<Path>>::from(path))),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::net::listen::{Bound, ListenOptions};

    const OPTIONS: ListenOptions = ListenOptions {
        keepalive: std::time::Duration::from_secs(30),
        socket_mode: 0o600,
        threads: 1,
    };

    #[test]
    fn a_socket_is_known_by_the_name_it_was_bound_under() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache.sock");
        let addr = Addr::Unix(path.as_path().into());
        let bound = Bound::bind(&addr, OPTIONS).unwrap();
        let fd = bound
            .sockets()
            .next()
            .unwrap()
            .try_clone_to_owned()
            .unwrap();
        let socket = Socket::from(fd);
        let called = address(&socket).unwrap();
        assert_ne!(called, addr, "the kernel does not follow a rename");
        let mut inherited = Inherited::default();
        inherited.add(called, socket, false);
        assert!(inherited.take(&addr).is_some());
        assert!(inherited.take(&addr).is_none());
    }

    #[test]
    fn a_unix_socket_without_its_file_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache.sock");
        let addr = Addr::Unix(path.as_path().into());
        let mut inherited = Inherited::default();
        let lost = UnixListener::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        inherited.add(addr.clone(), OwnedFd::from(lost).into(), true);
        let bound = Bound::open(&addr, OPTIONS, &mut inherited).unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn an_inherited_file_stays_until_it_is_our_turn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache.sock");
        let addr = Addr::Unix(path.as_path().into());
        let elder = UnixListener::bind(&path).unwrap();
        for ours in [false, true] {
            let socket = OwnedFd::from(elder.try_clone().unwrap());
            let mut inherited = Inherited::default();
            inherited.add(addr.clone(), socket.into(), true);
            let mut bound = Bound::open(&addr, OPTIONS, &mut inherited).unwrap();
            if ours {
                bound.leave(false);
            }
            drop(bound);
            assert_eq!(path.exists(), !ours);
        }
    }

    #[test]
    fn what_nobody_takes_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        for owns_file in [true, false] {
            let path = dir.path().join("old.sock");
            let socket = OwnedFd::from(UnixListener::bind(&path).unwrap());
            let mut inherited = Inherited::default();
            inherited.add(Addr::Unix(path.as_path().into()), socket.into(), owns_file);
            inherited.discard();
            assert_eq!(path.exists(), !owns_file);
        }
    }

    #[test]
    fn every_socket_and_every_thread_has_somebody() {
        for (sockets, threads) in [(1, 4), (4, 1), (2, 3), (3, 2), (2, 2)] {
            let addr: Addr = "127.0.0.1:0"
                .parse()
                .unwrap_or_else(|_| Addr::Ip(std::net::SocketAddr::from(([127, 0, 0, 1], 0))));
            let mut inherited = Inherited::default();
            for _ in 0..sockets {
                let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                inherited.add(addr.clone(), OwnedFd::from(socket).into(), false);
            }
            let bound = Bound::open(&addr, OPTIONS, &mut inherited).unwrap();
            let pairs = bound.for_threads(threads).unwrap();
            assert_eq!(pairs.len(), sockets.max(threads));
            for thread in 0..threads {
                assert!(pairs.iter().any(|(n, _)| *n == thread));
            }
        }
    }
}
