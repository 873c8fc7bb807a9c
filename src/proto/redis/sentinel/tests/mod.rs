//! The judge in every situation the contract names: what happens, and what must follow.

mod epochs;
mod failover;
mod floods;
mod planned;
mod promotion;
mod start;

use std::collections::BTreeMap;
use std::time::Duration;

use super::answer::Answer;
use super::bench::{Bench, HOLD, addr, spec};
use super::event::Event;
use super::judge::Seen;
use crate::addr::Addr;
use crate::clock::Moment;
use crate::monitor::Pace;
use crate::proto::redis::role::Role;
use crate::proto::spec::SentinelSpec;
use crate::topology::{Cause, Term};

/// A play: sentinels and servers repeat their words until they get others.
struct Play {
    bench: Bench,
    ms: u64,
    tick: u64,
    /// What each sentinel answers, asked every 500 ms; `None` is silence.
    answers: Vec<Option<Answer>>,
    roles: BTreeMap<Addr, Role>,
    asked: BTreeMap<Addr, (u64, Pace)>,
    /// Milliseconds without a primary, and behind a fence.
    held: u64,
    fenced: u64,
    published: Vec<Addr>,
}

fn named(master: char, epoch: u64) -> Answer {
    let replicas = ['a', 'b', 'c'].into_iter().filter(|&r| r != master);
    Answer::Names {
        master: addr(master),
        epoch: Term(epoch),
        tilt: false,
        replicas: replicas.map(addr).collect(),
    }
}

fn in_tilt(master: char, epoch: u64) -> Answer {
    let Answer::Names {
        master,
        epoch,
        replicas,
        ..
    } = named(master, epoch)
    else {
        unreachable!()
    };
    Answer::Names {
        master,
        epoch,
        replicas,
        tilt: true,
    }
}

fn master() -> Role {
    Role::Master {
        offset: 9,
        replicas: vec![],
    }
}

fn replica_of(name: char) -> Role {
    Role::Replica {
        master: Some(addr(name)),
        connected: true,
        offset: 9,
    }
}

fn down() -> Role {
    Role::Down("refused".into())
}

/// How exactly time passes, unless it is long.
const TICK: u64 = 5;

impl Play {
    fn of(sentinels: usize, change: impl FnOnce(&mut SentinelSpec)) -> Self {
        Self::holding(HOLD, sentinels, change)
    }

    fn holding(hold: Duration, sentinels: usize, change: impl FnOnce(&mut SentinelSpec)) -> Self {
        let mut spec = spec(sentinels);
        change(&mut spec);
        Self {
            bench: Bench::new(spec, hold),
            ms: 0,
            tick: TICK,
            answers: vec![None; sentinels],
            roles: BTreeMap::new(),
            asked: BTreeMap::new(),
            held: 0,
            fenced: 0,
            published: vec![],
        }
    }

    /// Three sentinels name a at epoch 5, and all is well.
    fn settled(change: impl FnOnce(&mut SentinelSpec)) -> Self {
        let mut play = Self::of(3, change);
        play.healthy();
        play
    }

    fn healthy(&mut self) {
        self.roles = [
            (addr('a'), master()),
            (addr('b'), replica_of('a')),
            (addr('c'), replica_of('a')),
        ]
        .into();
        self.all_say('a', 5);
        self.run(1000);
        self.serves('a');
        assert_eq!(self.bench.verdict.troubles, []);
        assert_eq!(self.bench.verdict.conclusion.replicas.len(), 2);
        (self.held, self.fenced) = (0, 0);
    }

    fn see(&mut self, seen: Seen) {
        self.bench.see(seen);
        self.judge();
    }

    fn judge(&mut self) {
        self.bench.now = Moment::from_millis(self.ms);
        if let Err(error) = self.bench.judge() {
            panic!("at {} ms: {error}\n{}", self.ms, self.bench.tail());
        }
        let primary = self.bench.verdict.conclusion.primary.clone();
        if let Some(primary) = primary
            && self.published.last() != Some(&primary)
        {
            self.published.push(primary);
        }
    }

    fn says(&mut self, sentinel: usize, master: char, epoch: u64) {
        self.answers(sentinel, named(master, epoch));
    }

