//! Whether this server can serve, from what is known of its services. Pure: time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Moment};
use crate::drain::Phase;
use crate::monitor::Report;
use crate::topology::Topology;

/// The same words for the process and for each service, and as numbers in the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok = 0,
    /// Serves, or will again soon: less safe or less available than it should be.
    Degraded = 1,
    /// Leaves on purpose.
    Draining = 2,
    Failing = 3,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
            Self::Failing => "failing",
        }
    }

    /// Whether a load balancer may send clients here.
    pub fn serves(self) -> bool {
        matches!(self, Self::Ok | Self::Degraded)
    }

    pub fn http(self) -> u16 {
        if self.serves() { 200 } else { 503 }
    }

    /// The value of `pilotfish_health_status`.
    pub fn gauge(self) -> f64 {
        f64::from(self as u8)
    }
}

/// What one service is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub name: &'a str,
    pub required: bool,
    pub topology: &'a Topology,
    pub report: &'a Report,
}

/// What all services are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    pub now: Moment,
    pub phase: Phase,
    /// How long a service may be without primary.
    pub unhealthy_after: Duration,
    /// A regional cutover waits for an operator.
    pub unfinished: bool,
}

/// One service in the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceHealth {
    pub status: Status,
    pub primary: Option<String>,
    pub generation: u64,
    pub term: Option<u64>,
    /// RFC 3339: since when the primary, or its absence, is what it is.
    pub since: String,
    /// `null` when all is well.
    pub reason: Option<String>,
}

/// The answer for the whole process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub status: Status,
    pub name: String,
    pub region: Option<String>,
    /// What is the matter with the process as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub services: BTreeMap<String, ServiceHealth>,
}

/// A service's own state, whatever the process does and whether it is required or not.
pub fn judge(facts: &Facts<'_>, given: &Circumstances) -> (Status, Option<String>) {
    let Facts {
        topology, report, ..
    } = facts;
    let status = if topology.primary.is_none() {
        let absent = given.now.since(topology.since);
        if !topology.proven || absent >= given.unhealthy_after {
            Status::Failing
        } else {
            Status::Degraded
        }
    } else if report.degraded() {
        Status::Degraded
    } else {
        Status::Ok
    };
    (status, reason(status, topology, report))
}

fn reason(status: Status, topology: &Topology, report: &Report) -> Option<String> {
    if status == Status::Ok {
        return None;
    }
    let absent = match (&topology.primary, topology.proven) {
        (Some(_), _) => None,
        (None, true) => Some(format!("no primary ({})", topology.cause)),
        (None, false) => Some("no primary was proven yet".to_owned()),
    };
    let all: Vec<String> = absent.into_iter().chain(report.reason()).collect();
    Some(all.join("; "))
}

/// The process: as bad as its worst required service, and degraded by the others.
pub fn overall(
    services: impl IntoIterator<Item = (Status, bool)>,
    given: &Circumstances,
) -> Status {
    if given.phase != Phase::Serving {
        return Status::Draining;
    }
    let counts = |(status, required): (Status, bool)| match required {
        true => status,
        false => status.min(Status::Degraded),
    };
    let worst = services.into_iter().map(counts).max().unwrap_or(Status::Ok);
    match given.unfinished {
        true => worst.max(Status::Degraded),
        false => worst,
    }
}

/// One service as `/healthz/SERVICE` shows it: as if it were required, and the only one.
pub fn service(facts: &Facts<'_>, given: &Circumstances, clock: &Clock) -> ServiceHealth {
    let mut health = describe(facts, given, clock);
    // The cutover concerns the process.
    let given = Circumstances {
        unfinished: false,
        ..*given
    };
    health.status = overall([(health.status, true)], &given);
    health
}

fn describe(facts: &Facts<'_>, given: &Circumstances, clock: &Clock) -> ServiceHealth {
    let (status, reason) = judge(facts, given);
    let topology = facts.topology;
    ServiceHealth {
        status,
        primary: topology.primary_addr().map(ToString::to_string),
        generation: topology.generation.0,
        term: topology.term.map(|term| term.0),
        since: wall(clock, topology.since),
        reason,
    }
}

