//! Tells what happened, and judges it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::GRACE;
use super::acts::{Act, Played};
use super::stage::Stage;
use crate::redis::{Announcement, RedisCluster};
use crate::report::{Timeline, ms, table, thousands};
use crate::sidecar::Change;
use crate::writer::{Ledger, Write, later_than};

pub(super) struct Told {
    pub text: String,
    pub guarantees_held: bool,
}

/// One lane when all is over.
struct Outcome {
    proxy: &'static str,
    style: &'static str,
    ledger: Ledger,
    /// Acknowledged, and not on the new master.
    missing: Vec<Write>,
    late: usize,
}

/// Stops the writers, asks the new master, prints.
pub(super) fn tell(mut stage: Stage, played: &Played) -> Result<Told> {
    let lanes = std::mem::take(&mut stage.lanes);
    let mut outcomes = Vec::new();
    for lane in lanes {
        let ledger = lane.writer.stop();
        let missing = ledger.missing_from(stage.cluster.node(played.new).conn()?)?;
        let late = later_than(&missing, played.first.at, GRACE);
        outcomes.push(Outcome {
            proxy: lane.proxy,
            style: lane.style,
            ledger,
            missing,
            late,
        });
    }
    let mut text = timeline(&stage, played, &outcomes).render();
    let _ = writeln!(text, "\n{}", table(&rows(played, &outcomes)));
    let (verdicts, guarantees_held) = judge(played, &outcomes);
    text.push_str(&verdicts);
    Ok(Told {
        text,
        guarantees_held,
    })
}

fn timeline(stage: &Stage, played: &Played, outcomes: &[Outcome]) -> Timeline {
    let mut timeline = Timeline::new(played.t0);
    for (at, deed) in &played.deeds {
        timeline.add(*at, "we", deed);
    }
    for event in stage.announcements.events_after(played.t0) {
        if let Some(what) = explain(&event, &stage.cluster) {
            timeline.add(event.at, format!("sentinel {}", event.sentinel + 1), what);
        }
    }
    for change in stage
        .health
        .changes()
        .into_iter()
        .filter(|change| change.at >= played.t0)
    {
        timeline.add(change.at, "/healthz", health(&change, &stage.cluster));
    }
    for (at, line) in stage
        .log
        .lines()
        .into_iter()
        .filter(|(at, _)| *at >= played.t0)
    {
        timeline.add(at, "pilotfish", named(without_time(&line), &stage.cluster));
    }
    for outcome in outcomes {
        witness(&mut timeline, played, outcome);
    }
    timeline
}

/// What a writer saw: its pause, and its first error.
fn witness(timeline: &mut Timeline, played: &Played, outcome: &Outcome) {
    let who = format!("{} {}", outcome.proxy, outcome.style);
    let first = outcome
        .ledger
        .first_lasting_ack_after(played.first.at, &outcome.missing);
    if let Some(write) = first {
        let waited = ms(write.ended, write.started);
        timeline.add(
            write.ended,
            &who,
            format!("first write on the new master acknowledged (it took {waited} ms)"),
        );
    }
    if let Some((at, gap)) = outcome
        .ledger
        .longest_gap()
        .filter(|(at, _)| *at + Duration::from_secs(1) >= played.t0)
    {
        timeline.add(
            at,
            &who,
            format!(
                "last acknowledgement before a pause of {} ms",
                gap.as_millis()
            ),
        );
    }
    if let Some(write) = outcome.ledger.errors().min_by_key(|write| write.ended) {
        let error = write.result.clone().err().unwrap_or_default();
        timeline.add(
            write.ended,
            &who,
            format!(
                "first of {} errors: {error}",
                outcome.ledger.errors().count()
            ),
        );
    }
}

/// Events that are steps of a failover; `None` for the rest.
fn explain(event: &Announcement, cluster: &RedisCluster) -> Option<String> {
    let about_master = event.payload.starts_with("master ");
    let meaning = match event.channel.as_str() {
        "+sdown" if about_master => "does not hear the master any more",
        "-sdown" if about_master => "hears the master again",
        "+odown" => "agrees with others that the master is down",
        "-odown" => "the master is no longer agreed to be down",
        "+try-failover" => "wants to lead a failover",
        "+elected-leader" => "is elected to lead it",
        "+selected-slave" => "has chosen a replica",
        "+failover-state-send-slaveof-noone" => "tells it to become master",
        "+promoted-slave" => "has seen it become master",
        "+config-update-from" => "has heard of it from the leader",
        "+switch-master" => "ANNOUNCES the new master",
        "+failover-end" | "+failover-end-for-timeout" => "has finished the failover",
        "+convert-to-slave" => "demotes the returned old master",
        channel if channel.starts_with("-failover-abort") => "gave up the failover",
        _ => return None,
    };
    let about = match event.switch_to() {
        Some(addr) => addr.to_string(),
        None => event
            .payload
            .split(" @ ")
            .next()
            .unwrap_or_default()
            .to_owned(),
    };
    let about = match event.channel.as_str() {
        "+config-update-from" | "+try-failover" | "+elected-leader" => String::new(),
        _ => format!(": {}", named(&about, cluster)),
    };
    Some(format!("{:36}{meaning}{about}", event.channel))
}

