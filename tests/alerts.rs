//! The alerts and the dashboard speak of metrics that exist, and every alert has been seen to fire and has its
//! runbook.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a helper that fails is a test that fails

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use pilotfish_harness::process::find_program;

const RULES: &str = include_str!("../packaging/prometheus/pilotfish.rules.yml");
const RULE_TESTS: &str = include_str!("../packaging/prometheus/pilotfish.test.yml");
const DASHBOARD: &str = include_str!("../packaging/grafana/pilotfish.json");
const OPERATIONS: &str = include_str!("../docs/operations.md");

fn promtool(args: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/prometheus");
    let mut command = Command::new(find_program("promtool").unwrap());
    let output = command.args(args).current_dir(folder).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&text)
    );
}

#[test]
fn promtool_finds_nothing_wrong() {
    promtool(&[
        "check",
        "rules",
        "--lint=all",
        "--lint-fatal",
        "pilotfish.rules.yml",
    ]);
    promtool(&["test", "rules", "pilotfish.test.yml"]);
}

/// Names of metrics in an expression, without what is added to histograms.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("pilotfish_") || word.starts_with("process_"));
    let plain = |word: &str| {
        let ends = ["_bucket", "_sum", "_count"];
        let base = ends.iter().find_map(|end| word.strip_suffix(end));
        base.unwrap_or(word).to_owned()
    };
    ours.map(plain).collect()
}

/// Those that the program tells of: `tests/docs.rs` holds the table to that.
fn existing() -> BTreeSet<String> {
    let rows = OPERATIONS
        .lines()
        .filter(|line| line.starts_with("| `pilotfish_"));
    let own = rows.flat_map(named);
    let process = [
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ];
    own.chain(process.map(ToOwned::to_owned)).collect()
}

/// Every expression in the dashboard, wherever it stands.
fn expressions(value: &serde_json::Value, into: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(text) if ["expr", "query", "definition"].contains(&key.as_str()) => {
                        into.push(text.to_owned())
                    }
                    _ => expressions(value, into),
                }
            }
        }
        serde_json::Value::Array(all) => all.iter().for_each(|value| expressions(value, into)),
        _ => {}
    }
}

#[test]
fn rules_and_dashboard_name_metrics_that_exist() {
    let exist = existing();
    let mut dashboard = Vec::new();
    expressions(&serde_json::from_str(DASHBOARD).unwrap(), &mut dashboard);
    assert!(dashboard.len() > 20);
    let dashboard = named(&dashboard.join("\n"));
    for name in named(RULES)
        .iter()
        .chain(&named(RULE_TESTS))
        .chain(&dashboard)
    {
        assert!(exist.contains(name), "there is no metric {name}");
    }
}

fn alerts() -> Vec<&'static str> {
    let lines = RULES.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_prefix("- alert: "))
        .collect()
}

fn headings() -> BTreeSet<&'static str> {
    OPERATIONS
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect()
}

#[test]
fn every_alert_has_a_test_and_a_runbook() {
    let alerts = alerts();
    assert!(alerts.len() > 20);
    let headings = headings();
    for alert in &alerts {
        for test in ["fires", "is quiet"] {
            assert!(
                RULE_TESTS.contains(&format!("- name: {alert} {test}\n")),
                "{alert} {test}: no test"
            );
        }
        assert!(
            headings.contains(alert),
            "{alert} has no heading in docs/operations.md"
        );
        let index = format!("](#{})", alert.to_lowercase());
        assert!(OPERATIONS.contains(&index), "{alert} is not in the index");
        let link = format!("runbook_url: docs/operations.md#{}\n", alert.to_lowercase());
        assert!(RULES.contains(&link), "{link}");
    }
    for heading in headings
        .iter()
        .filter(|heading| heading.starts_with("Pilotfish"))
    {
        assert!(alerts.contains(heading), "there is no alert {heading}");
    }
}
