//! The three ways in which a master goes.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::stage::Stage;
use crate::redis::Announcement;

/// The sentinels' announcement, after half a second to notice.
const FAILOVER: Duration = Duration::from_secs(20);
/// A deposed master says `master` for 8 to 18 s; the demo watches it this long.
const DEMOTION: Duration = Duration::from_secs(12);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Killed,
    Frozen,
    Planned,
}

/// What the story needs to know.
pub(super) struct Played {
    pub act: Act,
    pub t0: Instant,
    pub old: usize,
    pub new: usize,
    /// The first `+switch-master` of any sentinel.
    pub first: Announcement,
    /// What we did, and when.
    pub deeds: Vec<(Instant, String)>,
}

impl Act {
    pub const ALL: [Self; 3] = [Self::Killed, Self::Frozen, Self::Planned];

    pub fn title(self) -> &'static str {
        match self {
            Self::Killed => "the master is killed (kill -9)",
            Self::Frozen => "the master freezes, and thaws when another has taken over",
            Self::Planned => "a planned failover (SENTINEL FAILOVER)",
        }
    }

    pub fn play(self, stage: &Stage) -> Result<Played> {
        let cluster = &stage.cluster;
        let old = 0;
        let master = cluster.node(old).server();
        let t0 = Instant::now();
        let deed = match self {
            Self::Killed => master.kill().map(|()| "kill -9 of the master, redis-1")?,
            Self::Frozen => master
                .freeze()
                .map(|()| "freeze the master, redis-1 (SIGSTOP)")?,
            Self::Planned => cluster
                .failover(0)
                .map(|()| "SENTINEL FAILOVER, asked of sentinel 1")?,
        };
        let mut deeds = vec![(t0, deed.to_owned())];
        let first = stage.announcements.wait_announcement(t0, FAILOVER)?;
        let new = cluster.wait_new_master(old, FAILOVER)?;
        if self == Self::Frozen {
            // Long enough for every proxy to have found the new one.
            stage.settle(first.at + Duration::from_millis(1000), false)?;
            master.thaw()?;
            deeds.push((
                Instant::now(),
                "thaw the old master (SIGCONT): it still believes it is the master".into(),
            ));
        }
        match self {
            Self::Killed => stage.settle(first.at + Duration::from_millis(1500), true)?,
            Self::Frozen | Self::Planned => {
                let demoted =
                    |event: &Announcement| event.at > t0 && event.channel == "+convert-to-slave";
                // Not being demoted in this time is no failure of anybody's.
                let _ =
                    stage
                        .announcements
                        .wait_event("the old master's demotion", DEMOTION, demoted);
                stage.settle(Instant::now(), false)?;
            }
        }
        Ok(Played {
            act: self,
            t0,
            old,
            new,
            first,
            deeds,
        })
    }
}
