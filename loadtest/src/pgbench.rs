//! pgbench against PostgreSQL itself, and through HAProxy, PgBouncer in session mode and Pilotfish.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use pilotfish_harness::haproxy::{HaProxy, Recipe};
use pilotfish_harness::postgres::{PgBouncer, PgConf, PgServer, program};
use pilotfish_harness::process::{Launch, Server};
use pilotfish_harness::scratch;
use pilotfish_harness::sidecar::{Config, Service, Sidecar, Until};

use crate::bench::table::{cell, grid, with_head};
use crate::cli::binary;
use crate::stats::Spread;

const SERVICE: &str = "shop";
/// A run that takes longer is stuck.
const LIMIT: Duration = Duration::from_secs(120);
const SETTLE: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub struct PgbenchArgs {
    /// How often everything is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// A tenth of the transactions, two rounds: to see that it works
    #[arg(long)]
    quick: bool,
    /// Also write the result to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The pilotfish to measure [default: $PILOTFISH_BIN, else the one beside this program]
    #[arg(long, value_name = "PATH")]
    pilotfish: Option<PathBuf>,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Direct,
    HaProxy,
    PgBouncer,
    Pilotfish,
}

impl Who {
    const ALL: [Self; 4] = [
        Self::Direct,
        Self::HaProxy,
        Self::PgBouncer,
        Self::Pilotfish,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::HaProxy => "HAProxy",
            Self::PgBouncer => "PgBouncer",
            Self::Pilotfish => "Pilotfish",
        }
    }
}

/// How pgbench asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Simple,
    Extended,
    Prepared,
    /// A connection for each transaction, as PHP does it.
    PerConnection,
    /// The TPC-B-like mix, which writes.
    Writes,
}

impl Way {
    const ALL: [Self; 5] = [
        Self::Simple,
        Self::Extended,
        Self::Prepared,
        Self::PerConnection,
        Self::Writes,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Simple => "reads, simple",
            Self::Extended => "reads, extended",
            Self::Prepared => "reads, prepared",
            Self::PerConnection => "connection per read",
            Self::Writes => "reads and writes, prepared",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Simple => &["-S", "-M", "simple"],
            Self::Extended => &["-S", "-M", "extended"],
            Self::Prepared => &["-S", "-M", "prepared"],
            Self::PerConnection => &["-S", "-C"],
            Self::Writes => &["-M", "prepared"],
        }
    }

    /// Of each of the clients.
    fn transactions(self, quick: bool) -> u32 {
        let all = match self {
            Self::Simple | Self::Extended | Self::Prepared => 8_000,
            Self::PerConnection => 400,
            Self::Writes => 1_000,
        };
        if quick { all / 10 } else { all }
    }
}

const CLIENTS: u32 = 8;

#[derive(Clone, Copy)]
struct Sample {
    rate: f64,
    /// Of the proxy, in microseconds per transaction.
    cpu: Option<f64>,
}

type Results = BTreeMap<(Way, Who), Vec<Sample>>;

struct Stage {
    haproxy: HaProxy,
    bouncer: PgBouncer,
    sidecar: Sidecar,
    server: PgServer,
}

impl Stage {
    fn start(pilotfish: &Path) -> Result<Self> {
        let server = PgServer::start(&PgConf::default())?;
        pgbench(server.addr, &["-i", "-q", "-s", "10"])?;
        let relay = Recipe::Relay {
            server: server.addr,
            splice: false,
        };
        let service = Service::postgres(SERVICE, &[server.addr])?;
        let config = Config::new()?
            .level("warn")
            .line("workers = 2")
            .service(service);
        Ok(Self {
            haproxy: HaProxy::start(&relay)?,
            bouncer: PgBouncer::start(&server)?,
            sidecar: Sidecar::start(pilotfish, config, Until::Healthy)?,
            server,
        })
    }

    fn addr(&self, who: Who) -> Result<SocketAddr> {
        Ok(match who {
            Who::Direct => self.server.addr,
            Who::HaProxy => self.haproxy.tcp,
            Who::PgBouncer => self.bouncer.addr,
            Who::Pilotfish => self.sidecar.tcp(SERVICE)?,
        })
    }

    fn proxy(&self, who: Who) -> Option<&Server> {
        match who {
            Who::Direct => None,
            Who::HaProxy => Some(self.haproxy.server()),
            Who::PgBouncer => Some(self.bouncer.server()),
            Who::Pilotfish => Some(self.sidecar.server()),
        }
    }

    fn measure(&self, who: Who, way: Way, quick: bool) -> Result<Sample> {
        let (clients, each) = (CLIENTS.to_string(), way.transactions(quick).to_string());
        let common = ["-n", "-j", "2", "-c", &clients, "-t", &each];
        let arguments: Vec<&str> = common.iter().chain(way.arguments()).copied().collect();
        let server = self.proxy(who);
        let before = server.map(Server::cpu).transpose()?;
        let said = pgbench(self.addr(who)?, &arguments)?;
        std::thread::sleep(SETTLE);
        let after = server.map(Server::cpu).transpose()?;
        let all = f64::from(CLIENTS * way.transactions(quick));
        let used = before.zip(after).map(|(b, a)| a.saturating_sub(b));
        Ok(Sample {
            rate: rate(&said).with_context(|| format!("pgbench said {said:?}"))?,
            cpu: used.map(|used| used.as_secs_f64() * 1e6 / all),
        })
    }
}

