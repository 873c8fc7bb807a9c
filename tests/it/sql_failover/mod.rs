//! Forced failover of SQL databases: real servers, writers through the sidecar and past it.

mod galera;
mod mysql;
mod postgres;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pilotfish_harness::mariadb::{DATABASE, SHOP};
use pilotfish_harness::resp::Target;
use pilotfish_harness::sidecar::Sidecar;
use pilotfish_harness::wait;
use pilotfish_harness::writer::{Counted, Ledger, Mode, Options, Writer};
use serde_json::Value as Json;

use crate::kit::{self, LONG};

/// What `pilotfish failover shop` answers, and its exit code.
struct Told {
    code: Option<i32>,
    account: Json,
}

fn failover(sidecar: &Sidecar, args: &[&str]) -> Result<Told> {
    let (code, said) = kit::control(sidecar, &[&["failover", "shop", "--json"], args].concat());
    let line = said.lines().find(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("no account: {code:?} {said}"))?;
    let account = serde_json::from_str(line)?;
    Ok(Told { code, account })
}

impl Told {
    fn text(&self, key: &str) -> &str {
        self.account[key].as_str().unwrap_or_default()
    }

    /// Exit code, outcome and reason.
    fn ensure(&self, code: i32, outcome: &str, reason: &str) -> Result<()> {
        let is = (self.code, self.text("outcome"), self.text("reason"));
        ensure!(is == (Some(code), outcome, reason), "{:#}", self.account);
        Ok(())
    }

    fn step(&self, name: &str) -> Result<&Json> {
        let steps = self.account["steps"].as_array().context("no steps")?;
        let step = steps.iter().find(|step| step["step"] == name);
        step.with_context(|| format!("no step {name}: {:#}", self.account))
    }

    /// `done`, `left`, `failed`, or nothing.
    fn put_back(&self, name: &str) -> Result<&str> {
        let back = &self.step(name)?["put_back"]["outcome"];
        Ok(back.as_str().unwrap_or_default())
    }

    fn print(&self, kind: &str) {
        let ms = |key: &str| self.account[key].as_f64().unwrap_or_default();
        let steps = self.account["steps"].as_array().into_iter().flatten();
        let steps = steps.map(|step| {
            let took = step["took_ms"].as_f64().unwrap_or_default();
            format!("{} {took:.0}", step["step"].as_str().unwrap_or_default())
        });
        println!(
            "{kind}: held {:.0} ms, took {:.0} ms: {}",
            ms("held_ms"),
            ms("took_ms"),
            steps.collect::<Vec<_>>().join(", ")
        );
    }
}

/// How many failovers have held clients so far.
fn holds(sidecar: &Sidecar) -> Result<usize> {
    let events = sidecar.admin("GET", "/v1/events", "")?.body;
    Ok(events.matches("hold: done").count())
}

/// Waits until the next failover holds clients: all checks are over then, and nothing was changed yet while
/// somebody keeps it waiting.
fn wait_holding(sidecar: &Sidecar, before: usize) -> Result<()> {
    wait::until_true("the failover to hold clients", LONG, || {
        Ok(holds(sidecar)? > before)
    })
}

/// Breaks something between the checks and the first change, which a client with a transaction delays:
/// `busy` is that client, and ends after `break_it`.
fn break_midway<B>(
    sidecar: &Sidecar,
    busy: B,
    break_it: impl FnOnce() -> Result<()>,
) -> Result<Told> {
    let before = holds(sidecar)?;
    std::thread::scope(|scope| {
        let told = scope.spawn(|| failover(sidecar, &["--timeout", "6s"]));
        wait_holding(sidecar, before)?;
        break_it()?;
        drop(busy);
        told.join().ok().context("a panic")?
    })
}

/// A dry run says what would be done, and nobody notices.
fn ensure_dry_run(sidecar: &Sidecar, steps: &[&str]) -> Result<()> {
    let before = sidecar.service_health("shop")?;
    let told = failover(sidecar, &["--dry-run"])?;
    told.ensure(0, "planned", "")?;
    for step in steps {
        ensure!(
            told.step(step)?["outcome"] == "planned",
            "{:#}",
            told.account
        );
    }
    let after = sidecar.service_health("shop")?;
    ensure!(before["generation"] == after["generation"], "{after}");
    ensure!(before["primary"] == after["primary"], "{after}");
    Ok(())
}

/// Something was acknowledged, and all of it is on `node`, once.
fn ensure_all_once(ledger: &Ledger, counted: &Counted, node: &str) -> Result<()> {
    let label = &ledger.label;
    let missing = counted.missing.len();
    ensure!(missing == 0, "{label}: {missing} are not on {node}");
    ensure!(
        counted.repeated.is_empty(),
        "{label}: {:?}",
        counted.repeated
    );
    ensure!(
        ledger.acked().next().is_some(),
        "{label}: {:?}",
        ledger.error_counts()
    );
    Ok(())
}

/// How long a client that waits is patient.
const PATIENCE: Duration = Duration::from_secs(40);

/// Two through the sidecar, one past it; their labels end with `suffix`. All of them write when this returns.
fn writers(sidecar: &Sidecar, direct: SocketAddr, suffix: &str) -> Result<Vec<Writer>> {
    let start = |label: &str, target: Target, mode| {
        let mut options = Options::new(format!("{label}{suffix}"), target, mode);
        let login = SHOP.login().into_db(DATABASE);
        (options.rate, options.timeout, options.sql) = (50, PATIENCE, Some(login));
        Writer::start(options)
    };
    let kept = Mode::Kept { connections: 2 };
    let writers = vec![
        start("php", Target::Unix(sidecar.unix("shop")?), Mode::PerRequest)?,
        start("kept", sidecar.tcp("shop")?.into(), kept)?,
        start("direct", direct.into(), kept)?,
    ];
    for writer in &writers {
        writer.wait_ack_after(Instant::now(), LONG)?;
    }
    Ok(writers)
}

/// Writers write for a while after it, as they would.
const GOING_ON: Duration = Duration::from_millis(500);