    fn all_say(&mut self, master: char, epoch: u64) {
        for sentinel in 0..self.answers.len() {
            self.says(sentinel, master, epoch);
        }
    }

    fn answers(&mut self, sentinel: usize, answer: Answer) {
        self.answers[sentinel] = Some(answer.clone());
        self.see(Seen::Answer { sentinel, answer });
    }

    fn lost(&mut self, sentinel: usize) {
        self.answers[sentinel] = None;
        let why = "refused".into();
        self.see(Seen::Lost { sentinel, why });
    }

    fn frozen(&mut self, sentinel: usize) {
        self.answers[sentinel] = None;
    }

    fn event(&mut self, sentinel: usize, event: Event) {
        self.see(Seen::Event { sentinel, event });
    }

    fn promoting(&mut self, sentinel: usize, replica: char, master: char) {
        let (replica, master) = (addr(replica), addr(master));
        self.event(sentinel, Event::Promoting { replica, master });
    }

    /// From its next answer on.
    fn role(&mut self, name: char, role: Role) {
        self.roles.insert(addr(name), role);
    }

    /// Its connection breaks, or it speaks up: seen at once.
    fn role_now(&mut self, name: char, role: Role) {
        self.role(name, role.clone());
        self.see(Seen::Role {
            addr: addr(name),
            role,
        });
    }

    fn ask_due(&mut self) {
        for (addr, pace) in self.bench.verdict.probes.clone() {
            let known = self.asked.get(&addr);
            let due = known.is_none_or(|(at, asked)| {
                let every = u64::try_from(pace.every.as_millis()).unwrap();
                self.ms - at >= every || asked.urgent != pace.urgent
            });
            if due {
                self.asked.insert(addr.clone(), (self.ms, pace));
                let role = self.roles.get(&addr).cloned().unwrap_or_else(down);
                self.see(Seen::Role { addr, role });
            }
        }
    }

    fn run(&mut self, ms: u64) -> &mut Self {
        for _ in 0..ms / self.tick {
            self.ms += self.tick;
            self.bench.now = Moment::from_millis(self.ms);
            if self.ms.is_multiple_of(500) {
                for sentinel in 0..self.answers.len() {
                    if let Some(answer) = self.answers[sentinel].clone() {
                        self.bench.see(Seen::Answer { sentinel, answer });
                    }
                }
            }
            self.judge();
            self.ask_due();
            if self.bench.verdict.conclusion.primary.is_none() {
                self.held += self.tick;
            }
            if self.bench.verdict.fence {
                self.fenced += self.tick;
            }
        }
        self
    }

    fn patiently(&mut self, ms: u64) -> &mut Self {
        self.tick = 50;
        self.run(ms);
        self.tick = TICK;
        self
    }

    #[track_caller]
    fn serves(&self, name: char) {
        let primary = self.bench.verdict.conclusion.primary.as_ref();
        assert_eq!(primary, Some(&addr(name)), "\n{}", self.bench.tail());
    }

    #[track_caller]
    fn open(&self, name: char) {
        self.serves(name);
        assert!(!self.bench.verdict.fence, "\n{}", self.bench.tail());
    }

    #[track_caller]
    fn fenced(&self) {
        assert!(self.bench.verdict.fence, "\n{}", self.bench.tail());
    }

    #[track_caller]
    fn holds(&self, cause: Cause) {
        let conclusion = &self.bench.verdict.conclusion;
        let tail = self.bench.tail();
        assert_eq!(
            (conclusion.primary.as_ref(), conclusion.cause),
            (None, cause),
            "\n{tail}"
        );
    }

    #[track_caller]
    fn term(&self, term: u64, cause: Cause) {
        let topology = &self.bench.topology;
        assert_eq!((topology.term, topology.cause), (Some(Term(term)), cause));
    }

    #[track_caller]
    fn troubled(&self, part: &str) {
        let troubles = &self.bench.verdict.troubles;
        let said: Vec<String> = troubles.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|t| t.contains(part)), "{part}: {said:?}");
    }

    #[track_caller]
    fn untroubled(&self) {
        let troubles = &self.bench.verdict.troubles;
        assert!(
            !troubles.iter().any(crate::monitor::Trouble::degrades),
            "{troubles:?}"
        );
    }
}
