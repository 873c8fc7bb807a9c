//! Which step comes next, what has to be put back, and when it is over. Pure.
//!
//! The rules are in [`Course::next`]: whatever has been taken and whose time to be put back has come is put
//! back first, the latest first; then the next step is taken, unless one has failed before the switch. The
//! switch is the point of no return: what fails after it is told and changes nothing.

use std::time::Duration;

/// When a kind's step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Clients go on as ever.
    Ready,
    /// Clients wait.
    Held,
    /// The monitor has published the new primary, and clients go on.
    After,
}

/// When what a step changed is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    /// It changed nothing.
    Never,
    /// When there was no switch.
    OnFailure,
    /// As soon as there is a switch, or will be none.
    AtSwitch,
    /// When everything else is done, or there will be no switch.
    AtEnd,
}

/// What became of putting something back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It is as it was before.
    Done(String),
    /// On purpose it is not: the text says why, and what ends it.
    Left(String),
    /// It could not be done: somebody has to look.
    Failed(String),
}

/// A step of a kind, before it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub name: &'static str,
    pub would: String,
    pub phase: Phase,
    pub restore: Restore,
}

/// Who takes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Shut the gate; putting it back opens it.
    Hold,
    /// Wait for running requests.
    Quiet,
    /// The kind, and its own number of the step.
    Kind(usize),
    /// Wait for the monitor to publish another primary.
    Switch,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What was done, or why it was not.
    pub said: Result<String, String>,
    pub took: Duration,
}

/// What came of putting it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Back {
    pub how: Restored,
    pub took: Duration,
}

/// One step, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub doing: Doing,
    pub name: &'static str,
    pub would: String,
    pub restore: Restore,
    pub taken: Option<Taken>,
    pub back: Option<Back>,
}

/// Why there was no switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A step did not succeed.
    Step,
    /// The time was up.
    Timeout,
    /// Whoever asked has left, or the process or the service ends.
    Cancelled,
    /// Another primary was published before it was asked for.
    Overtaken,
    /// There was a switch, but not to the one that was asked for.
    OtherPrimary,
}

impl Failure {
    pub const ALL: [Self; 5] = [
        Self::Step,
        Self::Timeout,
        Self::Cancelled,
        Self::Overtaken,
        Self::OtherPrimary,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Step => "step-failed",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Overtaken => "overtaken",
            Self::OtherPrimary => "other-primary",
        }
    }
}

/// What to do now. The numbers are those of [`Course::lines`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Take(usize),
    PutBack(usize),
    End,
}

/// One handover from its plan to its end.
#[derive(Clone, Debug)]
pub struct Course {
    lines: Vec<Line>,
    /// The next line to be taken.
    at: usize,
    switched: bool,
    failed: Option<Failure>,
}

impl Course {
    /// The kind's steps with ours between them.
    pub fn new(planned: &[Planned]) -> Self {
        let of = |phase: Phase| {
            let numbered = planned.iter().enumerate();
            let ours = numbered.filter(move |(_, step)| step.phase == phase);
            ours.map(|(number, step)| line(Doing::Kind(number), step))
        };
        let own = |doing, name, would: &str, restore| {
            let (would, phase) = (would.to_owned(), Phase::Held);
            let step = Planned {
                name,
                would,
                phase,
                restore,
            };
            line(doing, &step)
        };
        let hold = own(
            Doing::Hold,
            "hold",
            "new clients wait, and others from their next transaction boundary on",
            Restore::AtSwitch,
        );
        let quiet = own(
            Doing::Quiet,
            "quiet",
            "wait for running requests",
            Restore::Never,
        );
        let switch = own(
            Doing::Switch,
            "switch",
            "wait until the monitor has proven the new primary",
            Restore::Never,
        );
        let lines = of(Phase::Ready)
            .chain([hold, quiet])
            .chain(of(Phase::Held))
            .chain([switch])
            .chain(of(Phase::After));
        Self {
            lines: lines.collect(),
            at: 0,
            switched: false,
            failed: None,
        }
    }

    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Whether the monitor has published another primary: there is no way back.
    pub fn switched(&self) -> bool {
        self.switched
    }

    pub fn failed(&self) -> Option<Failure> {
        self.failed
    }

    pub fn next(&self) -> Next {
        let due = |line: &Line| line.taken.is_some() && line.back.is_none() && self.is_due(line);
        if let Some(number) = self.lines.iter().rposition(due) {
            return Next::PutBack(number);
        }
        match self.failed.is_none() && self.at < self.lines.len() {
            true => Next::Take(self.at),
            false => Next::End,
        }
    }

    fn is_due(&self, line: &Line) -> bool {
        let failed = self.failed.is_some();
        match line.restore {
            Restore::Never => false,
            Restore::OnFailure => failed,
            Restore::AtSwitch => failed || self.switched,
            Restore::AtEnd => failed || self.at == self.lines.len(),
        }
    }

    /// The step of [`Next::Take`] was taken, or tried: then `why` is what stopped it.
    pub fn took(&mut self, said: Result<String, (Failure, String)>, took: Duration) {
        let Some(line) = self.lines.get_mut(self.at) else {
            return;
        };
        self.at += 1;
        let why = said.as_ref().err().map(|(why, _)| *why);
        let said = said.map_err(|(_, text)| text);
        line.taken = Some(Taken { said, took });
        match why {
            None if line.doing == Doing::Switch => self.switched = true,
            Some(why) if !self.switched => self.failed = Some(why),
            None | Some(_) => {}
        }
    }

