//! Answers about the cutover, for people.

use std::fmt::Write;

use super::super::table::{Column, clean, text};
use crate::cutover::feed::Line;
use crate::cutover::gate::Verdict;
use crate::cutover::plan::{PlannedSet, SetText};
use crate::cutover::report::{Preview, RegionStatus, RunReport};

const SETS: [Column; 3] = [Column("RECORD", 40), Column("NOW", 40), Column("THEN", 60)];
const GATES: [Column; 3] = [Column("GATE", 24), Column("SAYS", 12), Column("WHY", 100)];
const RUNS: [Column; 5] = [
    Column("BEGUN", 24),
    Column("RUN", 24),
    Column("OUTCOME", 14),
    Column("BY", 16),
    Column("WHY", 60),
];

fn set_text(set: Option<&SetText>, stored: Option<u32>) -> String {
    let Some(set) = set else {
        return "(none)".to_owned();
    };
    let ttl = stored.filter(|stored| *stored != set.ttl);
    let ttl = ttl.map_or_else(
        || set.ttl.to_string(),
        |ttl| format!("{}, stored as {ttl}", set.ttl),
    );
    format!("{} (TTL {ttl})", set.values.join(" "))
}

fn gates(verdicts: &[Verdict]) -> String {
    let rows: Vec<[String; 3]> = verdicts
        .iter()
        .map(|verdict| {
            let says = match verdict.overridden {
                true => "overridden".to_owned(),
                false => verdict.says.as_str().to_owned(),
            };
            [verdict.gate.clone(), says, String::new()]
        })
        .collect();
    // Reasons are not cut: they are what this is for.
    let table = text("", &GATES, &rows);
    let mut lines = table.lines();
    let mut out = format!("{}\n", lines.next().unwrap_or_default());
    for (line, verdict) in lines.zip(verdicts) {
        let _ = writeln!(out, "{line:<32}{}", clean(&verdict.why));
    }
    out
}

/// What would be done.
pub fn preview(preview: &Preview) -> String {
    let plan = &preview.plan;
    let from = plan.from.as_deref().unwrap_or("no region that is known");
    let mut out = format!(
        "{} from {} to {}, epoch {}, until {}\n",
        plan.way.as_str(),
        clean(from),
        clean(&plan.to),
        plan.epoch,
        clean(&plan.expires)
    );
    if preview.idle {
        return out + "the records lead there already: nothing is to be done\n";
    }
    let row = |set: &PlannedSet| {
        [
            set.record.clone(),
            set_text(set.old.as_ref(), None),
            set_text(set.new.as_ref(), set.stored_ttl),
        ]
    };
    let rows: Vec<[String; 3]> = plan.sets.iter().map(row).collect();
    let _ = write!(
        out,
        "\n{}\n{} promises:\n",
        text("", &SETS, &rows),
        clean(&plan.provider)
    );
    for promise in &plan.promises {
        let _ = writeln!(out, "  - {}", clean(promise));
    }
    let _ = writeln!(out, "\nThen, one after the other:");
    for step in &plan.steps {
        let _ = writeln!(out, "  - {}", clean(step));
    }
    let _ = writeln!(
        out,
        "resolvers may go on with the old records for {} s",
        plan.stragglers_s
    );
    let _ = write!(out, "\n{}", gates(&preview.verdicts));
    out
}

/// One line of a run.
pub fn line(line: &Line) -> String {
    let time = line.time.get(11..19).unwrap_or(&line.time);
    let mut out = format!("{time} {:<12} {}", line.phase, clean(&line.text));
    if !line.waiting_for.is_empty() {
        let waiting: Vec<String> = line.waiting_for.iter().map(|one| clean(one)).collect();
        let _ = write!(out, ": {}", waiting.join("; "));
    }
    if let Some(waited) = line.waited_ms {
        let _ = write!(out, " ({} s)", waited / 1000);
    }
    if let Some(outcome) = &line.result {
        let finish = &outcome.finish;
        let lines = [
            ("accepted by the provider", &finish.accepted),
            ("deployed, as it says", &finish.deployed),
            ("served by every name server", &finish.served),
            ("old TTL passed", &finish.converged),
        ];
        for (what, when) in lines {
            if let Some(when) = when {
                let _ = write!(out, "\n  {what:<28} {}", clean(when));
            }
        }
        for note in &outcome.notes {
            let _ = write!(out, "\n  note: {}", clean(note));
        }
    }
    out
}

fn unreadable(body: &str) -> String {
    format!("it does not answer as it should: {}", clean(body))
}

/// Where everything stands.
pub fn status(body: &str) -> String {
    let Ok(status) = serde_json::from_str::<RegionStatus>(body) else {
        return unreadable(body);
    };
    let active = status.active.as_deref().unwrap_or("not known");
    let mut out = format!(
        "active: {}   regions: {}   {} {}\n",
        clean(active),
        clean(&status.regions.join(", ")),
        clean(&status.provider),
        clean(&status.zone)
    );
    for record in &status.records {
        let _ = writeln!(out, "  {}", clean(record));
    }
    if let Some(problem) = &status.problem {
        let _ = writeln!(out, "problem: {}", clean(problem));
    }
    if let Some(lock) = &status.lock {
        let _ = writeln!(out, "lock: {}", clean(lock));
    }
    if let Some(run) = &status.run {
        let word = if status.running { "runs" } else { "unfinished" };
        let _ = writeln!(out, "{word}: {}", report(run));
    }
    if let Some(last) = &status.last {
        let _ = writeln!(out, "last: {}", report(last));
    }
    out
}

fn report(run: &RunReport) -> String {
    let word = run.outcome.as_deref().unwrap_or(&run.phase);
    let why = run
        .why
        .as_ref()
        .map_or_else(String::new, |why| format!(": {why}"));
    clean(&format!(
        "{} to {}, {word} since {}{why}",
        run.way, run.to, run.since
    ))
}

/// All runs.
pub fn history(body: &str) -> String {
    let Ok(runs) = serde_json::from_str::<Vec<RunReport>>(body) else {
        return unreadable(body);
    };
    if runs.is_empty() {
        return "there was no cutover yet".to_owned();
    }
    let row = |run: &RunReport| {
        let uid = run
            .uid
            .map_or_else(|| "automatic".to_owned(), |uid| format!("uid {uid}"));
        [
            run.begun.clone(),
            format!("{} to {}", run.way, run.to),
            run.outcome.clone().unwrap_or_else(|| run.phase.clone()),
            uid,
            run.why
                .clone()
                .or_else(|| run.reason.clone())
                .unwrap_or_default(),
        ]
    };
    let rows: Vec<[String; 5]> = runs.iter().map(row).collect();
    text("", &RUNS, &rows)
}