/// Addresses of nodes by their names.
fn named(text: &str, cluster: &RedisCluster) -> String {
    let mut text = text.to_owned();
    for (index, addr) in cluster.node_addrs().into_iter().enumerate() {
        let name = format!("redis-{}", index + 1);
        let (ip, port) = (addr.ip(), addr.port());
        // Sentinel calls a replica "slave IP:PORT IP PORT", and the master "master NAME IP PORT".
        for form in [
            format!("slave {addr} {ip} {port}"),
            format!("master mymaster {ip} {port}"),
            addr.to_string(),
        ] {
            text = text.replace(&form, &name);
        }
    }
    text
}

fn health(change: &Change, cluster: &RedisCluster) -> String {
    let primary = change.primary.as_deref().unwrap_or("none");
    let mut text = format!(
        "{}, primary {primary}, generation {}",
        change.status, change.generation
    );
    if !change.reason.is_empty() {
        let _ = write!(text, ": {}", change.reason);
    }
    named(&text, cluster)
}

/// A log line without its time, which the timeline has.
pub(super) fn without_time(line: &str) -> &str {
    match line.split_once(' ') {
        Some((time, rest)) if time.starts_with("20") && time.contains('T') => rest.trim_start(),
        _ => line,
    }
}

fn rows(played: &Played, outcomes: &[Outcome]) -> Vec<Vec<String>> {
    let mut lines: Vec<Vec<String>> = vec![vec![String::new()]];
    lines[0].extend(
        outcomes
            .iter()
            .map(|outcome| format!("{} {}", outcome.proxy, outcome.style)),
    );
    let mut line = |name: &str, value: &dyn Fn(&Outcome) -> String| {
        let mut row = vec![name.to_owned()];
        row.extend(outcomes.iter().map(value));
        lines.push(row);
    };
    let since =
        |at: Option<Instant>| at.map_or("never".into(), |at| thousands(ms(at, played.first.at)));
    line("writes acknowledged", &|it| {
        count(it.ledger.acked().count())
    });
    line("errors", &|it| count(it.ledger.errors().count()));
    line("longest time without an acknowledgement, ms", &|it| {
        it.ledger.longest_gap().map_or("-".into(), |(_, gap)| {
            thousands(ms(played.t0 + gap, played.t0))
        })
    });
    line(
        "first write on the new master, ms after the first announcement",
        &|it| {
            since(
                it.ledger
                    .first_lasting_ack_after(played.first.at, &it.missing)
                    .map(|write| write.ended),
            )
        },
    );
    line("acknowledged, but not on the new master", &|it| {
        count(it.missing.len())
    });
    line(
        "  of them acknowledged > 50 ms after the first announcement",
        &|it| count(it.late),
    );
    lines
}

pub(super) fn count(number: usize) -> String {
    thousands(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Pilotfish's lanes only: HAProxy promised nothing.
fn judge(played: &Played, outcomes: &[Outcome]) -> (String, bool) {
    let mut text = String::new();
    let mut all = true;
    for outcome in outcomes
        .iter()
        .filter(|outcome| outcome.proxy == "pilotfish")
    {
        let mut check = |good: bool, what: &str| {
            all &= good;
            let _ = writeln!(
                text,
                "  {}  {}: {what}",
                if good { "held  " } else { "BROKEN" },
                outcome.style
            );
        };
        check(
            outcome.late == 0,
            "no write lost that was acknowledged > 50 ms after the first announcement",
        );
        if played.act == Act::Planned {
            check(
                outcome.missing.is_empty(),
                "no acknowledged write lost at all",
            );
        }
    }
    let gone = if played.act == Act::Killed {
        "gone"
    } else {
        "deposed"
    };
    let _ = writeln!(
        text,
        "  redis-{} is {gone}, redis-{} is the master.",
        played.old + 1,
        played.new + 1
    );
    (text, all)
}
