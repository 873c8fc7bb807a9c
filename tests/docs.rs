//! `docs/operations.md` names what the program has, and nothing else.

use std::collections::BTreeSet;

use pilotfish::data::EndReason;
use pilotfish::telemetry::metrics::Described;
use pilotfish::topology::Cause;

const OPERATIONS: &str = include_str!("../docs/operations.md");

/// First cells of table rows, without their marks.
fn documented(prefix: &str) -> BTreeSet<&'static str> {
    let rows = OPERATIONS.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let words = cells
        .flat_map(|cell| cell.split(','))
        .map(|word| word.trim().trim_matches('`'));
    words.filter(|word| word.starts_with(prefix)).collect()
}

#[test]
fn every_metric_is_documented_and_every_documented_one_exists() {
    let tables: [&[Described]; 4] = [
        pilotfish::cutover::metrics::DESCRIBED,
        pilotfish::data::metrics::DESCRIBED,
        pilotfish::monitor::metrics::DESCRIBED,
        pilotfish::telemetry::surface::DESCRIBED,
    ];
    let exist: BTreeSet<&str> = tables.concat().iter().map(|d| d.0).collect();
    assert!(exist.len() > 15, "the tables are there");
    assert_eq!(documented("pilotfish_"), exist);
}

#[test]
fn every_reason_and_cause_is_documented() {
    let words = documented("");
    let reasons = EndReason::ALL.iter().map(|reason| reason.as_str());
    for word in reasons.chain(Cause::ALL.iter().map(|cause| cause.as_str())) {
        let mentioned = words.contains(word) || OPERATIONS.contains(&format!("`{word}`"));
        assert!(mentioned, "docs/operations.md does not explain `{word}`");
    }
}
