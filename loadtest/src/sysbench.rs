//! `sysbench oltp_read_write` at one MariaDB: directly, through HAProxy and through Pilotfish.
//!
//! Interleaved, several rounds. What is compared are ratios within a round, and the proxies' processor time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use pilotfish_harness::haproxy::{HaProxy, Recipe};
use pilotfish_harness::mariadb::{DATABASE, MariaConf, MariaDb, SHOP};
use pilotfish_harness::process::{Launch, Server, find_program};
use pilotfish_harness::resp::Target;
use pilotfish_harness::scratch;
use pilotfish_harness::sidecar::{Config, Service, Sidecar, Until};

use crate::cli::binary;
use crate::stats::Spread;

#[derive(Debug, Args)]
pub struct SysbenchArgs {
    /// How often everything is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// A fifth of the transactions, two rounds: to see that it works
    #[arg(long)]
    pub quick: bool,
    /// Also write the result to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The pilotfish to measure [default: $PILOTFISH_BIN, else the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub pilotfish: Option<PathBuf>,
}

const SERVICE: &str = "shop";
/// Of one run: some seconds each.
const TRANSACTIONS: u32 = 5000;
const THREADS: &str = "8";
/// Against a server that is gone it would try for ever.
const LIMIT: Duration = Duration::from_secs(120);

/// Who is measured, in the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Direct,
    HaProxy,
    Pilotfish,
}

impl Who {
    const ALL: [Self; 3] = [Self::Direct, Self::HaProxy, Self::Pilotfish];

    fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::HaProxy => "HAProxy",
            Self::Pilotfish => "Pilotfish",
        }
    }
}

/// How clients connect, and whether they prepare their statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    unix: bool,
    prepared: bool,
}

impl Way {
    const ALL: [Self; 3] = [
        Self {
            unix: false,
            prepared: true,
        },
        Self {
            unix: false,
            prepared: false,
        },
        Self {
            unix: true,
            prepared: true,
        },
    ];

    fn name(self) -> String {
        let socket = if self.unix { "Unix" } else { "TCP" };
        let style = if self.prepared { "prepared" } else { "text" };
        format!("{socket}, {style}")
    }
}

/// One run of one contestant.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Transactions in a second.
    rate: f64,
    /// Of the proxy, in microseconds per transaction.
    cpu: f64,
}

type Samples = BTreeMap<(Way, Who), Vec<Sample>>;

struct Stage {
    sidecar: Sidecar,
    haproxy: HaProxy,
    server: MariaDb,
}

impl Stage {
    fn set(pilotfish: &Path) -> Result<Self> {
        let server = MariaDb::start(&MariaConf::with(&[
            "innodb_flush_log_at_trx_commit=0",
            "innodb_buffer_pool_size=256M",
        ]))?;
        let haproxy = HaProxy::start(&Recipe::Relay {
            server: server.addr,
            splice: false,
        })?;
        let config = Config::new()?
            .level("warn")
            .line("workers = 2")
            .service(Service::mysql(SERVICE, "mysql", &[server.addr])?);
        let sidecar = Sidecar::start(pilotfish, config, Until::Healthy)?;
        Ok(Self {
            sidecar,
            haproxy,
            server,
        })
    }

    fn target(&self, who: Who, way: Way) -> Result<Target> {
        Ok(match (who, way.unix) {
            (Who::Direct, false) => self.server.addr.into(),
            (Who::Direct, true) => self.server.socket.as_path().into(),
            (Who::HaProxy, false) => self.haproxy.tcp.into(),
            (Who::HaProxy, true) => self.haproxy.unix.as_path().into(),
            (Who::Pilotfish, false) => self.sidecar.tcp(SERVICE)?.into(),
            (Who::Pilotfish, true) => self.sidecar.unix(SERVICE)?.as_path().into(),
        })
    }

    fn proxy(&self, who: Who) -> Option<&Server> {
        match who {
            Who::Direct => None,
            Who::HaProxy => Some(self.haproxy.server()),
            Who::Pilotfish => Some(self.sidecar.server()),
        }
    }

    fn measure(&self, who: Who, way: Way, events: u32) -> Result<Sample> {
        let cpu = || self.proxy(who).map(Server::cpu).transpose();
        let before = cpu()?.unwrap_or_default();
        let said = sysbench(
            &self.target(who, way)?,
            way,
            &format!("--events={events}"),
            "run",
        )?;
        let used = cpu()?.unwrap_or_default().saturating_sub(before);
        Ok(Sample {
            rate: rate(&said).with_context(|| format!("sysbench said {said:?}"))?,
            cpu: used.as_secs_f64() * 1e6 / f64::from(events),
        })
    }
}

