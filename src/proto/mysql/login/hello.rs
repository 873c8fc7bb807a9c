//! The first packet of each side: the server's greeting and the client's response.

use crate::proto::mysql::packet::{Fields, cap, printable};

/// How much of the nonce is used to scramble passwords.
pub const NONCE: usize = 20;
/// Capability flags, largest packet, character set, filler: the response up to here is an SSLRequest.
pub const SSL_REQUEST: usize = 32;

/// What a greeting says (protocol version 10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    pub caps: u64,
    pub nonce: Vec<u8>,
    pub plugin: Vec<u8>,
    /// Where the lower half of the capability flags is.
    caps_at: usize,
}

impl Greeting {
    /// # Errors
    /// What it is instead.
    pub fn read(payload: &[u8]) -> Result<Self, String> {
        let nonsense = || format!("no greeting, but \"{}\"", printable(payload));
        match payload.first() {
            Some(10) => Self::read_10(payload).ok_or_else(nonsense),
            Some(9) => Err("it greets with protocol version 9, of before 1998".to_owned()),
            _ => Err(nonsense()),
        }
    }

    fn read_10(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(&payload[1..]);
        let version = fields.text();
        fields.u32()?;
        let mut nonce = fields.take(8)?.to_vec();
        fields.u8()?;
        let mut caps = u64::from(fields.u16()?);
        let mut plugin = Vec::new();
        if !fields.0.is_empty() {
            fields.take(3)?;
            caps |= u64::from(fields.u16()?) << 16;
            let nonce_len = usize::from(fields.u8()?);
            fields.take(6)?;
            let extended = u64::from(fields.u32()?) << 32;
            if caps & cap::LONG_PASSWORD == 0 {
                caps |= extended;
            }
            if caps & cap::SECURE_CONNECTION != 0 {
                let more = nonce_len.saturating_sub(8).max(13).min(fields.0.len());
                nonce.extend_from_slice(fields.take(more)?);
            }
            if caps & cap::PLUGIN_AUTH != 0 {
                plugin = fields.text().to_vec();
            }
        }
        nonce.truncate(NONCE);
        Some(Self {
            caps,
            nonce,
            plugin,
            caps_at: 1 + version.len() + 1 + 4 + 8 + 1,
        })
    }

    /// Takes the offer of TLS out of the greeting that was read.
    pub fn hide_tls(&self, payload: &mut [u8]) {
        let [_, low_high, ..] = cap::SSL.to_le_bytes();
        if let Some(byte) = payload.get_mut(self.caps_at + 1) {
            *byte &= !low_high;
        }
    }
}

/// What a client's response says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub caps: u64,
    /// How the client wants to prove who it is; empty where it does not say.
    pub plugin: Vec<u8>,
    /// It is only the announcement of TLS.
    pub wants_tls: bool,
}

impl Response {
    /// `None`: it is no response. Of one from before protocol 4.1 only the flags are read.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let low = u64::from(fields.u16()?);
        if low & cap::PROTOCOL_41 == 0 {
            return Some(Self {
                caps: low,
                plugin: Vec::new(),
                wants_tls: low & cap::SSL != 0,
            });
        }
        let mut caps = low | u64::from(fields.u16()?) << 16;
        fields.take(4 + 1 + 19)?;
        let extended = u64::from(fields.u32()?) << 32;
        if caps & cap::LONG_PASSWORD == 0 {
            caps |= extended;
        }
        let wants_tls = caps & cap::SSL != 0;
        if wants_tls {
            return Some(Self {
                caps,
                plugin: Vec::new(),
                wants_tls,
            });
        }
        fields.text();
        if caps & cap::PLUGIN_AUTH_LENENC != 0 {
            let len = fields.lenenc()?;
            fields.take(usize::try_from(len).ok()?)?;
        } else if caps & cap::SECURE_CONNECTION != 0 {
            let len = fields.u8()?;
            fields.take(usize::from(len))?;
        } else {
            fields.text();
        }
        if caps & cap::CONNECT_WITH_DB != 0 {
            fields.text();
        }
        let plugin = match caps & cap::PLUGIN_AUTH {
            0 => Vec::new(),
            _ => fields.text().to_vec(),
        };
        Some(Self {
            caps,
            plugin,
            wants_tls,
        })
    }
}

