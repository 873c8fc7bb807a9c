//! What the page shows, decided from what is known. Pure: no clock, no sockets; and nothing in it
//! depends on when one looks, so that two that are the same need not be drawn twice.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::drain::Phase;
use crate::events::Event;
use crate::gate::HoldReason;
use crate::telemetry::status::{EndpointStatus, ServiceStatus, SourceStatus, Status, Word};
use crate::telemetry::words::{short, size};

/// Reasons in the head; the rest is in the services' own places.
const REASONS: usize = 3;

/// How something is to be seen. Never by its colour alone: there is a word beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tone {
    /// Nothing to see here.
    Quiet,
    Good,
    /// Somebody's wish, which stands until it is undone.
    Wish,
    Warn,
    Bad,
}

impl Tone {
    #[cfg(test)]
    pub const ALL: [Self; 5] = [Self::Quiet, Self::Good, Self::Wish, Self::Warn, Self::Bad];

    /// Its class in the style sheet.
    pub fn class(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Good => "good",
            Self::Wish => "wish",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }

    fn of(word: Word) -> Self {
        match word {
            Word::Ok => Self::Good,
            Word::Degraded => Self::Warn,
            Word::Draining => Self::Wish,
            Word::Failing => Self::Bad,
        }
    }
}

/// A few words with a colour around them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Badge(pub Tone, pub String);

/// What keeps a service's clients waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    Open,
    /// An operator said so.
    Paused,
    /// The primary is being replaced.
    Fenced,
    /// There is nothing to go to.
    Bereft,
}

impl Gate {
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Fenced => "held",
            Self::Bereft => "waiting",
        }
    }

    pub fn tone(self) -> Tone {
        match self {
            Self::Open => Tone::Good,
            Self::Paused => Tone::Wish,
            Self::Fenced => Tone::Warn,
            Self::Bereft => Tone::Bad,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Where clients are sent.
    Primary,
    /// Answers, and is not the primary.
    Other,
    Down,
}

/// One database server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub address: String,
    pub part: Part,
    /// In the database's own words.
    pub role: String,
    pub lag: Option<String>,
    pub detail: Option<String>,
}

/// One sentinel or its like.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    pub address: String,
    pub up: bool,
    pub says: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    pub name: String,
    pub tone: Tone,
    pub status: &'static str,
    pub badges: Vec<Badge>,
    /// Protocol, discovery, required or not.
    pub kind: String,
    pub primary: Option<String>,
    pub since: String,
    pub cause: String,
    pub generation: u64,
    pub term: Option<u64>,
    pub gate: Gate,
    /// Held ones included.
    pub sessions: usize,
    pub held: usize,
    pub nodes: Vec<Node>,
    pub sources: Vec<Source>,
    pub troubles: Vec<String>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    pub seq: u64,
    pub time: String,
    pub tone: Tone,
    pub event: String,
    pub service: Option<String>,
    pub message: String,
    pub by: Option<String>,
}

/// The process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    pub name: String,
    pub region: Option<String>,
    pub version: String,
    pub pid: u32,
    pub started: String,
    pub tone: Tone,
    pub status: &'static str,
    /// What that means, in a sentence.
    pub meaning: &'static str,
    /// What is the matter with which service; so many at most.
    pub reasons: Vec<String>,
    /// How many more there are.
    pub more: usize,
    pub config_error: Option<String>,
    pub sessions: usize,
    pub held: usize,
}

/// The whole page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Model {
    pub head: Head,
    pub services: Vec<Service>,
    /// Newest first.
    pub events: Vec<Line>,
}

/// The same for what is the same, in one process.
pub fn tag<T: Hash>(what: &T) -> String {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

impl Model {
    /// `events` newest first.
    pub fn of<'a>(
        status: &Status,
        phase: Phase,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Self {
        Self {
            head: head(status, phase),
            services: status.services.iter().map(service).collect(),
            events: events.into_iter().map(line).collect(),
        }
    }
}

fn head(status: &Status, phase: Phase) -> Head {
    let word = status.health.status;
    let reason = |s: &ServiceStatus| Some(format!("{}: {}", s.name, s.reason.as_ref()?));
    let reasons: Vec<String> = status.services.iter().filter_map(reason).collect();
    Head {
        name: status.name.clone(),
        region: status.region.clone(),
        version: status.version.clone(),
        pid: status.pid,
        started: status.started.clone(),
        tone: Tone::of(word),
        status: word.as_str(),
        meaning: meaning(word, phase),
        more: reasons.len().saturating_sub(REASONS),
        reasons: reasons.into_iter().take(REASONS).collect(),
        config_error: status.config_error.clone(),
        sessions: status.services.iter().map(|s| s.sessions).sum(),
        held: status.services.iter().map(|s| s.held_clients).sum(),
    }
}

fn meaning(word: Word, phase: Phase) -> &'static str {
    match (word, phase) {
        (Word::Ok, _) => "Every service has a proven primary.",
        (Word::Degraded, _) => {
            "Clients are served or wait for a moment, and something is the matter."
        }
        (Word::Failing, _) => "A required service has no primary; load balancers are told 503.",
        (Word::Draining, Phase::Leaving | Phase::Closing) => {
            "The process was told to end; load balancers are told 503."
        }
        (Word::Draining, _) => {
            "An operator wants no new clients here: load balancers are told 503, clients are served."
        }
    }
}

