//! What `/v1/status` says, and the status page; the command line reads the same types.

use serde::{Deserialize, Serialize};

use super::health::{self, Circumstances};
use super::surface::{Snapshot, Surface, VERSION};
use crate::clock::Moment;
use crate::gate::HoldReason;
use crate::monitor::report::{NodeReport, SourceReport, Trouble};

pub use super::health::Status as Word;

/// The process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub name: String,
    pub region: Option<String>,
    pub version: String,
    pub pid: u32,
    /// RFC 3339.
    pub started: String,
    pub uptime_s: u64,
    pub health: HealthStatus,
    /// Why the newest state of the config's file is not followed; `null` when it is.
    pub config_error: Option<String>,
    /// What is unfinished about the regional cutover; `null`: nothing.
    #[serde(default)]
    pub cutover: Option<String>,
    pub services: Vec<ServiceStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthStatus {
    pub status: Word,
    /// What is the matter with which service; `null` when nothing is.
    pub reason: Option<String>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    pub protocol: String,
    pub discovery: String,
    /// Counts for `/healthz`.
    pub required: bool,
    /// The service's own state, whether it is required or not.
    pub status: Word,
    pub reason: Option<String>,
    pub primary: Option<String>,
    pub term: Option<u64>,
    pub generation: u64,
    /// Why the primary is this one, or why there is none.
    pub cause: String,
    /// RFC 3339: since when the primary, or its absence, is what it is.
    pub since: String,
    /// Why clients wait, besides there being no primary.
    pub held: Vec<String>,
    /// Whether an operator's word rules over the monitor's.
    #[serde(default)]
    pub pinned: bool,
    /// Held clients included.
    pub sessions: usize,
    pub held_clients: usize,
    pub endpoints: Vec<EndpointStatus>,
    pub sources: Vec<SourceStatus>,
    pub troubles: Vec<String>,
}

/// One database server, as last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    pub address: String,
    /// In the database's own words.
    pub role: String,
    pub up: bool,
    pub lag_bytes: Option<u64>,
    pub lag_seconds: Option<u64>,
    pub detail: Option<String>,
}

/// One sentinel or its like, as last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    pub address: String,
    pub up: bool,
    pub says: String,
}

/// Everything, as of now.
pub fn status(surface: &Surface) -> Status {
    let shown = surface.shown();
    let snapshots: Vec<Snapshot<'_>> = shown.services.iter().map(Snapshot::of).collect();
    let given = surface.circumstances(&shown);
    let services: Vec<ServiceStatus> = snapshots
        .iter()
        .map(|snapshot| describe(surface, snapshot, &given))
        .collect();
    let cutover = surface.cutover_trouble().map(|why| why.to_string());
    Status {
        name: surface.name.clone(),
        region: surface.region.clone(),
        version: VERSION.to_owned(),
        pid: std::process::id(),
        started: health::wall(&surface.clock, Moment::default()),
        uptime_s: given.now.since(Moment::default()).as_secs(),
        health: overall(&services, &given, cutover.as_deref()),
        config_error: surface.config_error().map(|why| why.to_string()),
        cutover,
        services,
    }
}

/// One service, as of now; `None` when there is no such service.
pub fn service(surface: &Surface, name: &str) -> Option<ServiceStatus> {
    let shown = surface.shown();
    let view = shown.services.iter().find(|view| *view.name == *name)?;
    let snapshot = Snapshot::of(view);
    let given = surface.circumstances(&shown);
    Some(describe(surface, &snapshot, &given))
}

fn overall(
    services: &[ServiceStatus],
    given: &Circumstances,
    cutover: Option<&str>,
) -> HealthStatus {
    let states = services.iter().map(|s| (s.status, s.required));
    let named = |s: &ServiceStatus| s.reason.as_ref().map(|why| format!("{}: {why}", s.name));
    let mut reasons: Vec<String> = services.iter().filter_map(named).collect();
    reasons.extend(cutover.map(ToOwned::to_owned));
    HealthStatus {
        status: health::overall(states, given),
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
    }
}

fn describe(surface: &Surface, snapshot: &Snapshot<'_>, given: &Circumstances) -> ServiceStatus {
    let (status, reason) = health::judge(&snapshot.facts(), given);
    let Snapshot {
        view,
        topology,
        report,
    } = snapshot;
    let held = view.gate.reasons().map(HoldReason::as_str);
    ServiceStatus {
        name: view.name.to_string(),
        protocol: view.protocol.to_owned(),
        discovery: view.discovery.to_owned(),
        required: view.required,
        status,
        reason,
        primary: topology.primary_addr().map(ToString::to_string),
        term: topology.term.map(|term| term.0),
        generation: topology.generation.0,
        cause: topology.cause.to_string(),
        since: health::wall(&surface.clock, topology.since),
        held: held.map(ToOwned::to_owned).collect(),
        pinned: report
            .troubles
            .iter()
            .any(|t| matches!(t, Trouble::Pinned { .. })),
        sessions: view.sessions.taken(),
        held_clients: view.held.taken(),
        endpoints: report.nodes.iter().map(endpoint).collect(),
        sources: report.sources.iter().map(source).collect(),
        troubles: report.troubles.iter().map(ToString::to_string).collect(),
    }
}

fn endpoint(node: &NodeReport) -> EndpointStatus {
    EndpointStatus {
        address: node.address.to_string(),
        role: node.role.to_owned(),
        up: node.up,
        lag_bytes: node.lag_bytes,
        lag_seconds: node.lag_seconds,
        detail: node.detail.clone(),
    }
}

fn source(source: &SourceReport) -> SourceStatus {
    SourceStatus {
        address: source.address.to_string(),
        up: source.up,
        says: source.says.clone(),
    }
}
