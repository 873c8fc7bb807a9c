//! What is asked of each contestant.

use std::fmt;

/// How the load uses its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Fifty connections that stay, one small request at a time on each.
    Kept,
    /// The same with sixteen requests in a packet.
    Pipelined,
    /// A connection for each request, as PHP does it.
    PerConnection,
    /// Values of 200 kB.
    Large,
}

/// What clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    Tcp,
    Unix,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub kind: Kind,
    pub socket: Socket,
}

impl Kind {
    const ALL: [Self; 4] = [
        Self::Kept,
        Self::Pipelined,
        Self::PerConnection,
        Self::Large,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "small requests",
            Self::Pipelined => "pipelines of 16",
            Self::PerConnection => "connection per request",
            Self::Large => "200 kB values",
        }
    }

    /// Of each of the two commands: about one second of a proxy's CPU time in all.
    fn requests(self) -> u32 {
        match self {
            Self::Kept => 60_000,
            Self::Pipelined => 600_000,
            Self::PerConnection => 10_000,
            Self::Large => 6_000,
        }
    }

    /// For `redis-benchmark`.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kept => &["-c", "50", "-d", "3"],
            Self::Pipelined => &["-c", "50", "-d", "3", "-P", "16"],
            Self::PerConnection => &["-c", "50", "-d", "3", "-k", "0"],
            Self::Large => &["-c", "50", "-d", "200000"],
        }
    }
}

impl Scenario {
    pub fn all() -> Vec<Self> {
        let both = |kind| [Socket::Tcp, Socket::Unix].map(|socket| Self { kind, socket });
        Kind::ALL.into_iter().flat_map(both).collect()
    }

    /// How many of each command.
    pub fn requests(self, quick: bool) -> u32 {
        self.kind.requests() / if quick { 4 } else { 1 }
    }

    pub fn arguments(self) -> &'static [&'static str] {
        self.kind.arguments()
    }

    /// The most CPU time Pilotfish may use for a request, as a multiple of HAProxy's. None for pipelines: there the proxy
    /// sees few packets, and HAProxy's cost depends on how they happen to fall together.
    pub fn target(self) -> Option<f64> {
        match self.kind {
            Kind::Kept => Some(0.9),
            Kind::Pipelined => None,
            Kind::PerConnection | Kind::Large => Some(1.0),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = match self.socket {
            Socket::Tcp => "TCP",
            Socket::Unix => "Unix",
        };
        write!(f, "{}, {socket}", self.kind.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<String> = Scenario::all().iter().map(ToString::to_string).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 8);
    }
}
