//! What goes wrong between us and a name server or an API: a relay that plays a script.
//!
//! It stands before stand-ins and real servers alike, so that every provider meets the same faults.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use super::http::{HttpServer, Request, Response};

/// One thing that goes wrong.
pub enum Fault {
    /// Answered without the server having seen the request.
    Before(Response),
    /// The server does it, and then this is what the client hears.
    After(Response),
    /// The server's last answer to the same question, once more.
    Stale,
    /// Somebody does something just before the server sees the request.
    Meanwhile(Box<dyn FnOnce() + Send>),
    /// All goes well: to let some requests pass.
    Nothing,
}

/// Which requests a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Read,
    Write,
}

#[derive(Default)]
struct Script {
    reads: VecDeque<Fault>,
    writes: VecDeque<Fault>,
    seen_writes: usize,
    last: BTreeMap<String, Vec<u8>>,
}

/// Shared with the relay.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Script>>);

impl Faults {
    /// The next such request meets this fault; one after the other.
    pub fn add(&self, on: On, fault: Fault) {
        let mut script = self.lock();
        match on {
            On::Read => script.reads.push_back(fault),
            On::Write => script.writes.push_back(fault),
        }
    }

    /// Forgets what has not happened yet, and says how much that was.
    pub fn clear(&self) -> usize {
        let mut script = self.lock();
        let left = script.reads.len() + script.writes.len();
        script.reads.clear();
        script.writes.clear();
        left
    }

    /// How many requests that may change something have come.
    pub fn writes(&self) -> usize {
        self.lock().seen_writes
    }

    fn next(&self, on: On) -> Fault {
        let mut script = self.lock();
        let next = match on {
            On::Read => script.reads.pop_front(),
            On::Write => {
                script.seen_writes += 1;
                script.writes.pop_front()
            }
        };
        next.unwrap_or(Fault::Nothing)
    }

    fn remember(&self, question: &str, answer: &[u8]) {
        self.lock()
            .last
            .insert(question.to_owned(), answer.to_vec());
    }

    fn recall(&self, question: &str) -> Option<Vec<u8>> {
        self.lock().last.get(question).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A relay before an HTTP server.
pub fn before_http(server: SocketAddr, faults: Faults) -> Result<HttpServer> {
    HttpServer::start(move |request| {
        let on = if request.writes() {
            On::Write
        } else {
            On::Read
        };
        let forward = || {
            let answer = forward_http(server, request);
            answer.map_or_else(|_| Response::empty(502), Response::Raw)
        };
        let question = request.target();
        match faults.next(on) {
            Fault::Before(response) => response,
            Fault::After(response) => {
                forward();
                response
            }
            Fault::Stale => match faults.recall(&question) {
                Some(answer) => Response::Raw(answer),
                None => forward(),
            },
            Fault::Meanwhile(act) => {
                act();
                forward()
            }
            Fault::Nothing => {
                let answer = forward();
                if let (On::Read, Response::Raw(bytes)) = (on, &answer) {
                    faults.remember(&question, bytes);
                }
                answer
            }
        }
    })
}

/// What `server` answers to `request`, as it stands.
pub fn forward_http(server: SocketAddr, request: &Request) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).context("the server behind the relay")?;
    let (first, rest) = split_line(&request.raw);
    stream.write_all(first)?;
    stream.write_all(b"connection: close\r\n")?;
    stream.write_all(rest)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn split_line(raw: &[u8]) -> (&[u8], &[u8]) {
    let end = raw.iter().position(|byte| *byte == b'\n');
    raw.split_at(end.map_or(raw.len(), |end| end + 1))
}

/// A relay before a name server, TCP only. A [`Response::Silence`] leaves the client waiting; any other
/// response ends the connection without an answer.
pub struct DnsRelay {
    pub addr: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl DnsRelay {
    pub fn start(server: SocketAddr, faults: Faults) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening")?;
        let addr = listener.local_addr()?;
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), faults) = (stream, faults.clone()) else {
                    continue;
                };
                std::thread::spawn(move || {
                    let _ = relay(stream, server, &faults);
                });
            }
        });
        Ok(Self { addr, ended })
    }
}

impl Drop for DnsRelay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
    }
}

fn relay(mut client: TcpStream, server: SocketAddr, faults: &Faults) -> Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(30)))?;
    let question = framed(&mut client)?;
    // RFC 1035, section 4.1.1: four bits of the third byte; 5 is UPDATE.
    let update = question.get(2).is_some_and(|byte| (byte >> 3) & 0x0f == 5);
    let on = if update { On::Write } else { On::Read };
    let forward = || -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect(server)?;
        send(&mut stream, &question)?;
        framed(&mut stream)
    };
    let refuse = |client: &mut TcpStream, response: Response| {
        if matches!(response, Response::Silence) {
            let mut rest = [0; 64];
            while matches!(client.read(&mut rest), Ok(n) if n > 0) {}
        }
        let _ = client.shutdown(Shutdown::Both);
    };
    match faults.next(on) {
        Fault::Before(response) => refuse(&mut client, response),
        Fault::After(response) => {
            forward()?;
            refuse(&mut client, response);
        }
        Fault::Meanwhile(act) => {
            act();
            send(&mut client, &forward()?)?;
        }
        // Answers are signed for their question, so an old one cannot be played again.
        Fault::Nothing | Fault::Stale => send(&mut client, &forward()?)?,
    }
    Ok(())
}

fn framed(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn send(stream: &mut TcpStream, message: &[u8]) -> Result<()> {
    stream.write_all(&u16::try_from(message.len())?.to_be_bytes())?;
    stream.write_all(message)?;
    Ok(())
}
