//! What the data side counts.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram};

use super::EndReason;
use crate::monitor::hints::Evidence;
use crate::telemetry::metrics::{Described, Kind, Registry, Tally};
use crate::topology::Role;

/// Names and meanings, for the text output and the documentation.
pub const DESCRIBED: &[Described] = &[
    Described(
        "pilotfish_sessions_active",
        Kind::Gauge,
        "Sessions now, held ones included",
    ),
    Described(
        "pilotfish_sessions_total",
        Kind::Counter,
        "Clients that were accepted",
    ),
    Described(
        "pilotfish_session_ends_total",
        Kind::Counter,
        "Sessions that ended, by reason",
    ),
    Described(
        "pilotfish_bytes_total",
        Kind::Counter,
        "Bytes relayed; up is to the server",
    ),
    Described(
        "pilotfish_held_clients",
        Kind::Gauge,
        "Clients that wait for a primary now",
    ),
    Described(
        "pilotfish_hold_seconds",
        Kind::Histogram,
        "How long held clients waited",
    ),
    Described(
        "pilotfish_connect_seconds",
        Kind::Histogram,
        "Connecting to an endpoint",
    ),
    Described(
        "pilotfish_connect_errors_total",
        Kind::Counter,
        "Connects that failed",
    ),
    Described(
        "pilotfish_hints_total",
        Kind::Counter,
        "Times a session met something for which its server is asked at once",
    ),
    Described(
        "pilotfish_accept_errors_total",
        Kind::Counter,
        "Failed accepts: connection (the client's) or resource (this host ran short)",
    ),
];

/// One service's counters.
pub struct ServiceMetrics {
    pub ends: [Counter; EndReason::ALL.len()],
    pub held: Gauge,
    pub hold_seconds: Histogram,
    pub connect_seconds: Histogram,
    pub connect_errors: Counter,
    pub hints: [Counter; Evidence::ALL.len()],
    pub accept_connection_errors: Counter,
    pub accept_resource_errors: Counter,
}

impl ServiceMetrics {
    pub fn new(registry: &Registry, service: &str) -> Self {
        let label = [("service", service)];
        let accept =
            |kind| registry.counter("pilotfish_accept_errors_total", &[label[0], ("kind", kind)]);
        Self {
            ends: EndReason::ALL.map(|reason| {
                registry.counter(
                    "pilotfish_session_ends_total",
                    &[label[0], ("reason", reason.as_str())],
                )
            }),
            held: registry.gauge("pilotfish_held_clients", &label),
            hold_seconds: registry.histogram("pilotfish_hold_seconds", &label),
            connect_seconds: registry.histogram("pilotfish_connect_seconds", &label),
            connect_errors: registry.counter("pilotfish_connect_errors_total", &label),
            hints: Evidence::ALL.map(|evidence| {
                let labels = [label[0], ("evidence", evidence.as_str())];
                registry.counter("pilotfish_hints_total", &labels)
            }),
            accept_connection_errors: accept("connection"),
            accept_resource_errors: accept("resource"),
        }
    }

    pub fn ended(&self, reason: EndReason) {
        self.ends[reason as usize].increment(1);
    }
}

/// One service's counters for one role, on one data thread.
pub struct RoleMetrics {
    pub active: Gauge,
    pub total: Counter,
    pub bytes_up: Arc<Tally>,
    pub bytes_down: Arc<Tally>,
}

impl RoleMetrics {
    pub fn new(registry: &Registry, service: &str, role: Role, thread: usize) -> Self {
        let labels = [("service", service), ("role", role.as_str())];
        let bytes = |direction| {
            registry.tally(
                "pilotfish_bytes_total",
                &[labels[0], ("direction", direction)],
                thread,
            )
        };
        Self {
            active: registry.gauge("pilotfish_sessions_active", &labels),
            total: registry.counter("pilotfish_sessions_total", &labels),
            bytes_up: bytes("up"),
            bytes_down: bytes("down"),
        }
    }
}

/// Adds one to a gauge for as long as it lives.
pub struct Counted(Gauge);

impl Counted {
    pub fn new(gauge: &Gauge) -> Self {
        gauge.increment(1);
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_where_they_belong() {
        for (index, reason) in EndReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
        for (index, evidence) in Evidence::ALL.iter().enumerate() {
            assert_eq!(*evidence as usize, index);
        }
    }
}
