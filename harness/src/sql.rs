//! A small blocking MySQL client over TCP and Unix sockets: text queries, mysql_native_password, no TLS. It trusts its
//! servers.

use std::fmt;
use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha1::{Digest, Sha1};

use crate::resp::{Stream, Target};

// Protocol::CapabilityFlags: LONG_PASSWORD, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, PLUGIN_AUTH.
const CAPABILITIES: u32 = 1 | 0x200 | 0x2000 | 0x8000 | 0x8_0000;
const WITH_DB: u32 = 8;
const COM_QUIT: u8 = 1;
const COM_QUERY: u8 = 3;

/// Who logs in, and to which database.
#[derive(Clone, Debug)]
pub struct Login {
    pub user: String,
    pub password: String,
    pub database: Option<String>,
}

impl Login {
    pub fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
            database: None,
        }
    }

    /// Begins in `database`.
    pub fn into_db(mut self, database: &str) -> Self {
        self.database = Some(database.into());
        self
    }
}

/// What the server said in an ERR packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    pub code: u16,
    pub text: String,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ERROR {}: {}", self.code, self.text)
    }
}

impl std::error::Error for SqlError {}

/// The server's own error in `error`, if that is what it was.
pub fn sql_error(error: &anyhow::Error) -> Option<&SqlError> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

/// The answer to a statement: empty when it returns no rows. NULL is `None`.
pub type Rows = Vec<Vec<Option<String>>>;

/// A connection that is logged in. Every wait is bounded by its timeout.
pub struct Conn {
    stream: Stream,
    buffer: Vec<u8>,
    sequence: u8,
    broken: bool,
}

impl Conn {
    pub fn connect(target: &Target, login: &Login, timeout: Duration) -> Result<Self> {
        let stream =
            Stream::connect(target, timeout).with_context(|| format!("connecting to {target}"))?;
        let mut conn = Self {
            stream,
            buffer: Vec::new(),
            sequence: 0,
            broken: false,
        };
        conn.log_in(login)
            .with_context(|| format!("logging in at {target}"))?;
        Ok(conn)
    }

    fn log_in(&mut self, login: &Login) -> Result<()> {
        let greeting = no_error(self.read_packet()?)?;
        let salt = salt_of(&greeting).context("the greeting is too short")?;
        let with_db = login.database.is_some();
        let capabilities = CAPABILITIES | if with_db { WITH_DB } else { 0 };
        let mut out = capabilities.to_le_bytes().to_vec();
        out.extend_from_slice(&(1_u32 << 24).to_le_bytes());
        out.push(45); // utf8mb4_general_ci
        out.extend_from_slice(&[0; 23]);
        out.extend_from_slice(login.user.as_bytes());
        out.push(0);
        let proof = scramble(&login.password, &salt);
        out.push(u8::try_from(proof.len())?);
        out.extend_from_slice(&proof);
        for text in login
            .database
            .iter()
            .map(String::as_str)
            .chain(["mysql_native_password"])
        {
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        }
        self.write_packet(&out)?;
        let mut answer = no_error(self.read_packet()?)?;
        if answer.first() == Some(&0xfe) {
            // AuthSwitchRequest: a name, NUL, and the salt to use.
            let words: Vec<&[u8]> = answer[1..].splitn(2, |byte| *byte == 0).collect();
            let [b"mysql_native_password", salt] = words[..] else {
                bail!("the server wants another way to log in");
            };
            let proof = scramble(&login.password, salt.get(..20).context("a short salt")?);
            self.write_packet(&proof)?;
            answer = no_error(self.read_packet()?)?;
        }
        match answer.first() {
            Some(0) => Ok(()),
            other => bail!("an unexpected answer to the login: {other:?}"),
        }
    }

    pub fn set_timeout(&self, timeout: Duration) -> Result<()> {
        self.stream
            .set_timeout(timeout)
            .context("setting a timeout")
    }

    /// What a client that keeps connections asks before it sends: is this one still usable?
    pub fn is_usable(&mut self) -> bool {
        !self.broken && self.buffer.is_empty() && !self.stream.has_input_or_end()
    }

    /// Runs one statement. After an error of the server the connection is in order; after any other it is not.
    pub fn query(&mut self, sql: &str) -> Result<Rows> {
        self.broken = true;
        self.sequence = 0;
        let mut out = vec![COM_QUERY];
        out.extend_from_slice(sql.as_bytes());
        self.write_packet(&out)?;
        let head = match no_error(self.read_packet()?) {
            Ok(head) => head,
            Err(error) => {
                self.broken = false;
                return Err(error);
            }
        };
        let rows = match head.first() {
            Some(0) => Vec::new(),
            Some(_) => self.read_rows(&head)?,
            None => bail!("an empty packet"),
        };
        self.broken = false;
        Ok(rows)
    }