/// Measures, interleaved, and prints the result as Markdown.
///
/// # Errors
/// When something cannot be started or measured.
pub fn run(args: &PgbenchArgs) -> Result<ExitCode> {
    let rounds = if args.quick { 2 } else { args.rounds };
    let stage = Stage::start(&binary(args.pilotfish.as_deref())?)?;
    let mut results = Results::new();
    for round in 0..rounds {
        for way in Way::ALL {
            println!("round {} of {rounds}: {}", round + 1, way.as_str());
            let mut order = Who::ALL;
            // None always has the warmest machine.
            order.rotate_left(round as usize % Who::ALL.len());
            for who in order {
                let sample = stage.measure(who, way, args.quick);
                let sample =
                    sample.with_context(|| format!("{}, {}", way.as_str(), who.as_str()))?;
                results.entry((way, who)).or_default().push(sample);
            }
        }
    }
    let text = render(&results, rounds);
    println!("\n{text}");
    if let Some(path) = &args.out {
        std::fs::write(path, &text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn pgbench(addr: SocketAddr, arguments: &[&str]) -> Result<String> {
    let dir = scratch::Dir::new()?;
    let mut launch = Launch::new("pgbench", &program("pgbench")?, &dir.join("pgbench.log"))?;
    let command = launch.command();
    command.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string()]);
    command
        .args(["-U", "postgres"])
        .args(arguments)
        .arg("postgres");
    let server = launch.start()?;
    let status = server.wait(LIMIT)?;
    let said = server.log()?;
    if !status.success() {
        bail!("pgbench on {addr} failed ({status}): {said}");
    }
    Ok(said)
}

/// Transactions in a second. With a connection for each of them, that is the one that counts them.
fn rate(said: &str) -> Result<f64> {
    let found = said.lines().find_map(|line| line.strip_prefix("tps = "));
    let word = found.and_then(|rest| rest.split(' ').next());
    let rate: f64 = word.context("no tps")?.parse().context("tps")?;
    if said.contains("number of failed transactions: 0 ") {
        Ok(rate)
    } else {
        bail!("transactions failed")
    }
}

fn render(results: &Results, rounds: u32) -> String {
    let figures = |way, who, figure: fn(&Sample) -> Option<f64>| -> Vec<f64> {
        let samples = results.get(&(way, who)).into_iter().flatten();
        samples.filter_map(figure).collect()
    };
    let rates = |way, who| figures(way, who, |sample| Some(sample.rate));
    let cpus = |way, who| figures(way, who, |sample| sample.cpu);
    let ratio = |way, who| {
        cell(Spread::of_ratios(
            &rates(way, Who::Pilotfish),
            &rates(way, who),
        ))
    };
    let cpu_ratio = |way, who| {
        cell(Spread::of_ratios(
            &cpus(way, Who::Pilotfish),
            &cpus(way, who),
        ))
    };
    let speed = Way::ALL.into_iter().map(|way| {
        let mut line = vec![way.as_str().to_owned()];
        line.extend(Who::ALL.map(|who| cell(Spread::of(rates(way, who)))));
        line.extend([Who::Direct, Who::HaProxy, Who::PgBouncer].map(|who| ratio(way, who)));
        line
    });
    let cost = Way::ALL.into_iter().map(|way| {
        let proxies = [Who::HaProxy, Who::PgBouncer, Who::Pilotfish];
        let mut line = vec![way.as_str().to_owned()];
        line.extend(proxies.map(|who| cell(Spread::of(cpus(way, who)))));
        line.extend([Who::HaProxy, Who::PgBouncer].map(|who| cpu_ratio(way, who)));
        line
    });
    let speed_head = [
        "",
        "direct",
        "HAProxy",
        "PgBouncer",
        "Pilotfish",
        "Pilotfish / direct",
        "Pilotfish / HAProxy",
        "Pilotfish / PgBouncer",
    ];
    let cost_head = [
        "",
        "HAProxy",
        "PgBouncer",
        "Pilotfish",
        "Pilotfish / HAProxy",
        "Pilotfish / PgBouncer",
    ];
    format!(
        "Medians (min–max) of {rounds} rounds; {CLIENTS} clients over TCP. Ratios are taken within a round. \
         PgBouncer is in session mode, with one thread; the others have two.\n\n\
         ### Transactions per second\n\n{}\n### CPU time of the proxy per transaction, in µs\n\n{}",
        grid(&with_head(&speed_head, speed)),
        grid(&with_head(&cost_head, cost)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_pgbench_says() {
        let good = "number of failed transactions: 0 (0.000%)\ninitial connection time = 3.1 ms\n\
            tps = 1234.5 (without initial connection time)\n";
        assert_eq!(rate(good).unwrap(), 1234.5);
        assert!(rate(&good.replace(": 0 ", ": 7 ")).is_err());
        assert!(rate("number of failed transactions: 0 (0.000%)\n").is_err());
    }

    #[test]
    fn shows_ratios_within_a_round() {
        let mut results = Results::new();
        for (who, rate) in [(Who::Direct, 100.0), (Who::Pilotfish, 80.0)] {
            let cpu = (who == Who::Pilotfish).then_some(5.0);
            results.insert((Way::Simple, who), vec![Sample { rate, cpu }]);
        }
        let text = render(&results, 1);
        assert!(text.contains("0.80 (0.80–0.80)"), "{text}");
    }
}
