//! The second part: a Galera cluster whose writer is killed, and the next one put into maintenance.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Options;
use super::story::{count, without_time};
use crate::haproxy::{HaProxy, Recipe};
use crate::mariadb::{CHECK, DATABASE, GaleraCluster, SHOP};
use crate::report::{Timeline, ms, table, thousands};
use crate::resp::Target;
use crate::sidecar::{Config, HealthWatch, LogFollow, Service, Sidecar, Until};
use crate::wait;
use crate::writer::{self, Counted, LEDGER_TABLE, Ledger, Mode, Writer};

const SERVICE: &str = "shop";
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Killed,
    Maintenance,
}

impl Act {
    pub const ALL: [Self; 2] = [Self::Killed, Self::Maintenance];

    pub fn title(self) -> &'static str {
        match self {
            Self::Killed => "the writer is killed (kill -9)",
            Self::Maintenance => {
                "the next writer goes into maintenance (SET GLOBAL read_only = ON)"
            }
        }
    }

    /// Who is the writer at its beginning, and at its end.
    fn nodes(self) -> (usize, usize) {
        match self {
            Self::Killed => (0, 1),
            Self::Maintenance => (1, 2),
        }
    }
}

/// Everything of this part; dropped from top to bottom.
struct Stage {
    log: LogFollow,
    health: HealthWatch,
    haproxy: Option<HaProxy>,
    sidecar: Sidecar,
    cluster: GaleraCluster,
}

struct Lane {
    proxy: &'static str,
    style: &'static str,
    writer: Writer,
}

struct Outcome {
    proxy: &'static str,
    style: &'static str,
    ledger: Ledger,
    counted: Counted,
}

fn introduce() {
    println!("\nMySQL through Pilotfish: a Galera cluster of three nodes (suspect_timeout 2 s).");
    println!("Writers insert 100 orders a second each:");
    println!("  php   a connection per request, as PHP does, over the Unix socket");
    println!("  kept  4 kept connections over TCP");
}

impl Stage {
    fn set_up(binary: &Path, options: Options) -> Result<Self> {
        let cluster = GaleraCluster::start(3)?;
        cluster.node(0).query(LEDGER_TABLE)?;
        let nodes = cluster.addrs();
        let service = Service::mysql(SERVICE, "galera", &nodes)?.set("hold_timeout", "10s");
        let config = Config::new()?.level("info").service(service);
        let sidecar = Sidecar::start(binary, config, Until::Healthy)?;
        let user = CHECK.user.to_owned();
        let haproxy = match options.haproxy {
            true => Some(HaProxy::start(&Recipe::Mysql { nodes, user })?),
            false => None,
        };
        Ok(Self {
            log: sidecar.follow_log()?,
            health: sidecar.watch(SERVICE)?,
            haproxy,
            sidecar,
            cluster,
        })
    }

    fn lanes(&self, act: Act) -> Result<Vec<Lane>> {
        let unix = self.sidecar.unix(SERVICE)?;
        let mut ends = vec![("pilotfish", self.sidecar.tcp(SERVICE)?, unix)];
        if let Some(haproxy) = &self.haproxy {
            ends.push(("haproxy", haproxy.tcp, haproxy.unix.clone()));
        }
        let mut lanes = Vec::new();
        for (proxy, tcp, unix) in ends {
            let kept = Mode::Kept { connections: 4 };
            for (style, target, mode) in [
                ("php", Target::Unix(unix), Mode::PerRequest),
                ("kept", Target::Tcp(tcp), kept),
            ] {
                let mut options =
                    writer::Options::new(format!("{act:?}-{proxy}-{style}"), target, mode);
                (options.rate, options.timeout) = (100, PATIENCE);
                options.sql = Some(SHOP.login().into_db(DATABASE));
                let writer = Writer::start(options)?;
                lanes.push(Lane {
                    proxy,
                    style,
                    writer,
                });
            }
        }
        Ok(lanes)
    }

    /// Names the nodes in a text.
    fn named(&self, text: &str) -> String {
        let nodes = self.cluster.nodes().iter();
        nodes.fold(text.to_owned(), |text, node| {
            text.replace(&node.addr.to_string(), node.name())
        })
    }
}

/// Plays an act and prints it; `true` when every guarantee held.
fn perform(stage: &Stage, act: Act) -> Result<bool> {
    let (old, new) = act.nodes();
    let lanes = stage.lanes(act)?;
    let settle = |t: Instant| -> Result<()> {
        for lane in &lanes {
            lane.writer.wait_ack_after(t, PATIENCE)?;
        }
        Ok(())
    };
    settle(Instant::now() + Duration::from_millis(500))?;
    let node = stage.cluster.node(old);
    let t0 = Instant::now();
    let deed = match act {
        Act::Killed => node.server().kill().map(|()| "kill -9 of the writer"),
        Act::Maintenance => node
            .set_global("read_only", "ON")
            .map(|()| "read_only = ON at the writer"),
    }?;
    stage
        .sidecar
        .wait_primary(SERVICE, stage.cluster.node(new).addr, PATIENCE)?;
    settle(Instant::now())?;
    let deserted = act == Act::Killed || is_deserted(stage, old);
    settle(Instant::now() + Duration::from_millis(500))?;
    let mut outcomes = Vec::new();
    for lane in lanes {
        let ledger = lane.writer.stop();
        let mut conn = stage.cluster.node(2).conn()?;
        conn.query("SET SESSION wsrep_sync_wait = 1")?;
        let counted = ledger.count_in(&mut conn)?;
        let (proxy, style) = (lane.proxy, lane.style);
        outcomes.push(Outcome {
            proxy,
            style,
            ledger,
            counted,
        });
    }
    let mut timeline = timeline(stage, t0, &outcomes);
    timeline.add(t0, "we", format!("{deed}, {}", node.name()));
    print!("{}\n{}", timeline.render(), table(&rows(t0, &outcomes)));
    let (text, held) = judge(stage, act, deserted, &outcomes);
    println!("\n{text}");
    Ok(held)
}

