//! Three real Galera nodes, and the writer goes in every way there is, while a shop inserts orders.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pilotfish_harness::haproxy::{HaProxy, Recipe};
use pilotfish_harness::mariadb::{CHECK, DATABASE, GaleraCluster, RIVAL, SHOP};
use pilotfish_harness::resp::Target;
use pilotfish_harness::sidecar::{Change, Config, HealthWatch, Service, Sidecar, Until};
use pilotfish_harness::sql::{Conn, Login};
use pilotfish_harness::wait;
use pilotfish_harness::writer::{LEDGER_TABLE, Ledger, Mode, Options, Writer};

use crate::kit::{LONG, VERY_LONG, binary};
use crate::support::assert_sound;

/// Short, so that one cluster serves many stories.
const FAILBACK: &str = "2s";
/// The preferred writer of every story.
const HOME: usize = 0;
const PATIENCE: Duration = Duration::from_secs(40);

struct Stage {
    cluster: GaleraCluster,
    sidecars: [Sidecar; 2],
    haproxy: HaProxy,
}

/// What one sidecar of the cluster is told.
fn service(nodes: &[SocketAddr]) -> Result<Service> {
    Ok(Service::mysql("shop", "galera", nodes)?
        .discover("failback_after", FAILBACK)
        .set("hold_timeout", "30s"))
}

fn sidecar(nodes: &[SocketAddr]) -> Result<Sidecar> {
    let config = Config::new()?.line("workers = 1").service(service(nodes)?);
    Sidecar::start(binary(), config, Until::Healthy)
}

impl Stage {
    fn set() -> Result<Self> {
        let cluster = GaleraCluster::start(3)?;
        cluster.node(HOME).query(LEDGER_TABLE)?;
        let nodes = cluster.addrs();
        Ok(Self {
            sidecars: [sidecar(&nodes)?, sidecar(&nodes)?],
            haproxy: HaProxy::start(&Recipe::Mysql {
                nodes,
                user: CHECK.user.into(),
            })?,
            cluster,
        })
    }

    fn wait_home(&self) -> Result<()> {
        for sidecar in &self.sidecars {
            sidecar.wait_primary("shop", self.cluster.node(HOME).addr, VERY_LONG)?;
        }
        Ok(())
    }

    /// The sidecar's clients are watched by name; the rival's have another.
    fn load(&self, story: &str) -> Result<Load> {
        let shop = SHOP.login().into_db(DATABASE);
        let start = |label: &str, target: Target, mode, rate, login: Login| {
            let mut options = Options::new(format!("{story}-{label}"), target, mode);
            (options.rate, options.timeout, options.sql) = (rate, PATIENCE, Some(login));
            Writer::start(options)
        };
        let [one, two] = &self.sidecars;
        let kept = Mode::Kept { connections: 4 };
        let unix = Target::Unix(one.unix("shop")?);
        Ok(Load {
            ours: [
                start("php", unix, Mode::PerRequest, 50, shop.clone())?,
                start("kept", two.tcp("shop")?.into(), kept, 50, shop)?,
            ],
            rival: start(
                "rival",
                self.haproxy.tcp.into(),
                Mode::PerRequest,
                20,
                RIVAL.login(),
            )?,
        })
    }
}

struct Load {
    ours: [Writer; 2],
    rival: Writer,
}

impl Load {
    fn wait_ack_after(&self, t: Instant) -> Result<()> {
        for writer in &self.ours {
            writer.wait_ack_after(t, PATIENCE)?;
        }
        Ok(())
    }
}

/// How long two sidecars named different writers.
fn apart(one: &[Change], two: &[Change]) -> Duration {
    let mut times: Vec<Instant> = one.iter().chain(two).map(|change| change.at).collect();
    times.sort_unstable();
    let at = |changes: &[Change], t: Instant| {
        let known = changes.iter().rev().find(|change| change.at <= t);
        known.and_then(|change| change.primary.clone())
    };
    let differ = |pair: &&[Instant]| {
        let (a, b) = (at(one, pair[0]), at(two, pair[0]));
        a.is_some() && b.is_some() && a != b
    };
    let spans = times.windows(2).filter(differ);
    spans.map(|pair| pair[1].duration_since(pair[0])).sum()
}

/// When a sidecar first showed `addr` after `t`.
fn named_at(changes: &[Change], addr: SocketAddr, t: Instant) -> Result<Instant> {
    let addr = addr.to_string();
    let is = |change: &&Change| change.at >= t && change.primary.as_deref() == Some(&*addr);
    let change = changes.iter().find(is).context("no switch was seen")?;
    Ok(change.at)
}

/// One story: the writer is broken, somebody else takes over, the writer is healed and takes over again.
struct Story {
    name: &'static str,
    break_it: fn(&mut GaleraCluster) -> Result<()>,
    heal: fn(&mut GaleraCluster) -> Result<()>,
    /// Whether the old writer can be asked who talks to it meanwhile.
    answers: bool,
}

