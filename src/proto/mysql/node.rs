//! What one server said, and what of it still counts. Pure.

use std::time::Duration;

use super::probe::Said;
use crate::clock::Moment;
use crate::monitor::urgency::Urgency;
use crate::proto::spec::ProbeSpec;

/// However many reasons there are to ask a server at once, not more often than this.
const HURRIED: Duration = Duration::from_millis(10);
/// How often a server is asked while there is no primary.
pub const EAGER: Duration = Duration::from_millis(100);
/// What a busy control thread may add to an answer's way.
const SLACK: Duration = Duration::from_millis(300);

/// For how long an answer counts: until so many have not come that the server is given up.
pub fn lease(spec: &ProbeSpec) -> Duration {
    spec.interval + spec.timeout * spec.fall + SLACK
}

/// Where a server stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It says so itself, freshly.
    Fit,
    /// It says so itself, or refuses to be asked, or does not answer for too long.
    Unfit(String),
    /// There is no fresh answer, and it has not been silent for long enough either.
    Unknown,
}

/// The last words of a server about itself.
#[derive(Clone, Debug)]
pub struct NodeView<T> {
    /// The last answer that counts, and when.
    answer: Option<(T, Moment)>,
    /// What came instead of an answer since.
    instead: Option<Said<()>>,
    /// How many answers have not come, in a row.
    misses: u32,
    /// Whether it was heard of at all.
    heard: bool,
    /// How many answers in a row said that it is fit.
    good: u32,
    /// It has been unfit, and is on its way back.
    fell: bool,
    /// Since when it has been fit, or not.
    since: Moment,
    fit: bool,
    urgency: Urgency,
}

impl<T> Default for NodeView<T> {
    fn default() -> Self {
        Self {
            answer: None,
            instead: None,
            misses: 0,
            heard: false,
            good: 0,
            fell: false,
            since: Moment::default(),
            fit: false,
            urgency: Urgency::default(),
        }
    }
}

impl<T> NodeView<T> {
    /// Takes in what came of asking; `flaw` is what makes a server unfit.
    pub fn see(
        &mut self,
        now: Moment,
        said: Said<T>,
        spec: &ProbeSpec,
        flaw: impl Fn(&T) -> Option<String>,
    ) {
        self.heard = true;
        match said {
            Said::Answer(answer) => {
                let good = flaw(&answer).is_none();
                self.good = if good { self.good.saturating_add(1) } else { 0 };
                self.fell |= !good;
                // The first proof of all needs one, the way back up takes more.
                if self.good >= spec.rise {
                    self.fell = false;
                }
                self.answer = Some((answer, now));
                self.instead = None;
                self.misses = 0;
            }
            // Busy is not down: what it said before stands until it is too old.
            Said::Busy(why) => self.instead = Some(Said::Busy(why)),
            Said::Refused(why) => {
                self.fall();
                self.instead = Some(Said::Refused(why));
            }
            Said::Silent(why) => {
                self.misses = self.misses.saturating_add(1);
                self.instead = Some(Said::Silent(why));
                if self.misses >= spec.fall {
                    self.fall();
                }
            }
        }
    }

    fn fall(&mut self) {
        self.answer = None;
        self.good = 0;
        self.fell = true;
    }

    /// Where it stands; `flaw` as for [`Self::see`]. Remembers since when.
    pub fn stand(
        &mut self,
        now: Moment,
        spec: &ProbeSpec,
        flaw: impl Fn(&T) -> Option<String>,
    ) -> Standing {
        let standing = self.standing(now, spec, flaw);
        let fit = standing == Standing::Fit;
        if fit != self.fit {
            (self.fit, self.since) = (fit, now);
        }
        standing
    }

    fn standing(
        &self,
        now: Moment,
        spec: &ProbeSpec,
        flaw: impl Fn(&T) -> Option<String>,
    ) -> Standing {
        match (&self.answer, &self.instead) {
            (Some((answer, at)), _) => match flaw(answer) {
                Some(why) => Standing::Unfit(why),
                None if now.since(*at) > lease(spec) => match &self.instead {
                    Some(Said::Busy(why)) => Standing::Unfit(why.clone()),
                    _ => Standing::Unknown,
                },
                None if self.fell => {
                    let back = format!("fit again, {} of {} times", self.good, spec.rise);
                    Standing::Unfit(back)
                }
                None => Standing::Fit,
            },
            (None, Some(Said::Refused(why) | Said::Busy(why))) => Standing::Unfit(why.clone()),
            (None, Some(Said::Silent(why))) if self.misses >= spec.fall => {
                Standing::Unfit(why.clone())
            }
            (None, _) => Standing::Unknown,
        }
    }

    /// Since when it has been what it is.
    pub fn since(&self) -> Moment {
        self.since
    }

    /// The last answer, if it still counts.
    pub fn fresh(&self, now: Moment, spec: &ProbeSpec) -> Option<&T> {
        let (answer, at) = self.answer.as_ref()?;
        (now.since(*at) <= lease(spec)).then_some(answer)
    }

    /// What came instead of the last answer.
    pub fn instead(&self) -> Option<&Said<()>> {
        self.instead.as_ref()
    }

    /// Whether it answered, or could not be asked, at least once.
    pub fn is_heard(&self) -> bool {
        self.heard
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
