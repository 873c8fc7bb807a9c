//! The last word of a PostgreSQL server about itself, and for how long it counts.

use std::time::Duration;

use super::client::{Answer, Says};
use crate::clock::Moment;
use crate::monitor::urgency::Urgency;
use crate::proto::spec::ProbeSpec;

/// How often a server is asked from which more is expected than it said last.
pub const EAGER: Duration = Duration::from_millis(50);
/// However many reasons there are to ask a server at once, not more often than this.
const HURRIED: Duration = Duration::from_millis(20);

/// When an answer counts, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub lease: Duration,
    pub rise: u32,
    pub fall: u32,
}

impl Rules {
    pub fn of(probe: &ProbeSpec) -> Self {
        Self {
            // Until the last question that may stay without an answer is overdue.
            lease: probe.interval + probe.timeout * probe.fall + EAGER * 6,
            rise: probe.rise,
            fall: probe.fall,
        }
    }
}

/// What is known of one server.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    said: Option<(Says, Moment)>,
    /// Where the primary's log ended, as far as was known when it said that.
    pub head: Option<u64>,
    /// What stands against what it said.
    pub trouble: Option<String>,
    pub busy: bool,
    asked: bool,
    down: bool,
    missed: u32,
    good: u32,
    /// Since when it has said the same of its role and timeline.
    pub since: Moment,
    urgency: Urgency,
}

fn role(says: &Says) -> Option<(u64, bool)> {
    match says {
        Says::Primary {
            timeline,
            read_only,
            ..
        } => Some((*timeline, *read_only)),
        Says::Standby { .. } => None,
    }
}

impl NodeView {
    pub fn see(&mut self, now: Moment, answer: Answer, rules: Rules) {
        self.asked = true;
        self.busy = matches!(answer, Answer::Busy(_));
        match answer {
            Answer::Says(says) => {
                let before = self.said.as_ref().filter(|_| !self.down);
                if before.is_none_or(|(before, _)| role(before) != role(&says)) {
                    self.since = now;
                }
                self.missed = 0;
                self.good = self.good.saturating_add(1);
                self.trouble = None;
                if self.down && self.good >= rules.rise {
                    self.down = false;
                    self.since = now;
                } else if self.down {
                    let (good, rise) = (self.good, rules.rise);
                    let why = format!("it answers again, {good} of {rise} times in a row");
                    self.trouble = Some(why);
                }
                self.said = Some((says, now));
            }
            // Busy is not down: what it said before stands until it is too old.
            Answer::Busy(why) => self.trouble = Some(why),
            Answer::Silent(why) => {
                self.missed = self.missed.saturating_add(1);
                self.good = 0;
                self.down |= self.missed >= rules.fall;
                self.trouble = Some(why);
            }
            Answer::Refused(why) => {
                self.down = true;
                self.good = 0;
                self.trouble = Some(why);
            }
        }
    }

    /// Whether it was asked and has had the time to answer.
    pub fn is_known(&self) -> bool {
        self.asked && (self.down || self.said.is_some() || self.busy)
    }

    pub fn is_down(&self) -> bool {
        self.down
    }

    /// Whether the next answer will make a difference, so that it should not be waited for.
    pub fn is_on_its_way(&self) -> bool {
        self.missed > 0 && !self.down || self.down && self.good > 0
    }

    /// What it said, if that still counts, and when.
    pub fn fresh(&self, now: Moment, rules: Rules) -> Option<(&Says, Moment)> {
        let (says, at) = self.said.as_ref()?;
        (!self.down && now.since(*at) <= rules.lease).then_some((says, *at))
    }

    /// It should be asked at once.
    pub fn hurry(&mut self) {
        self.urgency.hurry();
    }

    /// What goes into [`crate::monitor::Pace::urgent`].
    pub fn urgency(&mut self, now: Moment) -> u64 {
        self.urgency.times(now, HURRIED)
    }
}
