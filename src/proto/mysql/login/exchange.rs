//! Which packets of an exchange of passwords cannot just be passed on. Pure.
//!
//! Passwords are proved end to end wherever that works. It does not where one side thinks that its
//! connection is safe and the other does not: then `caching_sha2_password` and `sha256_password` show
//! the password, each in a way that the other side would not take.

use super::lane::Payload;

/// How the server wants the client to prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugin {
    CachingSha2,
    Sha256,
    /// Its packets are the same whatever the connection.
    Other,
}

impl Plugin {
    fn named(name: &[u8]) -> Self {
        match name {
            b"caching_sha2_password" => Self::CachingSha2,
            b"sha256_password" => Self::Sha256,
            _ => Self::Other,
        }
    }

    /// The byte with which a client asks for the server's key.
    fn asks(self) -> u8 {
        match self {
            Self::CachingSha2 => 2,
            Self::Sha256 | Self::Other => 1,
        }
    }
}

/// What the two connections are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The client came through a Unix socket, and may think that as good as TLS.
    pub unix_client: bool,
    /// There is TLS to the server, which then takes bare passwords only.
    pub tls_server: bool,
}

/// What to do with a client's packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Forward,
    /// Answer with our own key.
    GiveKey,
    /// Open it with our own key, and send what is in it.
    Open,
    /// Ask the server for its key with this byte, and send the password encrypted with that.
    Seal {
        ask: u8,
    },
    /// It is encrypted with a key that is neither ours nor wanted.
    Impossible,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// No password is to be shown.
    Proof,
    /// The client's next packet shows it, or asks for a key.
    Password,
    /// It was given our key.
    Sealed,
}

/// Follows one exchange.
#[derive(Debug)]
pub struct Exchange {
    paths: Paths,
    plugin: Plugin,
    nonce: Vec<u8>,
    turn: Turn,
}

impl Exchange {
    /// `plugin` is what the client answered the greeting with.
    pub fn new(paths: Paths, plugin: &[u8], nonce: Vec<u8>) -> Self {
        Self {
            paths,
            plugin: Plugin::named(plugin),
            nonce,
            turn: Turn::Proof,
        }
    }

    pub fn nonce(&self) -> &[u8] {
        &self.nonce
    }

    /// The server wants another proof: the payload of its AuthSwitchRequest, without the first byte.
    pub fn switch(&mut self, request: &[u8]) {
        let end = request.iter().position(|b| *b == 0);
        let (name, data) = match end {
            Some(end) => (&request[..end], &request[end + 1..]),
            None => (request, &[][..]),
        };
        self.plugin = Plugin::named(name);
        self.nonce = data[..data.len().min(super::hello::NONCE)].to_vec();
        self.turn = match self.plugin {
            Plugin::Sha256 => Turn::Password,
            _ => Turn::Proof,
        };
    }

    /// The server says more: the payload after its first byte, 1. `true`: the server goes on.
    pub fn more(&mut self, data: &[u8]) -> bool {
        if self.plugin != Plugin::CachingSha2 {
            return false;
        }
        // 3: the proof was enough, OK follows. 4: it wants to see the password itself.
        if data == [4] {
            self.turn = Turn::Password;
        }
        data == [3]
    }

    /// The client's next packet.
    pub fn client(&mut self, payload: &Payload) -> Step {
        match self.turn {
            Turn::Proof => Step::Forward,
            Turn::Sealed => {
                self.turn = Turn::Proof;
                Step::Open
            }
            Turn::Password => self.password(payload),
        }
    }

    fn password(&mut self, payload: &[u8]) -> Step {
        let ask = self.plugin.asks();
        if *payload == [ask] {
            self.turn = match self.paths.tls_server {
                true => Turn::Sealed,
                // The server's key, and then what only the server can read.
                false => Turn::Proof,
            };
            return match self.paths.tls_server {
                true => Step::GiveKey,
                false => Step::Forward,
            };
        }
        self.turn = Turn::Proof;
        // No password at all is shown in the same way everywhere.
        if *payload == [0] || payload.is_empty() {
            return Step::Forward;
        }
        match (self.is_bare(payload), self.paths.tls_server) {
            (true, true) | (false, false) => Step::Forward,
            (true, false) => Step::Seal { ask },
            (false, true) => Step::Impossible,
        }
    }

    /// Whether it is a bare password. One that is encrypted has a key's length and may end in a zero.
    fn is_bare(&self, payload: &[u8]) -> bool {
        let like_a_key = matches!(payload.len(), 128 | 256 | 384 | 512);
        payload.last() == Some(&0) && (self.paths.unix_client || !like_a_key)
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    const SHA2: &[u8] = b"caching_sha2_password";

    fn says(exchange: &mut Exchange, bytes: &[u8]) -> Step {
        exchange.client(&Zeroizing::new(bytes.to_vec()))
    }

    fn full(unix_client: bool, tls_server: bool) -> Exchange {
        let paths = Paths {
            unix_client,
            tls_server,
        };
        let mut exchange = Exchange::new(paths, SHA2, b"nonce".to_vec());
        assert_eq!(says(&mut exchange, &[7; 32]), Step::Forward);
        assert!(!exchange.more(&[4]));
        exchange
    }

    #[test]
    fn a_proof_that_is_enough_is_just_passed_on() {
        let paths = Paths {
            unix_client: false,
            tls_server: true,
        };
        let mut exchange = Exchange::new(paths, SHA2, Vec::new());
        assert!(exchange.more(&[3]));
        let mut other = Exchange::new(paths, b"client_ed25519", Vec::new());
        assert!(!other.more(&[3]) && !other.more(&[4]));
        assert_eq!(says(&mut other, b"\x02"), Step::Forward);
    }

    #[test]
    fn passwords_that_must_be_shown() {
        let (bare, sealed) = (&b"secret\0"[..], &[1; 256][..]);
        for (unix, tls, word, expected) in [
            (false, false, &[2][..], Step::Forward),
            (false, true, &[2], Step::GiveKey),
            (true, true, &[2], Step::GiveKey),
            (true, true, bare, Step::Forward),
            (true, false, bare, Step::Seal { ask: 2 }),
            (false, false, sealed, Step::Forward),
            (false, true, sealed, Step::Impossible),
            (true, false, &[0], Step::Forward),
            (false, true, &[0], Step::Forward),
        ] {
            let mut exchange = full(unix, tls);
            assert_eq!(says(&mut exchange, word), expected, "{unix} {tls} {word:?}");
        }
        let mut exchange = full(false, true);
        assert_eq!(says(&mut exchange, &[2]), Step::GiveKey);
        assert_eq!(says(&mut exchange, sealed), Step::Open);
        // Encrypted, and by chance a zero at the end.
        let mut zero = [1; 256];
        zero[255] = 0;
        assert_eq!(says(&mut full(false, false), &zero), Step::Forward);
    }

    #[test]
    fn a_switch_changes_plugin_and_nonce() {
        let paths = Paths {
            unix_client: false,
            tls_server: true,
        };
        let mut exchange = Exchange::new(paths, SHA2, b"old".to_vec());
        exchange.switch(b"sha256_password\0abcdefghijklmnopqrst\0");
        assert_eq!(exchange.nonce(), b"abcdefghijklmnopqrst");
        assert_eq!(says(&mut exchange, &[1]), Step::GiveKey);
        assert_eq!(says(&mut exchange, &[1; 256]), Step::Open);
        exchange.switch(b"mysql_native_password");
        assert_eq!(exchange.nonce(), b"");
        assert_eq!(says(&mut exchange, &[1]), Step::Forward);
    }
}
