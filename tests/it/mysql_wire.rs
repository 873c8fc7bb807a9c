//! Logins of MySQL clients at servers that say what a test wants.

pub mod script;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pilotfish_harness::certs::Certs;
use pilotfish_harness::resp::{Stream, Target};
use pilotfish_harness::sidecar::Service;
use pilotfish_harness::wait;

use self::script::{CAPS, PASSWORD, Packets, Script, Sha2, read_err, sha2, tls_config};
use crate::kit::{self, LONG};
use crate::support::assert_sound;

/// The first of `nodes` that accepts a connection.
pub fn fixed(nodes: &[SocketAddr]) -> Service {
    Service::new("cache", "mysql")
        .unwrap()
        .discover("kind", "static")
        .discover_all("nodes", nodes)
        .discover("probe_interval", "500ms")
}

pub fn client(target: &Target) -> Packets<Stream> {
    Packets::new(Stream::connect(target, LONG).unwrap())
}

/// `[service.tls]` that trusts the authority of `certs`.
pub fn verified(certs: &Certs) -> String {
    format!(
        "[service.tls]\nmode = \"verify-full\"\nserver_name = \"127.0.0.1\"\nca_file = \"{}\"",
        certs.ca.display()
    )
}

fn log_in(target: &Target) -> String {
    kit::run(&mut kit::php("mysqli-login.php", target), b"")
}

fn wait_notes(script: &Script, wanted: &[&str]) {
    let mut got = Vec::new();
    let waited = wait::until_true("the server's notes", LONG, || {
        got.extend(script.take_notes());
        Ok(got.len() >= wanted.len())
    });
    waited.unwrap_or_else(|error| panic!("{error:#}: {got:?}"));
    assert_eq!(got, wanted);
}

#[test]
fn errors_in_place_of_the_greeting_are_the_clients_to_hear() {
    for (code, text) in [
        (1040, "Too many connections"),
        (
            1129,
            "Host '10.0.0.7' is blocked because of many connection errors",
        ),
        (1130, "Host '10.0.0.7' is not allowed to connect"),
        (
            1203,
            "User shop already has more than 'max_user_connections'",
        ),
    ] {
        let words = script::err(code, text);
        let server = Script::start(move |peer| peer.send(&words));
        let sidecar = kit::start(kit::patient(fixed(&[server.addr])));
        for target in kit::targets(&sidecar) {
            let mut client = client(&target);
            assert_eq!(read_err(&client.recv().unwrap()), (code, text.to_owned()));
            assert_eq!(kit::rest(&mut client.stream), b"");
            let said = log_in(&target);
            assert!(said.starts_with(&format!("{code} ")), "{said}");
        }
        kit::wait_ends(&sidecar, "login-refused", 4.0);
        sidecar
            .wait_log(&format!("error {code}: {text}"), LONG)
            .unwrap();
        assert_sound(&sidecar).unwrap();
    }
}

#[test]
fn a_server_that_shuts_down_is_tried_again() {
    for (code, text) in [
        (1053, "Server shutdown in progress"),
        (1047, "WSREP has not yet prepared node"),
    ] {
        let ready = Arc::new(AtomicBool::new(false));
        let seen = ready.clone();
        let server = Script::start(move |peer| match seen.load(Ordering::Relaxed) {
            true => peer.send(&script::greeting(CAPS, "mysql_native_password")),
            false => peer.send(&script::err(code, text)),
        });
        let sidecar = kit::start(kit::patient(fixed(&[server.addr])));
        let [target, _] = kit::targets(&sidecar);
        let mut client = client(&target);
        sidecar
            .wait_log(&format!("error {code}: {text}"), LONG)
            .unwrap();
        ready.store(true, Ordering::Relaxed);
        assert_eq!(client.recv().unwrap()[0], 10, "greeted after all");
        assert_sound(&sidecar).unwrap();
    }
}

#[test]
fn what_is_no_greeting_is_named_and_the_client_told() {
    for (bytes, said) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n"[..],
            "HTTP/1.1 400 Bad Request",
        ),
        (b"-ERR unknown command\r\n", "-ERR unknown command"),
        (b"\x05\0\0\0hello", "no greeting, but \"hello\""),
        (b"\x05\0\0\x07hello", "sequence id 7"),
        (b"\xff\xff\xff\0\x0a", "16777215 bytes"),
        (b"\x4a\0\0\0\x0a5.5", "hung up"),
        (b"", "hung up"),
    ] {
        let server = Script::start(move |peer| peer.packets.stream.write_all(bytes));
        let service = fixed(&[server.addr]).set("hold_timeout", "500ms");
        let sidecar = kit::start(service);
        let [target, _] = kit::targets(&sidecar);
        let mut client = client(&target);
        let (code, text) = read_err(&client.recv().unwrap());
        assert_eq!(
            (code, &text[..]),
            (1040, "Pilotfish: no primary for 'cache'")
        );
        assert_eq!(kit::rest(&mut client.stream), b"");
        sidecar.wait_log(said, LONG).unwrap();
        assert_sound(&sidecar).unwrap();
    }
}