fn service(s: &ServiceStatus) -> Service {
    let required = match s.required {
        true => "required",
        false => "not required",
    };
    Service {
        name: s.name.clone(),
        tone: Tone::of(s.status),
        status: s.status.as_str(),
        badges: badges(s),
        kind: format!("{} by {}, {required}", s.protocol, s.discovery),
        primary: s.primary.clone(),
        since: s.since.clone(),
        cause: s.cause.clone(),
        generation: s.generation,
        term: s.term,
        gate: gate(s),
        sessions: s.sessions,
        held: s.held_clients,
        nodes: nodes(s),
        sources: s.sources.iter().map(source).collect(),
        troubles: s.troubles.clone(),
    }
}

fn is_held(s: &ServiceStatus, reason: HoldReason) -> bool {
    s.held.iter().any(|held| held == reason.as_str())
}

fn gate(s: &ServiceStatus) -> Gate {
    if is_held(s, HoldReason::Operator) {
        Gate::Paused
    } else if s.primary.is_none() {
        Gate::Bereft
    } else if !s.held.is_empty() {
        Gate::Fenced
    } else {
        Gate::Open
    }
}

/// Everything that somebody has wished, and what the gate is shut for.
fn badges(s: &ServiceStatus) -> Vec<Badge> {
    let mut badges = Vec::new();
    if s.pinned {
        badges.push(Badge(Tone::Wish, "pinned".to_owned()));
    }
    for held in &s.held {
        let (tone, word) = match held.as_str() {
            "operator" => (Tone::Wish, "paused"),
            "fence" => (Tone::Warn, "writes held"),
            "failover" => (Tone::Warn, "failover under way"),
            other => (Tone::Warn, other),
        };
        badges.push(Badge(tone, word.to_owned()));
    }
    badges
}

/// A primary that is not among the servers that are asked is shown all the same.
fn nodes(s: &ServiceStatus) -> Vec<Node> {
    let primary = s.primary.as_deref();
    let listed = s
        .endpoints
        .iter()
        .any(|e| Some(e.address.as_str()) == primary);
    let unlisted = primary.filter(|_| !listed).map(|address| Node {
        address: address.to_owned(),
        part: Part::Primary,
        role: "not asked".to_owned(),
        lag: None,
        detail: None,
    });
    let asked = s.endpoints.iter().map(|e| node(e, primary));
    unlisted.into_iter().chain(asked).collect()
}

fn node(e: &EndpointStatus, primary: Option<&str>) -> Node {
    let part = match (Some(e.address.as_str()) == primary, e.up) {
        (true, _) => Part::Primary,
        (false, true) => Part::Other,
        (false, false) => Part::Down,
    };
    let seconds = e.lag_seconds.map(|s| short(Duration::from_secs(s)));
    Node {
        address: e.address.clone(),
        part,
        role: e.role.clone(),
        lag: e.lag_bytes.map(size).or(seconds),
        detail: e.detail.clone(),
    }
}

fn source(s: &SourceStatus) -> Source {
    Source {
        address: s.address.clone(),
        up: s.up,
        says: s.says.clone(),
    }
}

fn line(event: &Event) -> Line {
    Line {
        seq: event.seq,
        time: event.time.clone(),
        tone: event_tone(&event.event),
        event: event.event.clone(),
        service: event.service.clone(),
        message: event.message.clone(),
        by: event.by.map(|by| {
            let pid = by
                .pid
                .map_or_else(String::new, |pid| format!(", pid {pid}"));
            format!("uid {}{pid}", by.uid)
        }),
    }
}

