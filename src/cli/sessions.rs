//! `pilotfish sessions`.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::status::{fetch, read};
use super::table::{self, Column};
use crate::admin::command::Command;
use crate::admin::sessions::{SessionStatus, Sessions};
use crate::telemetry::words::short;

/// Prints the live sessions, as a table or as the JSON that came.
///
/// # Errors
/// When the process cannot be asked, does not answer, or knows no such service.
pub fn show(socket: &Path, service: Option<String>, json: bool) -> Result<(), String> {
    let body = fetch(socket, &Command::Sessions(service))?;
    let text = match json {
        true => body,
        false => page(&read(&body)?),
    };
    // Whoever reads may have seen enough (`| head`): that is no error.
    let _ = writeln!(io::stdout().lock(), "{}", text.trim_end());
    Ok(())
}

fn page(list: &Sessions) -> String {
    if list.sessions.is_empty() {
        return "no sessions".to_owned();
    }
    let rows: Vec<[String; 8]> = list.sessions.iter().map(row).collect();
    let mut text = table::text("", &COLUMNS, &rows);
    let more = list.total.saturating_sub(list.sessions.len());
    if more > 0 {
        text.push_str(&format!("and {more} more\n"));
    }
    text
}

const COLUMNS: [Column; 8] = [
    Column("SERVICE", 10),
    Column("ID", 7),
    // Clients are on this host.
    Column("CLIENT", 15),
    Column("AGE", 5),
    Column("UP", 6),
    Column("DOWN", 6),
    Column("STATE", 17),
    Column("ENDPOINT", 100),
];

fn row(session: &SessionStatus) -> [String; 8] {
    let endpoint = session.endpoint.clone();
    [
        session.service.clone(),
        session.id.to_string(),
        session.client.clone(),
        short(Duration::from_millis(session.age_ms)),
        size(session.bytes_up),
        size(session.bytes_down),
        session.state.clone(),
        endpoint.unwrap_or_else(|| "-".to_owned()),
    ]
}

/// `512`, `4.2k`, `16M`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["k", "M", "G", "T", "P"];
    if bytes < 1000 {
        return bytes.to_string();
    }
    // Two digits are enough to look at, so the precision of a float is.
    #[allow(clippy::cast_precision_loss)]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match value < 9.95 {
        true => format!("{value:.1}{}", UNITS[unit]),
        false => format!("{value:.0}{}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (4300, "4.2k"),
            (16 << 20, "16M"),
            (999 << 20, "999M"),
            (1 << 40, "1.0T"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_table_fits_the_screen() {
        let one = SessionStatus {
            service: "a-service-with-a-long-name".into(),
            id: 123_456_789,
            role: "primary".into(),
            client: "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".into(),
            endpoint: Some("[2001:db8:1111:2222:3333:4444:5555:6666]:6379".into()),
            age_ms: 86_400_000 * 3,
            bytes_up: u64::MAX,
            bytes_down: 1,
            state: "pinned-compressed".into(),
        };
        let list = Sessions {
            sessions: vec![one],
            total: 3,
        };
        let text = page(&list);
        assert!(
            text.lines()
                .all(|line| line.chars().count() <= table::WIDTH),
            "{text}"
        );
        assert!(text.contains("pinned-compressed") && text.ends_with("and 2 more\n"));
        let none = Sessions {
            sessions: vec![],
            total: 0,
        };
        assert_eq!(page(&none), "no sessions");
    }
}
