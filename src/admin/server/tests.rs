use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Output;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::admin::client::{self, ClientError};
use crate::admin::command::Command;
use crate::admin::controls::Controls;
use crate::admin::status::{ServiceStatus, Status, Word};
use crate::gate::HoldReason;
use crate::monitor::Trouble;
use crate::monitor::report::{NodeReport, Report, SourceReport};
use crate::net::UnixStream;
use crate::net::listen::control_listener;
use crate::telemetry::sample::Sample;

const GENEROUS: Duration = Duration::from_secs(20);
const SOCKET: &str = "PILOTFISH_TEST_SOCKET";

/// Runs `client` beside `admin`, on one thread as in the real process.
async fn beside(admin: Admin, sample: &Sample, client: impl Future<Output = ()>) {
    let stop = CancellationToken::new();
    let server = admin.serve(Controls::of(sample), stop.clone());
    let client = async {
        tokio::time::timeout(GENEROUS, client).await.unwrap();
        stop.cancel();
    };
    tokio::join!(server, client);
}

fn socket() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    // Others have to be able to come as far as the socket.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("admin.sock");
    (dir, path)
}

fn mode_of(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Something of everything.
fn busy() -> Sample {
    let sample = Sample::proven();
    sample.gate.hold(HoldReason::Fence);
    sample.report.send_replace(Arc::new(Report {
        fenced: true,
        troubles: vec![Trouble::Minority { count: 1, of: 3 }],
        nodes: vec![NodeReport {
            address: "10.0.0.2:6379".parse().unwrap(),
            role: "replica",
            up: true,
            lag_bytes: Some(42),
            lag_seconds: None,
            detail: Some("link is up".into()),
        }],
        sources: vec![SourceReport {
            address: "10.0.0.9:26379".parse().unwrap(),
            up: false,
            says: "connection refused".into(),
        }],
        ..Report::empty(sample.surface.clock.now())
    }));
    sample
}

#[tokio::test]
async fn status_comes_through_the_socket() {
    let (_dir, path) = socket();
    let admin = Admin::bind(&path, 0o600, &[]).unwrap();
    assert_eq!(mode_of(&path), 0o600);
    let sample = busy();
    beside(admin, &sample, async {
        let (code, body) = client::ask(&path, &Command::Status).await.unwrap();
        assert_eq!(code, 200);
        let status: Status = serde_json::from_slice(&body).unwrap();
        assert_eq!((status.name.as_str(), status.region), ("app-01", None));
        assert_eq!(status.pid, std::process::id());
        assert_eq!(status.health.status, Word::Degraded);
        let reason = "cache: no majority: 1 of 3 sentinels in reach";
        assert_eq!(status.health.reason.as_deref(), Some(reason));

        let one = Command::Service("cache".into());
        let (code, body) = client::ask(&path, &one).await.unwrap();
        assert_eq!(code, 200);
        let service: ServiceStatus = serde_json::from_slice(&body).unwrap();
        assert_eq!(status.services, std::slice::from_ref(&service));
        assert_eq!(service.primary.as_deref(), Some("10.0.0.1:6379"));
        assert_eq!((service.term, service.generation), (Some(7), 1));
        assert_eq!(
            (service.cause.as_str(), service.held),
            ("proven", vec!["fence".to_owned()])
        );
        assert_eq!(service.endpoints[0].lag_bytes, Some(42));
        assert_eq!(service.sources[0].says, "connection refused");
        assert_eq!(service.troubles.len(), 1);
    })
    .await;
    assert!(!path.exists(), "the socket goes with its owner");
}

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    let (_dir, path) = socket();
    let admin = Admin::bind(&path, 0o600, &[]).unwrap();
    let sample = Sample::unproven();
    beside(admin, &sample, async {
        for (target, said) in [
            ("/v1/services/none", "there is no such service: there is cache"),
            ("/v1/services/a%20b", "there is no such service"),
            ("/v2/status", "there is GET /v1/status"),
        ] {
            let (code, body) = client::get(&path, target).await.unwrap();
            let problem: Problem = serde_json::from_slice(&body).unwrap();
            assert_eq!((code, problem.status), (404, 404));
            assert!(problem.detail.contains(said), "{problem:?}");
        }
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let post = b"POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
        stream.write_all(post).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("\r\nallow: GET\r\n"), "{answer}");
        assert!(answer.contains("\r\ncontent-type: application/problem+json\r\n"));
    })
    .await;
}

