use std::path::{Path as FilePath, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::addr::Addr;
use crate::drain::Phase;
use crate::net::UnixStream;
use crate::net::listen::control_listener;
use crate::telemetry::sample::Sample;
use crate::topology::Cause;

const GENEROUS: Duration = Duration::from_secs(20);

/// Runs `client` beside a server of `sample`, on one thread as in the real process.
async fn beside<F: Future<Output = ()>>(
    sample: &Sample,
    bounds: Bounds,
    client: impl FnOnce(PathBuf) -> F,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("http.sock");
    let (_bound, listener) = control_listener(&Addr::Unix(path.as_path().into()), 0o600).unwrap();
    let stop = CancellationToken::new();
    let server = serve_within(bounds, listener, sample.surface.clone(), stop.clone());
    let client = async {
        tokio::time::timeout(GENEROUS, client(path)).await.unwrap();
        stop.cancel();
    };
    tokio::join!(server, client);
}

/// Sends bytes and reads until the server closes.
async fn raw(path: &FilePath, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = stream.write_all(bytes).await;
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn ask(path: &FilePath, method: &str, target: &str) -> String {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    raw(path, request.as_bytes()).await
}

fn body(answer: &str) -> &str {
    answer
        .split_once("\r\n\r\n")
        .expect("an answer has a head")
        .1
}

#[tokio::test]
async fn every_path_with_every_method() {
    let sample = Sample::proven();
    beside(&sample, BOUNDS, async |path| {
        for target in [
            "/healthz",
            "/healthz/cache",
            "/readyz",
            "/livez",
            "/metrics",
            "/livez?a=b",
            "/",
            "/page/updates",
        ] {
            let get = ask(&path, "GET", target).await;
            assert!(get.starts_with("HTTP/1.1 200 OK\r\n"), "{target}: {get}");
            assert!(!body(&get).is_empty());
            let head = ask(&path, "HEAD", target).await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{target}: {head}");
            assert_eq!(body(&head), "");
            let options = ask(&path, "OPTIONS", target).await;
            assert!(
                options.starts_with("HTTP/1.1 200 OK\r\n"),
                "{target}: {options}"
            );
            for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
                let no = ask(&path, method, target).await;
                assert!(no.starts_with("HTTP/1.1 405 "), "{method} {target}: {no}");
                assert!(no.contains("\r\nallow: GET, HEAD, OPTIONS\r\n"), "{no}");
            }
        }
        for target in [
            "/page",
            "/healthz/",
            "/healthz/none",
            "/healthz/%ff",
            "/nothing",
            "/healthz/a/b",
        ] {
            let no = ask(&path, "GET", target).await;
            let refused = no.starts_with("HTTP/1.1 404 ") || no.starts_with("HTTP/1.1 400 ");
            assert!(refused, "{target}: {no}");
        }
        let unknown = ask(&path, "GET", "/healthz/none").await;
        assert!(unknown.contains("application/problem+json"), "{unknown}");
        let problem: Problem = serde_json::from_str(body(&unknown)).unwrap();
        assert_eq!((problem.status, problem.title.as_str()), (404, "Not Found"));
        // HAProxy's `option httpchk` sends this.
        let old = raw(&path, b"OPTIONS /healthz HTTP/1.0\r\n\r\n").await;
        assert!(old.starts_with("HTTP/1.0 200 OK\r\n"), "{old}");
    })
    .await;
}

#[tokio::test]
async fn health_follows_the_service() {
    let mut sample = Sample::unproven();
    for (step, http, status) in [
        ("new", "503", "failing"),
        ("proven", "200", "ok"),
        ("lost", "200", "degraded"),
        ("drained", "503", "draining"),
    ] {
        match step {
            "proven" => sample.publish("10.0.0.1:6379".parse().ok(), Cause::Proven),
            "lost" => sample.publish(None, Cause::RoleLost),
            "drained" => sample.drain.set(Phase::Draining),
            _ => {}
        }
        beside(&sample, BOUNDS, async |path| {
            for target in ["/healthz", "/healthz/cache", "/readyz"] {
                let answer = ask(&path, "GET", target).await;
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {http} ")),
                    "{step}: {answer}"
                );
                let json: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
                assert_eq!(json["status"], status, "{step}: {answer}");
            }
            let alive = ask(&path, "GET", "/livez").await;
            assert!(alive.starts_with("HTTP/1.1 200 "), "{alive}");
        })
        .await;
    }
}