fn set(name: &str, value: &str, cluster: &GaleraCluster) -> Result<()> {
    cluster.node(HOME).set_global(name, value)
}

const STORIES: &[Story] = &[
    Story {
        name: "killed",
        break_it: |cluster| cluster.node(HOME).server().kill(),
        heal: |cluster| cluster.rejoin(HOME),
        answers: false,
    },
    Story {
        name: "stopped",
        break_it: |cluster| cluster.node(HOME).stop(),
        heal: |cluster| cluster.rejoin(HOME),
        answers: false,
    },
    Story {
        name: "frozen",
        break_it: |cluster| cluster.node(HOME).server().freeze(),
        heal: |cluster| {
            cluster.wait_synced(&[1, 2], 2)?;
            cluster.node(HOME).server().thaw()?;
            // It wakes up believing to be the writer.
            assert_deserted(cluster)
        },
        answers: false,
    },
    Story {
        name: "partitioned",
        break_it: |cluster| cluster.isolate(HOME, true),
        heal: |cluster| {
            cluster.wait_synced(&[1, 2], 2)?;
            cluster.isolate(HOME, false)
        },
        answers: true,
    },
    Story {
        name: "desynced",
        break_it: |cluster| set("wsrep_desync", "ON", cluster),
        heal: |cluster| set("wsrep_desync", "OFF", cluster),
        answers: true,
    },
    Story {
        name: "rejecting",
        break_it: |cluster| set("wsrep_reject_queries", "ALL", cluster),
        heal: |cluster| set("wsrep_reject_queries", "NONE", cluster),
        answers: true,
    },
    Story {
        name: "read-only",
        break_it: |cluster| set("read_only", "ON", cluster),
        heal: |cluster| set("read_only", "OFF", cluster),
        answers: true,
    },
];

/// What an onlooker measured, in milliseconds.
struct Figures {
    name: &'static str,
    switched: u128,
    took: f64,
    acked: u128,
    rival_acked: u128,
    rival_errors: usize,
    apart: u128,
    errors: usize,
}

fn play(stage: &mut Stage, story: &Story) -> Result<Figures> {
    stage.wait_home()?;
    let watches: Vec<HealthWatch> = stage
        .sidecars
        .iter()
        .map(|sidecar| sidecar.watch("shop"))
        .collect::<Result<_>>()?;
    let load = stage.load(story.name)?;
    load.wait_ack_after(Instant::now())?;
    let spent = |stage: &Stage| stage.sidecars[0].metric("switch_seconds_sum", &[]);
    let before = spent(stage)?;
    let t0 = Instant::now();
    (story.break_it)(&mut stage.cluster)?;
    let next = stage.cluster.node(1).addr;
    for sidecar in &stage.sidecars {
        sidecar.wait_primary("shop", next, LONG)?;
    }
    let switched = Instant::now();
    let took = spent(stage)? - before;
    load.wait_ack_after(switched)?;
    if story.answers {
        assert_deserted(&stage.cluster)?;
    }
    // For a while, as a person would.
    load.wait_ack_after(Instant::now() + Duration::from_secs(1))?;
    (story.heal)(&mut stage.cluster)?;
    stage.cluster.wait_all_synced()?;
    stage.wait_home()?;
    load.wait_ack_after(Instant::now())?;
    let [php, kept] = load.ours.map(Writer::stop);
    let rival = load.rival.stop();
    for ledger in [&php, &kept] {
        assert_exact(stage, ledger).with_context(|| format!("{}: {}", story.name, ledger.label))?;
    }
    let [one, two] = [0, 1].map(|index: usize| watches[index].changes());
    let named = named_at(&one, next, t0)?;
    let first = |ledger: &Ledger, t: Instant| {
        let write = ledger.first_ack_after(t);
        write.map_or(u128::MAX, |write| {
            write.ended.duration_since(t0).as_millis()
        })
    };
    Ok(Figures {
        name: story.name,
        switched: named.duration_since(t0).as_millis(),
        took: took * 1e3,
        acked: first(&php, named).min(first(&kept, named)),
        rival_acked: rival.longest_gap().map_or(0, |(_, gap)| gap.as_millis()),
        rival_errors: rival.errors().count(),
        apart: apart(&one, &two).as_millis(),
        errors: php.errors().count() + kept.errors().count(),
    })
}

/// No session of the shop is on the old writer, and none comes. (On a node that was frozen a COMMIT whose client is
/// long gone waits until the node knows that it was left alone.)
fn assert_deserted(cluster: &GaleraCluster) -> Result<()> {
    wait::until_true("the sessions to leave", LONG, || {
        Ok(cluster.node(HOME).sessions_of(SHOP.user)?.is_empty())
    })?;
    for _ in 0..20 {
        let there = cluster.node(HOME).sessions_of(SHOP.user)?;
        ensure!(there.is_empty(), "on the old writer: {there:?}");
    }
    Ok(())
}

