//! What several tests need: the binary under test, a stage with writers on it, and its ledgers read.

mod fake;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pilotfish_harness::haproxy::{HaProxy, Recipe};
use pilotfish_harness::redis::{
    Announcements, MASTER_NAME, Options, RedisCluster, RedisConf, RedisServer,
};
use pilotfish_harness::resp::Target;
use pilotfish_harness::sidecar::{Config, HealthWatch, Service, Sidecar, Until};
use pilotfish_harness::wait;
use pilotfish_harness::writer::{self, Ledger, Mode, Write, Writer, later_than};

pub use fake::{Fake, Lie};

/// For everything that must happen, however busy the machine is.
pub const LONG: Duration = Duration::from_secs(60);
/// What the contract allows between an announcement and the last write an old master acknowledges.
pub const GRACE: Duration = Duration::from_millis(50);
/// A client that is held must outlast the failover, and the writer the client. Where the machine stands still,
/// sentinels tilt, and begin anew after 30 s.
pub const HOLD: &str = "50s";
const PATIENCE: Duration = Duration::from_secs(55);

pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_pilotfish"))
}

/// The service under test. Its clients wait long, so that what they wait for decides, not the clock.
pub fn cache(cluster: &RedisCluster, hold: &str) -> Result<Service> {
    Ok(Service::sentinel("cache", cluster)?
        .set("hold_timeout", hold)
        .line("max_held = 5000"))
}

/// What `pilotfish status` prints.
pub fn status(sidecar: &Sidecar) -> Result<String> {
    let socket = sidecar.admin_socket();
    let mut command = Command::new(binary());
    command.arg("status").arg("--socket").arg(socket);
    printed(&mut command)
}

/// The same, found through the configuration, as JSON.
pub fn status_json(sidecar: &Sidecar) -> Result<String> {
    let mut command = Command::new(binary());
    command.arg("status").arg("--json");
    command.arg("-c").arg(sidecar.config_file());
    printed(&mut command)
}

fn printed(command: &mut Command) -> Result<String> {
    let output = command.output().context("running pilotfish status")?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "{:?}: {out} {err}",
        output.status.code()
    );
    Ok(out.into_owned())
}

/// `/healthz` until the service has this state and its reason contains `reason`.
pub fn wait_state(
    sidecar: &Sidecar,
    service: &str,
    state: &str,
    reason: &str,
) -> Result<serde_json::Value> {
    let what = format!("{service} to be {state} because of {reason:?}");
    sidecar.wait_health(&what, LONG, |health| {
        let about = &health["services"][service];
        let why = about["reason"].as_str().unwrap_or_default();
        about["status"] == state && why.contains(reason)
    })
}

/// A panic anywhere in the sidecar is in its log, and a dead one is no longer there.
pub fn assert_sound(sidecar: &Sidecar) -> Result<()> {
    sidecar.server().check_running()?;
    let panics = sidecar.log_lines("panicked")?;
    ensure!(panics.is_empty(), "{panics:?}");
    Ok(())
}

/// Sentinels that tell each other often, so that a returned master is demoted after `4 * pace`
/// instead of after 8 s.
pub fn hurry(cluster: &RedisCluster, pace: Duration) -> Result<()> {
    let pace = pace.as_millis().to_string();
    for sentinel in cluster.sentinels() {
        let set = ["SENTINEL", "DEBUG", "PUBLISH-PERIOD", &pace];
        sentinel.command(&[&set[..], &["INFO-PERIOD", &pace]].concat())?;
    }
    Ok(())
}

/// From now on the sentinels need 20 s of silence to act: on a busy machine they would see failures
/// that nobody staged, and end another story than the one that is told.
pub fn calm(cluster: &RedisCluster) -> Result<()> {
    let set = ["SENTINEL", "SET", MASTER_NAME, "down-after-milliseconds"];
    for sentinel in cluster.sentinels() {
        if sentinel.server().is_running() {
            // A frozen one cannot be told, and decides nothing alone.
            let _ = sentinel.command(&[&set[..], &["20000"]].concat());
        }
    }
    Ok(())
}

/// 200 writes per second.
pub fn write_to(label: &str, target: impl Into<Target>, mode: Mode) -> Result<Writer> {
    let mut options = writer::Options::new(label, target, mode);
    options.timeout = PATIENCE;
    Writer::start(options)
}