/// Of the words that events begin with; one that is new here is shown quietly.
fn event_tone(event: &str) -> Tone {
    match event {
        "primary" | "failover-done" => Tone::Good,
        "no-primary" | "reload-failed" | "failover-failed" | "cutover-halted" => Tone::Bad,
        "trouble" | "fenced" | "failover-refused" => Tone::Warn,
        "paused" | "pinned" | "drain" | "draining" | "failover-planned" | "failover-step"
        | "cutover" | "cutover-ended" => Tone::Wish,
        _ => Tone::Quiet,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::events::By;
    use crate::telemetry::status::HealthStatus;

    pub fn endpoint(address: &str, role: &str, up: bool) -> EndpointStatus {
        EndpointStatus {
            address: address.into(),
            role: role.into(),
            up,
            lag_bytes: None,
            lag_seconds: None,
            detail: None,
        }
    }

    pub fn service(name: &str) -> ServiceStatus {
        ServiceStatus {
            name: name.into(),
            protocol: "redis".into(),
            discovery: "sentinel".into(),
            required: true,
            status: Word::Ok,
            reason: None,
            primary: Some("10.0.1.21:6379".into()),
            term: Some(7),
            generation: 12,
            cause: "announced".into(),
            since: "2026-01-02T15:04:05.123Z".into(),
            held: vec![],
            pinned: false,
            sessions: 1204,
            held_clients: 3,
            endpoints: vec![
                endpoint("10.0.1.21:6379", "master", true),
                EndpointStatus {
                    lag_bytes: Some(1_234_567),
                    ..endpoint("10.0.2.21:6379", "replica", true)
                },
                EndpointStatus {
                    detail: Some("connection refused".into()),
                    ..endpoint("10.0.3.21:6379", "down", false)
                },
            ],
            sources: vec![SourceStatus {
                address: "10.0.1.11:26379".into(),
                up: true,
                says: "10.0.1.21:6379, epoch 7".into(),
            }],
            troubles: vec![],
        }
    }

    pub fn status(services: Vec<ServiceStatus>) -> Status {
        Status {
            name: "app-01".into(),
            region: Some("gra".into()),
            version: "0.1.0".into(),
            pid: 4711,
            started: "2026-01-02T15:00:00.000Z".into(),
            uptime_s: 192,
            config_error: None,
            cutover: None,
            health: HealthStatus {
                status: Word::Ok,
                reason: None,
            },
            services,
        }
    }

    pub fn event(seq: u64, event: &str, message: &str) -> Event {
        Event {
            seq,
            time: "2026-01-02T15:04:05.123Z".into(),
            event: event.into(),
            service: Some("cache".into()),
            message: message.into(),
            by: Some(By {
                uid: 0,
                pid: Some(17),
            }),
        }
    }

    fn one(s: ServiceStatus) -> Service {
        Model::of(&status(vec![s]), Phase::Serving, [])
            .services
            .remove(0)
    }

    #[test]
    fn nodes_are_what_they_are_used_for() {
        let nodes = one(service("cache")).nodes;
        let parts: Vec<Part> = nodes.iter().map(|node| node.part).collect();
        assert_eq!(parts, [Part::Primary, Part::Other, Part::Down]);
        assert_eq!(nodes[1].lag.as_deref(), Some("1.2 MB"));
        let pinned = ServiceStatus {
            primary: Some("10.9.9.9:1".into()),
            pinned: true,
            ..service("cache")
        };
        let pinned = one(pinned);
        assert_eq!(
            (pinned.nodes.len(), pinned.nodes[0].part),
            (4, Part::Primary)
        );
        assert_eq!(pinned.badges, [Badge(Tone::Wish, "pinned".into())]);
    }

    #[test]
    fn the_gate_says_who_keeps_clients_waiting() {
        for (held, primary, gate) in [
            (vec![], true, Gate::Open),
            (vec!["fence"], true, Gate::Fenced),
            (vec!["fence"], false, Gate::Bereft),
            (vec!["fence", "operator"], false, Gate::Paused),
            (vec!["something-new"], true, Gate::Fenced),
        ] {
            let mut s = service("cache");
            s.held = held.iter().map(ToString::to_string).collect();
            s.primary = s.primary.filter(|_| primary);
            let shown = one(s);
            assert_eq!(shown.gate, gate, "{held:?}");
            assert_eq!(shown.badges.len(), held.len());
        }
    }

    #[test]
    fn what_is_the_same_has_the_same_tag_at_any_time() {
        let of = |uptime_s, sessions| {
            let mut status = status(vec![service("cache")]);
            status.uptime_s = uptime_s;
            status.services[0].sessions = sessions;
            tag(&Model::of(&status, Phase::Serving, []))
        };
        assert_eq!(of(1, 5), of(2, 5));
        assert_ne!(of(1, 5), of(1, 6));
    }

    #[test]
    fn a_drain_says_whose_it_is() {
        let mut status = status(vec![]);
        status.health.status = Word::Draining;
        let head = |phase| Model::of(&status, phase, []).head;
        assert!(head(Phase::Draining).meaning.contains("operator"));
        assert!(head(Phase::Leaving).meaning.contains("end"));
        assert_eq!(head(Phase::Leaving).tone, Tone::Wish);
    }

    #[test]
    fn events_say_who_asked() {
        let event = event(3, "paused", "paused: clients wait");
        let line = Model::of(&status(vec![]), Phase::Serving, [&event])
            .events
            .remove(0);
        assert_eq!(
            (line.tone, line.by.as_deref()),
            (Tone::Wish, Some("uid 0, pid 17"))
        );
    }
}
