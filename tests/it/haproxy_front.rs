//! HAProxy in front of two app servers, each with its own sidecar: with the very file that the documentation
//! shows, `docker/haproxy/haproxy.cfg`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pilotfish_harness::process::{Launch, Server, find_program};
use pilotfish_harness::redis::{MASTER_NAME, Options, RedisCluster};
use pilotfish_harness::resp::Conn;
use pilotfish_harness::sidecar::{Config, Service, Sidecar, Until};
use pilotfish_harness::{ports, scratch, wait};

use crate::kit::{self, LONG};

const CONFIG: &str = include_str!("../../docker/haproxy/haproxy.cfg");
/// Clients at a time; so many requests are under way when something happens.
const CLIENTS: usize = 4;

/// A shop of one page: each request is one write through the sidecar of this server.
struct App {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl App {
    fn start(name: &'static str, redis: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let count = Arc::new(AtomicU64::new(0));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let count = count.clone();
                std::thread::spawn(move || {
                    let number = count.fetch_add(1, Ordering::Relaxed);
                    // Whoever asked may be gone.
                    let _ = answer(stream, name, &format!("{name}:{number}"), redis);
                });
            }
        });
        Self { addr, stop }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It looks when somebody comes.
        let _ = TcpStream::connect(self.addr);
    }
}

fn answer(mut stream: TcpStream, name: &str, key: &str, redis: SocketAddr) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LONG))?;
    let mut head = Vec::new();
    let mut bytes = [0; 1024];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            n => head.extend_from_slice(&bytes[..n]),
        }
    }
    let written = Conn::connect(&redis.into(), LONG)
        .and_then(|mut conn| conn.command(&["SET", key, "1"]))
        .map(|reply| format!("{reply:?}"));
    let (status, body) = match written {
        Ok(reply) if reply == format!("{:?}", kit::ok()) => ("200 OK", name.to_owned()),
        Ok(reply) => ("500 Refused", reply),
        Err(error) => ("500 Failed", format!("{error:#}")),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes())
}

/// HAProxy with the documented file, at other addresses.
struct Front {
    addr: SocketAddr,
    stats: PathBuf,
    server: Server,
    _dir: scratch::Dir,
}

impl Front {
    fn start(apps: [(&App, &Site); 2]) -> Self {
        let dir = scratch::Dir::new().unwrap();
        let (addr, stats) = (ports::free().unwrap(), dir.join("stats.sock"));
        let mut text = CONFIG.to_owned();
        let mut replace = |documented: &str, ours: String| {
            assert!(text.contains(documented), "{documented} is not in the file");
            text = text.replace(documented, &ours);
        };
        replace("bind :80", format!("bind {addr}"));
        replace("/run/haproxy/admin.sock", stats.display().to_string());
        for (n, (app, site)) in apps.into_iter().enumerate() {
            let host = format!(
                "10.0.0.1{}:80 check port 8600 agent-check agent-port 8601",
                n + 1
            );
            let (health, agent) = (site.sidecar.config().http.port(), site.agent.port());
            let ours = format!(
                "{} check port {health} agent-check agent-port {agent}",
                app.addr
            );
            replace(&host, ours);
        }
        let file = dir.join("haproxy.cfg");
        std::fs::write(&file, text).unwrap();
        let program = find_program("haproxy").unwrap();
        let mut launch = Launch::new("haproxy", &program, &dir.join("haproxy.log")).unwrap();
        launch.command().args(["-db", "-f"]).arg(&file);
        let front = Self {
            addr,
            stats,
            server: launch.start().unwrap(),
            _dir: dir,
        };
        wait::until_true("haproxy to see both servers", LONG, || {
            front.server.check_running()?;
            Ok(front
                .states()
                .is_ok_and(|states| states.values().filter(|s| *s == "UP").count() == 2))
        })
        .unwrap();
        front
    }

