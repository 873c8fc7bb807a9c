//! What servers and sentinels say of themselves, and what follows from it for a failover. Pure.

use crate::addr::Addr;
use crate::handover::{Reason, Refused};
use crate::proto::redis::role::Role;

/// One server, just before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub role: Role,
    pub version: (u32, u32),
    /// The history that its offset counts in.
    pub replid: String,
    /// Of a replica: smaller is preferred, 0 is never.
    pub priority: Option<u64>,
}

impl Facts {
    /// From the answers to ROLE and INFO.
    pub fn read(role: Role, info: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut lines = info.lines();
            lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
        };
        let version = field("redis_version")?;
        let mut parts = version.split('.').map(|part| part.parse().ok());
        Some(Self {
            role,
            version: (parts.next()??, parts.next()??),
            replid: field("master_replid")?.to_owned(),
            priority: field("slave_priority").and_then(|text| text.parse().ok()),
        })
    }

    /// `CLIENT PAUSE ms WRITE` is there (redis.io/commands/client-pause).
    pub fn can_pause(&self) -> bool {
        self.version >= (6, 2)
    }

    pub fn offset(&self) -> Option<u64> {
        match &self.role {
            Role::Master { offset, .. } | Role::Replica { offset, .. } => Some(*offset),
            Role::Busy(_) | Role::Down(_) => None,
        }
    }
}

/// Whether `target` may take over from `primary`, `at` the most bytes behind.
///
/// # Errors
/// Why not.
pub fn fit(target: &Addr, facts: &Facts, primary: &Facts, at_most: u64) -> Result<(), Refused> {
    let unfit = |why: String| Err(Refused::new(Reason::UnfitTarget, format!("{target} {why}")));
    if !matches!(
        facts.role,
        Role::Replica {
            connected: true,
            ..
        }
    ) {
        return unfit(format!("says of itself: {}", facts.role));
    }
    if facts.priority == Some(0) {
        return unfit("is never to be promoted: its replica-priority is 0".to_owned());
    }
    if facts.replid != primary.replid {
        return unfit("follows another history than the primary's".to_owned());
    }
    let behind = primary
        .offset()
        .unwrap_or(0)
        .saturating_sub(facts.offset().unwrap_or(0));
    if behind > at_most {
        let why =
            format!("{target} is {behind} bytes behind, too far to catch up while everybody waits");
        return Err(Refused::new(Reason::Behind, why));
    }
    Ok(())
}

/// A replica as a sentinel sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// As it is reached from here.
    pub addr: Addr,
    pub priority: u64,
    /// Whether that sentinel could choose it.
    pub eligible: bool,
}

impl Rival {
    /// From `flags` and `slave-priority` of SENTINEL REPLICAS. What a sentinel skips: redis.io, "Replica
    /// selection and priority".
    pub fn read(addr: Addr, flags: &str, priority: u64) -> Self {
        let bad = ["s_down", "o_down", "disconnected"];
        let skipped = flags.split(',').any(|flag| bad.contains(&flag));
        Self {
            addr,
            priority,
            eligible: !skipped && priority > 0,
        }
    }
}

/// A `replica-priority` to be set, and to be set back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Priority {
    pub addr: Addr,
    pub from: u64,
    pub to: u64,
}

/// Whom the sentinels would choose among: the eligible ones of the smallest priority.
pub fn favourites(rivals: &[Rival]) -> Vec<Addr> {
    let eligible = || rivals.iter().filter(|rival| rival.eligible);
    let least = eligible().map(|rival| rival.priority).min();
    let favourites = eligible().filter(|rival| Some(rival.priority) == least);
    favourites.map(|rival| rival.addr.clone()).collect()
}

/// What has to be set so that `target` is the only favourite.
pub fn prefer(target: &Addr, rivals: &[Rival]) -> Vec<Priority> {
    if favourites(rivals) == [target.clone()] {
        return Vec::new();
    }
    let wanted = |rival: &Rival| match rival.addr == *target {
        true => 1,
        // 0 is never, and stays that.
        false if rival.priority == 1 => 2,
        false => rival.priority,
    };
    let all = rivals.iter().map(|rival| Priority {
        addr: rival.addr.clone(),
        from: rival.priority,
        to: wanted(rival),
    });
    all.filter(|change| change.from != change.to).collect()
}

