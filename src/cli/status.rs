//! `pilotfish status`.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::table::{self, Column, clean, wrapped};
use crate::admin::client;
use crate::admin::command::Command;
use crate::admin::status::{EndpointStatus, ServiceStatus, Status};
use crate::clock::{Clock, Moment};
use crate::telemetry::problem::Problem;
use crate::telemetry::words::{age, short, size};

/// Prints what the running process says of itself, as tables or as the JSON it sent.
///
/// # Errors
/// When it cannot be asked, does not answer, or knows no such service; the text is for people.
pub fn show(socket: &Path, service: Option<&str>, json: bool) -> Result<(), String> {
    let text = text(socket, service, json)?;
    // Whoever reads may have seen enough (`| head`): that is no error.
    let _ = writeln!(io::stdout().lock(), "{}", text.trim_end());
    Ok(())
}

/// What [`show`] prints.
///
/// # Errors
/// As [`show`].
pub fn text(socket: &Path, service: Option<&str>, json: bool) -> Result<String, String> {
    // Always asked for itself: its answer names the services that there are.
    let one = service.map(|name| fetch(socket, &Command::Service(name.to_owned())));
    let one = one.transpose()?;
    match (one, json) {
        (Some(body), true) => Ok(body),
        (Some(body), false) => Ok(page(None, &[read(&body)?])),
        (None, true) => fetch(socket, &Command::Status),
        (None, false) => {
            let status: Status = read(&fetch(socket, &Command::Status)?)?;
            Ok(page(Some(&status), &status.services))
        }
    }
}

pub fn read<T: DeserializeOwned>(body: &str) -> Result<T, String> {
    serde_json::from_str(body)
        .map_err(|error| format!("the answer cannot be read, is it of another version? ({error})"))
}

pub fn fetch(socket: &Path, command: &Command) -> Result<String, String> {
    let answer = client::ask_blocking(socket, command);
    let (status, body) = answer.map_err(|error| error.to_string())?;
    if status == 200 {
        return Ok(String::from_utf8_lossy(&body).into_owned());
    }
    let problem = serde_json::from_slice::<Problem>(&body);
    Err(problem.map_or_else(|_| format!("it answered {status}"), |p| clean(&p.detail)))
}

fn page(status: Option<&Status>, list: &[ServiceStatus]) -> String {
    // Process and reader share a host, and so a clock.
    let now = Clock::start().wall(Moment::default());
    let head = status.map(|status| head(status) + "\n");
    let mut page = head.unwrap_or_default() + &services(list, now);
    for service in list {
        page.push('\n');
        page += &details(service, now);
    }
    page
}

fn head(status: &Status) -> String {
    let region = status.region.as_ref().map(|r| format!(", region {r}"));
    let line = format!(
        "{}{}: {} · pilotfish {}, pid {}, up for {}",
        status.name,
        region.unwrap_or_default(),
        status.health.status.as_str(),
        status.version,
        status.pid,
        short(Duration::from_secs(status.uptime_s))
    );
    let mut head = wrapped("", &line);
    if let Some(reason) = &status.health.reason {
        head += &wrapped("  ", reason);
    }
    if let Some(error) = &status.config_error {
        head += &wrapped(
            "  ",
            &format!("the changed configuration is not followed: {error}"),
        );
    }
    head
}

const SERVICES: [Column; 8] = [
    Column("SERVICE", 14),
    Column("STATUS", 8),
    Column("PRIMARY", 26),
    Column("FOR", 7),
    Column("GENERATION", 10),
    Column("TERM", 7),
    Column("SESSIONS", 8),
    Column("HELD", 6),
];

fn services(services: &[ServiceStatus], now: jiff::Timestamp) -> String {
    let dash = || "-".to_owned();
    let row = |s: &ServiceStatus| {
        [
            s.name.clone(),
            s.status.as_str().to_owned(),
            s.primary.clone().unwrap_or_else(dash),
            age(&s.since, now).map_or_else(dash, short),
            s.generation.to_string(),
            s.term.map_or_else(dash, |term| term.to_string()),
            s.sessions.to_string(),
            s.held_clients.to_string(),
        ]
    };
    let rows: Vec<[String; 8]> = services.iter().map(row).collect();
    table::text("", &SERVICES, &rows)
}

const ENDPOINTS: [Column; 5] = [
    Column("ENDPOINT", 34),
    Column("ROLE", 11),
    Column("UP", 4),
    Column("LAG", 9),
    Column("", 0),
];
const SOURCES: [Column; 3] = [Column("SOURCE", 34), Column("UP", 4), Column("SAYS", 0)];

fn details(s: &ServiceStatus, now: jiff::Timestamp) -> String {
    let up = |up: bool| if up { "yes" } else { "no" }.to_owned();
    let mut text = title(s, now);
    if !s.held.is_empty() {
        text += &wrapped("  ", &format!("held: {}", s.held.join(", ")));
    }
    for trouble in &s.troubles {
        text += &wrapped("  ", &format!("trouble: {trouble}"));
    }
    if !s.endpoints.is_empty() {
        let row = |e: &EndpointStatus| {
            let detail = e.detail.clone().unwrap_or_default();
            let behind = e.lag_seconds.map(|s| short(Duration::from_secs(s)));
            let lag = e.lag_bytes.map(size).or(behind);
            let lag = lag.unwrap_or_else(|| "-".to_owned());
            [e.address.clone(), e.role.clone(), up(e.up), lag, detail]
        };
        let rows: Vec<[String; 5]> = s.endpoints.iter().map(row).collect();
        text += &table::text("  ", &ENDPOINTS, &rows);
    }
    if !s.sources.is_empty() {
        let rows: Vec<[String; 3]> = s
            .sources
            .iter()
            .map(|s| [s.address.clone(), up(s.up), s.says.clone()])
            .collect();
        text += &table::text("  ", &SOURCES, &rows);
    }
    text
}