#[test]
fn a_server_that_does_not_greet_is_given_up() {
    let server = Script::start(|peer| peer.recv().map(drop));
    let sidecar = kit::start(fixed(&[server.addr]).set("hold_timeout", "1s"));
    for target in kit::targets(&sidecar) {
        let (code, _) = read_err(&client(&target).recv().unwrap());
        assert_eq!(code, 1040);
        // Whoever leaves meanwhile is noticed.
        drop(client(&target));
    }
    sidecar
        .wait_log("it accepted, and did not greet", LONG)
        .unwrap();
    kit::wait_no_sessions(&sidecar);
}

#[test]
fn refusals_are_errors_in_place_of_the_greeting() {
    let server = Script::start(|peer| {
        peer.send(&script::greeting(CAPS, "x"))
            .and_then(|()| peer.recv().map(drop))
    });
    let sidecar = kit::start(fixed(&[server.addr]).line("max_connections = 1"));
    let [target, unix] = kit::targets(&sidecar);
    let mut first = client(&target);
    first.recv().unwrap();
    for target in [&target, &unix] {
        let (code, text) = read_err(&client(target).recv().unwrap());
        assert_eq!(
            (code, &text[..]),
            (1040, "Pilotfish: too many connections to 'cache'")
        );
        // PHP knows the state that belongs to it.
        let said = log_in(target);
        assert!(
            said.contains("1040 Pilotfish: too many connections"),
            "{said}"
        );
    }
    kit::wait_ends(&sidecar, "too-many", 4.0);
}

#[test]
fn clients_that_speak_another_protocol() {
    let server = Script::start(|peer| sha2(peer, &plain(true)));
    let sidecar = kit::start(fixed(&[server.addr]));
    let [target, _] = kit::targets(&sidecar);
    let caps = CAPS.to_le_bytes();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\xff\xff\xff\x01",
        b"\x01\0\0\x01x",
        b"\0\0\0\x01",
        b"\x05\0\0\x09shop\0",
        &[&b"\x24\0\0\x01"[..], &caps, &[0; 28], b"shop"].concat(),
    ] {
        let mut client = client(&target);
        assert_eq!(client.recv().unwrap()[0], 10);
        client.stream.write_all(bytes).unwrap();
        let said = kit::rest(&mut client.stream);
        assert_eq!(said[4..7], [0xff, 0x13, 0x04], "{}", said.escape_ascii());
    }
    kit::wait_ends(&sidecar, "protocol-error", 7.0);
    // Before the greeting; and those that leave.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b""] {
        let mut stream = Stream::connect(&target, LONG).unwrap();
        stream.write_all(bytes).unwrap();
        drop(stream);
    }
    kit::wait_no_sessions(&sidecar);
    assert_eq!(log_in(&target), "done\n");
    assert_sound(&sidecar).unwrap();
}

fn plain(cached: bool) -> Sha2 {
    Sha2 {
        cached,
        tls: None,
        sha256: false,
    }
}

#[test]
fn passwords_reach_a_plaintext_server_as_they_are() {
    for (how, note) in [
        (plain(true), "cached"),
        (plain(false), "full encrypted"),
        (
            Sha2 {
                sha256: true,
                ..plain(false)
            },
            "sha256 encrypted",
        ),
    ] {
        let server = Script::start(move |peer| sha2(peer, &how));
        let sidecar = kit::start(fixed(&[server.addr]));
        for target in kit::targets(&sidecar) {
            assert_eq!(log_in(&target), "done\n", "{target}: {note}");
            wait_notes(&server, &[note, note]);
        }
        kit::wait_no_sessions(&sidecar);
        assert_eq!(
            kit::ends(&sidecar, "client-closed") + kit::ends(&sidecar, "upstream-closed"),
            4.0
        );
        assert_sound(&sidecar).unwrap();
    }
}

#[test]
fn passwords_reach_a_server_behind_tls() {
    let certs = Certs::make(&["127.0.0.1"]).unwrap();
    let tls = Some(tls_config(&certs));
    for (cached, sha256, note) in [
        (true, false, "cached"),
        (false, false, "full bare"),
        (false, true, "sha256 bare"),
    ] {
        let how = Sha2 {
            cached,
            tls: tls.clone(),
            sha256,
        };
        let server = Script::start(move |peer| sha2(peer, &how));
        let sidecar = kit::start(fixed(&[server.addr]).section(&verified(&certs)));
        for target in kit::targets(&sidecar) {
            assert_eq!(log_in(&target), "done\n", "{target}: {note}");
            wait_notes(&server, &[note, note]);
        }
        let secrets = sidecar.log_lines(PASSWORD).unwrap();
        assert!(secrets.is_empty(), "{secrets:?}");
        assert_sound(&sidecar).unwrap();
    }
}

