//! PostgreSQL with streaming replication: real primaries, real standbys.

mod clients;
mod failover;
mod strangers;
mod words;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pilotfish_harness::postgres::{self, Mode, Options, Pg, PgCluster, PgServer, RowWriter};
use pilotfish_harness::resp::Target;
use pilotfish_harness::sidecar::{Config, Service, Sidecar, Until};
use pilotfish_harness::writer::Ledger;

use crate::kit::binary;

pub use crate::support::{LONG, assert_sound, wait_state};

/// How often servers are asked in these tests.
pub const INTERVAL: Duration = Duration::from_millis(250);
/// A client that waits must outlast what it waits for.
const PATIENCE: Duration = Duration::from_secs(40);

/// A primary and `standbys`, with the table that writers use.
pub fn cluster(standbys: usize) -> Result<PgCluster> {
    PgCluster::start(&Options {
        standbys,
        setup: vec![postgres::TABLE.to_owned()],
        ..Options::default()
    })
}

/// The service `shop` on these nodes. Its clients wait long, so that what they wait for decides.
pub fn shop(nodes: &[SocketAddr]) -> Result<Service> {
    Ok(Service::postgres("shop", nodes)?
        .set("hold_timeout", "30s")
        .discover("interval", &format!("{}ms", INTERVAL.as_millis()))
        .discover("timeout", "400ms"))
}

pub fn config(service: Service) -> Result<Config> {
    Ok(Config::new()?.line("workers = 2").service(service))
}

/// Proven when this returns.
pub fn start(service: Service) -> Result<Sidecar> {
    Sidecar::start(binary(), config(service)?, Until::Healthy)
}

pub fn target(sidecar: &Sidecar) -> Result<Target> {
    Ok(sidecar.tcp("shop")?.into())
}

pub fn connect(sidecar: &Sidecar) -> Result<Pg> {
    Pg::connect(&target(sidecar)?, PATIENCE)
}

pub fn row(label: &str, seq: u64) -> String {
    format!("INSERT INTO ledger VALUES ('{label}', {seq})")
}

/// A writer per row over the Unix socket, and one with kept connections over TCP, as both kinds of
/// applications do it.
pub fn writers(sidecar: &Sidecar) -> Result<Vec<RowWriter>> {
    let unix = Target::from(sidecar.unix("shop")?.as_path());
    let each = RowWriter::start("each", &unix, (Mode::PerRow, 2), PATIENCE)?;
    let kept = RowWriter::start("kept", &target(sidecar)?, (Mode::Kept, 2), PATIENCE)?;
    for writer in [&each, &kept] {
        writer.wait_ack_after(Instant::now(), LONG)?;
    }
    Ok(vec![each, kept])
}

/// Ends the writers. Rows that were begun after `t` and acknowledged must be on `new`, and none of them
/// on `old`, if that is there to be asked.
pub fn settle_accounts(
    writers: Vec<RowWriter>,
    t: Instant,
    new: &PgServer,
    old: Option<&PgServer>,
) -> Result<Vec<Ledger>> {
    let mut ledgers = Vec::new();
    for writer in writers {
        let ledger = writer.stop();
        let after: Vec<u64> = ledger
            .acked()
            .filter(|write| write.started >= t)
            .map(|write| write.seq)
            .collect();
        ensure!(
            !after.is_empty(),
            "{}: nothing after the switch",
            ledger.label
        );
        let there = postgres::rows_of(new, &ledger.label)?;
        let lost: Vec<&u64> = after.iter().filter(|seq| !there.contains(seq)).collect();
        ensure!(lost.is_empty(), "{}: lost {lost:?}", ledger.label);
        if let Some(old) = old {
            let stray = postgres::rows_of(old, &ledger.label)?;
            let late: Vec<&u64> = after.iter().filter(|seq| stray.contains(seq)).collect();
            ensure!(
                late.is_empty(),
                "{}: {late:?} went to the old",
                ledger.label
            );
        }
        println!(
            "{}: {} acknowledged, {} after the switch, {} errors {:?}, longest pause {:?}",
            ledger.label,
            ledger.acked().count(),
            after.len(),
            ledger.errors().count(),
            ledger.error_counts(),
            ledger.longest_gap().map(|(_, gap)| gap),
        );
        ledgers.push(ledger);
    }
    Ok(ledgers)
}
