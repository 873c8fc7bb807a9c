//! The login: client and server talk to each other, and we listen until the server is ready.
//!
//! SCRAM, MD5, passwords and trust pass through as they are. Nothing is passed on before it is complete,
//! so that a login that is cut off ends between two messages.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::cancel::Registry;
use super::message::{self, Complaint, state};
use super::opening::is_replication;
use super::secure::{self, SecureError};
use super::tracker::{PostgresTracker, Status};
use crate::net::tls::Connector;
use crate::proto::login::{Ends, LoggedIn, LoginError};

/// What a login message may have at most (`PG_MAX_AUTH_TOKEN_LENGTH`, and a little more).
const LONGEST: usize = 68 * 1024;

/// What the sessions of one service share.
pub struct Desk {
    pub tls: Connector,
    pub registry: Registry,
}

/// A message in the server's way of saying it.
struct Heard {
    kind: u8,
    whole: Bytes,
}

impl Heard {
    fn body(&self) -> &[u8] {
        &self.whole[5..]
    }
}

/// What was read from one side and not passed on yet.
#[derive(Default)]
struct Inbox(BytesMut);

impl Inbox {
    /// The next message, if it is complete.
    fn take(&mut self) -> Result<Option<Heard>, String> {
        let Some(head) = self.0.first_chunk::<5>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let whole = usize::try_from(length).unwrap_or(usize::MAX);
        if !(4..LONGEST).contains(&whole) {
            let kind = head[0].escape_ascii();
            return Err(format!("a login message '{kind}' of {length} bytes"));
        }
        if self.0.len() <= whole {
            return Ok(None);
        }
        let kind = head[0];
        let whole = self.0.split_to(whole + 1).freeze();
        Ok(Some(Heard { kind, whole }))
    }

    fn has_room(&self) -> bool {
        self.0.len() < LONGEST
    }
}

/// Where a login has come to.
enum Step {
    GoesOn,
    Ready(Status),
    Refused(Complaint),
}

/// Logs the client of `ends` in.
///
/// # Errors
/// See [`LoginError`]. The client has heard what can be said to it.
pub async fn log_in(desk: &Desk, ends: &mut Ends<'_>) -> Result<LoggedIn, LoginError> {
    let talked = talk(desk, ends).await;
    // Before it heard anything, another server may do better.
    if ends.client.has_heard() && !ends.client.is_cut() {
        let (sqlstate, why) = match &talked {
            Err(LoginError::Server(why)) => (state::CONNECTION_FAILURE, why),
            Err(LoginError::ServerNonsense(why) | LoginError::ClientNonsense(why)) => {
                (state::PROTOCOL_VIOLATION, why)
            }
            _ => return talked,
        };
        let words = message::fatal(sqlstate, &format!("Pilotfish: {why}"));
        let _ = ends.client.write_all(&words).await;
    }
    talked
}

async fn talk(desk: &Desk, ends: &mut Ends<'_>) -> Result<LoggedIn, LoginError> {
    let secured = secure::session(&mut ends.server, &desk.tls, &ends.endpoint).await;
    let encrypted = secured.map_err(|error| match error {
        SecureError::Stuffed(_) | SecureError::Nonsense(_) => {
            LoginError::ServerNonsense(error.to_string())
        }
        _ => LoginError::Server(error.to_string()),
    })?;
    let opening = ends.opening.clone();
    pass_on(ends, &opening).await?;
    let mut talk = Talk {
        encrypted,
        asked: false,
        key: None,
        out: BytesMut::new(),
        up: Inbox::default(),
        down: Inbox::default(),
    };
    let status = loop {
        match talk.step(ends.client.has_heard())? {
            Step::GoesOn => talk.tell(ends).await?,
            Step::Ready(status) => {
                talk.tell(ends).await?;
                break status;
            }
            Step::Refused(complaint) => {
                talk.tell(ends).await?;
                return Err(LoginError::Refused(complaint.to_string()));
            }
        }
        if !talk.answer(ends).await? {
            talk.read(ends).await?;
        }
    };
    let entry = talk
        .key
        .map(|key| desk.registry.enter(key, ends.endpoint.clone()));
    Ok(LoggedIn {
        tracker: Box::new(PostgresTracker::new(
            status,
            is_replication(&opening),
            entry,
        )),
        early_up: talk.up.0.freeze(),
        early_down: talk.down.0.freeze(),
    })
}

async fn pass_on(ends: &mut Ends<'_>, words: &[u8]) -> Result<(), LoginError> {
    ends.server.write_all(words).await.map_err(server_gone)?;
    // TLS may keep them back.
    ends.server.flush().await.map_err(server_gone)
}

fn server_gone(error: std::io::Error) -> LoginError {
    LoginError::Server(format!("the connection broke during the login: {error}"))
}

struct Talk {
    encrypted: bool,
    /// The server waits for an answer of the client's.
    asked: bool,
    key: Option<Bytes>,
    /// For the client.
    out: BytesMut,
    up: Inbox,
    down: Inbox,
}

