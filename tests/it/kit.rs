//! What several subjects need: servers and sidecars as they are usually started, client programs, raw bytes.
#![allow(clippy::unwrap_used)] // it allows tests, and not what helps them

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use pilotfish_harness::process::find_program;
use pilotfish_harness::redis::{RedisConf, RedisServer, Role};
use pilotfish_harness::resp::{Conn, Stream, Target, Value};
use pilotfish_harness::sidecar::{Config, Service, Sidecar, Until};
use pilotfish_harness::wait;

/// For what should happen soon, on a machine that has other things to do.
pub const LONG: Duration = Duration::from_secs(30);
/// A command of a 100 MB value between three busy processes.
pub const VERY_LONG: Duration = Duration::from_secs(120);

pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_pilotfish"))
}

pub fn redis() -> RedisServer {
    RedisServer::start(&RedisConf::default()).unwrap()
}

/// A replica whose link to `master` is up.
pub fn replica_of(master: &RedisServer) -> RedisServer {
    let conf = RedisConf {
        replica_of: Some(master.addr),
        ..RedisConf::default()
    };
    let replica = RedisServer::start(&conf).unwrap();
    wait_follows(&replica, master.addr);
    replica
}

pub fn wait_follows(replica: &RedisServer, master: SocketAddr) {
    let wanted = Role::Replica {
        master,
        link_up: true,
    };
    wait::until_true("a replica to follow its master", LONG, || {
        Ok(replica.role()? == wanted)
    })
    .unwrap();
}

/// What an operator types to move the master without Sentinel.
pub fn move_master(old: &RedisServer, new: &RedisServer) {
    replicaof(old, new.addr);
    new.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
}

pub fn replicaof(node: &RedisServer, master: SocketAddr) {
    let (host, port) = (master.ip().to_string(), master.port().to_string());
    node.command(&["REPLICAOF", &host, &port]).unwrap();
}

/// Redis without sentinels. Long patience: what is not about its end must not depend on it.
pub fn cache(nodes: &[SocketAddr]) -> Service {
    Service::new("cache", "redis")
        .unwrap()
        .discover("kind", "redis")
        .discover_all("nodes", nodes)
        .discover("probe_interval", "500ms")
}

/// Bytes, to the first of `nodes` that accepts.
pub fn bytes(nodes: &[SocketAddr]) -> Service {
    Service::new("cache", "tcp")
        .unwrap()
        .discover("kind", "static")
        .discover_all("nodes", nodes)
        .discover("probe_interval", "100ms")
}

/// With a hold that no test wants to see the end of.
pub fn patient(service: Service) -> Service {
    service.set("hold_timeout", "60s")
}

pub fn config(service: Service) -> Config {
    Config::new().unwrap().line("workers = 2").service(service)
}

/// Proven when this returns.
pub fn start(service: Service) -> Sidecar {
    Sidecar::start(binary(), config(service), Until::Healthy).unwrap()
}

/// As [`start`], with a whole config.
pub fn start_config(config: Config) -> Sidecar {
    Sidecar::start(binary(), config, Until::Healthy).unwrap()
}

/// Listening when this returns, with or without a primary.
pub fn start_without_primary(service: Service) -> Sidecar {
    Sidecar::start(binary(), config(service), Until::Live).unwrap()
}

/// Both ways into the service `cache`.
pub fn targets(sidecar: &Sidecar) -> [Target; 2] {
    [
        sidecar.tcp("cache").unwrap().into(),
        sidecar.unix("cache").unwrap().as_path().into(),
    ]
}

pub fn connect(target: &Target) -> Conn {
    Conn::connect(target, LONG).unwrap()
}

pub fn client(sidecar: &Sidecar) -> Conn {
    sidecar.client("cache", LONG).unwrap()
}

pub fn say(conn: &mut Conn, command: &[&str]) -> Value {
    conn.command(command).unwrap()
}

pub fn ok() -> Value {
    Value::Simple("OK".into())
}

