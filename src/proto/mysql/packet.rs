//! Packets and the few of their fields that a go-between needs.
//!
//! Facts are from "MySQL Client/Server Protocol" in the MySQL source documentation and "Clientserver
//! Protocol" in the MariaDB knowledge base.

use bytes::{BufMut, Bytes, BytesMut};

/// Length (3 bytes, little endian) and sequence id.
pub const HEADER: usize = 4;
/// A packet of this length is continued by the next one.
pub const FULL: usize = 0xff_ffff;

/// Capability flags. The upper half are MariaDB's own.
pub mod cap {
    /// MariaDB leaves it out of its greeting, and then has [`MARIADB_PROGRESS`] and the rest.
    pub const LONG_PASSWORD: u64 = 1;
    pub const CONNECT_WITH_DB: u64 = 1 << 3;
    pub const COMPRESS: u64 = 1 << 5;
    pub const PROTOCOL_41: u64 = 1 << 9;
    pub const SSL: u64 = 1 << 11;
    pub const SECURE_CONNECTION: u64 = 1 << 15;
    pub const PLUGIN_AUTH: u64 = 1 << 19;
    pub const PLUGIN_AUTH_LENENC: u64 = 1 << 21;
    pub const DEPRECATE_EOF: u64 = 1 << 24;
    pub const OPTIONAL_METADATA: u64 = 1 << 25;
    pub const ZSTD: u64 = 1 << 26;
    pub const MARIADB_PROGRESS: u64 = 1 << 32;
    pub const MARIADB_CACHE_METADATA: u64 = 1 << 36;
}

/// Flags of OK and EOF packets.
pub mod status {
    pub const IN_TRANS: u16 = 1;
    pub const MORE_RESULTS: u16 = 1 << 3;
    pub const CURSOR_EXISTS: u16 = 1 << 6;
    pub const LAST_ROW_SENT: u16 = 1 << 7;
}

/// Error numbers.
pub mod errno {
    pub const CON_COUNT: u16 = 1040;
    pub const HANDSHAKE: u16 = 1043;
    pub const UNKNOWN_COM: u16 = 1047;
    pub const SERVER_SHUTDOWN: u16 = 1053;
    pub const READ_ONLY: u16 = 1290;
    pub const READ_ONLY_MODE: u16 = 1836;
    pub const OFFLINE: u16 = 3032;
    /// Not an error: MariaDB says how far it is.
    pub const PROGRESS: u16 = 0xffff;

    /// What only a server says that is not (or soon no more) the primary. 1792 is not among them: a
    /// client can ask for a read-only transaction anywhere.
    pub fn is_hint(code: u16) -> bool {
        matches!(
            code,
            UNKNOWN_COM | SERVER_SHUTDOWN | READ_ONLY | READ_ONLY_MODE | OFFLINE
        )
    }
}

/// The header of a packet of `len` bytes, which fit.
pub fn header(len: usize, seq: u8) -> [u8; HEADER] {
    let [a, b, c, ..] = len.min(FULL).to_le_bytes();
    [a, b, c, seq]
}

/// Length and sequence id.
pub fn read_header(bytes: [u8; HEADER]) -> (usize, u8) {
    let [a, b, c, seq] = bytes;
    (
        usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16,
        seq,
    )
}

/// A whole packet; `payload` is shorter than [`FULL`].
pub fn frame(seq: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + payload.len());
    out.put_slice(&header(payload.len(), seq));
    out.put_slice(payload);
    out.freeze()
}

/// Words of our own.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    pub code: u16,
    /// Five characters. `None` before the client has said that it knows them: an error in place of the
    /// greeting has none, and clients put one in by the code (1040 is 08004).
    pub state: Option<&'static str>,
    pub text: &'a str,
}

impl Words<'_> {
    /// As an ERR packet.
    pub fn packet(&self, seq: u8) -> Bytes {
        let mut payload = BytesMut::with_capacity(16 + self.text.len());
        payload.put_u8(0xff);
        payload.put_u16_le(self.code);
        if let Some(state) = self.state {
            payload.put_u8(b'#');
            payload.put_slice(state.as_bytes());
        }
        payload.put_slice(self.text.as_bytes());
        frame(seq, &payload)
    }
}

/// A server's error, as far as it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    pub code: u16,
    /// Printable, and not for ever long.
    pub text: String,
}

impl ServerError {
    /// Reads an ERR packet's payload, with or without a state.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let [0xff, low, high, rest @ ..] = payload else {
            return None;
        };
        let text = match rest {
            [b'#', _, _, _, _, _, text @ ..] => text,
            text => text,
        };
        Some(Self {
            code: u16::from_le_bytes([*low, *high]),
            text: printable(text),
        })
    }
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "error {}: {}", self.code, self.text)
    }
}

