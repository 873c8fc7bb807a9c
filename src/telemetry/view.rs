//! What the outside may see of a service. Nothing here can change anything.

use std::sync::Arc;

use tokio::sync::watch;

use crate::data::admit::Limit;
use crate::data::table::Table;
use crate::gate::Gate;
use crate::monitor::Report;
use crate::topology::cell::TopologyReader;

/// Handles to one service, for health, metrics and status.
#[derive(Clone)]
pub struct ServiceView {
    pub name: Arc<str>,
    pub protocol: &'static str,
    pub discovery: &'static str,
    /// Counts for `/healthz`.
    pub required: bool,
    pub topology: TopologyReader,
    pub report: watch::Receiver<Arc<Report>>,
    pub gate: Arc<Gate>,
    /// Sessions now, held ones included.
    pub sessions: Arc<Limit>,
    pub held: Arc<Limit>,
    pub table: Arc<Table>,
}
