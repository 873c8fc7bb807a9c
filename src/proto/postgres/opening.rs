//! What a client says before it gets a server: requests for encryption, then who it is, or what to
//! cancel.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::cancel::Registry;
use super::message::{self, CANCEL_REQUEST, GSSENC_REQUEST, LONGEST_STARTUP, SSL_REQUEST, state};
use crate::proto::login::{LoginError, Opening};

/// A first packet, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// Asks for encryption; the answer is one byte.
    Encryption,
    Cancel,
    Startup,
}

/// Why a first packet is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonsense {
    /// For the log.
    pub what: String,
    /// What the client can be told, SQLSTATE and text, where it can read that.
    pub answer: Option<(&'static str, String)>,
}

/// How long the packet is that begins with these eight bytes, and what it is.
///
/// # Errors
/// When no client of PostgreSQL begins like that.
pub fn head(head: [u8; 8]) -> Result<(usize, First), Nonsense> {
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let code = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    // A TLS record of type handshake: "direct" negotiation, or the wrong port.
    if head[0] == 0x16 && head[1] == 3 {
        return Err(Nonsense {
            what: "the client begins with TLS; on this host it is not needed".to_owned(),
            answer: None,
        });
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !(8..=LONGEST_STARTUP).contains(&length) {
        return Err(violation(format!(
            "invalid length of startup packet: {length}"
        )));
    }
    let first = match code {
        SSL_REQUEST | GSSENC_REQUEST => First::Encryption,
        CANCEL_REQUEST => First::Cancel,
        _ => First::Startup,
    };
    match (&first, code >> 16) {
        (First::Encryption, _) if length != 8 => Err(violation(format!(
            "a request for encryption of {length} bytes"
        ))),
        // 4 bytes of key, up to 256 since protocol 3.2.
        (First::Cancel, _) if !(16..=268).contains(&length) => {
            Err(violation(format!("a request to cancel of {length} bytes")))
        }
        (First::Startup, major) if major != 3 => Err(Nonsense {
            what: format!("protocol {}.{}", major, code & 0xffff),
            answer: Some((
                state::FEATURE_NOT_SUPPORTED,
                format!(
                    "unsupported frontend protocol {}.{}: server supports 3.0 and later",
                    major,
                    code & 0xffff
                ),
            )),
        }),
        _ => Ok((length, first)),
    }
}

fn violation(what: String) -> Nonsense {
    Nonsense {
        answer: Some((state::PROTOCOL_VIOLATION, what.clone())),
        what,
    }
}

/// Whether a startup packet asks for a replication session, where every message means something else.
pub fn is_replication(startup: &[u8]) -> bool {
    let parameters = startup.get(8..).unwrap_or_default();
    let mut texts = message::texts(parameters);
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        if name == b"replication" {
            return !matches!(value, b"false" | b"off" | b"no" | b"0");
        }
    }
    false
}

/// Reads a client's first packets, and answers what can be answered without a server.
///
/// # Errors
/// When the client leaves, or is none; it has then been told so, as far as it can be told.
pub async fn read<C>(client: &mut C, registry: &Registry) -> Result<Opening, LoginError>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    // One request for each kind of encryption, then it has to come to the point.
    for _ in 0..3 {
        let mut begin = [0; 8];
        read_whole(client, &mut begin).await?;
        let (length, first) = match head(begin) {
            Ok(found) => found,
            Err(nonsense) => return Err(tell_off(client, nonsense).await),
        };
        if first == First::Encryption {
            client.write_all(b"N").await.map_err(left)?;
            continue;
        }
        let mut words = BytesMut::zeroed(length);
        words[..8].copy_from_slice(&begin);
        read_whole(client, &mut words[8..]).await?;
        let words = words.freeze();
        return Ok(match first {
            First::Cancel => Opening::Message {
                to: registry.find(&words[8..]),
                words,
            },
            First::Startup | First::Encryption => Opening::Session(words),
        });
    }
    let nonsense = violation("a client that only asks for encryption".to_owned());
    Err(tell_off(client, nonsense).await)
}

async fn read_whole<C: AsyncRead + Unpin>(
    client: &mut C,
    buf: &mut [u8],
) -> Result<(), LoginError> {
    let mut filled = 0;
    while filled < buf.len() {
        match client.read(&mut buf[filled..]).await {
            Ok(0) if filled > 0 => {
                let what = format!("it ended after {filled} bytes of its first packet");
                return Err(LoginError::ClientNonsense(what));
            }
            Ok(0) => return Err(LoginError::ClientLeft),
            Ok(n) => filled += n,
            Err(error) => return Err(left(error)),
        }
    }
    Ok(())
}

fn left(_: io::Error) -> LoginError {
    LoginError::ClientLeft
}

async fn tell_off<C: AsyncWrite + Unpin>(client: &mut C, nonsense: Nonsense) -> LoginError {
    if let Some((sqlstate, text)) = nonsense.answer {
        // It may not listen, or be gone.
        let _ = client.write_all(&message::fatal(sqlstate, &text)).await;
    }
    LoginError::ClientNonsense(nonsense.what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn startup(parameters: &[(&str, &str)]) -> Bytes {
        let mut body = BytesMut::from(&[0, 0, 0, 0, 0, 3, 0, 0][..]);
        for (name, value) in parameters {
            for text in [name, value] {
                body.extend_from_slice(text.as_bytes());
                body.extend_from_slice(&[0]);
            }
        }
        body.extend_from_slice(&[0]);
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        body[..4].copy_from_slice(&length.to_be_bytes());
        body.freeze()
    }
}
