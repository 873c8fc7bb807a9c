//! What the config says about health, metrics and the log: valid values, checked once.

use std::net::SocketAddr;
use std::time::Duration;

/// `[http]`: health, metrics and the status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSpec {
    /// Empty: nothing is served.
    pub listen: Vec<SocketAddr>,
    /// Where HAProxy's agent-check is answered.
    pub agent: Option<SocketAddr>,
    /// How long a required service may be without primary before health says so with 503.
    pub unhealthy_after: Duration,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSpec {
    /// A `tracing` filter; it parses.
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
