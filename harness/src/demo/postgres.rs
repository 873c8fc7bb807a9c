//! The third part: a PostgreSQL primary is killed, its standby promoted, and the old one started again as it
//! was.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::postgres::{self, Mode, Options, PgCluster, RowWriter};
use crate::report::{Timeline, ms, table, thousands};
use crate::resp::Target;
use crate::sidecar::{Config, LogFollow, Service, Sidecar, Until};
use crate::wait;
use crate::writer::Ledger;

const SERVICE: &str = "shop";
const PATIENCE: Duration = Duration::from_secs(20);

/// Plays and tells it; `true` when every guarantee held.
pub(super) fn perform(binary: &Path, (number, of): (usize, usize)) -> Result<bool> {
    println!(
        "\n== {number} of {of}: PostgreSQL: the primary is killed, and returns as it was ==\n"
    );
    println!("A primary and a streaming standby. Rows are inserted without a break:");
    println!("  php   a connection per row, 2 at once, over the Unix socket");
    println!("  kept  2 kept connections over TCP\n");
    let options = Options {
        setup: vec![postgres::TABLE.to_owned()],
        ..Options::default()
    };
    let mut cluster = PgCluster::start(&options)?;
    let service = Service::postgres(SERVICE, &cluster.addrs())?.set("hold_timeout", "15s");
    let config = Config::new()?.level("info").service(service);
    let sidecar = Sidecar::start(binary, config, Until::Healthy)?;
    let log = sidecar.follow_log()?;
    let writers = writers(&sidecar)?;
    settle(&writers, Instant::now() + Duration::from_millis(500))?;
    cluster.node(1).wait_caught_up(cluster.node(0))?;

    let t0 = Instant::now();
    let mut timeline = Timeline::new(t0);
    cluster.node(0).kill()?;
    timeline.add(
        t0,
        "we",
        "kill -9 of the primary, pg-1, and all of its processes",
    );
    let asked = Instant::now();
    cluster.node(1).promote()?;
    timeline.add(
        asked,
        "we",
        "promote the standby: SELECT pg_promote() on pg-2",
    );
    let promoted = Instant::now();
    timeline.add(promoted, "pg-2", "is primary, on a timeline of its own");
    settle(&writers, promoted)?;
    let started = Instant::now();
    cluster.node_mut(0).restart()?;
    timeline.add(
        started,
        "we",
        "start pg-1 again as it was: it believes to be the primary",
    );
    timeline.add(
        Instant::now(),
        "pg-1",
        "accepts writes from whoever sends them",
    );
    wait::until_true("the old primary to be refused", PATIENCE, || {
        Ok(!sidecar.log_lines("is refused")?.is_empty())
    })?;
    settle(&writers, Instant::now() + Duration::from_millis(500))?;

    let ledgers: Vec<Ledger> = writers.into_iter().map(RowWriter::stop).collect();
    tell_log(&mut timeline, &log, t0, &cluster);
    for ledger in &ledgers {
        witness(&mut timeline, ledger, t0, promoted);
    }
    print!("{}", timeline.render());
    judge(&ledgers, &cluster, promoted)
}

fn writers(sidecar: &Sidecar) -> Result<Vec<RowWriter>> {
    let unix = Target::from(sidecar.unix(SERVICE)?.as_path());
    let tcp = Target::from(sidecar.tcp(SERVICE)?);
    Ok(vec![
        RowWriter::start("php", &unix, (Mode::PerRow, 2), PATIENCE)?,
        RowWriter::start("kept", &tcp, (Mode::Kept, 2), PATIENCE)?,
    ])
}

fn settle(writers: &[RowWriter], t: Instant) -> Result<()> {
    for writer in writers {
        writer.wait_ack_after(t, PATIENCE)?;
    }
    Ok(())
}

fn tell_log(timeline: &mut Timeline, log: &LogFollow, t0: Instant, cluster: &PgCluster) {
    for (at, line) in log.lines().into_iter().filter(|(at, _)| *at >= t0) {
        let said = line.split_once(' ').map_or(line.as_str(), |(_, rest)| rest);
        let mut said = said.trim_start().to_owned();
        for (index, addr) in cluster.addrs().iter().enumerate() {
            said = said.replace(&addr.to_string(), &format!("pg-{}", index + 1));
        }
        timeline.add(at, "pilotfish", said);
    }
}

/// What a writer saw: its first row on the new primary, and its first error.
fn witness(timeline: &mut Timeline, ledger: &Ledger, t0: Instant, promoted: Instant) {
    let first = ledger.first_ack_after(promoted);
    if let Some(write) = first {
        let waited = ms(write.ended, write.started);
        let what = format!("first row on the new primary acknowledged (it took {waited} ms)");
        timeline.add(write.ended, &ledger.label, what);
    }
    let errors = || ledger.errors().filter(|write| write.ended >= t0);
    if let Some(write) = errors().min_by_key(|write| write.ended) {
        let error = write.result.clone().err().unwrap_or_default();
        let what = format!("first of {} errors: {error}", errors().count());
        timeline.add(write.ended, &ledger.label, what);
    }
}

fn judge(ledgers: &[Ledger], cluster: &PgCluster, promoted: Instant) -> Result<bool> {
    let head = [String::new(), "acknowledged".into(), "errors".into()];
    let head = head.into_iter().chain([
        "first row, ms after the promotion".into(),
        "not on the new primary".into(),
        "on the old one only".into(),
    ]);
    let (mut rows, mut all) = (vec![head.collect::<Vec<String>>()], true);
    for ledger in ledgers {
        let missing = postgres::missing(ledger, cluster.node(1))?;
        let late = missing
            .iter()
            .filter(|write| write.started >= promoted)
            .count();
        let old = postgres::rows_of(cluster.node(0), &ledger.label)?;
        let strayed =
            |write: &&crate::writer::Write| write.started >= promoted && old.contains(&write.seq);
        let stray = ledger.writes.iter().filter(strayed).count();
        all &= late == 0 && stray == 0;
        let first = ledger.first_ack_after(promoted);
        rows.push(vec![
            ledger.label.clone(),
            count(ledger.acked().count()),
            count(ledger.errors().count()),
            first.map_or("never".into(), |write| thousands(ms(write.ended, promoted))),
            count(late),
            count(stray),
        ]);
    }
    println!("\n{}", table(&rows));
    let held = if all { "held  " } else { "BROKEN" };
    println!(
        "  {held}  every row acknowledged since the promotion is on pg-2, and none went to pg-1"
    );
    println!("  pg-1 is up, writable and refused, pg-2 is the primary.");
    Ok(all)
}

fn count(number: usize) -> String {
    thousands(i64::try_from(number).unwrap_or(i64::MAX))
}
