//! How a probe proves who it is.

use sha1::{Digest, Sha1};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::proto::mysql::login::lane::Payload;

pub const NATIVE: &[u8] = b"mysql_native_password";
pub const CACHING: &[u8] = b"caching_sha2_password";

/// The first answer to a server's nonce, `None` for a plugin that probes do not know.
///
/// mysql_native_password: SHA1(password) XOR SHA1(nonce + SHA1(SHA1(password))).
/// caching_sha2_password: SHA256(password) XOR SHA256(SHA256(SHA256(password)) + nonce).
pub fn proof(plugin: &[u8], password: &str, nonce: &[u8]) -> Option<Payload> {
    let known = matches!(plugin, NATIVE | CACHING);
    if known && password.is_empty() {
        return Some(Zeroizing::new(Vec::new()));
    }
    match plugin {
        NATIVE => {
            let once = Sha1::digest(password.as_bytes());
            let twice = Sha1::digest(once);
            let mask = Sha1::new().chain_update(nonce).chain_update(twice);
            Some(xor(&once, &mask.finalize()))
        }
        CACHING => {
            let once = Sha256::digest(password.as_bytes());
            let twice = Sha256::digest(once);
            let mask = Sha256::new().chain_update(twice).chain_update(nonce);
            Some(xor(&once, &mask.finalize()))
        }
        _ => None,
    }
}

fn xor(a: &[u8], b: &[u8]) -> Payload {
    Zeroizing::new(a.iter().zip(b).map(|(a, b)| a ^ b).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// What a server computes from the hash it stores gives the client's hash back.
    #[test]
    fn a_server_can_check_it() {
        let nonce = b"abcdefghijklmnopqrst";
        let native = proof(NATIVE, "s3cret", nonce).unwrap();
        let stored = Sha1::digest(Sha1::digest(b"s3cret"));
        let mask = Sha1::new().chain_update(nonce).chain_update(stored);
        let once = xor(&native, &mask.finalize());
        assert_eq!(hex(&Sha1::digest(&once[..])), hex(&stored));

        let caching = proof(CACHING, "s3cret", nonce).unwrap();
        let stored = Sha256::digest(Sha256::digest(b"s3cret"));
        let mask = Sha256::new().chain_update(stored).chain_update(nonce);
        let once = xor(&caching, &mask.finalize());
        assert_eq!(hex(&Sha256::digest(&once[..])), hex(&stored));

        assert_eq!(proof(NATIVE, "", nonce).unwrap().len(), 0);
        assert!(proof(b"client_ed25519", "", nonce).is_none());
    }
}
