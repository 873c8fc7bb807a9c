//! What was last heard from each sentinel and each server, and for how long it counts.

use std::time::Duration;

use super::answer::Answer;
use crate::addr::Addr;
use crate::clock::Moment;
use crate::topology::Term;

/// A sentinel is asked every second and must answer within half of one; two missed answers are
/// silence.
pub const ANSWER_LEASE: Duration = Duration::from_millis(2500);

/// What became of the last question to a sentinel.
#[derive(Clone, Debug)]
pub enum Heard {
    Nothing,
    Answer(Answer),
    Lost(String),
}

#[derive(Clone, Debug)]
pub struct SentinelView {
    pub addr: Addr,
    pub heard: Heard,
    pub at: Moment,
}

/// An answer that counts.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    pub master: &'a Addr,
    pub epoch: Term,
    pub at: Moment,
}

impl SentinelView {
    pub fn new(addr: Addr) -> Self {
        Self {
            addr,
            heard: Heard::Nothing,
            at: Moment::default(),
        }
    }

    pub fn is_fresh(&self, now: Moment) -> bool {
        now.since(self.at) <= ANSWER_LEASE
    }

    /// Whether it answers at all.
    pub fn answers(&self, now: Moment) -> bool {
        matches!(self.heard, Heard::Answer(_)) && self.is_fresh(now)
    }

    /// Its word, if it counts: fresh, and not in TILT.
    pub fn claim(&self, now: Moment) -> Option<Claim<'_>> {
        match &self.heard {
            Heard::Answer(Answer::Names {
                master,
                epoch,
                tilt: false,
                ..
            }) if self.is_fresh(now) => Some(Claim {
                master,
                epoch: *epoch,
                at: self.at,
            }),
            _ => None,
        }
    }

    pub fn replicas(&self) -> &[Addr] {
        match &self.heard {
            Heard::Answer(Answer::Names { replicas, .. }) => replicas,
            _ => &[],
        }
    }

    /// One line for people.
    pub fn says(&self, now: Moment) -> String {
        match &self.heard {
            Heard::Nothing => "not asked yet".to_owned(),
            Heard::Lost(why) => why.clone(),
            Heard::Answer(_) if !self.is_fresh(now) => "silent".to_owned(),
            Heard::Answer(answer) => describe(answer),
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