/// The whole answer. A service that is listed twice would be shown once: names are unique.
pub fn evaluate(
    name: &str,
    region: Option<&str>,
    services: &[Facts<'_>],
    given: &Circumstances,
    clock: &Clock,
) -> Health {
    let described: Vec<ServiceHealth> = services
        .iter()
        .map(|facts| describe(facts, given, clock))
        .collect();
    let states = described.iter().zip(services);
    let status = overall(states.map(|(s, f)| (s.status, f.required)), given);
    let names = services.iter().map(|facts| facts.name.to_owned());
    Health {
        status,
        name: name.to_owned(),
        region: region.map(ToOwned::to_owned),
        reason: None,
        services: names.zip(described).collect(),
    }
}

/// RFC 3339 in UTC; milliseconds are what logs of other systems can be compared by.
pub fn wall(clock: &Clock, moment: Moment) -> String {
    format!("{:.3}", clock.wall(moment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::Trouble;
    use crate::topology::{Cause, Endpoint, Generation, Term};
    use Status::{Degraded, Draining, Failing, Ok};

    const AFTER: Duration = Duration::from_secs(15);

    fn given(now_ms: u64, phase: Phase) -> Circumstances {
        Circumstances {
            now: Moment::from_millis(now_ms),
            phase,
            unhealthy_after: AFTER,
            unfinished: false,
        }
    }

    fn served() -> Topology {
        Topology {
            generation: Generation(3),
            term: Some(Term(7)),
            cause: Cause::Announced,
            proven: true,
            primary: Some(Endpoint::new("10.0.0.1:6379".parse().unwrap(), None)),
            ..Topology::empty(Moment::from_millis(1000))
        }
    }

    fn bereft(since_ms: u64) -> Topology {
        Topology {
            cause: Cause::Unproven,
            proven: true,
            ..Topology::empty(Moment::from_millis(since_ms))
        }
    }

    fn report(troubles: &[Trouble]) -> Report {
        Report {
            troubles: troubles.to_vec(),
            ..Report::empty(Moment::default())
        }
    }

    fn judged(topology: &Topology, troubles: &[Trouble], now_ms: u64) -> (Status, String) {
        let report = report(troubles);
        let facts = Facts {
            name: "cache",
            required: true,
            topology,
            report: &report,
        };
        let (status, reason) = judge(&facts, &given(now_ms, Phase::Serving));
        (status, reason.unwrap_or_default())
    }

    #[test]
    fn a_service_with_a_primary() {
        let minority = Trouble::Minority { count: 1, of: 3 };
        let refused = Trouble::Source {
            name: "10.0.0.9:26379".into(),
            why: "refused".into(),
        };
        let one_of_three = "no majority: 1 of 3 sentinels in reach";
        for (trouble, status, reason) in [
            (None, Ok, ""),
            (Some(refused), Ok, ""),
            (Some(Trouble::Fenced { why: "odown" }), Ok, ""),
            (Some(minority), Degraded, one_of_three),
        ] {
            let troubles: Vec<Trouble> = trouble.into_iter().collect();
            let judged = judged(&served(), &troubles, 99_000);
            assert_eq!(judged, (status, reason.to_owned()), "{troubles:?}");
        }
    }

    #[test]
    fn a_service_without_primary() {
        let never = Topology::empty(Moment::default());
        let unclear = Topology {
            cause: Cause::Conflict,
            ..never.clone()
        };
        for (topology, now, status, reason) in [
            (&never, 1, Failing, "no primary was proven yet"),
            (&unclear, 1, Failing, "no primary was proven yet"),
            (&bereft(1000), 15_999, Degraded, "no primary (unproven)"),
            (&bereft(1000), 16_000, Failing, "no primary (unproven)"),
        ] {
            let (is, why) = judged(topology, &[Trouble::NoPrimary], now);
            assert_eq!(is, status, "{topology:?}");
            assert_eq!(why, format!("{reason}; no server says it is master"));
        }
    }

    #[test]
    fn the_process_as_a_whole() {
        let none: &[(Status, bool)] = &[];
        for (services, status, http) in [
            (none, Ok, 200),
            (&[(Ok, true), (Ok, false)], Ok, 200),
            (&[(Ok, true), (Degraded, true)], Degraded, 200),
            (&[(Ok, true), (Degraded, false)], Degraded, 200),
            (&[(Ok, true), (Failing, false)], Degraded, 200),
            (&[(Ok, true), (Failing, true)], Failing, 503),
            (&[(Failing, true), (Degraded, false)], Failing, 503),
            (&[(Failing, false)], Degraded, 200),
            (&[(Failing, true), (Failing, true)], Failing, 503),
        ] {
            let overall_at = |phase| overall(services.iter().copied(), &given(0, phase));
            assert_eq!(overall_at(Phase::Serving), status, "{services:?}");
            assert_eq!(status.http(), http);
            assert_eq!(overall_at(Phase::Draining), Draining);
            assert_eq!(overall_at(Phase::Closing), Draining);
        }
        assert_eq!(Draining.http(), 503);
        let unfinished = Circumstances {
            unfinished: true,
            ..given(0, Phase::Serving)
        };
        assert_eq!(overall([(Ok, true)], &unfinished), Degraded);
        assert_eq!(overall([(Failing, true)], &unfinished), Failing);
    }

    #[test]
    fn the_answer_has_the_promised_shape() {
        let clock = Clock::start();
        let (cache, empty) = (served(), report(&[]));
        let never = Topology::empty(Moment::default());
        let facts = |name, required, topology| Facts {
            name,
            required,
            topology,
            report: &empty,
        };
        let both = [facts("cache", true, &cache), facts("extra", false, &never)];
        let now = given(2000, Phase::Serving);
        let health = evaluate("app-01", Some("gra"), &both, &now, &clock);
        let json = serde_json::to_value(&health).unwrap();
        let since = wall(&clock, Moment::from_millis(1000));
        let timestamp: jiff::Timestamp = since.parse().unwrap();
        let off = timestamp.duration_since(clock.wall(Moment::from_millis(1000)));
        assert!(off.abs() <= jiff::SignedDuration::from_millis(1), "{since}");
        assert_eq!(
            json["services"]["cache"],
            serde_json::json!({
                "status": "ok", "primary": "10.0.0.1:6379", "generation": 3, "term": 7,
                "since": since, "reason": null,
            })
        );
        assert_eq!(json["status"], "degraded");
        assert_eq!(json["region"], "gra");
        assert_eq!(json["services"]["extra"]["status"], "failing");
        assert!(json["services"]["extra"]["primary"].is_null());
        assert!(json["services"]["extra"]["term"].is_null());

        let alone = |facts, phase| service(facts, &given(2000, phase), &clock).status;
        assert_eq!(alone(&both[1], Phase::Serving), Failing, "as if required");
        assert_eq!(alone(&both[0], Phase::Draining), Draining);
    }
}