fn title(s: &ServiceStatus, now: jiff::Timestamp) -> String {
    let required = if s.required {
        "required"
    } else {
        "not required"
    };
    let what = match &s.primary {
        Some(primary) => format!("primary {primary}"),
        None => "no primary".to_owned(),
    };
    let age = age(&s.since, now).map_or_else(String::new, |age| format!(", for {}", short(age)));
    let line = format!(
        "{}: {} by {}, {required} · {what} since {}{age} ({})",
        s.name, s.protocol, s.discovery, s.since, s.cause
    );
    wrapped("", &line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::controls::Controls;
    use crate::admin::server::Admin;
    use crate::admin::status::{HealthStatus, SourceStatus, Word};
    use crate::telemetry::sample::Sample;
    use tokio_util::sync::CancellationToken;

    fn service() -> ServiceStatus {
        ServiceStatus {
            name: "cache".into(),
            protocol: "redis".into(),
            discovery: "sentinel".into(),
            required: true,
            status: Word::Degraded,
            reason: Some("no majority: 1 of 3 sentinels in reach".into()),
            primary: Some("10.0.1.21:6379".into()),
            term: Some(7),
            generation: 12,
            cause: "announced".into(),
            since: "2026-01-02T15:04:05.123Z".into(),
            held: vec!["fence".into()],
            pinned: false,
            sessions: 1204,
            held_clients: 3,
            endpoints: vec![EndpointStatus {
                address: "redis-2.a-rather-long-host-name.example.com:6379".into(),
                role: "replica".into(),
                up: true,
                lag_bytes: Some(1_234_567),
                lag_seconds: None,
                detail: Some("says \u{1b}[31m something that is rather long indeed".into()),
            }],
            sources: vec![SourceStatus {
                address: "10.0.1.11:26379".into(),
                up: false,
                says: "connection refused".into(),
            }],
            troubles: vec!["no majority: 1 of 3 sentinels in reach, ".repeat(6)],
        }
    }

    #[test]
    fn the_page_says_it_all_and_fits_100_columns() {
        let long = ServiceStatus {
            name: "s".repeat(63),
            primary: Some(format!("unix:/{}", "p".repeat(100))),
            generation: 1_000_000_000,
            term: Some(1_000_000),
            sessions: 1_000_000,
            endpoints: Vec::new(),
            ..service()
        };
        let status = Status {
            name: "app-01".into(),
            region: Some("gra".into()),
            version: "0.1.0".into(),
            pid: 4711,
            started: "2026-01-02T15:04:05Z".into(),
            uptime_s: 192,
            config_error: Some("proxy.toml:3:1: no".into()),
            cutover: None,
            health: HealthStatus {
                status: Word::Degraded,
                reason: Some("cache: no majority".into()),
            },
            services: vec![service(), long],
        };
        let page = page(Some(&status), &status.services);
        for said in [
            "app-01, region gra: degraded · pilotfish 0.1.0, pid 4711, up for 3m12s",
            "SERVICE",
            "10.0.1.21:6379",
            "since 2026-01-02T15:04:05.123Z, for ",
            "(announced)",
            "redis by sentinel, required",
            "held: fence",
            "1204",
            "1.2 MB",
            "trouble: no majority",
            "10.0.1.11:26379  no  connection refused",
        ] {
            assert!(page.contains(said), "{said}:\n{page}");
        }
        assert!(!page.contains('\u{1b}'));
        for line in page.lines() {
            assert!(line.chars().count() <= 100, "{line}");
            assert!(!line.ends_with(' '), "{line:?}");
        }
    }

    #[test]
    fn nobody_there() {
        let dir = tempfile::tempdir().unwrap();
        let error = show(&dir.path().join("none.sock"), None, false).unwrap_err();
        assert!(error.contains("is Pilotfish running"), "{error}");
    }

    #[tokio::test]
    async fn what_the_process_says_is_what_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let admin = Admin::bind(&socket, 0o600, &[]).unwrap();
        let stop = CancellationToken::new();
        let sample = Sample::proven();
        let server = admin.serve(Controls::of(&sample), stop.clone());
        let client = async {
            // As in a process of its own: there is no runtime around the command line.
            let asks = move || {
                let ask = |service, json| text(&socket, service, json);
                let all = ask(None, false).unwrap();
                assert!(all.starts_with("app-01: ok"), "{all}");
                let one = ask(Some("cache"), false).unwrap();
                assert!(all.ends_with(&one), "{one}");
                for (service, name) in [(None, "app-01"), (Some("cache"), "cache")] {
                    let json = ask(service, true).unwrap();
                    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
                    assert_eq!(json["name"], name);
                }
                for service in ["none", "a b", "../status", ""] {
                    let error = ask(Some(service), false).unwrap_err();
                    assert!(error.starts_with("there is "), "{error}");
                }
            };
            tokio::task::spawn_blocking(asks).await.unwrap();
            stop.cancel();
        };
        tokio::join!(server, client);
    }
}
