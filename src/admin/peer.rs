//! Who may use the admin socket: root, the user we run as, and members of the allowed groups. The
//! kernel says who connected (unix(7), SO_PEERCRED).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::sync::Semaphore;
use tracing::warn;

use crate::clock::Moment;
use crate::net::Stream;

/// The process at the other end, as of its connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// `None`: it lives in another pid namespace.
    pub pid: Option<i32>,
}

impl Caller {
    /// `None` when the kernel does not say, which is a reason not to talk.
    pub fn of(stream: &Stream) -> Option<Self> {
        let Stream::Unix(stream) = stream else {
            return None;
        };
        let peer = stream.peer().ok()?;
        Some(Self {
            uid: peer.uid(),
            gid: peer.gid(),
            pid: peer.pid().filter(|pid| *pid > 0),
        })
    }
}

/// How long the user database may take. It can be on the network.
const LOOKUP: Duration = Duration::from_secs(2);
/// At a time.
const LOOKUPS: usize = 4;

/// Who may connect.
#[derive(Clone, Debug)]
pub struct Policy {
    owner: u32,
    groups: Arc<[String]>,
    lookups: Arc<Semaphore>,
}

impl Policy {
    /// For a socket that this process owns. Says which groups do not exist.
    pub fn new(groups: &[String]) -> Self {
        for group in groups
            .iter()
            .filter(|g| !matches!(Group::from_name(g), Ok(Some(_))))
        {
            warn!(%group, "there is no such group: nobody may use the admin socket by it");
        }
        Self::owned_by(rustix::process::geteuid().as_raw(), groups)
    }

    pub(super) fn owned_by(owner: u32, groups: &[String]) -> Self {
        Self {
            owner,
            groups: groups.into(),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
        }
    }

    /// Whether nobody has to be asked about this one.
    pub fn trusts(&self, caller: &Caller) -> bool {
        caller.uid == 0 || caller.uid == self.owner
    }

    /// Looks memberships up at every connect, so that a change counts at once. A user database that
    /// does not answer in time admits nobody.
    pub async fn admits(&self, caller: Caller) -> bool {
        if self.trusts(&caller) || self.groups.is_empty() {
            return self.trusts(&caller);
        }
        let (groups, lookups) = (self.groups.clone(), self.lookups.clone());
        // A name service that hangs must not stop the control thread, nor be asked by ever more
        // threads: one that is not waited for any more still counts.
        let lookup = async move {
            let permit = lookups.acquire_owned().await;
            let look = move || {
                let _permit = permit;
                is_member(&caller, &groups)
            };
            tokio::task::spawn_blocking(look).await
        };
        let answer = tokio::time::timeout(LOOKUP, lookup).await;
        matches!(answer, Ok(Ok(true)))
    }
}

fn is_member(caller: &Caller, groups: &[String]) -> bool {
    let lookup = |name: &String| Group::from_name(name).ok().flatten();
    let allowed: BTreeSet<u32> = groups
        .iter()
        .filter_map(lookup)
        .map(|g| g.gid.as_raw())
        .collect();
    shares(&allowed, caller.gid, || memberships(caller.uid))
}

/// Membership by the group it runs as, or else by those of its user.
fn shares(allowed: &BTreeSet<u32>, gid: u32, others: impl FnOnce() -> Vec<u32>) -> bool {
    !allowed.is_empty()
        && (allowed.contains(&gid) || others().iter().any(|gid| allowed.contains(gid)))
}

fn memberships(uid: u32) -> Vec<u32> {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
        return Vec::new();
    };
    let Ok(name) = CString::new(user.name) else {
        return Vec::new();
    };
    let groups = getgrouplist(&name, user.gid).unwrap_or_default();
    groups.into_iter().map(Gid::as_raw).collect()
}

/// Remembers who was refused, so that a loop of somebody does not fill the log.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeMap<u32, Moment>>);

impl Refusals {
    const QUIET: Duration = Duration::from_secs(60);
    /// More different users than that in a minute are not worth a line each.
    const MOST: usize = 64;

    /// Whether this refusal is worth a line.
    pub fn note(&self, uid: u32, now: Moment) -> bool {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.retain(|_, at| now.since(*at) < Self::QUIET);
        if noted.contains_key(&uid) || noted.len() >= Self::MOST {
            return false;
        }
        noted.insert(uid, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32, gid: u32) -> Caller {
        Caller {
            uid,
            gid,
            pid: None,
        }
    }

    #[tokio::test]
    async fn root_and_the_owner_may_and_nobody_else() {
        let policy = |groups: &[String]| Policy::owned_by(1000, groups);
        for (uid, may) in [(0, true), (1000, true), (1001, false), (65534, false)] {
            assert_eq!(policy(&[]).admits(caller(uid, 1)).await, may, "{uid}");
            let nowhere = policy(&["no-such-group-here".to_owned()]);
            assert_eq!(nowhere.admits(caller(uid, 1)).await, may, "{uid}");
        }
    }

    #[tokio::test]
    async fn members_of_an_allowed_group_may() {
        // The one group that every system has, by whatever name.
        let root = Group::from_gid(Gid::from_raw(0)).unwrap().unwrap();
        let policy = Policy::owned_by(1000, &[root.name]);
        assert!(
            policy.admits(caller(65534, 0)).await,
            "it runs as that group"
        );
        assert!(!policy.admits(caller(65534, 65534)).await);
        assert!(memberships(0).contains(&0), "root is in its own group");
    }

    #[test]
    fn groups_are_compared_by_number() {
        let allowed = BTreeSet::from([10, 20]);
        assert!(shares(&allowed, 10, || panic!("no need to ask")));
        assert!(shares(&allowed, 1, || vec![2, 20]));
        assert!(!shares(&allowed, 1, || vec![2, 3]));
        assert!(!shares(&BTreeSet::new(), 0, || vec![0]));
    }

    #[test]
    fn a_refusal_is_logged_once_a_minute() {
        let refusals = Refusals::default();
        let at = Moment::from_millis;
        assert!(refusals.note(1, at(0)) && refusals.note(2, at(1)));
        assert!(!refusals.note(1, at(59_000)));
        assert!(refusals.note(1, at(60_000)));
        for uid in 100..200 {
            refusals.note(uid, at(60_000));
        }
        assert!(!refusals.note(300, at(60_000)), "there is an end to it");
        assert!(refusals.note(300, at(120_001)));
    }
}
