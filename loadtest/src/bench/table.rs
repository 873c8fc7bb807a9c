//! The result as Markdown that is also readable as it stands.

use std::fmt::Write as _;

use super::result::{Results, Row, Verdict};
use crate::contestants::Who;
use crate::idle;
use crate::stats::Spread;

const NOTHING: &str = "–";

pub fn render(results: &Results) -> String {
    let other = results.rows.iter().any(|row| row.cpu(Who::Other).is_some());
    let mut text = String::new();
    if !results.rows.is_empty() {
        let _ = writeln!(
            text,
            "Medians (min–max) of {} rounds. Ratios are taken within a round, against the HAProxy (with or without \
             splicing) that costs less.\n\n### Requests per second\n",
            results.rounds
        );
        text.push_str(&grid(&rates(results)));
        text.push_str("\n### CPU time of the proxy per request, in µs\n\n");
        text.push_str(&grid(&cpus(results, other)));
    }
    if let Some(idle) = idle_rows(results) {
        let _ = writeln!(
            text,
            "\n### Resident memory per session, {} idle ones, in bytes\n",
            idle::SESSIONS
        );
        text.push_str(&grid(&idle));
    }
    text.push_str("\n### Targets\n\n");
    text.push_str(&grid(&verdicts(&results.verdicts())));
    text
}

fn rates(results: &Results) -> Vec<Vec<String>> {
    let head = [
        "",
        "direct",
        "HAProxy",
        "Pilotfish",
        "Pilotfish / direct",
        "Pilotfish / HAProxy",
    ];
    let line = |row: &Row| {
        let peer = row.peer();
        vec![
            row.scenario.to_string(),
            cell(row.rate(Who::Direct)),
            cell(row.rate(peer)),
            cell(row.rate(Who::Pilotfish)),
            cell(row.rate_ratio(Who::Pilotfish, Who::Direct)),
            cell(row.rate_ratio(Who::Pilotfish, peer)),
        ]
    };
    with_head(&head, results.rows.iter().map(line))
}

fn cpus(results: &Results, other: bool) -> Vec<Vec<String>> {
    let mut head = vec![
        "",
        "HAProxy",
        "HAProxy, splicing",
        "plain relay",
        "Pilotfish",
        "Pilotfish / HAProxy",
        "plain relay / HAProxy",
    ];
    if other {
        head.extend(["other Pilotfish", "Pilotfish / other"]);
    }
    let line = |row: &Row| {
        let mut cells = vec![
            row.scenario.to_string(),
            cell(row.cpu(Who::HaProxy)),
            cell(row.cpu(Who::HaProxySplice)),
            cell(row.cpu(Who::Plain)),
            cell(row.cpu(Who::Pilotfish)),
            cell(row.cpu_ratio(Who::Pilotfish, row.peer())),
            cell(row.cpu_ratio(Who::Plain, row.peer())),
        ];
        if other {
            cells.extend([
                cell(row.cpu(Who::Other)),
                cell(row.cpu_ratio(Who::Pilotfish, Who::Other)),
            ]);
        }
        cells
    };
    with_head(&head, results.rows.iter().map(line))
}

fn idle_rows(results: &Results) -> Option<Vec<Vec<String>>> {
    let idle = results.idle.as_ref()?;
    let line = |(who, bytes): (&Who, &Vec<f64>)| {
        vec![
            who.as_str().to_owned(),
            cell(Spread::of(bytes.iter().copied())),
        ]
    };
    Some(with_head(&["", "bytes"], idle.iter().map(line)))
}

fn verdicts(verdicts: &[Verdict]) -> Vec<Vec<String>> {
    let line = |verdict: &Verdict| {
        let digits = if verdict.target < 10.0 { 2 } else { 0 };
        vec![
            if verdict.met { "PASS" } else { "FAIL" }.to_owned(),
            verdict.what.clone(),
            format!("{:.digits$} {}", verdict.measured, verdict.unit),
            format!("≤ {:.digits$}", verdict.target),
        ]
    };
    with_head(
        &["", "what", "measured", "target"],
        verdicts.iter().map(line),
    )
}

pub(crate) fn cell(spread: Option<Spread>) -> String {
    spread.map_or_else(|| NOTHING.to_owned(), |spread| spread.to_string())
}

pub(crate) fn with_head(
    head: &[&str],
    lines: impl Iterator<Item = Vec<String>>,
) -> Vec<Vec<String>> {
    let head = head.iter().map(|&word| word.to_owned()).collect();
    std::iter::once(head).chain(lines).collect()
}

/// A table whose columns line up; the first line is the head.
pub(crate) fn grid(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let length = |cell: &String| cell.chars().count();
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(length)
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).max(3)).collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if index == 0 {
            let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
            let _ = writeln!(text, "| {} |", rule.join(" | "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::results;
    use super::*;

    #[test]
    fn shows_medians_ratios_and_verdicts() {
        let text = render(&results(8.1));
        assert!(text.contains("| small requests, TCP |"), "{text}");
        assert!(text.contains("0.90 (0.90–0.90)"), "{text}");
        assert!(text.contains("| PASS | memory, idle session"), "{text}");
        assert!(!text.contains("other"), "{text}");
    }

    #[test]
    fn columns_line_up() {
        let text = grid(&with_head(
            &["a", "b"],
            [vec!["é–é–".to_owned(), "x".to_owned()]].into_iter(),
        ));
        let lengths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }
}
