//! A certificate authority of our own, and certificates for loopback servers and their clients.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

use crate::scratch;

/// PEM files in a directory of their own.
pub struct Certs {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
    _dir: scratch::Dir,
}

impl Certs {
    /// A new authority, and one certificate for these names and addresses (such as `127.0.0.1` or `redis.test`).
    pub fn make(names: &[&str]) -> Result<Self> {
        let mut authority = CertificateParams::new(Vec::new()).context("the authority")?;
        // OpenSSL takes a certificate whose issuer has its own name for a self-signed one.
        authority
            .distinguished_name
            .push(DnType::CommonName, "Pilotfish test authority");
        authority.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)
            .context("the authority")?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate()?;
        let cert = CertificateParams::new(names)?
            .signed_by(&key, &issuer)
            .context("the certificate")?;
        let dir = scratch::Dir::new()?;
        let save = |name: &str, text: String| -> Result<PathBuf> {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            Ok(path)
        };
        let (ca, cert) = (save("ca.pem", issuer.pem())?, save("cert.pem", cert.pem())?);
        let key = save("key.pem", key.serialize_pem())?;
        Ok(Self {
            ca,
            cert,
            key,
            _dir: dir,
        })
    }
}
