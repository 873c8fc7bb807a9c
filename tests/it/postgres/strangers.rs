//! Clients and servers that are none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pilotfish_harness::postgres::{Pg, PgError, message, startup};
use pilotfish_harness::resp::Stream;
use pilotfish_harness::sidecar::{Service, Sidecar, Until};
use pilotfish_harness::wait;

use super::{LONG, assert_sound, cluster, config, connect, shop, start, target};
use crate::kit;

/// A server that does with each connection what it was told to.
struct Fake {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    fn start(
        talk: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (addr, stop) = (listener.local_addr()?, Arc::new(AtomicBool::new(false)));
        let connections = Arc::new(AtomicUsize::new(0));
        let (end, count) = (stop.clone(), connections.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let mut stream = stream;
                let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
                // Probes of a static list connect and say nothing.
                if talk(&mut stream).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Self {
            addr,
            connections,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The service on servers that are not asked who they are.
fn blind(server: &Fake, hold: &str) -> Result<Service> {
    Ok(Service::new("shop", "postgres")?
        .discover("kind", "static")
        .discover_all("nodes", &[server.addr])
        .set("hold_timeout", hold))
}

fn refused(sidecar: &Sidecar) -> Result<PgError> {
    let error = connect(sidecar).err().context("it was let in")?;
    PgError::of(&error)
        .cloned()
        .with_context(|| format!("{error:#}"))
}

fn first(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut packet = [0; 1024];
    match stream.read(&mut packet)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

#[test]
fn clients_that_talk_nonsense() -> Result<()> {
    let cluster = cluster(0)?;
    let sidecar = start(shop(&cluster.addrs())?)?;
    let before = sidecar.server().rss()?;
    let long = |length: u32| [length.to_be_bytes(), (3_u32 << 16).to_be_bytes()].concat();
    let table: [(Vec<u8>, &str, &str); 7] = [
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            "08P01",
            "invalid length",
        ),
        (long(2 << 30), "08P01", "2147483648"),
        (long(u32::MAX), "08P01", "4294967295"),
        (vec![0; 100], "08P01", "invalid length of startup packet: 0"),
        (long(8)[..6].to_vec(), "", "ended after 6 bytes"),
        (vec![0, 0, 0, 8, 0, 2, 0, 0], "0A000", "protocol 2.0"),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            "",
            "begins with TLS",
        ),
    ];
    for (words, sqlstate, named) in &table {
        let mut stream = Stream::connect(&target(&sidecar)?, LONG)?;
        stream.write_all(words)?;
        stream.shutdown_write()?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said)?;
        let heard = if said.is_empty() {
            PgError::read(b"")
        } else {
            PgError::read(&said[5..])
        };
        ensure!(heard.sqlstate == *sqlstate, "{named}: {heard}");
        sidecar.wait_log(named, LONG)?;
    }
    // A parameter list without an end, and one that is cut off by the next message.
    for body in [vec![b'x'; 9_000], b"user\0postgres\0database".to_vec()] {
        let mut packet = long(u32::try_from(body.len() + 8)?);
        packet.extend_from_slice(&body);
        let mut stream = Stream::connect(&target(&sidecar)?, LONG)?;
        stream.write_all(&packet)?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said)?;
        ensure!(said[0] == b'E', "the server's own word");
    }
    // After the login too: the server ends it, and says why.
    let mut pg = connect(&sidecar)?;
    pg.send(b"Q\xff\xff\xff\xff")?;
    let rest = pg.rest()?;
    ensure!(rest.is_empty() || rest[0] == b'E', "{rest:?}");
    ensure!(connect(&sidecar)?.query("SELECT 1")? == [["1"]]);
    wait::until_true("all of them to be counted", LONG, || {
        let nonsense = sidecar.metric("session_ends_total", &[("reason", "protocol-error")])?;
        Ok(nonsense == table.len() as f64)
    })?;
    ensure!(sidecar.server().rss()? < before + (16 << 20));
    assert_sound(&sidecar)
}

/// It asks for a password, gets it, and is gone.
#[test]
fn a_server_that_closes_in_the_middle_of_the_login() -> Result<()> {
    let server = Fake::start(|stream| {
        first(stream)?;
        stream.write_all(&message(b'R', &[0, 0, 0, 3]))?;
        stream.read_exact(&mut [0; 12])?;
        Ok(())
    })?;
    let sidecar = start(blind(&server, "20s")?)?;
    let mut stream = Stream::connect(&target(&sidecar)?, LONG)?;
    stream.write_all(&startup(&[("user", "postgres")]))?;
    let mut asked = [0; 9];
    stream.read_exact(&mut asked)?;
    ensure!(asked == *message(b'R', &[0, 0, 0, 3]));
    stream.write_all(&message(b'p', b"secret\0"))?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said)?;
    let error = PgError::read(&said[5..]);
    ensure!(
        error.sqlstate == "08006" && error.severity == "FATAL",
        "{error}"
    );
    let named = "it closed the connection in the middle of the login";
    ensure!(error.message.contains(named), "{error}");
    let line = sidecar.wait_log("a server did not let a client in", LONG)?;
    ensure!(
        line.contains(named) && line.contains(&server.addr.to_string()),
        "{line}"
    );
    ensure!(!sidecar.server().log()?.contains("secret"));
    assert_sound(&sidecar)
}

