//! A small blocking Redis client over TCP and Unix sockets. It trusts its servers: no limits on sizes or depth.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(addr)
    }
}

impl From<&Path> for Target {
    fn from(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A name and a password; without a name, the default user.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    pub user: Option<String>,
    pub password: String,
}

/// A RESP2 reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Value>),
}

impl Value {
    /// The text of a string reply, of either kind.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Simple(text) => Some(text.clone()),
            Self::Bulk(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }

    pub fn array(&self) -> Option<&[Value]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// An error reply as an error.
    pub fn ok(self) -> Result<Self> {
        match self {
            Self::Error(text) => bail!("the server answered: {text}"),
            other => Ok(other),
        }
    }

    /// The value after `key` in a flat array of names and values.
    pub fn field(&self, key: &str) -> Option<String> {
        let items = self.array()?;
        items
            .chunks_exact(2)
            .find(|pair| pair[0].text().as_deref() == Some(key))
            .and_then(|pair| pair[1].text())
    }
}

/// A TCP or Unix stream.
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! either {
    ($self:expr, $stream:ident => $body:expr) => {
        match $self {
            Stream::Tcp($stream) => $body,
            Stream::Unix($stream) => $body,
        }
    };
}

impl Stream {
    /// `timeout` holds for the connect (TCP only: std cannot limit a Unix one) and then for every read and write.
    pub fn connect(target: &Target, timeout: Duration) -> io::Result<Self> {
        let stream = match target {
            Target::Tcp(addr) => {
                let stream = TcpStream::connect_timeout(addr, timeout)?;
                stream.set_nodelay(true)?;
                Self::Tcp(stream)
            }
            Target::Unix(path) => Self::Unix(UnixStream::connect(path)?),
        };
        stream.set_timeout(timeout)?;
        Ok(stream)
    }

    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        // Zero would be refused; it means "nearly none" here.
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        either!(self, stream => stream.set_read_timeout(timeout).and_then(|()| stream.set_write_timeout(timeout)))
    }

    /// Has the other side closed, or sent something nobody asked for? Does not wait.
    pub fn has_input_or_end(&mut self) -> bool {
        let mut byte = [0];
        let seen = either!(self, stream => {
            if stream.set_nonblocking(true).is_err() {
                return true;
            }
            let seen = stream.read(&mut byte);
            if stream.set_nonblocking(false).is_err() {
                return true;
            }
            seen
        });
        !matches!(seen, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    pub fn shutdown_write(&self) -> io::Result<()> {
        either!(self, stream => stream.shutdown(Shutdown::Write))
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        either!(self, stream => stream.read(buf))
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        either!(self, stream => stream.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection. After a timeout it can be read on: what has come so far is kept.
pub struct Conn {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Conn {
    pub fn connect(target: &Target, timeout: Duration) -> Result<Self> {
        let stream =
            Stream::connect(target, timeout).with_context(|| format!("connecting to {target}"))?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    pub fn connect_auth(target: &Target, auth: Option<&Auth>, timeout: Duration) -> Result<Self> {
        let mut conn = Self::connect(target, timeout)?;
        if let Some(auth) = auth {
            let mut args = vec!["AUTH"];
            args.extend(auth.user.as_deref());
            args.push(&auth.password);
            conn.command(&args)?
                .ok()
                .with_context(|| format!("logging in at {target}"))?;
        }
        Ok(conn)
    }

    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    pub fn set_timeout(&self, timeout: Duration) -> Result<()> {
        self.stream
            .set_timeout(timeout)
            .context("setting a timeout")
    }

    /// One command and its reply; an error reply is a [`Value::Error`].
    pub fn command(&mut self, args: &[&str]) -> Result<Value> {
        self.send_raw(&encode(args))?;
        self.read_value()
    }

    /// All commands in one write, then all replies.
    pub fn pipeline(&mut self, commands: &[Vec<&str>]) -> Result<Vec<Value>> {
        let bytes: Vec<u8> = commands.iter().flat_map(|args| encode(args)).collect();
        self.send_raw(&bytes)?;
        commands.iter().map(|_| self.read_value()).collect()
    }

    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("sending")
    }

    /// The next reply. An [`io::Error`] is the error's root cause, except at the end of the stream.
    pub fn read_value(&mut self) -> Result<Value> {
        loop {
            if let Some((value, used)) = parse(&self.buffer)? {
                self.buffer.drain(..used);
                return Ok(value);
            }
            if self.fill()? == 0 {
                bail!("the connection was closed before the reply");
            }
        }
    }

    /// Everything until the other side closes.
    pub fn read_to_end(&mut self) -> Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// What a client that keeps connections asks before it sends: is this one still usable?
    pub fn is_usable(&mut self) -> bool {
        self.buffer.is_empty() && !self.stream.has_input_or_end()
    }

    fn fill(&mut self) -> Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let read = self
            .stream
            .read(&mut chunk)
            .context("waiting for the reply")?;
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read)
    }
}

/// Did this error come from a timeout?
pub fn is_timeout(error: &anyhow::Error) -> bool {
    error
        .root_cause()
        .downcast_ref::<io::Error>()
        .is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            )
        })
}

/// A command as a client sends it.
pub fn encode(args: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
    }
    out
}

/// A whole value at the start of `bytes` and its length, or `None` if there is more to come.
fn parse(bytes: &[u8]) -> Result<Option<(Value, usize)>> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let line = String::from_utf8_lossy(&bytes[1..end.max(1)]).into_owned();
    let used = end + 2;
    let value = match bytes[0] {
        b'+' => Value::Simple(line),
        b'-' => Value::Error(line),
        b':' => Value::Int(line.parse().context("a number")?),
        b'$' | b'*' if line == "-1" => Value::Nil,
        b'$' => {
            let end = used + line.parse::<usize>().context("a length")?;
            let Some(body) = bytes.get(used..end + 2) else {
                return Ok(None);
            };
            return Ok(Some((
                Value::Bulk(body[..body.len() - 2].to_vec()),
                end + 2,
            )));
        }
        b'*' => return parse_items(bytes, used, line.parse().context("a count")?),
        other => bail!("not a Redis reply: it begins with {:?}", char::from(other)),
    };
    Ok(Some((value, used)))
}

fn parse_items(bytes: &[u8], mut used: usize, count: usize) -> Result<Option<(Value, usize)>> {
    let mut items = Vec::new();
    for _ in 0..count {
        let Some((item, length)) = parse(&bytes[used..])? else {
            return Ok(None);
        };
        items.push(item);
        used += length;
    }
    Ok(Some((Value::Array(items), used)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_at_any_split() {
        let whole = b"*5\r\n+OK\r\n-ERR no\r\n:-7\r\n$5\r\na\r\nbc\r\n*2\r\n$-1\r\n*0\r\n";
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]).unwrap(), None, "cut at {cut}");
        }
        let (value, used) = parse(whole).unwrap().unwrap();
        assert_eq!(used, whole.len());
        let expected = Value::Array(vec![
            Value::Simple("OK".into()),
            Value::Error("ERR no".into()),
            Value::Int(-7),
            Value::Bulk(b"a\r\nbc".to_vec()),
            Value::Array(vec![Value::Nil, Value::Array(vec![])]),
        ]);
        assert_eq!(value, expected);
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_err());
    }
}
