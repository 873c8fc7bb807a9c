//! A line between two processes of ours, for messages and open descriptors (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::local::watch;

/// Descriptors that go with one byte; the kernel takes up to 253.
const AT_ONCE: usize = 64;

/// One end. Messages are framed by their length; what is received is bounded by whoever receives.
#[derive(Debug)]
pub struct Line(AsyncFd<OwnedFd>);

impl Line {
    /// Our end, and the other one for a child.
    ///
    /// # Errors
    /// When descriptors are short.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        Ok((Self::of(ours)?, theirs))
    }

    /// The end that this process was given as its standard input.
    ///
    /// # Errors
    /// When it is no Unix socket.
    pub fn from_stdin() -> io::Result<Self> {
        let fd = io::stdin().as_fd().try_clone_to_owned()?;
        if rustix::net::sockopt::socket_domain(&fd)? != AddressFamily::UNIX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        socket2::SockRef::from(&fd).set_nonblocking(true)?;
        Self::of(fd)
    }

    fn of(fd: OwnedFd) -> io::Result<Self> {
        watch(fd, Interest::READABLE | Interest::WRITABLE).map(Self)
    }

    /// Sends a message. Not cancel safe: the other end would get a part.
    ///
    /// # Errors
    /// When the other end is gone.
    pub async fn send(&self, message: &[u8]) -> io::Result<()> {
        let length = u32::try_from(message.len()).map_err(io::Error::other)?;
        self.write(&length.to_be_bytes()).await?;
        self.write(message).await
    }

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        while !bytes.is_empty() {
            let write = |fd: &OwnedFd| Ok(rustix::net::send(fd, bytes, flags)?);
            let sent = self.0.async_io(Interest::WRITABLE, write).await?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// The next message, of at most `most` bytes. Not cancel safe.
    ///
    /// # Errors
    /// `UnexpectedEof` when the other end is gone; `InvalidData` when the message is too long.
    pub async fn receive(&self, most: usize) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.read(&mut length).await?;
        let length = u32::from_be_bytes(length) as usize;
        if length > most {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut message = vec![0; length];
        self.read(&mut message).await?;
        Ok(message)
    }

    async fn read(&self, mut rest: &mut [u8]) -> io::Result<()> {
        while !rest.is_empty() {
            let read = |fd: &OwnedFd| Ok(rustix::net::recv(fd, &mut *rest, RecvFlags::DONTWAIT)?.1);
            let got = self.0.async_io(Interest::READABLE, read).await?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            rest = &mut rest[got..];
        }
        Ok(())
    }

    /// Completes when the other end is gone, or says something. Cancel safe.
    pub async fn closed(&self) {
        let mut byte = [0];
        let peek = |fd: &OwnedFd| {
            let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
            Ok(rustix::net::recv(fd, &mut byte, flags)?.1)
        };
        // An error is an end too.
        let _ = self.0.async_io(Interest::READABLE, peek).await;
    }

    /// Sends descriptors; they stay open here. Not cancel safe.
    ///
    /// # Errors
    /// When the other end is gone.
    pub async fn send_descriptors(&self, fds: &[OwnedFd]) -> io::Result<()> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        for some in fds.chunks(AT_ONCE) {
            let send = |fd: &OwnedFd| send_some(fd.as_fd(), some);
            self.0.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }

    /// All of the `count` descriptors that were sent at once, in their order. Not cancel safe.
    ///
    /// # Errors
    /// When the other end is gone, or this process may not have so many.
    pub async fn receive_descriptors(&self, count: usize) -> io::Result<Vec<OwnedFd>> {
        let mut all = Vec::new();
        while all.len() < count {
            let got = self.0.async_io(Interest::READABLE, receive_some).await?;
            if got.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            all.extend(got);
        }
        if all.len() > count {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(all)
    }
}

fn send_some(to: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // A byte has to go with them.
    let byte = [IoSlice::new(b"+")];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(to, &byte, &mut control, flags)?;
    Ok(())
}

fn receive_some(from: &OwnedFd) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    let messages = control.drain();
    let rights = messages.filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(rights.flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn lines() -> (Line, Line) {
        let (one, other) = Line::pair().unwrap();
        (one, Line::of(other).unwrap())
    }

    #[tokio::test]
    async fn messages_and_descriptors_come_in_order() {
        let (one, other) = lines();
        let pairs: Vec<_> = (0..150).map(|_| UnixStream::pair().unwrap()).collect();
        let (near, far): (Vec<UnixStream>, Vec<UnixStream>) = pairs.into_iter().unzip();
        let fds: Vec<OwnedFd> = far.into_iter().map(Into::into).collect();
        let long = vec![7; 3 << 20];
        let sent = async {
            one.send(&long).await.unwrap();
            one.send_descriptors(&fds).await.unwrap();
            one.send(b"end").await.unwrap();
        };
        let received = async {
            assert_eq!(other.receive(4 << 20).await.unwrap().len(), 3 << 20);
            let fds = other.receive_descriptors(150).await.unwrap();
            assert_eq!(other.receive(10).await.unwrap(), b"end");
            fds
        };
        let ((), received) = tokio::join!(sent, received);
        for (n, (mut near, far)) in near.into_iter().zip(received).enumerate() {
            let n = u8::try_from(n).unwrap();
            near.write_all(&[n]).unwrap();
            let mut byte = [0];
            UnixStream::from(far).read_exact(&mut byte).unwrap();
            assert_eq!(byte[0], n);
        }
    }

    #[tokio::test]
    async fn the_end_and_too_much_are_told() {
        let (one, other) = lines();
        one.send(&[0; 100]).await.unwrap();
        let error = other.receive(99).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let (one, other) = lines();
        drop(one);
        for error in [
            other.receive(99).await.unwrap_err(),
            other.receive_descriptors(1).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
        assert!(other.send(b"?").await.is_err());
    }
}
