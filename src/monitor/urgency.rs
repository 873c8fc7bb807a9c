//! Asking a server at once, and not more often than makes sense.

use std::time::Duration;

use crate::clock::Moment;

/// Whether a server should be asked at once, and how many times it was to be.
#[derive(Clone, Debug, Default)]
pub struct Urgency {
    times: u64,
    wanted: bool,
    last: Option<Moment>,
}

impl Urgency {
    /// It should be asked at once.
    pub fn hurry(&mut self) {
        self.wanted = true;
    }

    /// Whether it should be asked as soon as that is allowed.
    pub fn is_waiting(&self) -> bool {
        self.wanted
    }

    /// What goes into [`super::Pace::urgent`]: one more when it is to be asked, however many reasons there
    /// are not more often than every `pause`. A thousand clients that cannot be connected are one question.
    pub fn times(&mut self, now: Moment, pause: Duration) -> u64 {
        if self.wanted && self.last.is_none_or(|at| now.since(at) >= pause) {
            self.wanted = false;
            self.last = Some(now);
            self.times += 1;
        }
        self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_reasons_are_one_question_per_pause() {
        let pause = Duration::from_millis(10);
        let mut urgency = Urgency::default();
        let mut times = |hurry: bool, ms| {
            if hurry {
                urgency.hurry();
                urgency.hurry();
            }
            let times = urgency.times(Moment::from_millis(ms), pause);
            (times, urgency.is_waiting())
        };
        assert_eq!(times(false, 0), (0, false));
        assert_eq!(times(true, 0), (1, false));
        assert_eq!(times(true, 9), (1, true));
        assert_eq!(times(false, 10), (2, false));
        assert_eq!(times(false, 99), (2, false));
    }
}