const KEPT_CONNECTIONS: usize = 4;
pub const KEPT: Mode = Mode::Kept {
    connections: KEPT_CONNECTIONS,
};

/// The error of a client whose connection was closed under it.
fn is_end(error: &str) -> bool {
    ["closed before the reply", "reset by peer", "Broken pipe"]
        .iter()
        .any(|text| error.contains(text))
}

/// Which socket the clients that connect per request use; those with kept connections use the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhpOver {
    Tcp,
    Unix,
}

/// How to set the stage.
pub struct Plot {
    pub options: Options,
    pub php: PhpOver,
    /// The usual recipe beside us, to show that there is something to lose.
    pub haproxy: bool,
    /// `hold_timeout`.
    pub hold: &'static str,
    /// More lines for `[service.discovery]`, as key and value.
    pub discovery: Vec<(&'static str, &'static str)>,
}

impl Default for Plot {
    fn default() -> Self {
        Self {
            options: Options::default(),
            php: PhpOver::Unix,
            haproxy: false,
            hold: HOLD,
            discovery: Vec::new(),
        }
    }
}

/// A cluster, the sidecar before it, and writers. Dropped from top to bottom.
pub struct Stage {
    /// Ours: a connection per request, and kept ones.
    pub lanes: Vec<Writer>,
    /// The same through HAProxy.
    pub rivals: Vec<Writer>,
    /// Through the same sidecar to a server that nothing happens to: what is usual.
    control: Writer,
    /// To that server without a sidecar: how late this machine is.
    direct: Writer,
    pub health: HealthWatch,
    pub announcements: Announcements,
    _haproxy: Option<HaProxy>,
    pub sidecar: Sidecar,
    _alone: RedisServer,
    pub cluster: RedisCluster,
}

impl Stage {
    /// Returns when everybody writes.
    pub fn set(plot: Plot) -> Result<Self> {
        let cluster = RedisCluster::start(plot.options)?;
        let alone = RedisServer::start(&RedisConf::default())?;
        let mut service = cache(&cluster, plot.hold)?;
        for (key, value) in plot.discovery {
            service = service.discover(key, value);
        }
        let control = Service::new("control", "redis")?
            .discover("kind", "static")
            .discover_all("nodes", &[alone.addr]);
        let config = Config::new()?.service(service).service(control);
        let sidecar = Sidecar::start(binary(), config, Until::Healthy)?;
        let (tcp, unix): (Target, Target) = (
            sidecar.tcp("cache")?.into(),
            sidecar.unix("cache")?.as_path().into(),
        );
        let (php, kept) = match plot.php {
            PhpOver::Tcp => (tcp, unix),
            PhpOver::Unix => (unix, tcp),
        };
        let lanes = vec![
            write_to("pilotfish-php", php, Mode::PerRequest)?,
            write_to("pilotfish-kept", kept, KEPT)?,
        ];
        let mut rivals = Vec::new();
        let haproxy = plot.haproxy.then(|| haproxy(&cluster)).transpose()?;
        if let Some(haproxy) = &haproxy {
            for (label, mode) in [("haproxy-php", Mode::PerRequest), ("haproxy-kept", KEPT)] {
                rivals.push(Writer::start(writer::Options::new(
                    label,
                    haproxy.tcp,
                    mode,
                ))?);
            }
        }
        let stage = Self {
            lanes,
            rivals,
            control: write_to("control", sidecar.tcp("control")?, Mode::PerRequest)?,
            direct: write_to("direct", alone.addr, Mode::PerRequest)?,
            health: sidecar.watch("cache")?,
            announcements: cluster.announcements()?,
            _haproxy: haproxy,
            sidecar,
            _alone: alone,
            cluster,
        };
        let begun = Instant::now() + Duration::from_millis(300);
        for writer in stage.lanes.iter().chain(&stage.rivals) {
            writer.wait_ack_after(begun, LONG)?;
        }
        Ok(stage)
    }

    pub fn addr(&self, node: usize) -> SocketAddr {
        self.cluster.node(node).addr
    }

    /// Waits until each of our lanes has a write acknowledged that began after `t`.
    pub fn settle(&self, t: Instant) -> Result<()> {
        for lane in &self.lanes {
            lane.wait_ack_after(t, LONG)?;
        }
        Ok(())
    }