    /// What HAProxy thinks of each server: field 18 of its statistics.
    fn states(&self) -> std::io::Result<BTreeMap<String, String>> {
        let mut socket = UnixStream::connect(&self.stats)?;
        socket.write_all(b"show stat\n")?;
        let mut csv = String::new();
        socket.read_to_string(&mut csv)?;
        let state = |line: &str| {
            let fields: Vec<&str> = line.split(',').collect();
            let (backend, name) = (*fields.first()?, *fields.get(1)?);
            let ours = backend == "app" && name.starts_with("app-");
            ours.then(|| (name.to_owned(), fields.get(17).unwrap_or(&"").to_string()))
        };
        Ok(csv.lines().filter_map(state).collect())
    }
}

struct Site {
    sidecar: Sidecar,
    agent: SocketAddr,
}

impl Site {
    fn start(cluster: &RedisCluster) -> Self {
        let agent = ports::free().unwrap();
        let service = Service::sentinel("cache", cluster).unwrap();
        let service = service.set("hold_timeout", "25s");
        let mut config = Config::new().unwrap().line("workers = 1").service(service);
        config.http_lines.push(format!("agent = \"{agent}\""));
        let sidecar = Sidecar::start(kit::binary(), config, Until::Healthy).unwrap();
        Self { sidecar, agent }
    }
}

/// One request: when it began and ended, and who answered or what went wrong.
#[derive(Clone, Debug)]
struct Request {
    begun: Instant,
    ended: Instant,
    outcome: Result<String, String>,
}

/// Clients that ask one page after the other, each on a connection of its own.
struct Load {
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

fn ask(front: SocketAddr) -> Result<String, String> {
    let fail = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(front).map_err(fail)?;
    stream.set_read_timeout(Some(LONG)).map_err(fail)?;
    let request = b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
    stream.write_all(request).map_err(fail)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(fail)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(answer),
    }
}