#[tokio::test]
async fn metrics_have_names_kinds_and_values() {
    let sample = Sample::unproven();
    beside(&sample, BOUNDS, async |path| {
        let answer = ask(&path, "GET", "/metrics").await;
        assert!(
            answer.contains("\r\ncontent-type: text/plain; version=0.0.4"),
            "{answer}"
        );
        let version = format!(
            "pilotfish_build_info{{version=\"{}\"}} 1\n",
            env!("CARGO_PKG_VERSION")
        );
        for said in [
            "# TYPE pilotfish_health_status gauge\npilotfish_health_status 3\n",
            "# HELP pilotfish_health_status 0 ok, 1 degraded",
            version.as_str(),
            "# TYPE process_open_fds gauge\nprocess_open_fds ",
            "# HELP process_resident_memory_bytes ",
        ] {
            assert!(answer.contains(said), "{said}: {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn garbage_is_answered_or_closed_and_delays_nobody() {
    let sample = Sample::proven();
    let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'a'; 100_000]].concat();
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1000));
    beside(&sample, BOUNDS, async |path| {
        for garbage in [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello, I speak TLS\r\n\r\n".as_slice(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"\0\0\0\0\0\0\0\0\r\n\r\n",
            b"GET /healthz\r\n\r\n",
            b"GET http://[ HTTP/1.1\r\n\r\n",
            b"GET /healthz HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            &endless,
            many.as_bytes(),
        ] {
            let answer = raw(&path, garbage).await;
            let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
            assert!(refused, "{answer}");
        }
        let fine = ask(&path, "GET", "/healthz").await;
        assert!(fine.starts_with("HTTP/1.1 200 "), "{fine}");
    })
    .await;
}

#[tokio::test]
async fn slow_clients_delay_nobody_and_are_closed() {
    let sample = Sample::proven();
    beside(&sample, BOUNDS, async |path| {
        let mut half = UnixStream::connect(&path).await.unwrap();
        half.write_all(b"GET /healthz HTTP/1.1\r\nHo")
            .await
            .unwrap();
        let mut silent = UnixStream::connect(&path).await.unwrap();
        let mut idle = UnixStream::connect(&path).await.unwrap();
        idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        // One that asks and never reads.
        let mut deaf = UnixStream::connect(&path).await.unwrap();
        let ask_much = async {
            let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(10_000);
            let _ = deaf.write_all(&request).await;
        };
        let others = async {
            for _ in 0..20 {
                let answer = ask(&path, "GET", "/healthz").await;
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            }
            let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
            // All three end, each by the head's timeout.
            let _ = half.read_to_end(&mut a).await;
            let _ = silent.read_to_end(&mut b).await;
            let _ = idle.read_to_end(&mut c).await;
            assert!(
                c.starts_with(b"HTTP/1.1 200 OK"),
                "kept open, answered, then closed"
            );
        };
        tokio::select! {
            () = others => {}
            () = async { tokio::join!(ask_much, std::future::pending::<()>()); } => {}
        }
    })
    .await;
}

#[tokio::test]
async fn beyond_the_limit_connections_are_closed_and_places_come_back() {
    let sample = Sample::proven();
    let bounds = Bounds { most: 2, ..BOUNDS };
    beside(&sample, bounds, async |path| {
        let mut kept = Vec::new();
        for _ in 0..2 {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream
                .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            kept.push(stream);
        }
        let mut third = UnixStream::connect(&path).await.unwrap();
        let closed = third.read(&mut [0; 16]).await;
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
        drop(kept);
        // The server has to notice first.
        while !ask(&path, "GET", "/livez")
            .await
            .starts_with("HTTP/1.1 200 ")
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn over_tcp_too() {
    let sample = Sample::proven();
    // The kernel names a free port.
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = probe.local_addr().unwrap();
    drop(probe);
    let (_bound, listener) = control_listener(&Addr::Ip(addr), 0).unwrap();
    let stop = CancellationToken::new();
    let server = serve(listener, sample.surface.clone(), stop.clone());
    let client = async {
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let request = b"GET /healthz/cache HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\"primary\":\"10.0.0.1:6379\""), "{answer}");
        stop.cancel();
    };
    tokio::time::timeout(GENEROUS, async { tokio::join!(server, client) })
        .await
        .unwrap();
}

#[tokio::test]
async fn nobody_holds_a_connection_for_ever() {
    let sample = Sample::proven();
    let mut bounds = BOUNDS;
    bounds.patience.lifetime = Some(Duration::from_millis(100));
    bounds.patience.head = Duration::from_secs(3600);
    beside(&sample, bounds, async |path| {
        // Asks and never reads: it is closed although it has not got its answers.
        let mut deaf = UnixStream::connect(&path).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(10_000);
        let error = deaf.write_all(&request).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        let mut silent = UnixStream::connect(&path).await.unwrap();
        assert!(matches!(silent.read(&mut [0; 16]).await, Ok(0) | Err(_)));
    })
    .await;
}