/// The beginning of `bytes`, for people.
pub fn printable(bytes: &[u8]) -> String {
    const SHOWN: usize = 120;
    let mut text = String::new();
    for byte in &bytes[..bytes.len().min(SHOWN)] {
        match byte {
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => text.extend(byte.escape_ascii().map(char::from)),
        }
    }
    if bytes.len() > SHOWN {
        text.push_str("...");
    }
    text
}

/// Reads fields one after the other; `None` where there are not enough bytes.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    pub fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?.try_into().ok()?;
        Some(u16::from_le_bytes(bytes))
    }

    pub fn u32(&mut self) -> Option<u32> {
        let bytes = self.take(4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    }

    /// A length-encoded integer. `None` for what is none: 0xfb is NULL, 0xff an error.
    pub fn lenenc(&mut self) -> Option<u64> {
        let width = match self.u8()? {
            small @ ..=0xfa => return Some(u64::from(small)),
            0xfc => 2,
            0xfd => 3,
            0xfe => 8,
            _ => return None,
        };
        let mut whole = [0; 8];
        whole[..width].copy_from_slice(self.take(width)?);
        Some(u64::from_le_bytes(whole))
    }

    /// Text up to a zero, which is taken too. Where there is none it goes to the end.
    pub fn text(&mut self) -> &'a [u8] {
        let (text, rest) = match self.0.iter().position(|b| *b == 0) {
            Some(end) => (&self.0[..end], &self.0[end + 1..]),
            None => (self.0, &self.0[..0]),
        };
        self.0 = rest;
        text
    }
}

/// The status flags of an OK packet's payload (header 0x00 or 0xfe).
pub fn ok_status(payload: &[u8]) -> Option<u16> {
    let mut fields = Fields(payload.get(1..)?);
    fields.lenenc()?;
    fields.lenenc()?;
    fields.u16()
}

/// The status flags of an EOF packet's payload.
pub fn eof_status(payload: &[u8]) -> Option<u16> {
    let mut fields = Fields(payload.get(1..)?);
    fields.u16()?;
    fields.u16()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        for (len, seq) in [(0, 0), (1, 255), (0x01_02_03, 7), (FULL, 1)] {
            assert_eq!(read_header(header(len, seq)), (len, seq));
        }
        assert_eq!(header(0x03_02_01, 9), [1, 2, 3, 9]);
    }

    #[test]
    fn errors_with_and_without_a_state() {
        let words = Words {
            code: 1040,
            state: None,
            text: "no room",
        };
        assert_eq!(&words.packet(0)[..], b"\x0a\0\0\0\xff\x10\x04no room");
        let with = Words {
            state: Some("08004"),
            ..words
        };
        assert_eq!(
            &with.packet(2)[..],
            b"\x10\0\0\x02\xff\x10\x04#08004no room"
        );
        for words in [words, with] {
            let read = ServerError::read(&words.packet(0)[HEADER..]).unwrap();
            assert_eq!(read.to_string(), "error 1040: no room");
        }
        assert_eq!(ServerError::read(b"\xff\x10"), None);
        assert_eq!(ServerError::read(b"\0\x10\x04"), None);
    }

    #[test]
    fn integers_of_any_length() {
        for (bytes, expected) in [
            (&b"\x05"[..], Some(5)),
            (b"\xfa", Some(250)),
            (b"\xfb", None),
            (b"\xfc\x01\x02", Some(0x0201)),
            (b"\xfd\x01\x02\x03", Some(0x03_0201)),
            (b"\xfe\x01\0\0\0\0\0\0\0", Some(1)),
            (b"\xfe\x01\0\0\0\0\0\0", None),
            (b"\xff", None),
            (b"", None),
        ] {
            assert_eq!(Fields(bytes).lenenc(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn statuses() {
        assert_eq!(ok_status(b"\0\x01\x00\x02\x00\x00\x00"), Some(2));
        assert_eq!(ok_status(b"\xfe\xfc\x01\x01\x00\x09\x00\x00\x00"), Some(9));
        assert_eq!(ok_status(b"\0\x01\x00\x02"), None);
        assert_eq!(eof_status(b"\xfe\x00\x00\x21\x00"), Some(0x21));
        assert_eq!(eof_status(b""), None);
    }

    #[test]
    fn what_is_shown_is_short_and_printable() {
        assert_eq!(printable(b"it's HTTP\r\n\xff"), "it's HTTP\\r\\n\\xff");
        assert_eq!(printable(&[b'x'; 500]).len(), 123);
    }
}
