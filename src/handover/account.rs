//! The answer to a handover: step by step what was done, what was put back and what could not be. The
//! admin socket and the command line share these types; programs may rely on them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::course::{Course, Failure, Line, Restored};
use super::{Ask, Reason, Refused};
use crate::addr::Addr;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// There is another primary.
    Done,
    /// A dry run: it would be begun.
    Planned,
    /// A safety rule forbids it; nothing was changed.
    Refused,
    /// It was begun and did not succeed.
    Failed,
}

impl Outcome {
    pub const ALL: [Self; 4] = [Self::Done, Self::Planned, Self::Refused, Self::Failed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Planned => "planned",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// One handover, told from its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    pub service: String,
    pub outcome: Outcome,
    /// Why it was refused or failed, as a word for programs; `null` otherwise.
    pub reason: Option<String>,
    /// The same for people, or what is true now.
    pub message: String,
    pub dry_run: bool,
    /// The primary that there was.
    pub from: Option<String>,
    /// The primary there is now, or the one that it would be or should have been.
    pub to: Option<String>,
    /// For how long clients were held.
    pub held_ms: f64,
    pub took_ms: f64,
    /// Whether nothing is left that somebody has to look at.
    pub clean: bool,
    pub steps: Vec<StepAccount>,
}

/// What became of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepOutcome {
    Done,
    Failed,
    /// Not reached, or a dry run: it would be taken.
    Planned,
}

impl StepOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Planned => "planned",
        }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepAccount {
    pub step: String,
    pub outcome: StepOutcome,
    /// What was done, why it was not, or what would be.
    pub what: String,
    pub took_ms: f64,
    /// `null`: there was nothing to put back, or not yet a reason to.
    pub put_back: Option<BackAccount>,
}

/// What became of putting a step back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackOutcome {
    Done,
    /// On purpose it was not.
    Left,
    Failed,
}

impl BackOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "put back",
            Self::Left => "left",
            Self::Failed => "NOT put back",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackAccount {
    pub outcome: BackOutcome,
    pub what: String,
    pub took_ms: f64,
}

