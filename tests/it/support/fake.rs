//! Servers that are no sentinels.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

/// How soon a thread notices that it should end.
const NOTICE: Duration = Duration::from_millis(20);

/// What it does with whoever connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Accepts, reads, never answers.
    Silent,
    /// Bytes that are no RESP.
    Garbage,
    /// A line without an end.
    Endless,
    /// A string that announces a gigabyte, and begins to deliver.
    Huge,
    /// Arrays within arrays within arrays.
    Deep,
    /// An array that announces a billion elements, all of them there sooner or later.
    Wide,
    /// A good reply, one byte at a time.
    Slow,
    /// Well-formed events without end, none of which anybody asked for.
    Flood,
    /// Hangs up.
    Closing,
}

impl Lie {
    pub const ALL: [Self; 9] = [
        Self::Silent,
        Self::Garbage,
        Self::Endless,
        Self::Huge,
        Self::Deep,
        Self::Wide,
        Self::Slow,
        Self::Flood,
        Self::Closing,
    ];

    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn opening(self) -> &'static [u8] {
        match self {
            Self::Endless => b"+",
            Self::Huge => b"$1000000000\r\n",
            Self::Wide => b"*1000000000\r\n",
            _ => b"",
        }
    }

    fn chunk(self) -> Vec<u8> {
        let event = b"*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$54\r\n\
                      mymaster 127.0.0.1 10000 127.0.0.1 1                   \r\n";
        match self {
            Self::Silent | Self::Closing => Vec::new(),
            Self::Garbage => b"\x00\xff<html>\r\n*-7\r\n$\r\n".repeat(1000),
            Self::Endless | Self::Huge => vec![b'x'; 64 * 1024],
            Self::Deep => b"*1\r\n".repeat(16 * 1024),
            Self::Wide => b":1\r\n".repeat(16 * 1024),
            Self::Slow => b"+OK\r\n".to_vec(),
            Self::Flood => event.repeat(500),
        }
    }
}

#[derive(Default)]
struct Told {
    stop: AtomicBool,
    connections: AtomicU64,
    bytes: AtomicU64,
}

/// A listener and its connections. Gone when dropped.
pub struct Fake {
    pub addr: SocketAddr,
    told: Arc<Told>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub fn start(lie: Lie) -> Result<Self> {
        let listener = TcpListener::bind("0.0.0.0:0").context("a fake")?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let told = Arc::new(Told::default());
        let shared = told.clone();
        let thread = std::thread::Builder::new()
            .name(format!("fake-{}", lie.name()))
            .spawn(move || accept(&listener, lie, &shared))?;
        Ok(Self {
            addr,
            told,
            thread: Some(thread),
        })
    }

    pub fn connections(&self) -> u64 {
        self.told.connections.load(Ordering::Relaxed)
    }

    /// Sent so far.
    pub fn bytes(&self) -> u64 {
        self.told.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.told.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, lie: Lie, told: &Arc<Told>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while !told.stop.load(Ordering::Relaxed) {
        threads.retain(|thread| !thread.is_finished());
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(NOTICE);
            continue;
        };
        told.connections.fetch_add(1, Ordering::Relaxed);
        let shared = told.clone();
        let talk = move || {
            // However it ends: the other side has had enough.
            let _ = talk(stream, lie, &shared);
        };
        threads.extend(std::thread::Builder::new().spawn(talk));
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn talk(mut stream: TcpStream, lie: Lie, told: &Told) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(NOTICE))?;
    stream.set_write_timeout(Some(NOTICE))?;
    let chunk = lie.chunk();
    let mut rest = [lie.opening(), &chunk].concat();
    let mut ignored = [0; 4096];
    while !told.stop.load(Ordering::Relaxed) {
        match lie {
            Lie::Closing => return Ok(()),
            Lie::Silent => match stream.read(&mut ignored) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error),
            },
            Lie::Slow => {
                std::thread::sleep(NOTICE * 4);
                let byte = [rest.remove(0)];
                if rest.is_empty() {
                    rest.clone_from(&chunk);
                }
                stream.write_all(&byte)?;
            }
            _ => match stream.write(&rest) {
                Ok(sent) => {
                    told.bytes.fetch_add(sent as u64, Ordering::Relaxed);
                    rest.drain(..sent);
                    if rest.is_empty() {
                        rest.clone_from(&chunk);
                    }
                }
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(error),
            },
        }
    }
    Ok(())
}

fn is_pause(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}