/// What was acknowledged is on every node, once.
fn assert_exact(stage: &Stage, ledger: &Ledger) -> Result<()> {
    for node in stage.cluster.nodes() {
        let mut conn: Conn = node.conn()?;
        conn.query("SET SESSION wsrep_sync_wait = 1")?;
        let counted = ledger.count_in(&mut conn)?;
        let (missing, repeated) = (counted.missing.len(), &counted.repeated);
        ensure!(missing == 0, "{missing} are not on {}", node.name());
        ensure!(
            repeated.is_empty(),
            "more than once on {}: {repeated:?}",
            node.name()
        );
    }
    ensure!(ledger.acked().count() > 50, "{:?}", ledger.error_counts());
    Ok(())
}

/// A better node takes over from one that is fit: sessions there end what they began, within ten seconds.
fn leave_at_a_boundary(stage: &Stage) -> Result<Duration> {
    stage.wait_home()?;
    let (home, other) = (stage.cluster.node(HOME), stage.cluster.node(1));
    home.set_global("read_only", "ON")?;
    stage.sidecars[0].wait_primary("shop", other.addr, LONG)?;
    home.set_global("read_only", "OFF")?;
    let login = SHOP.login().into_db(DATABASE);
    let target = Target::Tcp(stage.sidecars[0].tcp("shop")?);
    let client = || Conn::connect(&target, &login, LONG);
    let insert = |seq: u8| format!("INSERT INTO ledger (writer, seq) VALUES ('boundary', {seq})");
    let (mut idle, mut busy, mut stuck) = (client()?, client()?, client()?);
    let port = other.addr.port().to_string();
    ensure!(idle.value("SELECT @@port")? == port);
    for (conn, seq) in [(&mut busy, 1), (&mut stuck, 3)] {
        conn.query("BEGIN")?;
        conn.query(&insert(seq))?;
    }
    stage.wait_home()?;
    let home_at = Instant::now();
    let gone = |conn: &mut Conn, timeout| {
        wait::until_true("a session to be closed", timeout, || Ok(!conn.is_usable()))
    };
    gone(&mut idle, Duration::from_secs(2)).context("between transactions")?;
    busy.query(&insert(2)).context("in a transaction")?;
    busy.query("COMMIT").context("the end of a transaction")?;
    gone(&mut busy, Duration::from_secs(2)).context("after its transaction")?;
    ensure!(client()?.value("SELECT @@port")? == home.addr.port().to_string());
    ensure!(stuck.is_usable(), "it had ten seconds");
    gone(&mut stuck, Duration::from_secs(15))?;
    let stayed = home_at.elapsed();
    let mut conn = home.conn()?;
    conn.query("SET SESSION wsrep_sync_wait = 1")?;
    let rows = conn.value(
        "SELECT GROUP_CONCAT(seq ORDER BY seq) FROM shop.ledger WHERE writer = 'boundary'",
    )?;
    ensure!(rows == "1,2", "{rows}");
    Ok(stayed)
}

#[test]
fn the_writer_goes_in_every_way_and_every_order_is_there_once() -> Result<()> {
    let mut stage = Stage::set()?;
    let mut figures = Vec::new();
    // For somebody who looks at one of them.
    let only = std::env::var("PILOTFISH_STORY").ok();
    for story in STORIES {
        if only.as_deref().is_none_or(|only| only == story.name) {
            figures.push(play(&mut stage, story).with_context(|| {
                let logs = stage.sidecars.iter().map(|it| it.server().log_tail());
                format!("{}\n{}", story.name, logs.collect::<Vec<_>>().join("\n"))
            })?);
        }
    }
    println!("milliseconds from the breakage, HAProxy with mysql-check every second beside it");
    println!(
        "{:12} {:>9} {:>16} {:>10} {:>8} {:>14} {:>13} {:>15}",
        "writer",
        "switched",
        "proof to switch",
        "first ack",
        "errors",
        "HAProxy's gap",
        "its errors",
        "sidecars apart"
    );
    for f in &figures {
        println!(
            "{:12} {:>9} {:>16.1} {:>10} {:>8} {:>14} {:>13} {:>15}",
            f.name, f.switched, f.took, f.acked, f.errors, f.rival_acked, f.rival_errors, f.apart
        );
    }
    let stayed = leave_at_a_boundary(&stage)?;
    println!("a transaction without end was given {stayed:.1?} to leave a fit writer");
    ensure!(stayed <= Duration::from_secs(11), "{stayed:?}");
    stage.sidecars.iter().try_for_each(assert_sound)
}