/// What a finished course does not know.
#[derive(Clone, Debug, Default)]
pub struct Around {
    pub from: Option<Addr>,
    pub to: Option<Addr>,
    pub held: Duration,
    pub took: Duration,
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl Account {
    pub fn refused(service: &str, ask: &Ask, refused: &Refused) -> Self {
        Self {
            service: service.to_owned(),
            outcome: Outcome::Refused,
            reason: Some(refused.reason.as_str().to_owned()),
            message: refused.why.clone(),
            dry_run: ask.dry_run,
            from: None,
            to: ask.to.as_ref().map(ToString::to_string),
            held_ms: 0.0,
            took_ms: 0.0,
            clean: true,
            steps: Vec::new(),
        }
    }

    /// Of something that is as it should be.
    pub fn already(service: &str, primary: &Addr) -> Self {
        let refused = Refused::new(
            Reason::AlreadyPrimary,
            format!("{primary} is the primary already"),
        );
        Self {
            outcome: Outcome::Done,
            reason: None,
            to: Some(primary.to_string()),
            ..Self::refused(service, &Ask::default(), &refused)
        }
    }

    /// Of a course that has not begun (a dry run), or has ended.
    pub fn of(service: &str, ask: &Ask, course: &Course, around: &Around) -> Self {
        let failure = match &ask.to {
            Some(to) if course.switched() && around.to.as_ref() != Some(to) => {
                Some(Failure::OtherPrimary)
            }
            _ => course.failed(),
        };
        let outcome = match failure {
            _ if ask.dry_run => Outcome::Planned,
            None => Outcome::Done,
            Some(_) => Outcome::Failed,
        };
        Self {
            service: service.to_owned(),
            outcome,
            reason: failure.map(|why| why.as_str().to_owned()),
            message: message(outcome, failure, course, around),
            dry_run: ask.dry_run,
            from: around.from.as_ref().map(ToString::to_string),
            to: around.to.as_ref().map(ToString::to_string),
            held_ms: millis(around.held),
            took_ms: millis(around.took),
            clean: course.is_clean(),
            steps: course.lines().iter().map(step).collect(),
        }
    }
}

fn message(outcome: Outcome, failure: Option<Failure>, course: &Course, around: &Around) -> String {
    let named = |addr: &Option<Addr>| addr.as_ref().map_or("-".to_owned(), ToString::to_string);
    let to = named(&around.to);
    let untidy = match course.is_clean() {
        true => "",
        false => "; not everything is tidy, see the steps",
    };
    let failed = course.lines().iter().find_map(|line| {
        let why = line.taken.as_ref()?.said.as_ref().err()?;
        Some(format!("{}: {why}", line.name))
    });
    match (outcome, failure) {
        (_, Some(Failure::OtherPrimary)) => {
            format!("{to} is the primary now, and not the one that was asked for{untidy}")
        }
        (Outcome::Done, _) => {
            let held = around.held.as_millis();
            format!("{to} is the primary now; clients were held for {held} ms{untidy}")
        }
        (Outcome::Planned, _) => match &around.to {
            Some(to) => format!("nothing was changed; it would be handed over to {to}"),
            None => "nothing was changed; it would begin".to_owned(),
        },
        _ => {
            let left = match leftovers(course) {
                0 => "everything was put back".to_owned(),
                1 => "one thing was not put back".to_owned(),
                more => format!("{more} things were not put back"),
            };
            let why = failed.unwrap_or_else(|| "it did not succeed".to_owned());
            format!("{why}; {left}")
        }
    }
}

fn leftovers(course: &Course) -> usize {
    let backs = course.lines().iter().filter_map(|line| line.back.as_ref());
    backs
        .filter(|back| !matches!(back.how, Restored::Done(_)))
        .count()
}

fn step(line: &Line) -> StepAccount {
    let (outcome, what, took) = match &line.taken {
        None => (StepOutcome::Planned, &line.would, Duration::ZERO),
        Some(taken) => match &taken.said {
            Ok(what) => (StepOutcome::Done, what, taken.took),
            Err(why) => (StepOutcome::Failed, why, taken.took),
        },
    };
    let back = line.back.as_ref().map(|back| {
        let (outcome, what) = match &back.how {
            Restored::Done(what) => (BackOutcome::Done, what),
            Restored::Left(what) => (BackOutcome::Left, what),
            Restored::Failed(what) => (BackOutcome::Failed, what),
        };
        BackAccount {
            outcome,
            what: what.clone(),
            took_ms: millis(back.took),
        }
    });
    StepAccount {
        step: line.name.to_owned(),
        outcome,
        what: what.clone(),
        took_ms: millis(took),
        put_back: back,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::course::{Phase, Planned, Restore};

    fn course() -> Course {
        Course::new(&[Planned {
            name: "pause",
            would: "pause writes".into(),
            phase: Phase::Held,
            restore: Restore::AtEnd,
        }])
    }

    fn ask(to: &str) -> Ask {
        Ask {
            to: to.parse().ok(),
            ..Ask::default()
        }
    }

    fn around(to: &str) -> Around {
        Around {
            to: to.parse().ok(),
            held: Duration::from_millis(12),
            ..Around::default()
        }
    }

    /// Takes all steps; `back` is what comes of putting them back.
    fn play(failing: Option<&str>, back: Restored) -> Course {
        let mut course = course();
        loop {
            match course.next() {
                super::super::course::Next::Take(n) => {
                    let said = match failing == Some(course.lines()[n].name) {
                        true => Err((Failure::Timeout, "the time was up".to_owned())),
                        false => Ok("did it".to_owned()),
                    };
                    course.took(said, Duration::from_micros(1500));
                }
                super::super::course::Next::PutBack(n) => {
                    course.put_back(n, back.clone(), Duration::ZERO);
                }
                super::super::course::Next::End => return course,
            }
        }
    }

    #[test]
    fn what_is_told_of_each_end() {
        let (one, two) = ("10.0.0.1:1", "10.0.0.2:1");
        let fine = || Restored::Done("as before".into());
        for (course, ask, to, outcome, reason, words) in [
            (
                play(None, fine()),
                ask(two),
                two,
                Outcome::Done,
                None,
                "10.0.0.2:1 is the primary now; clients were held for 12 ms",
            ),
            (
                play(None, Restored::Failed("gone".into())),
                Ask::default(),
                two,
                Outcome::Done,
                None,
                "12 ms; not everything is tidy",
            ),
            (
                play(None, fine()),
                ask(two),
                one,
                Outcome::Failed,
                Some("other-primary"),
                "10.0.0.1:1 is the primary now, and not",
            ),
            (
                play(Some("switch"), fine()),
                ask(two),
                two,
                Outcome::Failed,
                Some("timeout"),
                "switch: the time was up; everything was put back",
            ),
            (
                play(Some("pause"), Restored::Left("it ends".into())),
                ask(two),
                two,
                Outcome::Failed,
                Some("timeout"),
                "pause: the time was up; 2 things were not put back",
            ),
        ] {
            let account = Account::of("cache", &ask, &course, &around(to));
            assert_eq!(account.outcome, outcome, "{account:?}");
            assert_eq!(account.reason.as_deref(), reason, "{account:?}");
            assert!(account.message.contains(words), "{}", account.message);
        }
    }

    #[test]
    fn a_dry_run_lists_what_would_be() {
        let ask = Ask {
            dry_run: true,
            ..Ask::default()
        };
        let account = Account::of("cache", &ask, &course(), &around("10.0.0.2:1"));
        assert_eq!(account.outcome, Outcome::Planned);
        assert_eq!(account.steps.len(), 4);
        let planned = |step: &StepAccount| step.outcome == StepOutcome::Planned;
        assert!(account.steps.iter().all(planned));
        assert_eq!(account.steps[2].what, "pause writes");
    }

    #[test]
    fn the_shape_is_what_programs_rely_on() {
        let course = play(Some("switch"), Restored::Left("it ends by itself".into()));
        let account = Account::of("cache", &Ask::default(), &course, &around("10.0.0.2:1"));
        let json = serde_json::to_value(&account).unwrap();
        assert_eq!(json["outcome"], "failed");
        assert_eq!(json["reason"], "timeout");
        assert_eq!(json["steps"][2]["step"], "pause");
        assert_eq!(json["steps"][2]["outcome"], "done");
        assert_eq!(json["steps"][2]["took_ms"], 1.5);
        assert_eq!(json["steps"][2]["put_back"]["outcome"], "left");
        assert_eq!(json["steps"][1]["put_back"], serde_json::Value::Null);
        let again: Account = serde_json::from_value(json).unwrap();
        assert_eq!(again, account);
        let refused = Refused::new(Reason::NoReplica, "there is none");
        let refused = Account::refused("cache", &Ask::default(), &refused);
        assert_eq!(refused.reason.as_deref(), Some("no-replica"));
    }
}
