//! TLS to servers, with the modes that libpq defined.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::net::TcpStream;

use super::{Stream, verify};
use crate::addr::Addr;

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

/// Why a connection is not encrypted as the config wants it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {source}")]
    File {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("{0} holds no certificate")]
    NoCertificate(PathBuf),
    #[error("the system has no root certificates: set ca_file")]
    NoRoots,
    #[error("'{0}' is not a name that a certificate could carry")]
    BadName(String),
    #[error("{0}")]
    Settings(#[from] rustls::Error),
    #[error("bad roots: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    #[error("{0}")]
    Handshake(#[source] io::Error),
}

/// What rustls needs for `settings`, whatever their mode: `off` counts as [`TlsMode::VerifyCa`].
///
/// # Errors
/// When a file cannot be read or does not hold what it should.
pub fn client_config(settings: &TlsSettings) -> Result<rustls::ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = verify::verifier(settings, provider.clone())?;
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(match &settings.cert {
        None => builder.with_no_client_auth(),
        Some(ClientCert {
            cert_file,
            key_file,
        }) => {
            let key = PrivateKeyDer::from_pem_file(key_file).map_err(|source| TlsError::File {
                path: key_file.clone(),
                source,
            })?;
            builder.with_client_auth_cert(verify::certificates(cert_file)?, key)?
        }
    })
}

/// Puts TLS around a connection, or leaves it plain. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    tls: Option<Arc<rustls::ClientConfig>>,
    server_name: Option<String>,
}

impl Connector {
    /// Leaves connections plain.
    pub const PLAIN: Self = Self {
        tls: None,
        server_name: None,
    };

    /// Reads the files that `settings` name.
    ///
    /// # Errors
    /// When a file cannot be read or does not hold what it should.
    pub fn build(settings: &TlsSettings) -> Result<Self, TlsError> {
        if settings.mode == TlsMode::Off {
            return Ok(Self::PLAIN);
        }
        let config = client_config(settings)?;
        Ok(Self {
            tls: Some(Arc::new(config)),
            server_name: settings.server_name.clone(),
        })
    }

    /// Whether connections are to be encrypted.
    pub fn is_on(&self) -> bool {
        self.tls.is_some()
    }

    /// The handshake, if there is to be one. `server_name` is the node's own name and goes before
    /// the service's, which goes before the address' host. Cancel safe: dropping closes.
    ///
    /// # Errors
    /// When the handshake fails, or the certificate is not what the mode wants.
    pub async fn wrap(
        &self,
        tcp: TcpStream,
        addr: &Addr,
        server_name: Option<&str>,
    ) -> Result<Stream, TlsError> {
        let Some(config) = &self.tls else {
            return Ok(Stream::Tcp(tcp));
        };
        let name = match (server_name.or(self.server_name.as_deref()), addr) {
            (Some(name), _) => ServerName::try_from(name.to_owned())
                .map_err(|_| TlsError::BadName(name.to_owned()))?,
            (None, Addr::Name { host, .. }) => ServerName::try_from(host.to_string())
                .map_err(|_| TlsError::BadName(host.to_string()))?,
            (None, Addr::Ip(ip)) => ServerName::from(ip.ip()),
            (None, Addr::Unix(path)) => {
                return Err(TlsError::BadName(path.display().to_string()));
            }
        };
        let connector = tokio_rustls::TlsConnector::from(config.clone());
        let stream = connector
            .connect(name, tcp)
            .await
            .map_err(TlsError::Handshake)?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}