impl Talk {
    /// Looks at every complete message of the server's.
    fn step(&mut self, heard: bool) -> Result<Step, LoginError> {
        while let Some(message) = self.down.take().map_err(LoginError::ServerNonsense)? {
            match message.kind {
                b'R' => self.authentication(&message)?,
                b'K' => {
                    self.key = Some(message.whole.slice(5..));
                    self.out.extend_from_slice(&message.whole);
                }
                b'E' => {
                    let complaint = message::complaint(message.body());
                    let first = !heard && self.out.is_empty();
                    if first && message::is_not_serving(&complaint.sqlstate) {
                        return Err(LoginError::Server(complaint.to_string()));
                    }
                    self.out.extend_from_slice(&message.whole);
                    if complaint.fatal {
                        return Ok(Step::Refused(complaint));
                    }
                }
                b'Z' => {
                    let status = message.body().first().copied().and_then(Status::read);
                    let status = status.ok_or_else(|| {
                        LoginError::ServerNonsense("ready, with an unknown status".to_owned())
                    })?;
                    self.out.extend_from_slice(&message.whole);
                    return Ok(Step::Ready(status));
                }
                // Notices, parameters, the version it would rather speak.
                b'N' | b'S' | b'v' => self.out.extend_from_slice(&message.whole),
                other => {
                    let kind = other.escape_ascii();
                    let what = format!("a message '{kind}' during the login");
                    return Err(LoginError::ServerNonsense(what));
                }
            }
        }
        Ok(Step::GoesOn)
    }

    /// Authentication requests, by their codes (documentation, "Message Formats").
    fn authentication(&mut self, message: &Heard) -> Result<(), LoginError> {
        const OK: u32 = 0;
        const SASL: u32 = 10;
        const SASL_FINAL: u32 = 12;
        let Some(code) = message.body().first_chunk::<4>() else {
            let what = "an authentication request without a code".to_owned();
            return Err(LoginError::ServerNonsense(what));
        };
        let code = u32::from_be_bytes(*code);
        self.asked = !matches!(code, OK | SASL_FINAL);
        if code == SASL && self.encrypted {
            let offer = without_binding(message.body()).ok_or_else(|| {
                let what = "it offers no way to log in without channel binding".to_owned();
                LoginError::ServerNonsense(what)
            })?;
            self.out.extend_from_slice(&offer);
        } else {
            self.out.extend_from_slice(&message.whole);
        }
        Ok(())
    }

    /// Tells the client what the server said.
    async fn tell(&mut self, ends: &mut Ends<'_>) -> Result<(), LoginError> {
        let words = self.out.split().freeze();
        if words.is_empty() {
            return Ok(());
        }
        let told = ends.client.say(&words).await;
        told.map_err(|_| LoginError::ClientLeft)
    }

    /// Passes the client's answer on, if the server wants one and it is there.
    async fn answer(&mut self, ends: &mut Ends<'_>) -> Result<bool, LoginError> {
        if !self.asked {
            return Ok(false);
        }
        let Some(answer) = self.up.take().map_err(LoginError::ClientNonsense)? else {
            return Ok(false);
        };
        if answer.kind != b'p' {
            let kind = answer.kind.escape_ascii();
            let what = format!("a message '{kind}' where a password is expected");
            return Err(LoginError::ClientNonsense(what));
        }
        self.asked = false;
        pass_on(ends, &answer.whole).await?;
        Ok(true)
    }

    /// Reads what comes next, from whichever side. Cancel safe.
    async fn read(&mut self, ends: &mut Ends<'_>) -> Result<(), LoginError> {
        self.down.0.reserve(2048);
        self.up.0.reserve(256);
        let listens = self.up.has_room();
        tokio::select! {
            biased;
            read = ends.server.read_buf(&mut self.down.0) => match read {
                Ok(0) => {
                    let what = "it closed the connection in the middle of the login";
                    Err(LoginError::Server(what.to_owned()))
                }
                Ok(_) => Ok(()),
                Err(error) => Err(server_gone(error)),
            },
            read = ends.client.read_buf(&mut self.up.0), if listens => match read {
                Ok(0) | Err(_) => Err(LoginError::ClientLeft),
                Ok(_) => Ok(()),
            },
        }
    }
}

/// AuthenticationSASL without the mechanisms that bind to the TLS channel: the client has none, and a
/// clever one would take the offer for an attack. `None`: nothing is left.
fn without_binding(body: &[u8]) -> Option<Bytes> {
    let mut kept = BytesMut::from(&body[..4]);
    let plain = |name: &&[u8]| !name.ends_with(b"-PLUS");
    for name in message::texts(&body[4..]).filter(plain) {
        kept.extend_from_slice(name);
        kept.extend_from_slice(&[0]);
    }
    let any = kept.len() > 4;
    kept.extend_from_slice(&[0]);
    any.then(|| message::frame(b'R', &kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_binding_is_not_offered_to_who_has_no_channel() {
        let offer = b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        let left = without_binding(offer).unwrap();
        assert_eq!(left, message::frame(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"));
        assert!(without_binding(b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0\0").is_none());
        assert!(without_binding(b"\0\0\0\x0a").is_none());
    }

    #[test]
    fn messages_are_taken_whole_and_not_endless() {
        let mut inbox = Inbox::default();
        for byte in *b"R\0\0\0\x08\0\0\0\0" {
            assert!(inbox.take().unwrap().is_none());
            inbox.0.extend_from_slice(&[byte]);
        }
        let message = inbox.take().unwrap().unwrap();
        assert_eq!((message.kind, message.body()), (b'R', &[0; 4][..]));
        assert!(inbox.0.is_empty());
        for length in [0, 3, 1 << 20, u32::MAX] {
            inbox.0.clear();
            inbox.0.extend_from_slice(b"R");
            inbox.0.extend_from_slice(&length.to_be_bytes());
            assert!(inbox.take().is_err(), "{length}");
        }
    }
}
