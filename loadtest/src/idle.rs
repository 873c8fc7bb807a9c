//! Resident memory per session that does nothing.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pilotfish_harness::resp::Conn;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::contestants::{Proxy, Redis, ping};
use crate::scenario::Socket;

pub const SESSIONS: usize = 3000;

/// The most a session may take, in bytes.
pub const TARGET: f64 = 3500.0;

const ANSWER: Duration = Duration::from_secs(10);
/// For what a proxy does a moment after the last answer.
const SETTLE: Duration = Duration::from_millis(300);

/// Whose memory.
#[derive(Clone, Debug)]
pub enum Through {
    HaProxy,
    /// With the path of the binary.
    Pilotfish(PathBuf),
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    pub sessions: usize,
    /// Resident memory in bytes, without sessions and with them.
    pub before: u64,
    pub after: u64,
}

impl Idle {
    pub fn per_session(&self) -> f64 {
        (self.after as f64 - self.before as f64) / self.sessions as f64
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "sessions": self.sessions,
            "rss_before": self.before,
            "rss_after": self.after,
            "bytes_per_session": self.per_session().round(),
        })
    }
}

/// Starts a proxy, opens `sessions` through it, each of them once used, and looks.
///
/// # Errors
/// When there are not enough descriptors, or a session was not really established.
pub fn measure(through: &Through, sessions: usize) -> Result<Idle> {
    ensure!(sessions > 0, "there is nothing to measure without sessions");
    raise_descriptors(sessions)?;
    let redis = Redis::start()?;
    let proxy = match through {
        Through::HaProxy => Proxy::haproxy(&redis, false)?,
        Through::Pilotfish(binary) => Proxy::pilotfish(&redis, binary)?,
    };
    let target = proxy.target(Socket::Tcp)?;
    std::thread::sleep(SETTLE);
    let (before, descriptors) = (proxy.server().rss()?, proxy.server().fds()?);
    let mut open = Vec::with_capacity(sessions);
    for n in 0..sessions {
        let mut conn = Conn::connect(&target, ANSWER)?;
        ping(&mut conn).with_context(|| format!("session {n} of {sessions}"))?;
        open.push(conn);
    }
    std::thread::sleep(SETTLE);
    let idle = Idle {
        sessions,
        before,
        after: proxy.server().rss()?,
    };
    let more = proxy.server().fds()?.saturating_sub(descriptors);
    ensure!(
        more >= 2 * sessions,
        "{sessions} sessions have only {more} descriptors in the proxy"
    );
    for conn in &mut open {
        ensure!(
            conn.is_usable(),
            "a session was closed before its memory was measured"
        );
    }
    Ok(idle)
}

/// Two descriptors for a session in the proxy, which inherits the limit; HAProxy wants the quadruple to be sure.
pub fn raise_descriptors(sessions: usize) -> Result<()> {
    let needed = sessions as u64 * 4 + 1000;
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < needed) {
        anyhow::bail!("{sessions} sessions need a limit of {needed} descriptors (ulimit -Hn)");
    }
    if limit.current.is_some_and(|now| now < needed) {
        let raised = Rlimit {
            current: Some(needed),
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, raised).context("raising the limit of descriptors")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_costs_its_share_of_the_growth() {
        let idle = Idle {
            sessions: 4,
            before: 1000,
            after: 15_000,
        };
        assert_eq!(idle.per_session(), 3500.0);
        assert_eq!(idle.json()["bytes_per_session"], 3500.0);
        // Memory can be given back meanwhile; that is not an overflow.
        assert!(Idle { after: 0, ..idle }.per_session() < 0.0);
    }
}
