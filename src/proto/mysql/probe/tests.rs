use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock};

use super::auth::CACHING;
use super::*;
use crate::net::dial::Dialer;
use crate::net::resolve::Resolver;
use crate::net::tls::Connector;
use crate::proto::mysql::login::Keys;
use crate::proto::mysql::packet::{Words, frame};
use crate::secret::{Credentials, Secret};

const SUBJECT: Subject<usize> = Subject {
    questions: |_| &["SHOW ONE"],
    read: |replies| match replies {
        [Ok(table)] => Ok(table.rows.len()),
        [Err(error), ..] => Err(error.to_string()),
        _ => Err("no answer".into()),
    },
};

/// What a server does on each connection, one after the other; it then waits for leave to close.
type Part = fn(&mut TcpStream);

struct Scripted {
    prober: Prober<usize>,
    accepted: Arc<AtomicUsize>,
    /// Dropped, it ends the connections.
    _close: Sender<()>,
}

fn scripted(parts: &'static [Part]) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (close, closed): (Sender<()>, Receiver<()>) = channel();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for part in parts {
            let Ok((mut stream, _)) = listener.accept() else {
                return;
            };
            count.fetch_add(1, Ordering::Relaxed);
            part(&mut stream);
            open.push(stream);
        }
        drop(listener);
        let _ = closed.recv();
    });
    let prober = Prober {
        node: NodeSpec {
            addr: addr.to_string().parse().unwrap(),
            server_name: None,
            region: None,
        },
        access: Access {
            dialer: Dialer {
                resolver: Resolver::from_system(),
                tls: Connector::PLAIN,
                keepalive: Duration::from_secs(30),
            },
            tls: None,
            credentials: Credentials {
                username: "probe".into(),
                password: Some(Secret::new("s3cret".into())),
            },
        },
        subject: SUBJECT,
        timeout: Duration::from_millis(200),
        clock: Clock::start(),
        probe_seconds: metrics::Histogram::noop(),
    };
    Scripted {
        prober,
        accepted,
        _close: close,
    }
}

/// What so many rounds brought.
fn rounds(scripted: &Scripted, count: usize) -> Vec<Said<usize>> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(async {
        let mut line = Line {
            prober: &scripted.prober,
            idle: None,
            work: None,
            late: None,
        };
        let mut said = Vec::new();
        for _ in 0..count {
            said.push(line.round().await);
        }
        said
    })
}

fn greeting(plugin: &[u8]) -> Vec<u8> {
    let caps: u32 = 1 | 1 << 9 | 1 << 15 | 1 << 19;
    let mut out = b"\x0a8.0.40\0\x01\0\0\0abcdefgh\0".to_vec();
    out.extend_from_slice(&caps.to_le_bytes()[..2]);
    out.extend_from_slice(b"\x2d\x02\0");
    out.extend_from_slice(&caps.to_le_bytes()[2..]);
    out.extend_from_slice(b"\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0");
    out.extend_from_slice(plugin);
    out.push(0);
    out
}

fn say(stream: &mut TcpStream, seq: u8, payload: &[u8]) {
    let _ = stream.write_all(&frame(seq, payload));
}

fn hear(stream: &mut TcpStream) -> Vec<u8> {
    let mut header = [0; 4];
    if stream.read_exact(&mut header).is_err() {
        return Vec::new();
    }
    let mut payload = vec![0; usize::from(header[0]) | usize::from(header[1]) << 8];
    let _ = stream.read_exact(&mut payload);
    payload
}

fn let_in(stream: &mut TcpStream) {
    say(stream, 0, &greeting(auth::NATIVE));
    hear(stream);
    say(stream, 2, b"\0\0\0\x02\0\0\0");
}

/// One row of one column.
fn answer(stream: &mut TcpStream) {
    assert_eq!(hear(stream), b"\x03SHOW ONE");
    say(stream, 1, b"\x01");
    say(
        stream,
        2,
        b"\x03def\0\0\0\x01n\0\x0c\x2d\0\0\0\0\0\xfd\0\0\0\0\0",
    );
    say(stream, 3, b"\xfe\0\0\x02\0");
    say(stream, 4, b"\x011");
    say(stream, 5, b"\xfe\0\0\x02\0");
}

fn err(stream: &mut TcpStream, code: u16) {
    let words = Words {
        code,
        state: None,
        text: "no",
    };
    let _ = stream.write_all(&words.packet(0));
}

