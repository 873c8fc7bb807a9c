//! TLS to a server: asked for in plain text, then begun (documentation, "SSL Session Encryption").

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::message::SSL_REQUEST_PACKET;
use crate::addr::Addr;
use crate::net::Stream;
use crate::net::tls::{Connector, TlsError};
use crate::proto::login::ServerEnd;
use crate::topology::Endpoint;

/// Why there is no TLS where there has to be.
#[derive(Debug, thiserror::Error)]
pub enum SecureError {
    #[error("asking for TLS: {0}")]
    Io(#[from] io::Error),
    #[error("the server closed the connection when it was asked for TLS")]
    Closed,
    #[error("the server does not do TLS, and the config does not do without")]
    Refused,
    #[error("the server answers the request for TLS with {0} bytes instead of one")]
    Stuffed(usize),
    #[error("the server answers the request for TLS with byte {0:#04x}")]
    Nonsense(u8),
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
}

/// Whether a connection to `addr` is to be encrypted. Unix sockets have no TLS, whatever the mode, as in
/// libpq.
fn wanted(tls: &Connector, addr: &Addr) -> bool {
    tls.is_on() && !matches!(addr, Addr::Unix(_))
}

/// Encrypts a session's server side. Whether it is encrypted from now on.
///
/// # Errors
/// When it is to be and cannot be. The connection is then not to be used.
pub async fn session(
    server: &mut ServerEnd<'_>,
    tls: &Connector,
    endpoint: &Endpoint,
) -> Result<bool, SecureError> {
    if !wanted(tls, &endpoint.addr) {
        return Ok(false);
    }
    ask(server).await?;
    server.start_tls(tls, endpoint).await?;
    Ok(true)
}

/// The same for a connection of our own. Cancel safe: dropping closes it.
///
/// # Errors
/// As [`session`].
pub async fn connection(
    mut stream: Stream,
    tls: &Connector,
    (addr, server_name): (&Addr, Option<&str>),
) -> Result<Stream, SecureError> {
    if !wanted(tls, addr) {
        return Ok(stream);
    }
    ask(&mut stream).await?;
    match stream {
        Stream::Tcp(tcp) => Ok(tls.wrap(tcp, addr, server_name).await?),
        other => Ok(other),
    }
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(server: &mut S) -> Result<(), SecureError> {
    server.write_all(&SSL_REQUEST_PACKET).await?;
    // What comes along with the answer was not protected by what follows, and must not be taken for it
    // (CVE-2021-23222).
    let mut answer = [0; 64];
    match server.read(&mut answer).await? {
        0 => Err(SecureError::Closed),
        1 => match answer[0] {
            b'S' => Ok(()),
            b'N' => Err(SecureError::Refused),
            // A server that could not even fork says so in the words of protocol 2.
            other => Err(SecureError::Nonsense(other)),
        },
        n => match answer[0] {
            b'S' | b'N' => Err(SecureError::Stuffed(n)),
            other => Err(SecureError::Nonsense(other)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(words: &[u8]) -> Result<(), SecureError> {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        theirs.write_all(words).await.unwrap();
        let asked = ask(&mut ours).await;
        let mut request = [0; 8];
        theirs.read_exact(&mut request).await.unwrap();
        assert_eq!(request, SSL_REQUEST_PACKET);
        asked
    }

    #[tokio::test]
    async fn one_byte_and_no_more() {
        assert!(answered(b"S").await.is_ok());
        assert!(matches!(answered(b"N").await, Err(SecureError::Refused)));
        assert!(matches!(
            answered(b"SR\0\0\0\x08\0\0\0\0").await,
            Err(SecureError::Stuffed(10))
        ));
        assert!(matches!(
            answered(b"Ecould not fork\n\0").await,
            Err(SecureError::Nonsense(b'E'))
        ));
    }
}