    fn read_rows(&mut self, head: &[u8]) -> Result<Rows> {
        let (columns, _) = length(head).context("a column count")?;
        for _ in 0..columns {
            self.read_packet()?;
        }
        self.read_packet()?; // EOF after the columns
        let mut rows = Vec::new();
        loop {
            let packet = no_error(self.read_packet()?)?;
            if packet.first() == Some(&0xfe) && packet.len() < 9 {
                return Ok(rows);
            }
            let (mut row, mut rest) = (Vec::new(), &packet[..]);
            while !rest.is_empty() {
                let (value, after) = text(rest).context("a row")?;
                row.push(value);
                rest = after;
            }
            rows.push(row);
        }
    }

    /// The first value of the first row.
    pub fn value(&mut self, sql: &str) -> Result<String> {
        let rows = self.query(sql)?;
        let first = rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next());
        first.flatten().with_context(|| format!("no value: {sql}"))
    }

    fn read_packet(&mut self) -> Result<Vec<u8>> {
        loop {
            if let [a, b, c, sequence, body @ ..] = &self.buffer[..] {
                let size = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
                if let Some(packet) = body.get(..size) {
                    let packet = packet.to_vec();
                    self.sequence = sequence.wrapping_add(1);
                    self.buffer.drain(..size + 4);
                    return Ok(packet);
                }
            }
            let mut chunk = [0; 16 * 1024];
            let read = self
                .stream
                .read(&mut chunk)
                .context("waiting for the answer")?;
            if read == 0 {
                bail!("the connection was closed before the answer");
            }
            self.buffer.extend_from_slice(&chunk[..read]);
        }
    }

    fn write_packet(&mut self, body: &[u8]) -> Result<()> {
        let size = u32::try_from(body.len())?.to_le_bytes();
        if size[3] != 0 {
            bail!("more than a packet holds");
        }
        let mut out = vec![size[0], size[1], size[2], self.sequence];
        out.extend_from_slice(body);
        self.stream.write_all(&out).context("sending")
    }
}

impl Drop for Conn {
    /// So that servers do not count an aborted connection.
    fn drop(&mut self) {
        self.sequence = 0;
        if !self.broken {
            let _ = self.write_packet(&[COM_QUIT]);
        }
    }
}

/// The 20 bytes that the password is mixed with (Protocol::HandshakeV10).
fn salt_of(greeting: &[u8]) -> Option<Vec<u8>> {
    let version = greeting.iter().skip(1).position(|byte| *byte == 0)?;
    let rest = greeting.get(version + 2 + 4..)?;
    let mut salt = rest.get(..8)?.to_vec();
    salt.extend_from_slice(rest.get(8 + 1 + 2 + 1 + 2 + 2 + 1 + 10..)?.get(..12)?);
    Some(salt)
}

/// mysql_native_password: SHA1(password) XOR SHA1(salt + SHA1(SHA1(password))).
fn scramble(password: &str, salt: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let once = Sha1::digest(password.as_bytes());
    let twice = Sha1::digest(once);
    let mixed = Sha1::new()
        .chain_update(salt)
        .chain_update(twice)
        .finalize();
    once.iter().zip(mixed).map(|(a, b)| a ^ b).collect()
}

fn no_error(packet: Vec<u8>) -> Result<Vec<u8>> {
    match &packet[..] {
        [0xff, low, high, text @ ..] => {
            let code = u16::from_le_bytes([*low, *high]);
            // '#' and five characters of SQLSTATE, but not in place of a greeting.
            let text = if text.first() == Some(&b'#') {
                text.get(6..)
            } else {
                Some(text)
            };
            let text = String::from_utf8_lossy(text.unwrap_or_default()).into_owned();
            Err(SqlError { code, text }.into())
        }
        _ => Ok(packet),
    }
}

/// A length-encoded number and what follows it.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let wide = match first {
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        small => return Some((usize::from(*small), rest)),
    };
    let mut number = [0; 8];
    number[..wide].copy_from_slice(rest.get(..wide)?);
    Some((
        usize::try_from(u64::from_le_bytes(number)).ok()?,
        &rest[wide..],
    ))
}

fn text(bytes: &[u8]) -> Option<(Option<String>, &[u8])> {
    if bytes.first() == Some(&0xfb) {
        return Some((None, &bytes[1..]));
    }
    let (size, rest) = length(bytes)?;
    let value = String::from_utf8_lossy(rest.get(..size)?).into_owned();
    Some((Some(value), &rest[size..]))
}
