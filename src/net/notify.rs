//! Telling the service manager (sd_notify(3)): a datagram of `KEY=value` lines, with descriptors where it
//! is to keep some.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sendmsg_addr, socket_with,
};

/// Descriptors in one datagram.
const AT_ONCE: usize = 64;
/// A manager that does not read must not keep us for longer.
const PATIENCE: Duration = Duration::from_millis(500);

/// The way to the service manager.
#[derive(Debug)]
pub struct Notifier {
    socket: OwnedFd,
    to: SocketAddrUnix,
}

impl Notifier {
    /// `None` when nobody wants to be told: there is no `NOTIFY_SOCKET`.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn from_environment() -> io::Result<Option<Self>> {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(name) if !name.is_empty() => Self::to(&name).map(Some),
            _ => Ok(None),
        }
    }

    /// `name` is a path, or an abstract name that begins with `@`.
    fn to(name: &OsStr) -> io::Result<Self> {
        let to = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            path => SocketAddrUnix::new(path)?,
        };
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        socket2::SockRef::from(&socket).set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, to })
    }

    /// Sends lines, and some descriptors with them. Waits for a busy manager for half a second.
    ///
    /// # Errors
    /// When it is gone, does not read, or there are more than 64 descriptors.
    pub fn send(&self, lines: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let text = [IoSlice::new(lines.as_bytes())];
        let flags = SendFlags::NOSIGNAL;
        sendmsg_addr(&self.socket, &self.to, &text, &mut control, flags)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn lines_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(path.as_os_str()).unwrap();
        notifier.send("READY=1\n", &[]).unwrap();
        notifier.send("FDSTORE=1\n", &[manager.as_fd()]).unwrap();
        let mut buffer = [0; 100];
        for expected in ["READY=1\n", "FDSTORE=1\n"] {
            let n = manager.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..n], expected.as_bytes());
        }
        drop(manager);
        assert!(notifier.send("READY=1\n", &[]).is_err());
    }
}
