//! A small blocking client: simple queries without a password, and the bytes themselves. It trusts its
//! servers.

use std::fmt;
use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::resp::{Stream, Target};

/// What an ErrorResponse said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgError {
    pub severity: String,
    pub sqlstate: String,
    pub message: String,
}

impl fmt::Display for PgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity, self.sqlstate, self.message)
    }
}

impl std::error::Error for PgError {}

impl PgError {
    pub fn read(body: &[u8]) -> Self {
        let field = |kind: u8| {
            let found = body.split(|&b| b == 0).find(|f| f.first() == Some(&kind));
            String::from_utf8_lossy(found.map_or(&[][..], |f| &f[1..])).into_owned()
        };
        Self {
            severity: field(b'V'),
            sqlstate: field(b'C'),
            message: field(b'M'),
        }
    }

    /// The one behind `error`, if a server's word is.
    pub fn of(error: &anyhow::Error) -> Option<&Self> {
        error.downcast_ref()
    }
}

/// A startup packet of protocol 3.0.
pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut packet = vec![0, 0, 0, 0, 0, 3, 0, 0];
    for (name, value) in parameters {
        for text in [name, value] {
            packet.extend_from_slice(text.as_bytes());
            packet.push(0);
        }
    }
    packet.push(0);
    let length = packet.len() as u32;
    packet[..4].copy_from_slice(&length.to_be_bytes());
    packet
}

/// One typed message.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(body);
    message
}

/// A logged-in connection.
pub struct Pg {
    stream: Stream,
    /// Process id and key, for a request to cancel.
    pub key: Vec<u8>,
    /// `I`, `T` or `E`, from the last ReadyForQuery.
    pub status: u8,
}

impl Pg {
    /// As `postgres`, to the database `postgres`.
    pub fn connect(target: &Target, timeout: Duration) -> Result<Self> {
        Self::connect_with(
            target,
            timeout,
            &[("user", "postgres"), ("database", "postgres")],
        )
    }

    pub fn connect_with(
        target: &Target,
        timeout: Duration,
        parameters: &[(&str, &str)],
    ) -> Result<Self> {
        let mut stream =
            Stream::connect(target, timeout).with_context(|| format!("connecting to {target}"))?;
        stream.write_all(&startup(parameters))?;
        let mut pg = Self {
            stream,
            key: Vec::new(),
            status: 0,
        };
        loop {
            let (kind, body) = pg.read()?;
            match kind {
                b'K' => pg.key = body,
                b'R' if body.starts_with(&[0, 0, 0, 0]) => {}
                b'R' => bail!("the server wants a password"),
                b'E' => return Err(PgError::read(&body).into()),
                b'Z' => {
                    pg.status = body[0];
                    return Ok(pg);
                }
                _ => {}
            }
        }
    }

    pub fn set_timeout(&mut self, timeout: Duration) -> Result<()> {
        Ok(self.stream.set_timeout(timeout)?)
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// The next message.
    pub fn read(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream
            .read_exact(&mut head)
            .context("closed before the reply")?;
        let length = u32::from_be_bytes(head[1..].try_into()?) as usize;
        let mut body = vec![0; length.checked_sub(4).context("a length that is none")?];
        self.stream.read_exact(&mut body).context("cut off")?;
        Ok((head[0], body))
    }

    /// Everything until the other side closes.
    pub fn rest(&mut self) -> Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Rows of all statements in `sql`, NULL as an empty text. After an error of severity ERROR the
    /// connection can still be used.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Vec<String>>> {
        self.ask(sql)?;
        self.answer()
    }

    pub fn ask(&mut self, sql: &str) -> Result<()> {
        let mut body = sql.as_bytes().to_vec();
        body.push(0);
        self.send(&message(b'Q', &body))
    }

    /// What a query that was asked gives, up to ReadyForQuery.
    pub fn answer(&mut self) -> Result<Vec<Vec<String>>> {
        let (mut rows, mut failed) = (Vec::new(), None);
        loop {
            let (kind, body) = self.read()?;
            match kind {
                b'D' => rows.push(row(&body)?),
                b'E' => {
                    let error = PgError::read(&body);
                    if error.severity != "ERROR" {
                        return Err(error.into());
                    }
                    failed = Some(error);
                }
                b'Z' => {
                    self.status = body[0];
                    return match failed {
                        Some(error) => Err(error.into()),
                        None => Ok(rows),
                    };
                }
                _ => {}
            }
        }
    }

    /// Whether nothing came unasked: neither an end nor a word.
    pub fn is_usable(&mut self) -> bool {
        !self.stream.has_input_or_end()
    }
}

fn row(body: &[u8]) -> Result<Vec<String>> {
    let number = |at: usize| -> Result<i32> {
        let bytes = body.get(at..at + 4).context("a row that was cut off")?;
        Ok(i32::from_be_bytes(bytes.try_into()?))
    };
    let columns = u16::from_be_bytes(body.get(..2).context("an empty row")?.try_into()?);
    let (mut at, mut row) = (2, Vec::new());
    for _ in 0..columns {
        let length = number(at)?;
        at += 4;
        let length = usize::try_from(length.max(0))?;
        let value = body
            .get(at..at + length)
            .context("a value that was cut off")?;
        row.push(String::from_utf8_lossy(value).into_owned());
        at += length;
    }
    Ok(row)
}