/// What `target` is called by `primary`, which has to be told to follow it: servers may know each other
/// by other addresses than we do. Those that ROLE lists are what they know.
pub fn called(target: &Addr, listed: &[(Addr, u64)]) -> Addr {
    match listed {
        [(only, _)] => only.clone(),
        _ => target.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(n: u8) -> Addr {
        format!("10.0.0.{n}:6379").parse().unwrap()
    }

    fn replica(offset: u64, connected: bool) -> Role {
        Role::Replica {
            master: Some(addr(1)),
            connected,
            offset,
        }
    }

    fn facts(role: Role, replid: &str, priority: Option<u64>) -> Facts {
        Facts {
            role,
            version: (7, 0),
            replid: replid.into(),
            priority,
        }
    }

    #[test]
    fn facts_are_read() {
        let info = "# Server\r\nredis_version:7.0.15\r\n\r\n# Replication\r\nrole:slave\r\n\
                    slave_priority:100\r\nmaster_replid:abc\r\n";
        let read = Facts::read(replica(5, true), info).unwrap();
        assert_eq!(read, facts(replica(5, true), "abc", Some(100)));
        assert!(read.can_pause());
        let old = info.replace("7.0.15", "6.0.16");
        assert!(!Facts::read(replica(5, true), &old).unwrap().can_pause());
        let new = info.replace("7.0.15", "10.1");
        assert!(Facts::read(replica(5, true), &new).unwrap().can_pause());
        for broken in ["", "redis_version:7", "redis_version:x.y\nmaster_replid:a"] {
            assert_eq!(Facts::read(replica(5, true), broken), None);
        }
    }

    #[test]
    fn who_may_take_over() {
        let master = Role::Master {
            offset: 1000,
            replicas: vec![],
        };
        let primary = facts(master.clone(), "a", None);
        for (role, replid, priority, expected) in [
            (replica(1000, true), "a", Some(100), None),
            (replica(900, true), "a", Some(100), None),
            (replica(899, true), "a", Some(100), Some(Reason::Behind)),
            (
                replica(1000, false),
                "a",
                Some(100),
                Some(Reason::UnfitTarget),
            ),
            (replica(1000, true), "a", Some(0), Some(Reason::UnfitTarget)),
            (
                replica(1000, true),
                "b",
                Some(100),
                Some(Reason::UnfitTarget),
            ),
            (master, "a", None, Some(Reason::UnfitTarget)),
        ] {
            let target = facts(role, replid, priority);
            let told = fit(&addr(2), &target, &primary, 100);
            assert_eq!(told.err().map(|r| r.reason), expected, "{target:?}");
        }
    }

    #[test]
    fn what_makes_a_favourite() {
        let rival = |n, flags, priority| Rival::read(addr(n), flags, priority);
        let change = |n, from, to| Priority {
            addr: addr(n),
            from,
            to,
        };
        for (rivals, changes) in [
            (vec![rival(2, "slave", 100)], vec![]),
            (
                vec![rival(2, "slave", 100), rival(3, "slave", 100)],
                vec![change(2, 100, 1)],
            ),
            (vec![rival(2, "slave", 10), rival(3, "slave", 100)], vec![]),
            (
                vec![rival(2, "slave", 100), rival(3, "slave", 10)],
                vec![change(2, 100, 1)],
            ),
            (
                vec![rival(2, "slave", 1), rival(3, "slave", 1)],
                vec![change(3, 1, 2)],
            ),
            // Never and not now are no rivals.
            (
                vec![
                    rival(2, "slave", 100),
                    rival(3, "slave", 0),
                    rival(4, "s_down,slave", 1),
                ],
                vec![],
            ),
        ] {
            assert_eq!(prefer(&addr(2), &rivals), changes, "{rivals:?}");
            // Afterwards it is the only one.
            let after: Vec<Rival> = rivals
                .iter()
                .map(|r| {
                    let to = changes.iter().find(|c| c.addr == r.addr);
                    Rival {
                        priority: to.map_or(r.priority, |c| c.to),
                        ..r.clone()
                    }
                })
                .collect();
            assert_eq!(favourites(&after), [addr(2)], "{rivals:?}");
        }
        assert_eq!(favourites(&[rival(2, "slave,disconnected", 100)]), []);
    }

    #[test]
    fn what_servers_call_each_other() {
        let listed = |n: &[u8]| n.iter().map(|n| (addr(*n), 0)).collect::<Vec<_>>();
        assert_eq!(called(&addr(2), &listed(&[2, 3])), addr(2));
        assert_eq!(called(&addr(2), &listed(&[9])), addr(9));
        assert_eq!(called(&addr(2), &[]), addr(2));
    }
}