    /// Ends all writing. `new` is the node that should have it all, `first` when the first sentinel
    /// announced it.
    pub fn close(mut self, new: usize, first: Instant) -> Result<(Self, Outcome)> {
        let node = self.cluster.node(new);
        let read = |writer: Writer| -> Result<Lane> {
            let ledger = writer.stop();
            let missing = ledger.missing_from(node.conn()?)?;
            let late = later_than(&missing, first, GRACE);
            Ok(Lane {
                ledger,
                missing,
                late,
            })
        };
        let ours = std::mem::take(&mut self.lanes).into_iter();
        let theirs = std::mem::take(&mut self.rivals).into_iter();
        let outcome = Outcome {
            first,
            ours: ours.map(read).collect::<Result<_>>()?,
            theirs: theirs.map(read).collect::<Result<_>>()?,
            control: self.control.snapshot(),
            direct: self.direct.snapshot(),
        };
        outcome.print();
        Ok((self, outcome))
    }
}

fn haproxy(cluster: &RedisCluster) -> Result<HaProxy> {
    HaProxy::start(&Recipe::RoleMaster {
        nodes: cluster.node_addrs(),
        password: None,
    })
}

/// One writer's ledger against what the new master has.
pub struct Lane {
    pub ledger: Ledger,
    /// Acknowledged, and not there.
    pub missing: Vec<Write>,
    /// Those of them acknowledged later than [`GRACE`] after the announcement.
    pub late: usize,
}

impl Lane {
    /// From the announcement to the first acknowledged write that lasts.
    pub fn first_write(&self, announced: Instant) -> Option<Duration> {
        let write = self
            .ledger
            .first_lasting_ack_after(announced, &self.missing)?;
        Some(write.ended.duration_since(announced))
    }

    /// Errors of writes that began after `t`.
    pub fn errors_after(&self, t: Instant) -> Vec<&Write> {
        let errors = self.ledger.errors();
        errors.filter(|write| write.started > t).collect()
    }
}

fn worst(ledger: &Ledger, t: Instant) -> Duration {
    let concerned = ledger.writes.iter().filter(|write| write.ended > t);
    concerned.map(Write::took).max().unwrap_or_default()
}

/// The first and the last of them.
fn span(writes: &[Write]) -> Option<(u64, u64)> {
    let seqs = || writes.iter().map(|write| write.seq);
    Some((seqs().min()?, seqs().max()?))
}

/// All ledgers.
pub struct Outcome {
    pub first: Instant,
    pub ours: Vec<Lane>,
    pub theirs: Vec<Lane>,
    control: Ledger,
    direct: Ledger,
}

impl Outcome {
    fn print(&self) {
        for lane in self.ours.iter().chain(&self.theirs) {
            let ledger = &lane.ledger;
            let gap = ledger.longest_gap().map(|(_, gap)| gap);
            println!(
                "{}: {} acknowledged, {} missing, {} of them late; first write {:?} after the announcement, \
                 longest pause {gap:?}, slowest {:?}, {} errors {:?}, {} skipped, missing {:?}",
                ledger.label,
                ledger.acked().count(),
                lane.missing.len(),
                lane.late,
                lane.first_write(self.first),
                ledger.slowest().map(Write::took),
                ledger.errors().count(),
                ledger.error_counts(),
                ledger.skipped,
                span(&lane.missing),
            );
        }
    }

    /// What a busy machine adds to a switch: it is three exchanges in a row (a sentinel is asked, the
    /// server is asked, a client writes), and this is what one cost at worst, from `t` on, between a
    /// client and a server with nobody between them. On a calm machine a few milliseconds.
    pub fn noise(&self, t: Instant) -> Duration {
        3 * worst(&self.direct, t)
    }

    /// How long a write through the same sidecar took at worst from `t` on that no failover concerned.
    pub fn usual(&self, t: Instant) -> Duration {
        worst(&self.control, t)
    }

    /// What holds whatever happens: nothing acknowledged late is missing.
    pub fn assert_nothing_late_is_lost(&self) -> Result<()> {
        for lane in &self.ours {
            ensure!(
                lane.late == 0,
                "{} lost {} writes that it acknowledged late: {:?}",
                lane.ledger.label,
                lane.late,
                lane.missing
            );
        }
        Ok(())
    }

