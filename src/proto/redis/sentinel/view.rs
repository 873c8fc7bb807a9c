//! What was last heard from each sentinel, and for how long it counts.

use std::time::Duration;

use super::accept::Accepted;
use super::answer::Answer;
use super::fence::Holds;
use crate::addr::Addr;
use crate::clock::Moment;
use crate::topology::Term;

/// A sentinel is asked every second and must answer within half of one; two missed answers are
/// silence.
pub const ANSWER_LEASE: Duration = Duration::from_millis(2500);

#[derive(Clone, Debug)]
pub struct SentinelView {
    pub addr: Addr,
    /// Its last answer, and when it came.
    answer: Option<(Answer, Moment)>,
    /// Why it is out of reach. Its last answer counts for as long as that of a silent one: a
    /// sentinel that dies after it named a new master has still named it.
    lost: Option<String>,
    /// The word of its with which a majority did not agree.
    pub outvoted: Option<Accepted>,
    /// What it had held because of what it said.
    pub holds: Holds,
}

/// An answer that counts.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    pub master: &'a Addr,
    pub epoch: Term,
    pub at: Moment,
    /// A majority did not agree; that it is newer counts for nothing.
    pub outvoted: bool,
}

impl SentinelView {
    pub fn new(addr: Addr) -> Self {
        Self {
            addr,
            answer: None,
            lost: None,
            outvoted: None,
            holds: Holds::default(),
        }
    }

    /// Takes its answer; whether it differs from what it said before.
    pub fn answered(&mut self, now: Moment, answer: Answer) -> bool {
        let known = self.answer.take().map(|(answer, _)| describe(&answer));
        let back = self.lost.take().is_some();
        let news = back || known != Some(describe(&answer));
        self.answer = Some((answer, now));
        news
    }

    /// Takes that it is out of reach; whether that is news.
    pub fn lost(&mut self, why: String) -> bool {
        let news = self.lost.as_ref() != Some(&why);
        self.lost = Some(why);
        news
    }

    /// Its last answer, if that is fresh.
    fn fresh(&self, now: Moment) -> Option<(&Answer, Moment)> {
        let (answer, at) = self.answer.as_ref()?;
        (now.since(*at) <= ANSWER_LEASE).then_some((answer, *at))
    }

    /// Its last answer, if it is in reach.
    pub fn says(&self, now: Moment) -> Option<&Answer> {
        let (answer, _) = self.fresh(now).filter(|_| self.lost.is_none())?;
        Some(answer)
    }

    /// Its word, if it counts: fresh, and not in TILT.
    pub fn claim(&self, now: Moment) -> Option<Claim<'_>> {
        match self.fresh(now)? {
            (
                Answer::Names {
                    master,
                    epoch,
                    tilt: false,
                    ..
                },
                at,
            ) => Some(Claim {
                master,
                epoch: *epoch,
                at,
                outvoted: self
                    .outvoted
                    .as_ref()
                    .is_some_and(|o| o.addr == *master && o.term == *epoch),
            }),
            _ => None,
        }
    }

    /// In reach, and its word counts.
    pub fn counts(&self, now: Moment) -> bool {
        self.lost.is_none() && self.claim(now).is_some()
    }

    /// Whether it was ever heard of.
    pub fn is_known(&self) -> bool {
        self.answer.is_some() || self.lost.is_some()
    }

    pub fn replicas(&self) -> &[Addr] {
        match &self.answer {
            Some((Answer::Names { replicas, .. }, _)) => replicas,
            _ => &[],
        }
    }

    /// One line for people.
    pub fn describe(&self, now: Moment) -> String {
        match (&self.lost, &self.answer) {
            (Some(why), _) => why.clone(),
            (None, None) => "not asked yet".to_owned(),
            (None, Some((answer, _))) if self.fresh(now).is_some() => describe(answer),
            (None, Some(_)) => "silent".to_owned(),
        }
    }
}

pub fn describe(answer: &Answer) -> String {
    match answer {
        Answer::Names {
            master,
            epoch,
            tilt,
            ..
        } => {
            let tilt = if *tilt { ", in TILT" } else { "" };
            format!("{master} at epoch {}{tilt}", epoch.0)
        }
        Answer::UnknownMaster => "does not know the master's name".to_owned(),
        Answer::Torn => "in the middle of a change".to_owned(),
        Answer::Refused(why) => format!("refuses: {why}"),
    }
}
