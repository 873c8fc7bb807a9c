//! One side of a login: packets in and out, with that side's own sequence ids.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::proto::mysql::packet::{self, HEADER, printable};

/// No packet of a login is longer: connection attributes have at most 64 KiB, Kerberos tickets too.
pub const LONGEST: usize = 128 * 1024;
/// The room to begin with.
const ROOM: usize = 1024;

/// Bytes that may hold a password: wiped when dropped. Without `Debug`, on purpose.
pub type Payload = Zeroizing<Vec<u8>>;

/// Why there is no packet.
#[derive(Debug)]
pub enum Missing {
    /// The connection ended or broke.
    Gone(Option<io::Error>),
    /// These bytes do not begin one, because of that.
    Nonsense(String),
}

/// What was read, and the next sequence id in either direction.
pub struct Lane {
    bytes: Payload,
    next: u8,
}

impl Default for Lane {
    fn default() -> Self {
        Self::new()
    }
}

impl Lane {
    pub fn new() -> Self {
        Self {
            bytes: Zeroizing::new(Vec::new()),
            next: 0,
        }
    }

    /// Reads a packet. Cancel safe: what was read stays for the next call.
    ///
    /// # Errors
    /// See [`Missing`].
    pub async fn read(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<Payload, Missing> {
        loop {
            if let Some(len) = self.check_header()?
                && self.bytes.len() >= HEADER + len
            {
                self.next = self.next.wrapping_add(1);
                return Ok(self.take(len));
            }
            self.fill(from).await?;
        }
    }

    /// Waits for the header of a packet: its sequence id. Cancel safe.
    ///
    /// # Errors
    /// When the connection ended or broke.
    pub async fn peek(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<u8, Missing> {
        loop {
            if let Some((_, seq)) = self.header() {
                return Ok(seq);
            }
            self.fill(from).await?;
        }
    }

    async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<(), Missing> {
        self.make_room();
        match from.read_buf(&mut *self.bytes).await {
            Ok(0) => Err(Missing::Gone(None)),
            Ok(_) => Ok(()),
            Err(error) => Err(Missing::Gone(Some(error))),
        }
    }

    fn header(&self) -> Option<(usize, u8)> {
        let header = self.bytes.first_chunk::<HEADER>()?;
        Some(packet::read_header(*header))
    }

    fn check_header(&self) -> Result<Option<usize>, Missing> {
        let Some((len, seq)) = self.header() else {
            return Ok(None);
        };
        let why = if seq != self.next {
            format!("sequence id {seq} and not {}", self.next)
        } else if len > LONGEST {
            format!("a packet of {len} bytes")
        } else if len == 0 && self.next == 0 {
            "an empty packet".to_owned()
        } else {
            return Ok(Some(len));
        };
        Err(Missing::Nonsense(format!("{why}: \"{}\"", self.shown())))
    }

    /// What arrived, for people, while it can hold no secret.
    fn shown(&self) -> String {
        match self.next {
            0 => printable(&self.bytes),
            _ => printable(&self.bytes[..HEADER.min(self.bytes.len())]),
        }
    }

    /// A vector that grows by itself would leave a copy behind, unwiped.
    fn make_room(&mut self) {
        if self.bytes.len() < self.bytes.capacity() {
            return;
        }
        let room = (self.bytes.capacity() * 2).max(ROOM);
        let mut larger = Zeroizing::new(Vec::with_capacity(room));
        larger.extend_from_slice(&self.bytes);
        self.bytes = larger;
    }

    fn take(&mut self, len: usize) -> Payload {
        let payload = Zeroizing::new(self.bytes[HEADER..HEADER + len].to_vec());
        let rest = Zeroizing::new(self.bytes[HEADER + len..].to_vec());
        self.bytes = rest;
        payload
    }

    /// Writes a packet. Not cancel safe.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn write(
        &mut self,
        to: &mut (impl AsyncWrite + Unpin),
        payload: &[u8],
    ) -> io::Result<()> {
        let mut whole = Zeroizing::new(Vec::with_capacity(HEADER + payload.len()));
        whole.extend_from_slice(&packet::header(payload.len(), self.next));
        whole.extend_from_slice(payload);
        self.next = self.next.wrapping_add(1);
        to.write_all(&whole).await?;
        to.flush().await
    }

    /// A new command, or the answer to one that was sent along with others: ids begin anew.
    pub fn restart(&mut self, next: u8) {
        self.next = next;
    }

    /// The sequence id that the next packet has.
    pub fn next(&self) -> u8 {
        self.next
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was read beyond the last packet.
    pub fn rest(&self) -> Bytes {
        Bytes::copy_from_slice(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread();
        runtime_of(runtime).block_on(future)
    }

    fn runtime_of(mut builder: tokio::runtime::Builder) -> tokio::runtime::Runtime {
        builder.build().unwrap()
    }

    #[test]
    fn packets_one_after_the_other() {
        let mut bytes: &[u8] = b"\x03\0\0\0abc\x00\0\0\x01\x01\0\0\x02xrest";
        let mut lane = Lane::new();
        run(async {
            for expected in [&b"abc"[..], b"", b"x"] {
                assert_eq!(lane.read(&mut bytes).await.unwrap()[..], *expected);
            }
        });
        assert_eq!((&lane.rest()[..], lane.next()), (&b"rest"[..], 3));
        let mut out = Vec::new();
        run(lane.write(&mut out, b"hello")).unwrap();
        assert_eq!(out, b"\x05\0\0\x03hello");
    }

    #[test]
    fn long_ones_in_small_pieces() {
        let mut bytes = packet::header(LONGEST, 0).to_vec();
        bytes.extend(vec![b'x'; LONGEST]);
        let mut lane = Lane::new();
        let got = run(lane.read(&mut &bytes[..])).unwrap();
        assert_eq!(got.len(), LONGEST);
        assert!(lane.is_empty());
    }

    #[test]
    fn nonsense_is_shown_as_long_as_it_holds_no_secret() {
        for (next, bytes, said) in [
            (
                0,
                &b"HTTP/1.1 400 Bad Request\r\n"[..],
                Some("HTTP/1.1 400"),
            ),
            (0, b"\x03\0\0\x05abc", Some("sequence id 5")),
            (0, b"\0\0\0\0", Some("an empty packet")),
            (0, b"\xff\xff\xff\0", Some("16777215 bytes")),
            (
                1,
                b"\x07\0\0\x02secret\0",
                Some("sequence id 2 and not 1: \"\\x07\\x00\\x00\\x02\""),
            ),
            (0, b"\x03\0\0\0ab", None),
            (0, b"", None),
        ] {
            let mut lane = Lane::new();
            lane.next = next;
            let why = run(lane.read(&mut &bytes[..])).map(|_| ()).unwrap_err();
            match (why, said) {
                (Missing::Gone(None), None) => {}
                (Missing::Nonsense(why), Some(said)) => assert!(why.contains(said), "{why}"),
                (why, _) => panic!("{bytes:?}: {why:?}"),
            }
        }
    }
}
