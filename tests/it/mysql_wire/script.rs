//! A server that says what a test wants, and the packets both sides are made of.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use pilotfish_harness::certs::Certs;
use rsa::pkcs8::{EncodePublicKey, LineEnding};
use rsa::{Oaep, RsaPrivateKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest, Sha256};

/// How soon a thread notices that it should end.
const NOTICE: Duration = Duration::from_millis(20);

pub const PASSWORD: &str = "shop-s3cret";
pub const NONCE: &[u8; 20] = b"abcdefghijklmnopqrst";
pub const SSL: u32 = 1 << 11;
/// LONG_PASSWORD, CONNECT_WITH_DB, PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, PLUGIN_AUTH, lengths of
/// its data, DEPRECATE_EOF.
pub const CAPS: u32 = 1 | 1 << 3 | 1 << 9 | 1 << 13 | 1 << 15 | 1 << 19 | 1 << 21 | 1 << 24;

/// Packets over any stream. Sequence ids are checked.
pub struct Packets<S> {
    pub stream: S,
    next: u8,
}

impl<S: Read + Write> Packets<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, next: 0 }
    }

    pub fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let len = u32::try_from(payload.len()).unwrap().to_le_bytes();
        let header = [len[0], len[1], len[2], self.next];
        self.next = self.next.wrapping_add(1);
        self.stream.write_all(&[&header, payload].concat())?;
        self.stream.flush()
    }

    pub fn recv(&mut self) -> io::Result<Vec<u8>> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header)?;
        let [a, b, c, seq] = header;
        if seq != self.next {
            let why = format!("sequence id {seq} and not {}", self.next);
            return Err(io::Error::other(why));
        }
        self.next = self.next.wrapping_add(1);
        let mut payload = vec![0; u32::from_le_bytes([a, b, c, 0]) as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(payload)
    }

    /// A request begins.
    pub fn restart(&mut self) {
        self.next = 0;
    }
}

/// What the server's side of a connection is made of.
pub enum Wire {
    Plain(Patient),
    Tls(Box<StreamOwned<ServerConnection, Patient>>),
    Gone,
}

/// Waits for bytes until the test is over.
pub struct Patient {
    tcp: TcpStream,
    stop: Arc<Told>,
}

impl Read for Patient {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tcp.read(buf) {
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    if self.stop.stop.load(Ordering::Relaxed) {
                        return Ok(0);
                    }
                }
                other => return other,
            }
        }
    }
}

impl Write for Patient {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.tcp.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(s) => s.read(buf),
            Self::Tls(s) => s.read(buf),
            Self::Gone => Ok(0),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(s) => s.write(buf),
            Self::Tls(s) => s.write(buf),
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(s) => s.flush(),
            Self::Tls(s) => s.flush(),
            Self::Gone => Ok(()),
        }
    }
}

#[derive(Default)]
pub struct Told {
    stop: AtomicBool,
    notes: Mutex<Vec<String>>,
}

/// One connection to the server.
pub struct Peer {
    pub packets: Packets<Wire>,
    told: Arc<Told>,
}

impl Peer {
    /// For the test to read.
    pub fn note(&self, what: impl Into<String>) {
        self.told.notes.lock().unwrap().push(what.into());
    }

    pub fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.packets.send(payload)
    }

    pub fn recv(&mut self) -> io::Result<Vec<u8>> {
        self.packets.recv()
    }

    fn start_tls(&mut self, config: Arc<ServerConfig>) -> io::Result<()> {
        let wire = std::mem::replace(&mut self.packets.stream, Wire::Gone);
        let Wire::Plain(tcp) = wire else {
            return Err(io::Error::other("TLS within TLS"));
        };
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        let mut tls = StreamOwned::new(connection, tcp);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        self.packets.stream = Wire::Tls(Box::new(tls));
        Ok(())
    }
}

/// A listener and its connections. Gone when dropped.
pub struct Script {
    pub addr: SocketAddr,
    told: Arc<Told>,
    thread: Option<JoinHandle<()>>,
}