impl Load {
    fn start(front: SocketAddr) -> Self {
        let (requests, stop) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicBool::new(false)),
        );
        let client = |_| {
            let (requests, stop) = (requests.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let outcome = ask(front);
                    let ended = Instant::now();
                    let request = Request {
                        begun,
                        ended,
                        outcome,
                    };
                    requests.lock().unwrap().push(request);
                    // Two busy processors are for those who answer.
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self {
            requests,
            stop,
            clients,
        }
    }

    /// Waits until so many requests that began after `t` were answered; says how many by whom.
    fn wait(
        &self,
        t: Instant,
        mut wanted: impl FnMut(&BTreeMap<String, usize>) -> bool,
    ) -> BTreeMap<String, usize> {
        let mut by = BTreeMap::new();
        wait::until_true("requests to be answered", Duration::from_secs(60), || {
            by.clear();
            for request in self.requests.lock().unwrap().iter().filter(|r| r.begun > t) {
                if let Ok(name) = &request.outcome {
                    *by.entry(name.clone()).or_default() += 1;
                }
            }
            Ok(wanted(&by))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {by:?}"));
        by
    }

    fn end(self) -> Vec<Request> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        let requests = self.requests.lock().unwrap();
        requests.clone()
    }
}

fn errors(requests: &[Request]) -> Vec<&Request> {
    requests
        .iter()
        .filter(|request| request.outcome.is_err())
        .collect()
}

/// The whole stage; dropped from top to bottom.
struct Stage {
    front: Front,
    _apps: [App; 2],
    sites: [Site; 2],
    cluster: RedisCluster,
}

fn stage() -> Stage {
    let cluster = RedisCluster::start(Options::default()).unwrap();
    let sites = [Site::start(&cluster), Site::start(&cluster)];
    let app = |name, site: &Site| App::start(name, site.sidecar.tcp("cache").unwrap());
    let apps = [app("app-01", &sites[0]), app("app-02", &sites[1])];
    let front = Front::start([(&apps[0], &sites[0]), (&apps[1], &sites[1])]);
    Stage {
        front,
        _apps: apps,
        sites,
        cluster,
    }
}

/// How many milliseconds of silence the sentinels take for a failure.
fn notice_after(cluster: &RedisCluster, milliseconds: &str) {
    let set = ["SENTINEL", "SET", MASTER_NAME, "down-after-milliseconds"];
    for sentinel in cluster.sentinels() {
        let set = [&set[..], &[milliseconds]].concat();
        assert_eq!(sentinel.command(&set).unwrap(), kit::ok());
    }
}

#[test]
fn a_drain_and_its_end_lose_no_request() {
    let stage = stage();
    let load = Load::start(stage.front.addr);
    let of = |by: &BTreeMap<String, usize>, name: &str| by.get(name).copied().unwrap_or(0);
    let both = |by: &BTreeMap<String, usize>| of(by, "app-01") >= 20 && of(by, "app-02") >= 20;
    load.wait(Instant::now(), both);

    let (code, said) = kit::control(&stage.sites[0].sidecar, &["drain"]);
    assert_eq!(code, Some(0), "{said}");
    wait::until_true("app-01 to leave", LONG, || {
        let states = stage.front.states()?;
        Ok(!states["app-01"].starts_with("UP") && states["app-02"] == "UP")
    })
    .unwrap();
    let drained = Instant::now();
    let mut seen = Vec::new();
    let by = load.wait(drained, |by| {
        let states = stage.front.states().unwrap();
        if seen.last().is_none_or(|(last, _)| *last != states) {
            seen.push((states, drained.elapsed()));
        }
        of(by, "app-02") >= 100
    });
    println!("while drained: {seen:?}");
    assert_eq!(of(&by, "app-01"), 0, "it was drained: {by:?}");

    let (code, said) = kit::control(&stage.sites[0].sidecar, &["undrain"]);
    assert_eq!(code, Some(0), "{said}");
    load.wait(Instant::now(), both);
    let back = || Ok(stage.front.states()?["app-01"] == "UP");
    wait::until_true("app-01 to be back", LONG, back).unwrap();
    let requests = load.end();
    println!(
        "{} requests, {} errors",
        requests.len(),
        errors(&requests).len()
    );
    assert!(errors(&requests).is_empty(), "{:?}", errors(&requests));
}

/// Errors are of requests that were at the master when it died, between these two moments.
fn assert_only_cut_off(errors: &[&Request], killed: Instant, gone: Instant) {
    // Who had a request at the master when it died cannot be helped: it may have been done.
    assert!(errors.len() <= CLIENTS, "{errors:?}");
    for error in errors {
        assert!(
            error.begun < gone && error.ended > killed,
            "it began after the master had died: {error:?}"
        );
    }
}

#[test]
fn a_failover_takes_no_server_out() {
    let stage = stage();
    let load = Load::start(stage.front.addr);
    load.wait(Instant::now(), |by| by.values().sum::<usize>() >= 40);
    // Only now: on a busy machine they would see failures that nobody staged.
    notice_after(&stage.cluster, "500");
    let killed = Instant::now();
    stage.cluster.node(0).server().kill().unwrap();
    let gone = Instant::now();

    // HAProxy's opinion is asked until both servers have answered again, and a while longer.
    let mut fewest = usize::MAX;
    let mut seen = Vec::new();
    let mut look = || {
        let states: Vec<String> = stage.front.states().unwrap().into_values().collect();
        fewest = fewest.min(
            states
                .iter()
                .filter(|state| state.starts_with("UP"))
                .count(),
        );
        if seen.last() != Some(&states) {
            seen.push(states);
        }
    };
    let new = {
        let deadline = Instant::now() + LONG;
        loop {
            look();
            match stage.cluster.master_by_majority().filter(|node| *node != 0) {
                Some(node) => break node,
                None => assert!(Instant::now() < deadline, "no failover"),
            }
        }
    };
    notice_after(&stage.cluster, "20000");
    let new = stage.cluster.node(new).addr;
    for site in &stage.sites {
        site.sidecar.wait_primary("cache", new, LONG).unwrap();
        look();
    }
    let switched = Instant::now();
    load.wait(switched, |by| {
        look();
        by.len() == 2 && by.values().all(|count| *count >= 50)
    });
    println!("servers as HAProxy saw them: {seen:?}");
    assert_eq!(fewest, 2, "{seen:?}");

    let requests = load.end();
    let errors = errors(&requests);
    let longest = requests.iter().map(|r| r.ended - r.begun).max();
    let held = requests
        .iter()
        .filter(|r| r.begun < switched && r.ended > switched)
        .count();
    println!(
        "{} requests, {held} were held, the longest took {longest:?}, errors: {errors:?}",
        requests.len()
    );
    assert_only_cut_off(&errors, killed, gone);
}