    /// What holds in every failover: besides, somebody writes again within 50 ms of the announcement.
    ///
    /// Those 50 ms are the product's on a machine that does nothing else; beside other tests on two
    /// cores every client is late now and then. So the better one of the two lanes counts, and it may be
    /// later by what [`Self::noise`] says of the same seconds.
    pub fn assert_followed(&self) -> Result<()> {
        self.assert_nothing_late_is_lost()?;
        let noise = self.noise(self.first.checked_sub(GRACE).unwrap_or(self.first));
        let best = self.ours.iter().filter_map(|l| l.first_write(self.first));
        let best = best.min().context("nobody wrote after the announcement")?;
        println!("first write {best:?} after the announcement, noise {noise:?}");
        ensure!(best <= GRACE + noise, "{best:?}, noise {noise:?}");
        Ok(())
    }

    /// The recipe loses writes in the same failover: so there was something to lose, and we can see it.
    /// (Its kept connections may be lucky: where they are, they stay.)
    pub fn assert_rivals_lost(&self) -> Result<()> {
        let php = self.theirs.first().context("no rival took part")?;
        ensure!(php.late > 0, "{} lost nothing", php.ledger.label);
        Ok(())
    }

    /// Nothing acknowledged is missing, however early, and no client that connects per request had an
    /// error. A kept connection that was used cannot be moved: if it had a request waiting at the
    /// switch, it ends, and one request fails with it.
    pub fn assert_lossless(&self) -> Result<()> {
        for lane in &self.ours {
            let (label, missing) = (&lane.ledger.label, lane.missing.len());
            ensure!(missing == 0, "{label} lost {missing}");
        }
        let errors = |lane: &Lane| (lane.ledger.errors().count(), lane.ledger.error_counts());
        let [php, kept] = self.ours.as_slice() else {
            bail!("two lanes are ours")
        };
        let (count, texts) = errors(php);
        ensure!(count == 0, "{texts:?}");
        let (count, texts) = errors(kept);
        let fair = texts.keys().all(|text| is_end(text));
        ensure!(fair && count <= KEPT_CONNECTIONS, "{texts:?}");
        Ok(())
    }

    /// Nobody was refused: whatever a client was told came from a server, or was the end of a connection
    /// to one.
    pub fn assert_none_refused(&self) -> Result<()> {
        for lane in &self.ours {
            for error in lane.ledger.errors() {
                let text = error.result.clone().err().unwrap_or_default();
                let refused = text.contains("Pilotfish") || text.contains("connecting to");
                ensure!(!refused, "{}: {text}", lane.ledger.label);
            }
        }
        Ok(())
    }
}

/// Waits for a `+switch-master` after `t` and for what follows from it everywhere; says which node it is.
pub fn wait_switch(stage: &Stage, t: Instant, old: usize) -> Result<(Instant, usize)> {
    let first = stage.announcements.wait_announcement(t, LONG)?;
    let new = stage.cluster.wait_new_master(old, LONG)?;
    calm(&stage.cluster)?;
    if first.switch_to() != Some(stage.addr(new)) {
        bail!("announced {:?}, but it is {new}", first.switch_to());
    }
    stage.sidecar.wait_primary("cache", stage.addr(new), LONG)?;
    Ok((first.at, new))
}

/// How often `node` was told to SET something.
pub fn sets(node: &RedisServer) -> Result<u64> {
    let text = node.command(&["INFO", "commandstats"])?;
    let text = text.text().context("INFO gave no text")?;
    let calls = text
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_set:calls="));
    let Some(calls) = calls else { return Ok(0) };
    Ok(calls.split(',').next().unwrap_or_default().parse()?)
}

/// How many writes of one writer a server has.
pub fn keys_of(node: &RedisServer, label: &str) -> Result<usize> {
    let keys = node.command(&["KEYS", &format!("ledger:{label}*")])?;
    Ok(keys.array().context("KEYS gave no array")?.len())
}

/// Waits, 5 ms between two questions, for at most [`LONG`].
pub fn until(what: &str, ask: impl FnMut() -> Result<bool>) -> Result<()> {
    wait::until_true(what, LONG, ask)
}
