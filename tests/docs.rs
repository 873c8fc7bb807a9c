//! `docs/operations.md` names what the program has, and nothing else.

use std::collections::BTreeSet;
use std::process::Command;

use pilotfish::data::EndReason;
use pilotfish::handover::Reason;
use pilotfish::handover::course::Failure;
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
    let tables: [&[Described]; 7] = [
        pilotfish::cutover::metrics::DESCRIBED,
        pilotfish::cutover::auto::serve::DESCRIBED,
        pilotfish::data::metrics::DESCRIBED,
        pilotfish::monitor::metrics::DESCRIBED,
        pilotfish::handover::run::DESCRIBED,
        pilotfish::telemetry::derived::DESCRIBED,
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
    let causes = Cause::ALL.iter().map(|cause| cause.as_str());
    let refusals = Reason::ALL.iter().map(|reason| reason.as_str());
    let failures = Failure::ALL.iter().map(|failure| failure.as_str());
    for word in reasons.chain(causes).chain(refusals).chain(failures) {
        let mentioned = words.contains(word) || OPERATIONS.contains(&format!("`{word}`"));
        assert!(mentioned, "docs/operations.md does not explain `{word}`");
    }
}

/// What `pilotfish --help`, or `pilotfish VERB --help`, lists.
fn verbs(of: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_pilotfish"))
        .args(of)
        .arg("--help")
        .output()
        .expect("it was built for this test");
    let text = String::from_utf8_lossy(&output.stdout);
    let Some((_, list)) = text.split_once("Commands:\n") else {
        return Vec::new();
    };
    let lines = list.lines().take_while(|line| !line.is_empty());
    // A description that goes on is set in further.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(ToOwned::to_owned)
        .collect()
}

#[test]
fn every_command_has_a_heading() {
    let verbs = verbs(&[]);
    assert!(verbs.len() > 10, "{verbs:?}");
    let headings: BTreeSet<&str> = OPERATIONS
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let described = |verb: &str| {
        let words = |heading: &&str| heading.replace('`', "");
        let named = format!("pilotfish {verb}");
        headings.iter().any(|heading| {
            words(heading)
                .split(" · ")
                .any(|one| one == named || one.starts_with(&format!("{named} ")))
        })
    };
    for verb in verbs {
        assert!(
            described(&verb),
            "`pilotfish {verb}` has no heading in docs/operations.md"
        );
    }
}