/// The response's first part, which announces TLS. The response that follows has to say the same.
pub fn announce_tls(response: &mut [u8]) -> Option<Vec<u8>> {
    let [_, bit, ..] = cap::SSL.to_le_bytes();
    *response.get_mut(1)? |= bit;
    response.get(..SSL_REQUEST).map(<[u8]>::to_vec)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A greeting as a server sends it.
    pub fn greeting(caps: u64, plugin: &str) -> Vec<u8> {
        let mut out = b"\x0a8.0.36\0\x07\0\0\0abcdefgh\0".to_vec();
        let bytes = caps.to_le_bytes();
        out.extend(&bytes[..2]);
        out.extend(b"\xff\x02\0");
        out.extend(&bytes[2..4]);
        out.push(21);
        out.extend([0; 6]);
        out.extend(&bytes[4..]);
        out.extend(b"ijklmnopqrst\0");
        out.extend(plugin.as_bytes());
        out.push(0);
        out
    }

    /// A client's response.
    pub fn response(caps: u64, plugin: &str) -> Vec<u8> {
        let bytes = caps.to_le_bytes();
        let mut out = bytes[..4].to_vec();
        out.extend(b"\0\0\0\x01\xff");
        out.extend([0; 19]);
        out.extend(&bytes[4..]);
        out.extend(b"shop\0\x03abc");
        if caps & cap::CONNECT_WITH_DB != 0 {
            out.extend(b"orders\0");
        }
        out.extend(plugin.as_bytes());
        out.push(0);
        out
    }

    const MODERN: u64 = cap::PROTOCOL_41 | cap::SECURE_CONNECTION | cap::PLUGIN_AUTH;
    const MARIADB: u64 = MODERN | cap::MARIADB_CACHE_METADATA;
    const MYSQL: u64 = MODERN | cap::LONG_PASSWORD;

    #[test]
    fn greetings() {
        let bytes = greeting(MYSQL | cap::SSL, "caching_sha2_password");
        let read = Greeting::read(&bytes).unwrap();
        assert_eq!(read.caps, MYSQL | cap::SSL);
        assert_eq!(read.nonce, b"abcdefghijklmnopqrst");
        assert_eq!(read.plugin, b"caching_sha2_password");
        let mut hidden = bytes.clone();
        read.hide_tls(&mut hidden);
        assert_eq!(Greeting::read(&hidden).unwrap().caps, MYSQL);
        let differ = bytes.iter().zip(&hidden).filter(|(a, b)| a != b).count();
        assert_eq!(differ, 1);

        let read = Greeting::read(&greeting(MARIADB, "x")).unwrap();
        assert_eq!(read.caps, MARIADB);
        // MySQL's filler is no capability.
        let read = Greeting::read(&greeting(MARIADB | cap::LONG_PASSWORD, "x")).unwrap();
        assert_eq!(read.caps, MYSQL);
    }

    #[test]
    fn no_greetings() {
        for (bytes, said) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], "HTTP/1.1 400"),
            (b"\x09old\0", "version 9"),
            (b"\x0a8.0", "\\n8.0"),
            (b"", "\"\""),
        ] {
            let error = Greeting::read(bytes).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        let whole = greeting(MYSQL, "caching_sha2_password");
        for cut in 0..whole.len() {
            let _ = Greeting::read(&whole[..cut]);
        }
    }

    #[test]
    fn responses() {
        for caps in [MYSQL, MYSQL | cap::CONNECT_WITH_DB, MARIADB] {
            let read = Response::read(&response(caps, "client_ed25519")).unwrap();
            assert_eq!((read.caps, read.wants_tls), (caps, false));
            assert_eq!(read.plugin, b"client_ed25519");
        }
        let mut bytes = response(MYSQL, "x");
        let request = announce_tls(&mut bytes).unwrap();
        assert_eq!(request[..], bytes[..SSL_REQUEST]);
        let read = Response::read(&request).unwrap();
        assert!(read.wants_tls && read.caps == MYSQL | cap::SSL);
        let old = Response::read(b"\x05\0\0\0\0shop\0abc").unwrap();
        assert_eq!(old.caps & cap::PROTOCOL_41, 0);
        let whole = response(MYSQL, "x");
        for cut in 0..whole.len() {
            let _ = Response::read(&whole[..cut]);
        }
        assert_eq!(Response::read(b"G"), None);
        assert!(announce_tls(&mut []).is_none());
    }
}