pub fn wait_metric(sidecar: &Sidecar, name: &str, labels: &[(&str, &str)], wanted: f64) {
    let mut last = 0.0;
    let outcome = wait::until_true(&format!("{name} {labels:?} to be {wanted}"), LONG, || {
        last = sidecar.metric(name, labels)?;
        Ok(last == wanted)
    });
    if let Err(error) = outcome {
        panic!("{error:#}; it is {last}; {}", sidecar.server().log_tail());
    }
}

pub fn wait_held(sidecar: &Sidecar, wanted: usize) {
    wait_metric(sidecar, "held_clients", &[], wanted as f64);
}

pub fn wait_no_sessions(sidecar: &Sidecar) {
    wait_metric(sidecar, "sessions_active", &[], 0.0);
}

pub fn ends(sidecar: &Sidecar, reason: &str) -> f64 {
    sidecar
        .metric("session_ends_total", &[("reason", reason)])
        .unwrap()
}

pub fn wait_ends(sidecar: &Sidecar, reason: &str, wanted: f64) {
    wait_metric(sidecar, "session_ends_total", &[("reason", reason)], wanted);
}

/// Waits until the service has no primary.
pub fn wait_bereft(sidecar: &Sidecar) {
    let none = |health: &serde_json::Value| health["services"]["cache"]["primary"].is_null();
    sidecar
        .wait_health("the primary to be given up", LONG, none)
        .unwrap();
}

/// Everything until the other side closes.
pub fn rest(stream: &mut Stream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

/// Resets the connection instead of closing it.
pub fn reset(stream: std::net::TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// 100 MB that no compression or repetition could stand for.
pub fn large_value() -> &'static [u8] {
    static VALUE: OnceLock<Vec<u8>> = OnceLock::new();
    VALUE.get_or_init(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut value = Vec::with_capacity(100 * 1024 * 1024);
        while value.len() < 100 * 1024 * 1024 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            value.extend_from_slice(&state.to_le_bytes());
        }
        value
    })
}

/// `SET key value` as bytes of which the value is sent as it is.
pub fn set_large(conn: &mut Conn, key: &str, value: &[u8]) -> Value {
    let head = format!(
        "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n",
        key.len(),
        value.len()
    );
    conn.send_raw(head.as_bytes()).unwrap();
    conn.send_raw(value).unwrap();
    conn.send_raw(b"\r\n").unwrap();
    conn.read_value().unwrap()
}

/// A client program. It ends with the test, or after two minutes.
pub fn program(name: &str) -> Command {
    let setpriv = find_program("setpriv").unwrap();
    let program = find_program(name).unwrap_or_else(|error| panic!("{error:#}"));
    let mut command = Command::new(&setpriv);
    command.args(["--pdeathsig", "KILL", "timeout", "120"]);
    command
        .arg(setpriv)
        .args(["--pdeathsig", "KILL"])
        .arg(program);
    command
}

/// A script of `tests/it/php`, to be run against `target`.
pub fn php(script: &str, target: &Target) -> Command {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/php")
        .join(script);
    let mut command = program("php");
    command.arg(path);
    match target {
        Target::Tcp(addr) => command
            .arg(addr.ip().to_string())
            .arg(addr.port().to_string()),
        Target::Unix(path) => command.arg(path),
    };
    command
}

/// Runs to the end, which must be a good one; returns what was printed.
pub fn run(command: &mut Command, input: &[u8]) -> String {
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // A pipe's worth of input at most, or the child reads before it writes.
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{out}\n{err}",
        output.status
    );
    out
}

/// What a run of the binary under test said, on both outputs, and its exit code.
pub fn pilotfish(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary())
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let all = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&all).into_owned(),
    )
}

/// A control command for `sidecar`.
pub fn control(sidecar: &Sidecar, args: &[&str]) -> (Option<i32>, String) {
    let socket = sidecar.admin_socket();
    let socket = socket.to_str().unwrap();
    pilotfish(&[args, &["--socket", socket]].concat())
}

/// The status of the service `cache`, as the admin socket shows it.
pub fn status(sidecar: &Sidecar) -> serde_json::Value {
    let answer = sidecar.admin("GET", "/v1/services/cache", "").unwrap();
    serde_json::from_str(&answer.body).unwrap()
}

/// A client program that is talked to while it runs.
pub struct Talk {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Talk {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            child,
            input,
            output: BufReader::new(output),
        }
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
