//! RSA, as `caching_sha2_password` and `sha256_password` use it: the password is XORed with the nonce
//! and encrypted with OAEP (SHA-1).
//!
//! A plaintext client that has to show its password asks for the server's key. Where we speak TLS to the
//! server there is no such key, since the server then expects the bare password: the client gets ours.

use std::sync::Arc;

use getrandom::SysRng;
use rsa::pkcs8::{DecodePublicKey, EncodePublicKey, LineEnding};
use rsa::rand_core::UnwrapErr;
use rsa::{Oaep, RsaPrivateKey, RsaPublicKey};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::lane::Payload;

/// What `mysqld` makes for itself.
const BITS: usize = 2048;

/// A service's key pair, made when it is first needed.
#[derive(Default)]
pub struct Keys {
    pair: OnceCell<Arc<Pair>>,
}

struct Pair {
    private: RsaPrivateKey,
    public_pem: String,
}

impl Keys {
    async fn pair(&self) -> Result<Arc<Pair>, String> {
        let made = self.pair.get_or_try_init(|| async {
            let made = spawn_blocking(Pair::generate).await;
            made.map_err(|error| error.to_string())?.map(Arc::new)
        });
        Ok(made.await?.clone())
    }

    /// The public key, as a server sends it. Making it takes up to a second of another thread. Cancel
    /// safe.
    ///
    /// # Errors
    /// Says why there is none.
    pub async fn public_pem(&self) -> Result<String, String> {
        Ok(self.pair().await?.public_pem.clone())
    }

    /// The password that a client encrypted with the public key, with the zero at its end. Cancel safe.
    ///
    /// # Errors
    /// When it was not encrypted with that key.
    pub async fn open(&self, sealed: Payload, nonce: Vec<u8>) -> Result<Payload, String> {
        let pair = self.pair().await?;
        let opened = spawn_blocking(move || pair.open(&sealed, &nonce)).await;
        opened.map_err(|error| error.to_string())?
    }
}

impl Pair {
    fn generate() -> Result<Self, String> {
        let failed = |what: &str| format!("no RSA key could be {what}");
        let private =
            RsaPrivateKey::new(&mut UnwrapErr(SysRng), BITS).map_err(|_| failed("made"))?;
        let public_pem = private
            .to_public_key()
            .to_public_key_pem(LineEnding::LF)
            .map_err(|_| failed("written"))?;
        Ok(Self {
            private,
            public_pem,
        })
    }

    fn open(&self, sealed: &[u8], nonce: &[u8]) -> Result<Payload, String> {
        let opened = self.private.decrypt(Oaep::<sha1::Sha1>::new(), sealed);
        let opened = opened.map_err(|_| "it is not encrypted with our key".to_owned())?;
        let mut password = Zeroizing::new(opened);
        mix(&mut password, nonce);
        match password.last() {
            Some(0) => Ok(password),
            _ => Err("what is encrypted is no password".to_owned()),
        }
    }
}

/// Encrypts a password (with the zero at its end) with a server's key.
///
/// # Errors
/// When that is no key, or the password does not fit.
pub fn seal(password: &[u8], nonce: &[u8], public_pem: &[u8]) -> Result<Payload, String> {
    let pem = std::str::from_utf8(public_pem).map_err(|_| "the key is no text")?;
    let key = RsaPublicKey::from_public_key_pem(pem.trim_end_matches('\0'))
        .map_err(|error| format!("the key is none: {error}"))?;
    let mut mixed = Zeroizing::new(password.to_vec());
    mix(&mut mixed, nonce);
    let sealed = key.encrypt(&mut UnwrapErr(SysRng), Oaep::<sha1::Sha1>::new(), &mixed);
    sealed
        .map(Zeroizing::new)
        .map_err(|error| format!("the key does not do: {error}"))
}

fn mix(password: &mut [u8], nonce: &[u8]) {
    for (byte, with) in password.iter_mut().zip(nonce.iter().cycle()) {
        *byte ^= with;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_and_opened() {
        let pair = Pair::generate().unwrap();
        let nonce = b"abcdefghijklmnopqrst";
        let long = format!("{}\0", "x".repeat(200));
        for password in ["correct horse\0", "\0", &long] {
            let sealed = seal(password.as_bytes(), nonce, pair.public_pem.as_bytes()).unwrap();
            let opened = pair.open(&sealed, nonce).unwrap();
            assert_eq!(opened[..], *password.as_bytes());
            let other = pair.open(&sealed, b"ABCDEFGHIJKLMNOPQRST");
            assert!(other.is_err(), "another nonce gives no zero at the end");
        }
        assert!(pair.open(&[7; 256], nonce).is_err());
        assert!(pair.open(b"", nonce).is_err());
        let too_long = vec![b'x'; 300];
        assert!(seal(&too_long, nonce, pair.public_pem.as_bytes()).is_err());
        assert!(seal(b"x\0", nonce, b"no key").is_err());
        assert!(seal(b"x\0", nonce, b"\xff").is_err());
    }
}
