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
    use bytes::Bytes;
    use tokio::io::duplex;

    use super::super::message::complaint;
    use super::*;
    use crate::topology::Endpoint;

    fn startup(parameters: &[(&str, &str)]) -> Bytes {
        let mut body = BytesMut::from(&[0, 0, 0, 0, 0, 3, 0, 0][..]);
        for (name, value) in parameters {
            for text in [name, value] {
                body.extend_from_slice(text.as_bytes());
                body.extend_from_slice(&[0]);
            }
        }
        body.extend_from_slice(&[0]);
        let length = u32::try_from(body.len()).unwrap();
        body[..4].copy_from_slice(&length.to_be_bytes());
        body.freeze()
    }

    fn request(code: u32) -> Vec<u8> {
        [8_u32.to_be_bytes(), code.to_be_bytes()].concat()
    }

    /// What came of `words`, and what the client heard.
    async fn opened(words: &[u8], registry: &Registry) -> (Result<Opening, LoginError>, Vec<u8>) {
        let (mut ours, mut theirs) = duplex(64 * 1024);
        theirs.write_all(words).await.unwrap();
        theirs.shutdown().await.unwrap();
        let opened = read(&mut ours, registry).await;
        drop(ours);
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        (opened, heard)
    }

    #[tokio::test]
    async fn encryption_is_declined_and_the_rest_is_read() {
        let hello = startup(&[("user", "shop")]);
        for (asked, heard) in [
            (vec![], ""),
            (vec![SSL_REQUEST], "N"),
            (vec![GSSENC_REQUEST, SSL_REQUEST], "NN"),
        ] {
            let mut words: Vec<u8> = asked.iter().flat_map(|code| request(*code)).collect();
            words.extend_from_slice(&hello);
            let (opened, said) = opened(&words, &Registry::default()).await;
            assert!(matches!(opened, Ok(Opening::Session(words)) if words == hello));
            assert_eq!(said, heard.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_request_to_cancel_finds_who_issued_its_key() {
        let registry = Registry::default();
        let server = Endpoint::new("10.0.0.1:5432".parse().unwrap(), None);
        let key = Bytes::from(vec![7; 36]);
        let entry = registry.enter(key.clone(), server);
        let words = [
            &44_u32.to_be_bytes(),
            &CANCEL_REQUEST.to_be_bytes(),
            &key[..],
        ]
        .concat();
        let (found, _) = opened(&words, &registry).await;
        let Ok(Opening::Message {
            to: Some(to),
            words: said,
        }) = found
        else {
            panic!("{found:?}");
        };
        assert_eq!(
            (to.addr.to_string().as_str(), &said[..]),
            ("10.0.0.1:5432", &words[..])
        );
        drop(entry);
        let (found, _) = opened(&words, &registry).await;
        assert!(matches!(found, Ok(Opening::Message { to: None, .. })));
    }

    #[tokio::test]
    async fn what_is_no_client_is_named() {
        let long = |length: u32, code: u32| [length.to_be_bytes(), code.to_be_bytes()].concat();
        let table: [(Vec<u8>, &str, Option<&str>); 10] = [
            (
                b"GET / HTTP/1.1\r\n\r\n".to_vec(),
                "invalid length",
                Some("08P01"),
            ),
            (long(2 << 30, 3 << 16), "2147483648", Some("08P01")),
            (long(10_001, 3 << 16), "10001", Some("08P01")),
            (
                long(7, 3 << 16),
                "invalid length of startup packet: 7",
                Some("08P01"),
            ),
            (long(9, SSL_REQUEST), "9 bytes", Some("08P01")),
            (long(300, CANCEL_REQUEST), "300 bytes", Some("08P01")),
            (long(8, 2 << 16), "protocol 2.0", Some("0A000")),
            (b"\x16\x03\x01\x02\0\x01\0\x01".to_vec(), "TLS", None),
            (request(SSL_REQUEST).repeat(4), "only asks", Some("08P01")),
            (
                b"\0\0\0\x28\0\x03\0\0user".to_vec(),
                "ended after 4 bytes",
                None,
            ),
        ];
        for (words, what, answer) in table {
            let (opened, heard) = opened(&words, &Registry::default()).await;
            let error = opened.unwrap_err();
            assert!(matches!(error, LoginError::ClientNonsense(_)), "{error}");
            assert!(error.to_string().contains(what), "{error}");
            let told = heard.iter().position(|&b| b == b'E');
            let told = told.map(|at| complaint(&heard[at + 5..]).sqlstate);
            assert_eq!(told.as_deref(), answer, "{what}");
        }
        let (left, heard) = opened(b"", &Registry::default()).await;
        assert!(matches!(left, Err(LoginError::ClientLeft)) && heard.is_empty());
    }

    #[test]
    fn replication_sessions() {
        for (value, expected) in [("true", true), ("database", true), ("off", false)] {
            let words = startup(&[("user", "x"), ("replication", value)]);
            assert_eq!(is_replication(&words), expected, "{value}");
        }
        assert!(!is_replication(&startup(&[("replicated", "replication")])));
        assert!(!is_replication(b""));
    }
}
