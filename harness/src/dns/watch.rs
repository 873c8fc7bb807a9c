//! A client that asks one server for both families without a break, and keeps what it heard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::NAME;
use super::query::{self, Type};

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(5);

/// A, AAAA, and A once more: a change between two questions is no mixed state.
struct Round {
    ended: Instant,
    a: [Vec<String>; 2],
    aaaa: Vec<String>,
}

/// Asks until dropped or stopped.
pub struct AnswerWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Answers>>,
}

/// All that was heard.
#[derive(Default)]
pub struct Answers {
    rounds: Vec<Round>,
    /// Rounds in which a question was not answered at all.
    pub unanswered: usize,
}

impl AnswerWatch {
    /// Asks `server` for [`NAME`]; a resolver is asked with `recurse`.
    pub fn start(server: SocketAddr, recurse: bool) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let end = stop.clone();
        let thread = std::thread::Builder::new()
            .name("dns-watch".into())
            .spawn(move || {
                let mut answers = Answers::default();
                while !end.load(Ordering::Relaxed) {
                    match round(server, recurse) {
                        Ok(round) => answers.rounds.push(round),
                        Err(_) => answers.unanswered += 1,
                    }
                    std::thread::sleep(PAUSE);
                }
                answers
            })
            .context("watching a name server")?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    pub fn stop(mut self) -> Result<Answers> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it was stopped before")?;
        thread
            .join()
            .map_err(|_| anyhow!("the watcher of a name server died"))
    }
}

impl Drop for AnswerWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn round(server: SocketAddr, recurse: bool) -> Result<Round> {
    let ask = |rtype| query::values(server, NAME, rtype, recurse);
    let (first, aaaa, last) = (ask(Type::A)?, ask(Type::Aaaa)?, ask(Type::A)?);
    Ok(Round {
        ended: Instant::now(),
        a: [first, last],
        aaaa,
    })
}

impl Answers {
    pub fn rounds(&self) -> usize {
        self.rounds.len()
    }

    /// Answers without an address.
    pub fn empty(&self) -> usize {
        let sets = self
            .rounds
            .iter()
            .flat_map(|it| it.a.iter().chain([&it.aaaa]));
        sets.filter(|set| set.is_empty()).count()
    }

    /// Rounds whose addresses are not those of one of these regions, A and AAAA alike.
    pub fn mixed(&self, regions: &[[&str; 2]]) -> usize {
        let pure = |round: &Round| {
            let is = |region: &[&str; 2]| round.a[0] == [region[0]] && round.aaaa == [region[1]];
            regions.iter().any(is)
        };
        let steady = self.rounds.iter().filter(|it| it.a[0] == it.a[1]);
        steady.filter(|round| !pure(round)).count()
    }

    /// The end of the first round after `t` that heard nothing but this region.
    pub fn first_of(&self, region: [&str; 2], t: Instant) -> Option<Instant> {
        let mut later = self.rounds.iter().filter(|it| it.ended > t);
        let found = later.find(|it| it.a == [[region[0]], [region[0]]] && it.aaaa == [region[1]]);
        found.map(|it| it.ended)
    }

    /// How many rounds that ended between these moments heard any of this region.
    pub fn of(&self, region: [&str; 2], (from, to): (Instant, Instant)) -> usize {
        let rounds = self.rounds.iter();
        let between = rounds.filter(|it| it.ended > from && it.ended < to);
        let has = |set: &[String], value: &str| set.iter().any(|one| one == value);
        between
            .filter(|it| it.a.iter().any(|set| has(set, region[0])) || has(&it.aaaa, region[1]))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(a: [&str; 2], aaaa: &str) -> Round {
        let set = |value: &str| -> Vec<String> {
            let value = (!value.is_empty()).then(|| value.to_owned());
            value.into_iter().collect()
        };
        Round {
            ended: Instant::now(),
            a: a.map(set),
            aaaa: set(aaaa),
        }
    }

    #[test]
    fn a_change_between_two_questions_is_not_mixed() {
        let regions = [["1", "::1"], ["2", "::2"]];
        let answers = |rounds| Answers {
            rounds,
            unanswered: 0,
        };
        let fine = answers(vec![
            heard(["1", "1"], "::1"),
            heard(["1", "2"], "::2"),
            heard(["2", "2"], "::2"),
        ]);
        assert_eq!((fine.mixed(&regions), fine.empty()), (0, 0));
        let half = answers(vec![heard(["2", "2"], "::1")]);
        assert_eq!((half.mixed(&regions), half.empty()), (1, 0));
        let none = answers(vec![heard(["2", "2"], "")]);
        assert_eq!((none.mixed(&regions), none.empty()), (1, 1));
    }
}