/// libmysqlclient holds a Unix socket to be safe, and shows its password there without being asked twice.
#[test]
fn a_bare_password_over_the_unix_socket() {
    let certs = Certs::make(&["127.0.0.1"]).unwrap();
    let bare = [PASSWORD.as_bytes(), b"\0"].concat();
    for (tls, note) in [
        (None, "full encrypted"),
        (Some(tls_config(&certs)), "full bare"),
    ] {
        let behind_tls = tls.is_some();
        let how = Sha2 {
            cached: false,
            tls,
            sha256: false,
        };
        let server = Script::start(move |peer| sha2(peer, &how));
        let service = fixed(&[server.addr]);
        let service = match behind_tls {
            true => service.section(&verified(&certs)),
            false => service,
        };
        let sidecar = kit::start(service);
        let [_, unix] = kit::targets(&sidecar);
        let mut client = client(&unix);
        let greeting = client.recv().unwrap();
        assert!(
            greeting
                .windows(20)
                .any(|w| w == b"8.0.36-script\0\x07\0\0\0ab")
        );
        let proof = script::scramble(PASSWORD.as_bytes());
        client
            .send(&script::response(CAPS, &proof, "caching_sha2_password"))
            .unwrap();
        assert_eq!(client.recv().unwrap(), [1, 4]);
        client.send(&bare).unwrap();
        assert_eq!(client.recv().unwrap(), script::OK);
        wait_notes(&server, &[note]);
        client.restart();
        client.send(b"\x0e").unwrap();
        assert_eq!(client.recv().unwrap(), script::OK);
    }
}

#[test]
fn a_wrong_password_is_the_servers_to_refuse() {
    let certs = Certs::make(&["127.0.0.1"]).unwrap();
    let how = Sha2 {
        cached: false,
        tls: Some(tls_config(&certs)),
        sha256: true,
    };
    let server = Script::start(move |peer| sha2(peer, &how));
    let sidecar = kit::start(fixed(&[server.addr]).section(&verified(&certs)));
    let [target, _] = kit::targets(&sidecar);
    let mut php = kit::php("mysqli-login.php", &target);
    let said = kit::run(php.env("SHOP_PASSWORD", "wrong"), b"");
    assert_eq!(said, "1045 Access denied\n");
    wait_notes(&server, &["sha256 bare wrong"]);
    kit::wait_ends(&sidecar, "login-refused", 1.0);
}

#[test]
fn requests_sent_with_the_login_are_not_lost() {
    let server = Script::start(|peer| sha2(peer, &plain(true)));
    let sidecar = kit::start(fixed(&[server.addr]));
    for target in kit::targets(&sidecar) {
        let mut client = client(&target);
        client.recv().unwrap();
        let proof = script::scramble(PASSWORD.as_bytes());
        let response = script::response(CAPS, &proof, "caching_sha2_password");
        let len = u8::try_from(response.len()).unwrap();
        let both = [&[len, 0, 0, 1][..], &response, b"\x01\0\0\0\x0e"].concat();
        client.stream.write_all(&both).unwrap();
        let mut said = [0; 5 + 1 + 2 * (4 + 7)];
        client.stream.read_exact(&mut said).unwrap();
        assert_eq!(said[..6], [2, 0, 0, 2, 1, 3]);
        assert_eq!(said[6..17], [&[7, 0, 0, 3][..], &script::OK].concat());
        assert_eq!(said[17..], [&[7, 0, 0, 1][..], &script::OK].concat());
    }
}

/// What is not understood after the login is passed on as it is: the server knows better.
#[test]
fn a_session_that_cannot_be_read_goes_on() {
    let server = Script::start(|peer| {
        peer.send(&script::greeting(CAPS, "mysql_native_password"))?;
        peer.recv()?;
        peer.send(&script::OK)?;
        std::io::copy(
            &mut Read::by_ref(&mut peer.packets.stream).take(1 << 20),
            &mut std::io::sink(),
        )?;
        peer.packets.stream.write_all(&[0xee; 100_000])
    });
    let sidecar = kit::start(fixed(&[server.addr]));
    for target in kit::targets(&sidecar) {
        let mut client = client(&target);
        client.recv().unwrap();
        let response = script::response(CAPS, b"", "mysql_native_password");
        client.send(&response).unwrap();
        assert_eq!(client.recv().unwrap(), script::OK);
        client.stream.write_all(&[0xdd; 1 << 20]).unwrap();
        assert_eq!(kit::rest(&mut client.stream), [0xee; 100_000]);
    }
    kit::wait_no_sessions(&sidecar);
    assert_sound(&sidecar).unwrap();
}

