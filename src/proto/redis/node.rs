//! The last word of a Redis server about itself, and for how long it counts.

use std::time::Duration;

use super::role::Role;
use crate::addr::Addr;
use crate::clock::Moment;
use crate::monitor::NodeReport;
use crate::monitor::urgency::Urgency;

/// How often a server is asked that ought to be master and is not proven.
pub const EAGER: Duration = Duration::from_millis(100);

/// How long a server's word counts when it is asked every `interval`: until the next answer is
/// overdue.
pub fn lease(interval: Duration) -> Duration {
    interval + interval.min(Duration::from_secs(1)) + EAGER * 3
}

/// The last word of a server about itself.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    pub said: Option<(Role, Moment)>,
    /// Since when it has said master without a break.
    pub master_since: Option<Moment>,
    urgency: Urgency,
}

/// However many reasons there are to ask a server at once, not more often than this.
const HURRIED: Duration = Duration::from_millis(10);

impl NodeView {
    /// It should be asked at once.
    pub fn hurry(&mut self) {
        self.urgency.hurry();
    }

    /// Whether it should be asked as soon as that is allowed.
    pub fn is_waiting(&self) -> bool {
        self.urgency.is_waiting()
    }

    /// What goes into [`crate::monitor::Pace::urgent`].
    pub fn urgency(&mut self, now: Moment) -> u64 {
        self.urgency.times(now, HURRIED)
    }
}

impl NodeView {
    pub fn see(&mut self, now: Moment, role: Role) {
        match &role {
            Role::Master { .. } => {
                self.master_since.get_or_insert(now);
            }
            // Busy is not down: what it said before stands until it is too old.
            Role::Busy(_) => {
                if matches!(
                    self.said,
                    Some((Role::Master { .. } | Role::Replica { .. }, _))
                ) {
                    return;
                }
            }
            Role::Replica { .. } | Role::Down(_) => self.master_since = None,
        }
        self.said = Some((role, now));
    }

    /// Says master, freshly.
    pub fn is_master(&self, now: Moment, lease: Duration) -> bool {
        matches!(&self.said, Some((Role::Master { .. }, at)) if now.since(*at) <= lease)
    }

    /// Says, freshly, that it is a replica with its link up.
    pub fn is_fit_replica(&self, now: Moment, lease: Duration, of: &Addr) -> bool {
        match &self.said {
            Some((
                Role::Replica {
                    master,
                    connected: true,
                    ..
                },
                at,
            )) if now.since(*at) <= lease => follows(master.as_ref(), of),
            _ => false,
        }
    }

    /// Why it does not count as master.
    pub fn why_not_master(&self, now: Moment, lease: Duration) -> String {
        match &self.said {
            None => "not asked yet".to_owned(),
            Some((_, at)) if now.since(*at) > lease => "no answer for too long".to_owned(),
            Some((Role::Replica { .. }, _)) => "it says it is a replica".to_owned(),
            Some((Role::Down(why) | Role::Busy(why), _)) => why.clone(),
            Some((Role::Master { .. }, _)) => "it says master".to_owned(),
        }
    }
}

/// A replica of another master is behind for good. A name cannot be compared with an address.
fn follows(master: Option<&Addr>, of: &Addr) -> bool {
    match (master, of) {
        (Some(Addr::Ip(a)), Addr::Ip(b)) => a == b,
        (Some(Addr::Name { .. }), Addr::Name { .. }) => master == Some(of),
        _ => true,
    }
}

impl NodeView {
    /// What it said, if that still counts.
    pub fn fresh(&self, now: Moment, lease: Duration) -> Option<&Role> {
        let (role, at) = self.said.as_ref()?;
        (now.since(*at) <= lease).then_some(role)
    }

    /// Its replication offset as master.
    pub fn offset(&self) -> Option<u64> {
        match &self.said {
            Some((Role::Master { offset, .. }, _)) => Some(*offset),
            _ => None,
        }
    }

    /// One line of status. `head` is the primary's offset; `stray` marks a master that is not the
    /// primary.
    pub fn report(
        &self,
        addr: &Addr,
        fresh: Option<&Role>,
        head: Option<u64>,
        stray: bool,
    ) -> NodeReport {
        let (role, lag_bytes, detail) = match fresh {
            None => ("unknown", None, None),
            Some(Role::Master { .. }) => (
                "master",
                None,
                stray.then(|| "says master, is not the primary".to_owned()),
            ),
            Some(Role::Replica {
                connected, offset, ..
            }) => {
                let broken = (!connected).then(|| "link to its master is down".to_owned());
                ("replica", head.map(|h| h.saturating_sub(*offset)), broken)
            }
            Some(Role::Busy(why)) => ("busy", None, Some(why.clone())),
            Some(Role::Down(why)) => ("down", None, Some(why.clone())),
        };
        let up = matches!(role, "master" | "replica" | "busy");
        NodeReport {
            address: addr.clone(),
            role,
            up,
            lag_bytes,
            lag_seconds: None,
            detail,
        }
    }
}