/// Measures and prints.
///
/// # Errors
/// When something cannot be started or measured.
pub fn run(args: &SysbenchArgs) -> Result<ExitCode> {
    let stage = Stage::set(&binary(args.pilotfish.as_deref())?)?;
    let (rounds, events) = match args.quick {
        true => (2, TRANSACTIONS / 5),
        false => (args.rounds, TRANSACTIONS),
    };
    let direct = Target::from(stage.server.addr);
    sysbench(&direct, Way::ALL[0], "--events=0", "prepare")?;
    let mut samples = Samples::new();
    for round in 0..rounds {
        for way in Way::ALL {
            println!("round {} of {rounds}: {}", round + 1, way.name());
            // Another one begins in each round, so that none always has the warmest machine.
            let mut order = Who::ALL;
            order.rotate_left(round as usize % Who::ALL.len());
            for who in order {
                let sample = stage.measure(who, way, events);
                let sample = sample.with_context(|| format!("{}, {}", way.name(), who.as_str()))?;
                samples.entry((way, who)).or_default().push(sample);
            }
        }
    }
    let text = render(&samples);
    println!("\n{text}");
    if let Some(path) = &args.out {
        std::fs::write(path, &text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn sysbench(target: &Target, way: Way, events: &str, verb: &str) -> Result<String> {
    let dir = scratch::Dir::new()?;
    let program = find_program("sysbench")?;
    let mut launch = Launch::new("sysbench", &program, &dir.join("sysbench.log"))?;
    let command = launch.command();
    command.args([
        "oltp_read_write",
        "--db-driver=mysql",
        "--tables=4",
        "--table-size=10000",
    ]);
    command.args([
        "--time=0",
        "--report-interval=0",
        "--rand-type=uniform",
        events,
    ]);
    command.arg(format!("--threads={THREADS}"));
    command.arg(format!("--mysql-user={}", SHOP.user));
    command.arg(format!("--mysql-password={}", SHOP.password));
    command.arg(format!("--mysql-db={DATABASE}"));
    command.arg(match way.prepared {
        true => "--db-ps-mode=auto",
        false => "--db-ps-mode=disable",
    });
    match target {
        Target::Tcp(addr) => {
            command.arg(format!("--mysql-host={}", addr.ip()));
            command.arg(format!("--mysql-port={}", addr.port()))
        }
        Target::Unix(path) => command.arg(format!("--mysql-socket={}", path.display())),
    };
    command.arg(verb);
    let server = launch.start()?;
    let status = server
        .wait(LIMIT)
        .with_context(|| format!("load on {target}"))?;
    let output = server.log()?;
    if !status.success() {
        bail!("sysbench on {target} failed ({status}): {output}");
    }
    Ok(output)
}

/// `    transactions:                        5000   (812.34 per sec.)`
fn rate(output: &str) -> Result<f64> {
    let line = output
        .lines()
        .find_map(|line| line.trim().strip_prefix("transactions:"));
    let (_, rest) = line
        .context("no line of transactions")?
        .split_once('(')
        .context("no rate")?;
    let word = rest.split_whitespace().next().unwrap_or_default();
    let rate: f64 = word.parse().with_context(|| format!("the rate {word:?}"))?;
    anyhow::ensure!(rate.is_finite() && rate > 0.0, "no progress");
    Ok(rate)
}

fn render(samples: &Samples) -> String {
    let all = |way, who, figure: fn(&Sample) -> f64| -> Vec<f64> {
        let found = samples.get(&(way, who)).into_iter().flatten();
        found.map(figure).collect()
    };
    let shown = |spread: Option<Spread>| spread.map_or_else(|| "-".to_owned(), |s| s.to_string());
    let mut text = String::from(
        "### sysbench oltp_read_write, 8 threads, transactions per second\n\n\
         | | direct | HAProxy | Pilotfish | Pilotfish / direct | Pilotfish / HAProxy |\n\
         |---|---|---|---|---|---|\n",
    );
    for way in Way::ALL {
        let rates = |who| all(way, who, |s| s.rate);
        let ratio = |under| shown(Spread::of_ratios(&rates(Who::Pilotfish), &rates(under)));
        let cells = Who::ALL
            .map(|who| shown(Spread::of(rates(who))))
            .join(" | ");
        let (direct, haproxy) = (ratio(Who::Direct), ratio(Who::HaProxy));
        // Writing to a String does not fail.
        let _ = writeln!(text, "| {} | {cells} | {direct} | {haproxy} |", way.name());
    }
    text.push_str(
        "\n### Processor time of the proxy per transaction, in µs\n\n\
         | | HAProxy | Pilotfish | Pilotfish / HAProxy |\n|---|---|---|---|\n",
    );
    for way in Way::ALL {
        let cpus = |who| all(way, who, |s| s.cpu);
        let (haproxy, pilotfish) = (cpus(Who::HaProxy), cpus(Who::Pilotfish));
        let ratio = shown(Spread::of_ratios(&pilotfish, &haproxy));
        let (haproxy, pilotfish) = (shown(Spread::of(haproxy)), shown(Spread::of(pilotfish)));
        let _ = writeln!(
            text,
            "| {} | {haproxy} | {pilotfish} | {ratio} |",
            way.name()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_rate() {
        let said = "SQL statistics:\n    transactions:      5000   (812.34 per sec.)\n    queries: 1 (2 per sec.)\n";
        assert_eq!(rate(said).unwrap(), 812.34);
        for bad in [
            "",
            "transactions: 0",
            "transactions: 0 (0.00 per sec.)",
            "transactions: 1 (x per sec.)",
        ] {
            assert!(rate(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_table_has_ratios_of_each_round() {
        let mut samples = Samples::new();
        for (who, rates) in Who::ALL
            .iter()
            .zip([[100.0, 200.0], [50.0, 100.0], [90.0, 180.0]])
        {
            let taken = rates.map(|rate| Sample { rate, cpu: rate });
            samples.insert((Way::ALL[0], *who), taken.to_vec());
        }
        let text = render(&samples);
        assert!(
            text.contains("| 0.90 (0.90–0.90) | 1.80 (1.80–1.80) |"),
            "{text}"
        );
    }
}