/// Whether nobody of ours talks to a node that is not the writer any more. HAProxy's clients have the same name.
fn is_deserted(stage: &Stage, old: usize) -> bool {
    let empty = || Ok(stage.cluster.node(old).sessions_of(SHOP.user)?.is_empty());
    stage.haproxy.is_some()
        || wait::until_true("the sessions to leave", Duration::from_secs(1), empty).is_ok()
}

fn timeline(stage: &Stage, t0: Instant, outcomes: &[Outcome]) -> Timeline {
    let mut timeline = Timeline::new(t0);
    for change in stage
        .health
        .changes()
        .into_iter()
        .filter(|change| change.at >= t0)
    {
        let primary = change.primary.as_deref().unwrap_or("none");
        let text = format!(
            "{}, primary {primary}, generation {}",
            change.status, change.generation
        );
        timeline.add(change.at, "/healthz", stage.named(&text));
    }
    for (at, line) in stage.log.lines().into_iter().filter(|(at, _)| *at >= t0) {
        timeline.add(at, "pilotfish", stage.named(without_time(&line)));
    }
    for outcome in outcomes {
        let who = format!("{} {}", outcome.proxy, outcome.style);
        let pause = outcome.ledger.longest_gap();
        if let Some((at, gap)) = pause.filter(|(at, gap)| *at + *gap > t0) {
            let text = format!(
                "last order acknowledged before a pause of {} ms",
                gap.as_millis()
            );
            timeline.add(at, &who, text);
            timeline.add(at + gap, &who, "orders go on");
        }
        if let Some(write) = outcome.ledger.errors().min_by_key(|write| write.ended) {
            let error = write.result.clone().err().unwrap_or_default();
            let all = outcome.ledger.errors().count();
            timeline.add(write.ended, &who, format!("first of {all} errors: {error}"));
        }
    }
    timeline
}

fn rows(t0: Instant, outcomes: &[Outcome]) -> Vec<Vec<String>> {
    let mut lines = vec![vec![String::new()]];
    lines[0].extend(
        outcomes
            .iter()
            .map(|it| format!("{} {}", it.proxy, it.style)),
    );
    let mut line = |name: &str, value: &dyn Fn(&Outcome) -> String| {
        let mut row = vec![name.to_owned()];
        row.extend(outcomes.iter().map(value));
        lines.push(row);
    };
    line("orders acknowledged", &|it| {
        count(it.ledger.acked().count())
    });
    line("errors", &|it| count(it.ledger.errors().count()));
    line("longest time without an acknowledgement, ms", &|it| {
        let gap = it.ledger.longest_gap();
        gap.map_or("-".into(), |(_, gap)| thousands(ms(t0 + gap, t0)))
    });
    line("acknowledged, but not in the cluster", &|it| {
        count(it.counted.missing.len())
    });
    line("in the cluster more than once", &|it| {
        count(it.counted.repeated.len())
    });
    lines
}

/// Pilotfish's lanes only: HAProxy promised nothing.
fn judge(stage: &Stage, act: Act, deserted: bool, outcomes: &[Outcome]) -> (String, bool) {
    let (mut text, mut all) = (String::new(), true);
    let mut check = |good: bool, who: &str, what: &str| {
        all &= good;
        let word = if good { "held  " } else { "BROKEN" };
        let _ = writeln!(text, "  {word}  {who}: {what}");
    };
    for outcome in outcomes.iter().filter(|it| it.proxy == "pilotfish") {
        let exact = outcome.counted.missing.is_empty() && outcome.counted.repeated.is_empty();
        check(
            exact,
            outcome.style,
            "every acknowledged order is in the cluster exactly once",
        );
    }
    let (old, new) = act.nodes();
    let [old, new] = [old, new].map(|index| stage.cluster.node(index).name());
    if act == Act::Maintenance {
        check(
            deserted,
            "all",
            "no session was left on the node in maintenance",
        );
    }
    let _ = write!(text, "  {old} is out, {new} is the writer.");
    if act == Act::Killed {
        text.push_str(" The pause is the cluster's own: it takes no writes until it agrees that the node is gone.");
    }
    (text, all)
}

/// The whole part, its acts numbered from `first` on.
pub(super) fn play(binary: &Path, options: Options, (first, of): (usize, usize)) -> Result<bool> {
    introduce();
    let stage = Stage::set_up(binary, options)?;
    let mut held = true;
    for (number, act) in Act::ALL.into_iter().enumerate() {
        println!("\n== {} of {of}: {} ==\n", first + number, act.title());
        held &= perform(&stage, act).with_context(|| act.title())?;
    }
    Ok(held)
}