type Play = Arc<dyn Fn(&mut Peer) -> io::Result<()> + Send + Sync>;

impl Script {
    pub fn start(play: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let told = Arc::new(Told::default());
        let shared = told.clone();
        let thread = std::thread::spawn(move || accept(&listener, Arc::new(play), &shared));
        Self {
            addr,
            told,
            thread: Some(thread),
        }
    }

    /// What was noted so far, and forgets it.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.told.notes.lock().unwrap())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.told.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, play: Play, told: &Arc<Told>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while !told.stop.load(Ordering::Relaxed) {
        threads.retain(|thread| !thread.is_finished());
        let Ok((tcp, _)) = listener.accept() else {
            std::thread::sleep(NOTICE);
            continue;
        };
        tcp.set_nonblocking(false).unwrap();
        tcp.set_read_timeout(Some(NOTICE)).unwrap();
        let stop = told.clone();
        let mut peer = Peer {
            packets: Packets::new(Wire::Plain(Patient { tcp, stop })),
            told: told.clone(),
        };
        let play = play.clone();
        threads.push(std::thread::spawn(move || {
            // However it ends: a probe hangs up at once, and so may a client.
            let _ = play(&mut peer);
        }));
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// An ERR packet's payload.
pub fn err(code: u16, text: &str) -> Vec<u8> {
    [&[0xff][..], &code.to_le_bytes(), text.as_bytes()].concat()
}

/// The code and the text of an ERR packet's payload, state included.
pub fn read_err(payload: &[u8]) -> (u16, String) {
    let [0xff, low, high, text @ ..] = payload else {
        panic!("no error: {}", payload.escape_ascii());
    };
    let text = String::from_utf8_lossy(text).into_owned();
    (u16::from_le_bytes([*low, *high]), text)
}

pub const OK: [u8; 7] = [0, 0, 0, 2, 0, 0, 0];

/// Protocol::HandshakeV10.
pub fn greeting(caps: u32, plugin: &str) -> Vec<u8> {
    let caps = caps.to_le_bytes();
    let mut out = b"\x0a8.0.36-script\0\x07\0\0\0".to_vec();
    out.extend(&NONCE[..8]);
    out.extend([0, caps[0], caps[1], 45, 2, 0, caps[2], caps[3], 21]);
    out.extend([0; 10]);
    out.extend(&NONCE[8..]);
    out.push(0);
    out.extend(plugin.as_bytes());
    out.push(0);
    out
}

/// How the server of [`sha2`] is set up.
#[derive(Clone)]
pub struct Sha2 {
    /// It has seen the password before.
    pub cached: bool,
    pub tls: Option<Arc<ServerConfig>>,
    /// `sha256_password`, which never remembers.
    pub sha256: bool,
}

/// For all tests: making one takes a while.
pub fn key() -> &'static RsaPrivateKey {
    static KEY: OnceLock<RsaPrivateKey> = OnceLock::new();
    KEY.get_or_init(|| {
        let mut rng = rsa::rand_core::UnwrapErr(getrandom::SysRng);
        RsaPrivateKey::new(&mut rng, 2048).unwrap()
    })
}

/// MySQL 8 with `caching_sha2_password`, as its documentation describes it. It notes how it saw the password.
pub fn sha2(peer: &mut Peer, how: &Sha2) -> io::Result<()> {
    let offered = if how.tls.is_some() { CAPS | SSL } else { CAPS };
    peer.send(&greeting(offered, "caching_sha2_password"))?;
    let mut response = peer.recv()?;
    if response[32.min(response.len())..].starts_with(b"pilotfish-knocks\0") {
        return peer.send(&err(1045, "#28000Access denied"));
    }
    if let Some(config) = &how.tls {
        if response.len() != 32 || flags(&response) & SSL == 0 {
            peer.note(format!("no TLS: {} bytes", response.len()));
            return Ok(());
        }
        peer.start_tls(config.clone())?;
        let announced = response;
        response = peer.recv()?;
        if response[..32] != announced[..] {
            peer.note("the response does not say what was announced");
        }
    }
    let proof = proof_in(&response);
    if how.sha256 {
        peer.send(&[b"\xfesha256_password\0", &NONCE[..], b"\0"].concat())?;
        return show(peer, how, "sha256", 1);
    }
    if proof != scramble(PASSWORD.as_bytes()) {
        return peer.send(&err(1045, "#28000Access denied"));
    }
    if how.cached {
        peer.send(&[1, 3])?;
        peer.note("cached");
        return serve(peer);
    }
    peer.send(&[1, 4])?;
    show(peer, how, "full", 2)
}

