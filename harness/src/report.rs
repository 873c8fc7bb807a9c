//! What happened, for people: a timeline in milliseconds, and tables.

use std::fmt::Write as _;
use std::time::Instant;

/// Milliseconds from `t0` to `at`; negative if it was before.
pub fn ms(at: Instant, t0: Instant) -> i64 {
    let size =
        |a: Instant, b: Instant| i64::try_from(a.duration_since(b).as_millis()).unwrap_or(i64::MAX);
    if at >= t0 {
        size(at, t0)
    } else {
        -size(t0, at)
    }
}

struct Entry {
    at: Instant,
    who: String,
    what: String,
}

/// Events of several witnesses, put in order when printed.
pub struct Timeline {
    t0: Instant,
    entries: Vec<Entry>,
}

impl Timeline {
    /// Printed times are relative to `t0`.
    pub fn new(t0: Instant) -> Self {
        Self {
            t0,
            entries: Vec::new(),
        }
    }

    pub fn add(&mut self, at: Instant, who: impl Into<String>, what: impl Into<String>) {
        self.entries.push(Entry {
            at,
            who: who.into(),
            what: what.into(),
        });
    }

    /// One line per event.
    pub fn render(&mut self) -> String {
        self.entries.sort_by_key(|entry| entry.at);
        let width = self
            .entries
            .iter()
            .map(|entry| entry.who.chars().count())
            .max()
            .unwrap_or(0);
        let mut text = format!("  {:>7}  {:width$}  what\n", "ms", "who");
        for entry in &self.entries {
            let when = thousands(ms(entry.at, self.t0));
            let _ = writeln!(text, "  {when:>7}  {:width$}  {}", entry.who, entry.what);
        }
        text
    }
}

/// Rows under a heading; the first column is text, the others are numbers.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = if column == 0 {
                write!(line, " {cell:width$}")
            } else {
                write!(line, "  {cell:>width$}")
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// `12345` as `12,345`.
pub fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn in_order_and_relative() {
        let t0 = Instant::now();
        let mut timeline = Timeline::new(t0 + Duration::from_millis(10));
        timeline.add(
            t0 + Duration::from_millis(1510),
            "sentinel 1",
            "+switch-master",
        );
        timeline.add(t0, "we", "begin");
        let text = timeline.render();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "      -10  we          begin");
        assert_eq!(lines[2], "    1,500  sentinel 1  +switch-master");
    }

    #[test]
    fn numbers_and_tables() {
        assert_eq!(thousands(-1_234_567), "-1,234,567");
        assert_eq!(thousands(999), "999");
        let rows = [
            vec!["a".to_owned(), "10".into()],
            vec!["bcd".into(), "9".into()],
        ];
        assert_eq!(table(&rows), "  a    10\n  bcd   9\n");
    }
}
