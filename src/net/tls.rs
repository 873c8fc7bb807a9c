//! TLS to servers, with the modes that libpq defined.

use std::path::PathBuf;

/// How much of a server's certificate is checked (libpq's `sslmode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    #[default]
    Off,
    /// Encrypted, to whoever answers.
    Require,
    /// The chain must lead to a known root; the name may be another.
    VerifyCa,
    VerifyFull,
}

/// `[service.tls]` and `[service.discovery.tls]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    pub mode: TlsMode,
    /// `None`: the system's roots.
    pub ca_file: Option<PathBuf>,
    /// The name to verify; `None`: the address' host.
    pub server_name: Option<String>,
    /// Client certificate and its key.
    pub cert: Option<ClientCert>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCert {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}