/// The client shows its password.
fn show(peer: &mut Peer, how: &Sha2, note: &str, ask: u8) -> io::Result<()> {
    let bare = [PASSWORD.as_bytes(), b"\0"].concat();
    let mut shown = peer.recv()?;
    let mut way = "bare";
    if how.tls.is_none() {
        way = "encrypted";
        if shown == [ask] {
            let pem = key()
                .to_public_key()
                .to_public_key_pem(LineEnding::LF)
                .unwrap();
            peer.send(&[b"\x01", pem.as_bytes()].concat())?;
            shown = peer.recv()?;
        }
        let opened = key().decrypt(Oaep::<sha1::Sha1>::new(), &shown);
        shown = opened.unwrap_or_default();
        for (byte, with) in shown.iter_mut().zip(NONCE.iter().cycle()) {
            *byte ^= with;
        }
    }
    if shown != bare {
        peer.note(format!("{note} {way} wrong"));
        return peer.send(&err(1045, "#28000Access denied"));
    }
    peer.note(format!("{note} {way}"));
    serve(peer)
}

/// OK to everything, the login first.
pub fn serve(peer: &mut Peer) -> io::Result<()> {
    loop {
        peer.send(&OK)?;
        peer.packets.restart();
        if peer.recv()? == [1] {
            return Ok(());
        }
    }
}

fn flags(response: &[u8]) -> u32 {
    u32::from_le_bytes(response[..4].try_into().unwrap())
}

fn proof_in(response: &[u8]) -> Vec<u8> {
    let user = response[32..].iter().position(|b| *b == 0).unwrap();
    let rest = &response[32 + user + 1..];
    rest[1..1 + usize::from(rest[0])].to_vec()
}

/// SHA256(password) XOR SHA256(SHA256(SHA256(password)) + nonce).
pub fn scramble(password: &[u8]) -> Vec<u8> {
    let once = Sha256::digest(password);
    let twice = Sha256::digest(once);
    let mixed = Sha256::new()
        .chain_update(twice)
        .chain_update(NONCE)
        .finalize();
    once.iter().zip(mixed).map(|(a, b)| a ^ b).collect()
}

pub fn tls_config(certs: &Certs) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = CertificateDer::pem_file_iter(&certs.cert).unwrap();
    let chain: Vec<_> = chain.map(|it| it.unwrap()).collect();
    let key = PrivateKeyDer::from_pem_file(&certs.key).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key);
    Arc::new(config.unwrap())
}

/// A client's response (Protocol::HandshakeResponse41).
pub fn response(caps: u32, proof: &[u8], plugin: &str) -> Vec<u8> {
    mariadb_response(caps, 0, proof, plugin)
}

/// The same with MariaDB's own capabilities, which are read when LONG_PASSWORD is not among `caps`.
pub fn mariadb_response(caps: u32, extended: u32, proof: &[u8], plugin: &str) -> Vec<u8> {
    // It names no database.
    let mut out = (caps & !(1 << 3)).to_le_bytes().to_vec();
    out.extend([0, 0, 0, 1, 45]);
    out.extend([0; 19]);
    out.extend(extended.to_le_bytes());
    out.extend(b"shop\0");
    out.push(u8::try_from(proof.len()).unwrap());
    out.extend(proof);
    out.extend(plugin.as_bytes());
    out.push(0);
    out
}