#[test]
fn what_a_server_says_is_what_it_is() {
    use Said::{Answer, Busy, Refused, Silent};
    let table: [(&'static [Part], Said<usize>); 7] = [
        (
            &[|s| {
                let_in(s);
                answer(s)
            }],
            Answer(1),
        ),
        (&[|s| err(s, 1040)], Busy("error 1040: no".into())),
        (&[|s| err(s, 1203)], Busy("error 1203: no".into())),
        (&[|s| err(s, 1129)], Refused("error 1129: no".into())),
        (
            &[|s| drop(s.shutdown(Shutdown::Both))],
            Refused("connection closed".into()),
        ),
        (&[|_| {}], Silent("no answer within 200ms".into())),
        // It has logged us in, and says nothing more.
        (&[let_in], Silent("no answer within 200ms".into())),
    ];
    for (parts, expected) in table {
        assert_eq!(rounds(&scripted(parts), 1), [expected]);
    }
    let garbage = scripted(&[|s| drop(s.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"))]);
    assert!(matches!(&rounds(&garbage, 1)[..], [Silent(why)] if why.contains("HTTP")));
}

/// A server that is frozen has all of them in its queue, and would count every one that was given up.
#[test]
fn one_handshake_at_a_time() {
    let frozen = scripted(&[|_| {}, |_| {}, |_| {}, |_| {}]);
    let said = rounds(&frozen, 4);
    assert!(
        said.iter().all(|said| matches!(said, Said::Silent(_))),
        "{said:?}"
    );
    assert_eq!(frozen.accepted.load(Ordering::Relaxed), 1);
}

#[test]
fn a_closed_connection_is_tried_anew_and_a_late_one_beside_it() {
    // Closed after its answer: the next round opens another.
    let closes = scripted(&[
        |s| {
            let_in(s);
            answer(s);
            drop(s.shutdown(Shutdown::Both))
        },
        |s| {
            let_in(s);
            answer(s)
        },
    ]);
    assert_eq!(rounds(&closes, 2), [Said::Answer(1), Said::Answer(1)]);
    // Silent after its answer, and well on a new connection: the server is well.
    let lost = scripted(&[
        |s| {
            let_in(s);
            answer(s)
        },
        |s| {
            let_in(s);
            answer(s)
        },
    ]);
    let said = rounds(&lost, 3);
    assert!(
        matches!(
            &said[..],
            [Said::Answer(1), Said::Silent(_), Said::Answer(1)]
        ),
        "{said:?}"
    );
}

#[test]
fn nobody_listens() {
    let gone = scripted(&[]);
    let refused =
        |said: &[Said<usize>]| matches!(said, [Said::Refused(why)] if why.contains("refused"));
    let closed = std::time::Duration::from_secs(5);
    let began = gone.prober.clock.now();
    // Its thread closes the listener at once.
    while !refused(&rounds(&gone, 1)) {
        assert!(gone.prober.clock.now().since(began) < closed);
    }
}

static KEYS: LazyLock<Keys> = LazyLock::new(Keys::default);

fn now<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().unwrap().block_on(future)
}

/// Greets, and hears the proof that caching_sha2_password begins with.
fn cached(stream: &mut TcpStream) {
    say(stream, 0, &greeting(CACHING));
    let response = hear(stream);
    let proof = auth::proof(CACHING, "s3cret", b"abcdefghijklmnopqrst").unwrap();
    assert!(response.windows(32).any(|part| part == &proof[..]));
}

fn remembers(stream: &mut TcpStream) {
    cached(stream);
    say(stream, 2, b"\x01\x03");
    say(stream, 3, b"\0\0\0\x02\0\0\0");
    answer(stream);
}

/// It wants to see the password, which nobody else may.
fn forgot(stream: &mut TcpStream) {
    cached(stream);
    say(stream, 2, b"\x01\x04");
    assert_eq!(hear(stream), b"\x02");
    let pem = now(KEYS.public_pem()).unwrap();
    say(stream, 4, &[b"\x01", pem.as_bytes()].concat());
    let sealed = zeroize::Zeroizing::new(hear(stream));
    let opened = now(KEYS.open(sealed, b"abcdefghijklmnopqrst".to_vec())).unwrap();
    assert_eq!(&opened[..], b"s3cret\0");
    say(stream, 6, b"\0\0\0\x02\0\0\0");
    answer(stream);
}

fn switches(stream: &mut TcpStream) {
    say(stream, 0, &greeting(b"client_ed25519"));
    hear(stream);
    let request = [b"\xfe", CACHING, b"\0abcdefghijklmnopqrst\0"].concat();
    say(stream, 2, &request);
    let proof = auth::proof(CACHING, "s3cret", b"abcdefghijklmnopqrst").unwrap();
    assert_eq!(hear(stream), proof[..]);
    say(stream, 4, b"\x01\x03");
    say(stream, 5, b"\0\0\0\x02\0\0\0");
    answer(stream);
}

#[test]
fn caching_sha2_password() {
    for part in [[remembers as Part], [forgot], [switches]] {
        let parts: &'static [Part] = Box::leak(Box::new(part));
        let mut server = scripted(parts);
        server.prober.timeout = Duration::from_secs(30);
        assert_eq!(rounds(&server, 1), [Said::Answer(1)]);
    }
    let asks: Part = |s| {
        say(s, 0, &greeting(b"client_ed25519"));
        hear(s);
        say(
            s,
            2,
            b"\xfeclient_ed25519\0abcdefghijklmnopqrstuvwxyzABCDEF",
        );
    };
    let server = scripted(Box::leak(Box::new([asks])));
    let said = rounds(&server, 1);
    assert!(
        matches!(&said[..], [Said::Silent(why)] if why.contains("client_ed25519")),
        "{said:?}"
    );
}