/// Nobody has heard anything yet, so they wait for a better time, and no longer than they should.
#[test]
fn servers_that_let_nobody_in() -> Result<()> {
    let error =
        [b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0".as_slice()].concat();
    let tells = |words: Vec<u8>| {
        move |stream: &mut TcpStream| {
            first(stream)?;
            stream.write_all(&words)
        }
    };
    let mut endless = vec![b'R', 0x7f, 0xff, 0xff, 0xff];
    endless.resize(100_000, 7);
    let table = [
        (
            message(b'E', &error),
            "the database system is starting up (57P03)",
        ),
        (Vec::new(), "it closed the connection"),
        (endless, "a login message 'R' of 2147483647 bytes"),
        (message(b'D', b"data"), "a message 'D' during the login"),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            "a login message 'H'",
        ),
        (message(b'R', b"x"), "without a code"),
    ];
    for (words, named) in table {
        let server = Fake::start(tells(words))?;
        let sidecar = start(blind(&server, "500ms")?)?;
        let error = refused(&sidecar)?;
        ensure!(error.sqlstate == "57P03", "{named}: {error}");
        sidecar.wait_log(named, LONG)?;
        ensure!(
            server.connections.load(Ordering::Relaxed) > 1,
            "it was tried again"
        );
        assert_sound(&sidecar)?;
    }
    Ok(())
}

/// What comes along with the answer to the request for TLS came from who knows whom.
#[test]
fn servers_that_answer_the_request_for_tls_with_more() -> Result<()> {
    let table: [(&'static [u8], &str); 4] = [
        (
            b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I",
            "16 bytes instead of one",
        ),
        (b"N", "the server does not do TLS"),
        (b"Ecould not fork\n\0", "byte 0x45"),
        (b"S", "TLS: "),
    ];
    for (words, named) in table {
        let server = Fake::start(move |stream| {
            first(stream)?;
            stream.write_all(words)?;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            // Not one word of a login went out in plain text.
            assert!(!rest.windows(8).any(|w| w == b"postgres"), "{rest:?}");
            Ok(())
        })?;
        let service = blind(&server, "500ms")?.section("[service.tls]\nmode = \"require\"");
        let sidecar = Sidecar::start(kit::binary(), config(service)?, Until::Live)?;
        let error = refused(&sidecar)?;
        ensure!(error.sqlstate == "57P03", "{named}: {error}");
        sidecar.wait_log(named, LONG)?;
        assert_sound(&sidecar)?;
    }
    Ok(())
}

/// A monitor that talks to what is no PostgreSQL says so, and stays as small as it was.
#[test]
fn probes_of_strangers() -> Result<()> {
    let flood = |stream: &mut TcpStream| -> std::io::Result<()> {
        first(stream)?;
        stream.write_all(&message(b'R', &[0; 4]))?;
        stream.write_all(b"S\x7f\xff\xff\xff")?;
        stream.set_write_timeout(Some(Duration::from_millis(500)))?;
        for _ in 0..10_000 {
            stream.write_all(&[b'x'; 64 * 1024])?;
        }
        Ok(())
    };
    let flood = Fake::start(flood)?;
    let web = Fake::start(|stream| {
        first(stream)?;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    })?;
    let silent = Fake::start(|stream| {
        first(stream)?;
        std::thread::sleep(Duration::from_millis(500));
        Ok(())
    })?;
    let cluster = cluster(0)?;
    let nodes = [cluster.addr(0), flood.addr, web.addr, silent.addr];
    let sidecar = start(shop(&nodes)?)?;
    ensure!(sidecar.primary("shop")? == Some(cluster.addr(0)));
    for fake in [&flood, &web, &silent] {
        sidecar.wait_log(&format!("{}: ", fake.addr), LONG)?;
    }
    sidecar.wait_log("it says too much", LONG)?;
    ensure!(sidecar.server().rss()? < 100 << 20);
    let mut pg = Pg::connect(&target(&sidecar)?, LONG)?;
    ensure!(pg.query("SELECT 1")? == [["1"]]);
    assert_sound(&sidecar)
}