#[tokio::test]
async fn the_process_is_not_there_or_is_another() {
    let (_dir, path) = socket();
    let failed = async || client::get(&path, "/v1/status").await.unwrap_err();
    let error = failed().await;
    assert!(matches!(error, ClientError::NoSocket(_)), "{error}");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let error = failed().await;
    assert!(matches!(error, ClientError::NotRunning(_)), "{error}");
    std::fs::remove_file(&path).unwrap();

    for said in [
        "",
        "-ERR unknown command\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{",
    ] {
        let (bound, listener) =
            control_listener(&Addr::Unix(path.as_path().into()), 0o600).unwrap();
        let other = async {
            let mut stream = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(said.as_bytes()).await;
        };
        let (error, ()) = tokio::join!(failed(), other);
        assert!(
            matches!(error, ClientError::Nonsense { .. }),
            "{said}: {error}"
        );
        drop(bound);
    }
}

/// The client, as another user: what `as_somebody` runs.
async fn ask_for_status(path: &Path) {
    match client::get(path, "/v1/status").await {
        Ok((code, body)) => println!("ANSWER {code} {}", String::from_utf8_lossy(&body)),
        Err(error) => println!("ANSWER none: {error}"),
    }
}

/// Runs the client as another user and group; only root can.
async fn as_somebody(path: &Path, uid: u32, gid: u32) -> String {
    // By this name it is found even where that user may not look.
    let mut child = std::process::Command::new("/proc/self/exe");
    child
        .args(["--exact", OTHER_USERS])
        .arg("--nocapture")
        .env(SOCKET, path)
        .current_dir("/")
        .uid(uid)
        .gid(gid);
    let ran = tokio::task::spawn_blocking(move || child.output()).await;
    let Output { stdout, stderr, .. } = ran.unwrap().unwrap();
    let text = String::from_utf8_lossy(&stdout);
    let answer = text.lines().find_map(|line| line.split_once("ANSWER "));
    let said = String::from_utf8_lossy(&stderr);
    answer
        .unwrap_or_else(|| panic!("{text}{said}"))
        .1
        .to_owned()
}

fn group_of(gid: u32) -> String {
    let group = nix::unistd::Group::from_gid(nix::unistd::Gid::from_raw(gid));
    group.unwrap().unwrap().name
}

const OTHER_USERS: &str = "admin::server::tests::other_users_are_refused_unless_their_group_may";

#[tokio::test]
async fn other_users_are_refused_unless_their_group_may() {
    const NOBODY: u32 = 65534;
    if let Some(path) = std::env::var_os(SOCKET) {
        return ask_for_status(Path::new(&path)).await;
    }
    if !rustix::process::geteuid().is_root() {
        return refused_in_process().await;
    }
    let sample = Sample::proven();
    for (mode, groups, gid, said) in [
        (0o600, vec![], NOBODY, "none: no permission to connect to "),
        (0o666, vec![], NOBODY, "403 "),
        (0o600, vec![group_of(0)], NOBODY, "403 "),
        (0o600, vec![group_of(0)], 0, "200 "),
    ] {
        let (_dir, path) = socket();
        let admin = Admin::bind(&path, mode, &groups).unwrap();
        beside(admin, &sample, async {
            let answer = as_somebody(&path, NOBODY, gid).await;
            assert!(
                answer.starts_with(said),
                "{mode:o} {groups:?} {gid}: {answer}"
            );
            assert_eq!(answer.contains("10.0.0.1"), said == "200 ", "{answer}");
            let (code, _) = client::get(&path, "/v1/status").await.unwrap();
            assert_eq!(code, 200, "root always may");
        })
        .await;
    }
}

/// Without root there is no other user, but the socket can belong to one.
async fn refused_in_process() {
    let (_dir, path) = socket();
    let mut admin = Admin::bind(&path, 0o600, &[]).unwrap();
    admin.policy = Policy::owned_by(rustix::process::geteuid().as_raw() + 1, &[]);
    let sample = Sample::proven();
    beside(admin, &sample, async {
        let (code, body) = client::get(&path, "/v1/status").await.unwrap();
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!((code, problem.status), (403, 403));
    })
    .await;
}

#[tokio::test]
async fn a_mode_that_would_keep_the_groups_out_is_widened() {
    for (mode, groups, is) in [
        (0o600, vec![], 0o600),
        (0o660, vec!["x".to_owned()], 0o660),
        (0o600, vec!["x".to_owned()], 0o666),
    ] {
        let (_dir, path) = socket();
        let _admin = Admin::bind(&path, mode, &groups).unwrap();
        assert_eq!(mode_of(&path), is);
    }
}
