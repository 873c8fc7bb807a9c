//! Under a service manager: restarts and crashes refuse nobody, sockets come from outside, and it hears what
//! goes on.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use pilotfish_harness::redis::RedisServer;
use pilotfish_harness::resp::Target;
use pilotfish_harness::scratch;
use pilotfish_harness::sidecar::{Config, request};

use crate::kit::{self, LONG, Talk, connect, ok, say};
use crate::load::Load;

/// `manager.py` and its service.
struct Managed {
    manager: Talk,
    config: Config,
    dir: scratch::Dir,
}

impl Managed {
    fn new(redis: &RedisServer, line: &str) -> Self {
        let dir = scratch::Dir::new().unwrap();
        let service = kit::patient(kit::cache(&[redis.addr]));
        let config = Config::new().unwrap().level("info").line(line);
        let config = config.service(service);
        let mut command = kit::program("python3");
        command
            .arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/manager.py"))
            .arg(dir.path())
            .arg(kit::binary())
            .args(["run", "-c"])
            .arg(dir.join("proxy.toml"))
            .env("STATE_DIRECTORY", dir.join("state"));
        let managed = Self {
            manager: Talk::start(&mut command),
            config,
            dir,
        };
        managed.write();
        managed
    }

    fn write(&self) {
        let text = self.config.render(self.dir.path()).unwrap();
        fs::write(self.dir.join("proxy.toml"), text).unwrap();
    }

    fn tcp(&self) -> SocketAddr {
        self.config.services[0].tcp[0]
    }

    fn unix(&self) -> PathBuf {
        self.dir.join("cache.sock")
    }

    /// The next line of the manager that contains `word`, and those before it.
    fn hear(&mut self, word: &str) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            let line = self.manager.hear();
            let log = || fs::read_to_string(self.dir.join("pilotfish.log")).unwrap_or_default();
            assert!(!line.is_empty(), "no {word}: {heard:?}\n{}", log());
            heard.push(line);
            if heard[heard.len() - 1].contains(word) {
                return heard;
            }
        }
    }

    fn start(&mut self) {
        self.manager.say("start");
        self.hear("READY=1");
    }

    fn stored(&mut self) -> String {
        self.manager.say("stored");
        self.hear("stored").pop().unwrap()
    }

    fn assert_serves(&self) {
        for target in [Target::from(self.tcp()), self.unix().as_path().into()] {
            assert_eq!(say(&mut connect(&target), &["SET", "a", "1"]), ok());
        }
        let health = request(&self.config.http.into(), "GET", "/livez", "", LONG);
        assert_eq!(health.unwrap().status, 200);
    }
}

#[test]
fn restarts_and_crashes_refuse_nobody() {
    let redis = kit::redis();
    let mut managed = Managed::new(&redis, "workers = 2\ndrain_timeout = \"1s\"");
    managed.start();
    let first = managed.stored();
    assert_eq!(first.matches("cache.sock").count(), 1, "{first}");
    assert_eq!(first.matches(&managed.tcp().port().to_string()).count(), 2);
    let load = Load::start(managed.tcp(), &managed.unix(), 2_000);
    for _ in 0..3 {
        load.wait_more(2_000);
        managed.manager.say("restart");
        let heard = managed.hear("started").join("\n");
        assert!(heard.contains("STOPPING=1"), "{heard}");
        assert!(heard.contains("EXTEND_TIMEOUT_USEC="), "{heard}");
        assert!(heard.contains(" 0\n"), "it ended well: {heard}");
        managed.hear("READY=1");
        managed.assert_serves();
    }
    load.wait_more(2_000);
    load.stop().assert_clean();
    assert_eq!(managed.stored(), first);

    // After a crash too the next clients wait for the next process.
    managed.manager.say("crash");
    managed.hear("started");
    managed.assert_serves();
    managed.hear("READY=1");
    assert_eq!(managed.stored(), first);
}

#[test]
fn a_takeover_changes_the_main_process() {
    let redis = kit::redis();
    let mut managed = Managed::new(&redis, "workers = 2");
    managed.start();
    let before = managed.stored();
    let load = Load::start(managed.tcp(), &managed.unix(), 1_000);
    for _ in 0..2 {
        load.wait_more(1_000);
        managed.manager.say("signal USR2");
        let heard = managed.hear("READY=1").join("\n");
        assert!(heard.contains("MAINPID="), "{heard}");
        assert!(!heard.contains("STOPPING=1"), "{heard}");
        // It watches the successor now.
        managed.hear("WATCHDOG=1");
        managed.assert_serves();
    }
    load.stop().assert_clean();
    assert_eq!(managed.stored(), before);
    managed.manager.say("stop");
    managed.hear("STOPPING=1");
    managed.hear("ended");
}

#[test]
fn it_hears_of_reloads_and_keeps_what_is_listened_on() {
    let redis = kit::redis();
    let mut managed = Managed::new(&redis, "workers = 1");
    managed.start();
    managed.hear("WATCHDOG=1");
    let status = managed.hear("cache at ").pop().unwrap();
    assert!(status.contains("STATUS=ok: cache at "), "{status}");
    let mut other = kit::cache(&[redis.addr]);
    other.name = "other".into();
    other.unix = Some("other.sock".into());
    managed.config.services.push(other);
    managed.write();
    managed.manager.say("signal HUP");
    let heard = managed.hear("READY=1").join("\n");
    assert!(
        heard.contains("RELOADING=1") && heard.contains("MONOTONIC_USEC="),
        "{heard}"
    );
    assert!(managed.stored().contains("other.sock"));

    // What goes is not kept: clients would wait there for ever.
    let gone = managed.config.services.pop().unwrap();
    managed.write();
    managed.manager.say("signal HUP");
    managed.hear("READY=1");
    assert!(!managed.stored().contains("other.sock"));
    assert!(!managed.dir.join("other.sock").exists());
    assert!(std::net::TcpStream::connect(gone.tcp[0]).is_err());

    // The same at a restart.
    managed.config.services[0].unix = None;
    managed.write();
    managed.manager.say("restart");
    managed.hear("started");
    managed.hear("READY=1");
    let heard = managed.stored();
    assert!(!heard.contains("cache.sock"), "{heard}");
    assert!(!managed.unix().exists());
}

#[test]
fn sockets_come_from_outside() {
    let redis = kit::redis();
    let mut managed = Managed::new(&redis, "workers = 2");
    let (tcp, unix) = (managed.tcp(), managed.unix());
    let elsewhere = pilotfish_harness::ports::free().unwrap();
    for listen in [
        tcp.to_string(),
        format!("unix:{}", unix.display()),
        elsewhere.to_string(),
    ] {
        managed.manager.say(&format!("listen {listen}"));
    }
    managed.start();
    managed.assert_serves();
    let log = fs::read_to_string(managed.dir.join("pilotfish.log")).unwrap();
    let unused = format!("event=\"not-inherited\" addr={elsewhere}");
    assert!(log.contains(&unused), "{log}");
    // It is the manager's, now and after the end.
    managed.manager.say("restart");
    managed.hear("started");
    managed.hear("READY=1");
    managed.assert_serves();
    managed.manager.say("stop");
    managed.hear("ended");
    assert!(unix.exists());
}