#[test]
fn no_password_is_sent_where_tls_is_wanted_and_cannot_be_had() {
    let (certs, others) = (
        Certs::make(&["127.0.0.1"]).unwrap(),
        Certs::make(&["127.0.0.1"]).unwrap(),
    );
    let server = Script::start(|peer| {
        let done = sha2(peer, &plain(true));
        if peer.recv().is_ok() {
            peer.note("it heard more than its greeting");
        }
        done
    });
    let service = fixed(&[server.addr])
        .set("hold_timeout", "500ms")
        .section(&verified(&certs));
    let sidecar = kit::start(service);
    let [target, _] = kit::targets(&sidecar);
    let said = log_in(&target);
    assert!(said.starts_with("1040 Pilotfish: no primary"), "{said}");
    sidecar.wait_log("it offers no TLS", LONG).unwrap();
    assert_eq!(server.take_notes(), Vec::<String>::new());

    let how = Sha2 {
        cached: true,
        tls: Some(tls_config(&others)),
        sha256: false,
    };
    let server = Script::start(move |peer| sha2(peer, &how));
    let sidecar = kit::start(fixed(&[server.addr]).section(&verified(&certs)));
    for target in kit::targets(&sidecar) {
        let said = log_in(&target);
        assert!(
            said.starts_with("2026 TLS to the server failed: "),
            "{said}"
        );
    }
    sidecar
        .wait_log("TLS to the server failed: ", LONG)
        .unwrap();
    assert_eq!(server.take_notes(), Vec::<String>::new());
    assert_sound(&sidecar).unwrap();
}

/// A command that is given up after a while, for clients that would wait for ever.
pub fn mariadb(target: &Target, password: &str) -> Command {
    let mut command = kit::program("mariadb");
    command.args([
        "--no-defaults",
        "--user=shop",
        "--batch",
        "--skip-column-names",
    ]);
    match target {
        Target::Tcp(addr) => command
            .arg("--protocol=tcp")
            .arg(format!("--host={}", addr.ip()))
            .arg(format!("--port={}", addr.port())),
        Target::Unix(path) => command.arg(format!("--socket={}", path.display())),
    };
    command.arg(format!("--password={password}"));
    command
}

#[test]
fn mariadbs_own_client_shows_its_password_to_mysql() {
    let certs = Certs::make(&["127.0.0.1"]).unwrap();
    for (tls, note) in [
        (None, "full encrypted"),
        (Some(tls_config(&certs)), "full bare"),
    ] {
        let behind_tls = tls.is_some();
        let how = Sha2 {
            cached: false,
            tls,
            sha256: false,
        };
        let server = Script::start(move |peer| sha2(peer, &how));
        let service = fixed(&[server.addr]);
        let service = match behind_tls {
            true => service.section(&verified(&certs)),
            false => service,
        };
        let sidecar = kit::start(service);
        for target in kit::targets(&sidecar) {
            let said = kit::run(mariadb(&target, PASSWORD).args(["-e", "DO 1"]), b"");
            assert_eq!(said, "", "{target}");
            wait_notes(&server, &[note]);
        }
    }
}

/// Whoever hangs up within a handshake is counted, and a hundred times in a row block a host.
#[test]
fn no_handshake_is_left_half_done() {
    let server = Script::start(|peer| {
        peer.send(&script::greeting(CAPS, "mysql_native_password"))?;
        let Ok(response) = peer.recv() else {
            peer.note("hung up");
            return Ok(());
        };
        let user = response[32..].split(|b| *b == 0).next().unwrap();
        peer.note(String::from_utf8_lossy(user));
        peer.send(&[b"\xfemysql_native_password\0", &script::NONCE[..], b"\0"].concat())?;
        if peer.recv()? != b"" {
            peer.note("a password");
        }
        peer.send(&script::err(1045, "#28000Access denied"))
    });
    let sidecar = kit::start(fixed(&[server.addr]));
    wait_notes(&server, &["pilotfish-knocks"]);
    let [target, _] = kit::targets(&sidecar);
    for bytes in [&b""[..], b"GET /"] {
        let mut client = client(&target);
        client.recv().unwrap();
        client.stream.write_all(bytes).unwrap();
        drop(client);
    }
    kit::wait_no_sessions(&sidecar);
    let mut left = 0;
    wait::until_true("the clients to be seen off", LONG, || {
        let notes = server.take_notes();
        assert!(notes.iter().all(|it| it == "pilotfish-knocks"), "{notes:?}");
        left += notes.len();
        // Two of them, and probes.
        Ok(left >= 4)
    })
    .unwrap();
}