    /// The step of [`Next::PutBack`] was put back, or not.
    pub fn put_back(&mut self, number: usize, how: Restored, took: Duration) {
        if let Some(line) = self.lines.get_mut(number) {
            line.back = Some(Back { how, took });
        }
    }

    /// Whether nothing is left half done: everything that had to be put back is, and where there was a
    /// switch, what had to follow it did.
    pub fn is_clean(&self) -> bool {
        let clean = |line: &Line| {
            let taken = line.taken.as_ref().is_none_or(|t| t.said.is_ok());
            let back = line.back.as_ref();
            (taken || !self.switched) && back.is_none_or(|b| matches!(b.how, Restored::Done(_)))
        };
        self.lines.iter().all(clean)
    }
}

fn line(doing: Doing, step: &Planned) -> Line {
    Line {
        doing,
        name: step.name,
        would: step.would.clone(),
        restore: step.restore,
        taken: None,
        back: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(name: &'static str, phase: Phase, restore: Restore) -> Planned {
        Planned {
            name,
            would: String::new(),
            phase,
            restore,
        }
    }

    /// One of everything.
    fn course() -> Course {
        Course::new(&[
            planned("tidy", Phase::After, Restore::Never),
            planned("prefer", Phase::Ready, Restore::AtEnd),
            planned("pause", Phase::Held, Restore::AtEnd),
            planned("promote", Phase::Held, Restore::OnFailure),
        ])
    }

    /// Everything that is done, in its order, when the step `failing` does not succeed.
    fn played(failing: Option<&str>) -> (Vec<String>, Course) {
        let (mut course, mut done) = (course(), Vec::new());
        loop {
            match course.next() {
                Next::Take(number) => {
                    let name = course.lines()[number].name;
                    done.push(name.to_owned());
                    let said = match failing == Some(name) {
                        true => Err((Failure::Step, "no".to_owned())),
                        false => Ok(String::new()),
                    };
                    course.took(said, Duration::ZERO);
                }
                Next::PutBack(number) => {
                    done.push(format!("-{}", course.lines()[number].name));
                    course.put_back(number, Restored::Done(String::new()), Duration::ZERO);
                }
                Next::End => return (done, course),
            }
            assert!(done.len() < 100, "{done:?}");
        }
    }

    #[test]
    fn what_was_done_is_put_back_in_reverse_and_the_hold_in_its_turn() {
        for (failing, expected, switched) in [
            (
                None,
                "prefer hold quiet pause promote switch -hold tidy -pause -prefer",
                true,
            ),
            (Some("prefer"), "prefer -prefer", false),
            (Some("hold"), "prefer hold -hold -prefer", false),
            (Some("quiet"), "prefer hold quiet -hold -prefer", false),
            (
                Some("pause"),
                "prefer hold quiet pause -pause -hold -prefer",
                false,
            ),
            (
                Some("promote"),
                "prefer hold quiet pause promote -promote -pause -hold -prefer",
                false,
            ),
            (
                Some("switch"),
                "prefer hold quiet pause promote switch -promote -pause -hold -prefer",
                false,
            ),
            // Past the switch nothing that succeeded is taken back.
            (
                Some("tidy"),
                "prefer hold quiet pause promote switch -hold tidy -pause -prefer",
                true,
            ),
        ] {
            let (done, course) = played(failing);
            assert_eq!(done.join(" "), expected, "{failing:?}");
            assert_eq!(course.switched(), switched, "{failing:?}");
            assert_eq!(course.failed().is_some(), !switched, "{failing:?}");
            assert_eq!(course.is_clean(), failing != Some("tidy"), "{failing:?}");
        }
    }

    #[test]
    fn the_steps_stand_in_the_order_of_their_phases() {
        let names: Vec<&str> = course().lines().iter().map(|line| line.name).collect();
        let expected = [
            "prefer", "hold", "quiet", "pause", "promote", "switch", "tidy",
        ];
        assert_eq!(names, expected);
        let numbers: Vec<Doing> = course().lines().iter().map(|line| line.doing).collect();
        assert_eq!((numbers[0], numbers[6]), (Doing::Kind(1), Doing::Kind(0)));
    }

    #[test]
    fn what_could_not_be_put_back_is_tried_once_and_shows() {
        let mut course = course();
        course.took(Err((Failure::Timeout, "late".into())), Duration::ZERO);
        assert_eq!(course.next(), Next::PutBack(0));
        course.put_back(0, Restored::Failed("gone".into()), Duration::ZERO);
        assert_eq!(course.next(), Next::End);
        assert_eq!(course.failed(), Some(Failure::Timeout));
        assert!(!course.is_clean());
        // Telling it more than there is changes nothing.
        let lines = course.lines().to_vec();
        course.put_back(99, Restored::Done(String::new()), Duration::ZERO);
        assert_eq!(course.lines(), lines);
    }

    #[test]
    fn without_steps_of_a_kind_there_is_still_a_switch_to_wait_for() {
        let course = Course::new(&[]);
        assert_eq!(course.lines().len(), 3);
        assert_eq!(course.next(), Next::Take(0));
    }
}
