//! Seeds of a model world against the judge, and what must hold whatever happens in it.
//!
//! `PILOTFISH_SIM_SEEDS` sets how many, `PILOTFISH_SIM_SEED` plays one again.

mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

use self::world::{NODES, World, addr_of};
use super::answer::Answer;
use super::bench::{Bench, HOLD, spec};
use super::event::Event;
use super::judge::Seen;
use super::view::ANSWER_LEASE;
use crate::addr::Addr;
use crate::clock::Moment;
use crate::monitor::{Pace, Trouble};
use crate::proto::redis::role::Role;
use crate::proto::spec::{FenceOn, SwitchOn};
use crate::topology::{Cause, Term, Topology};

/// About 15 s of one core in a debug build; more in a release build cost little.
const SEEDS: u64 = 300;
const LENGTH: u64 = 64_000;
/// Down, then a promotion that does not come, then one that does and is not announced, then a
/// claim: each for as long as it may.
const LONGEST_FENCE: Duration = Duration::from_millis(3 * 800 + 3000 + 2500);

/// What is on its way to the judge.
#[derive(Clone, Debug)]
enum Arrives {
    Seen(Seen),
    /// A sentinel is asked, and answers as it then is.
    AtSentinel(usize),
    AtNode(usize),
}

struct Run {
    world: World,
    bench: Bench,
    rng: Rng,
    wire: BTreeMap<(u64, u64), Arrives>,
    order: u64,
    /// When the last thing from each sentinel arrives: nothing overtakes.
    ordered: Vec<u64>,
    ask_at: Vec<u64>,
    asked: u64,
    probes: BTreeMap<Addr, (u64, Pace, bool)>,
    shadow: Shadow,
}

/// What an onlooker knows of what the judge saw.
#[derive(Default)]
struct Shadow {
    claims: Vec<Option<(Addr, Term, Moment)>>,
    masters: BTreeMap<Addr, Moment>,
    /// The newest master that was named and proven at one time.
    newest: Option<(Addr, Term)>,
    fenced_since: Option<Moment>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let world = World::new(rng.fork());
        let mut spec = spec(world.sentinels.len());
        if rng.u8(0..3) == 0 {
            spec.switch_on = SwitchOn::Promotion;
        }
        spec.fence = [FenceOn::Failover, FenceOn::Odown, FenceOn::Switch][rng.usize(0..3)];
        let count = world.sentinels.len();
        Self {
            bench: Bench::new(spec, HOLD),
            rng,
            wire: BTreeMap::new(),
            order: 0,
            ordered: vec![0; count],
            ask_at: vec![0; count],
            asked: 0,
            probes: BTreeMap::new(),
            shadow: Shadow {
                claims: vec![None; count],
                ..Shadow::default()
            },
            world,
        }
    }

    fn send(&mut self, at: u64, what: Arrives) {
        self.order += 1;
        self.wire.insert((at, self.order), what);
    }

    fn send_ordered(&mut self, sentinel: usize, at: u64, seen: Seen) {
        let at = at.max(self.ordered[sentinel]);
        self.ordered[sentinel] = at;
        self.send(at, Arrives::Seen(seen));
    }

    fn delay(&mut self) -> u64 {
        if self.rng.u8(0..20) == 0 {
            self.rng.u64(20..200)
        } else {
            self.rng.u64(1..5)
        }
    }

    fn ask(&mut self, now: u64) {
        for sentinel in 0..self.ask_at.len() {
            if self.ask_at[sentinel] <= now {
                self.ask_at[sentinel] = u64::MAX;
                let at = now + self.delay();
                self.send(at, Arrives::AtSentinel(sentinel));
            }
        }
        let wanted = std::mem::take(&mut self.bench.verdict.probes);
        for (addr, &pace) in &wanted {
            let (at, known, under_way) = self.probes.get(addr).copied().unwrap_or((
                0,
                Pace {
                    every: Duration::ZERO,
                    urgent: 0,
                },
                false,
            ));
            let every = u64::try_from(known.every.as_millis()).unwrap();
            if under_way || known == pace && now < at + every {
                continue;
            }
            self.probes.insert(addr.clone(), (now, pace, true));
            match (0..NODES).find(|&n| addr_of(n) == *addr) {
                Some(node) => {
                    let at = now + self.delay();
                    self.send(at, Arrives::AtNode(node));
                }
                None => {
                    let (addr, role) = (addr.clone(), Role::Down("refused".into()));
                    self.send(now + 1, Arrives::Seen(Seen::Role { addr, role }));
                }
            }
        }
        self.bench.verdict.probes = wanted;
    }

    fn at_sentinel(&mut self, now: u64, sentinel: usize) {
        let s = &self.world.sentinels[sentinel];
        let refused = !s.alive;
        if refused || s.frozen || s.cut {
            let why = "out of reach".to_owned();
            let after = if refused { 1 } else { 500 };
            self.send_ordered(sentinel, now + after, Seen::Lost { sentinel, why });
        } else {
            let torn = self.rng.u8(0..50) == 0;
            let answer = if torn {
                Answer::Torn
            } else {
                self.world.answer(sentinel)
            };
            let at = now + self.delay();
            self.send_ordered(sentinel, at, Seen::Answer { sentinel, answer });
        }
    }

    fn at_node(&mut self, now: u64, node: usize) {
        let (addr, n) = (addr_of(node), &self.world.nodes[node]);
        let (role, after) = if !n.alive {
            (Role::Down("refused".into()), 1)
        } else if n.frozen || n.cut {
            (Role::Down("no answer".into()), 1000)
        } else {
            (self.world.role(node), self.delay())
        };
        self.send(now + after, Arrives::Seen(Seen::Role { addr, role }));
    }

    fn relay_events(&mut self, now: u64) {
        for (sentinel, event) in std::mem::take(&mut self.world.events) {
            let s = &self.world.sentinels[sentinel];
            if s.cut || self.rng.u8(0..20) == 0 {
                continue;
            }
            let at = now + self.delay();
            self.send_ordered(sentinel, at, Seen::Event { sentinel, event });
        }
    }

    fn arrive(&mut self, now: u64, what: Arrives) {
        match what {
            Arrives::AtSentinel(sentinel) => self.at_sentinel(now, sentinel),
            Arrives::AtNode(node) => self.at_node(now, node),
            Arrives::Seen(seen) => {
                match &seen {
                    Seen::Answer { sentinel, .. } | Seen::Lost { sentinel, .. } => {
                        self.ask_at[*sentinel] = now + 1000;
                    }
                    Seen::Event { sentinel, event } => {
                        let at = &mut self.ask_at[*sentinel];
                        *at = (*at).min(now);
                        if *event == Event::Other && self.rng.u8(0..4) == 0 {
                            let hint = Seen::Hint(addr_of(self.rng.usize(0..NODES)));
                            self.send(now + 1, Arrives::Seen(hint));
                        }
                    }
                    Seen::Role { addr, .. } => {
                        if let Some(probe) = self.probes.get_mut(addr) {
                            (probe.0, probe.2) = (now, false);
                        }
                    }
                    Seen::Hint(_) => {}
                }
                self.shadow.see(self.bench.now, &seen);
                self.bench.see(seen);
            }
        }
    }

    fn play(&mut self) -> Result<(), String> {
        let (mut now, mut told) = (0, 0);
        while now < LENGTH {
            self.world.advance(now);
            self.bench.now = Moment::from_millis(now);
            for line in &self.world.story[told..] {
                self.bench.step(|| format!("* {line}"));
            }
            told = self.world.story.len();
            self.relay_events(now);
            while let Some((&key, _)) = self.wire.iter().next().filter(|(k, _)| k.0 <= now) {
                if let Some(what) = self.wire.remove(&key) {
                    self.arrive(now, what);
                }
            }
            self.bench.judge()?;
            self.check()?;
            if std::mem::replace(&mut self.asked, self.bench.verdict.ask_again) != self.asked {
                for at in &mut self.ask_at {
                    *at = if *at == u64::MAX { *at } else { now };
                }
            }
            self.ask(now);
            now = self.next_moment(now);
        }
        self.settled()
    }

    fn next_moment(&self, now: u64) -> u64 {
        // Seldomer than it is asked for: a guarantee may not hang on it.
        let rest = self.bench.verdict.recheck > Some(Moment::from_millis(now + 100));
        let recheck = if rest { 500 } else { 100 };
        let probe = self
            .probes
            .iter()
            .filter(|(a, p)| !p.2 && self.bench.verdict.probes.contains_key(a));
        let probe = probe.map(|(_, p)| p.0 + u64::try_from(p.1.every.as_millis()).unwrap());
        let wire = self.wire.keys().next().map(|k| k.0);
        let asks = self.ask_at.iter().copied().min();
        let due = probe
            .min()
            .into_iter()
            .chain(wire)
            .chain(asks)
            .chain(self.world.next_at());
        due.min().unwrap_or(u64::MAX).clamp(now + 1, now + recheck)
    }

    fn check(&mut self) -> Result<(), String> {
        let verdict = &self.bench.verdict;
        self.shadow.combine(self.bench.now, &self.bench.topology);
        // Recreated sentinels count anew: theirs are the epochs from here on.
        if matches!(
            self.bench.topology.cause,
            Cause::EpochReset | Cause::Majority
        ) {
            self.shadow.newest = None;
        }
        let announced = self.world_is_honest() && !self.bench.promotes();
        if let (Some(primary), Some((newest, term)), true) =
            (&verdict.conclusion.primary, &self.shadow.newest, announced)
            && primary != newest
            && verdict.conclusion.term <= Some(*term)
        {
            return Err(format!("{primary} is published after {newest} at {term:?}"));
        }
        let up = verdict.sources.iter().filter(|s| s.up).count();
        // A failover of recreated sentinels waits for the old master to give up.
        let anew = |t: &Trouble| matches!(t, Trouble::EpochWentBack { .. });
        let anew = verdict.troubles.iter().any(anew);
        // Before nobody's door a fence is none.
        let fence = verdict.fence && verdict.conclusion.primary.is_some();
        if !fence || anew || up <= verdict.sources.len() / 2 || !announced {
            self.shadow.fenced_since = None;
        } else {
            let since = *self.shadow.fenced_since.get_or_insert(self.bench.now);
            if self.bench.now.since(since) > LONGEST_FENCE {
                return Err(format!("fenced since {since:?}"));
            }
        }
        Ok(())
    }

    /// Honest from the first to the last; liars turn honest at the end.
    fn world_is_honest(&self) -> bool {
        self.world.always_honest
    }

    fn settled(&self) -> Result<(), String> {
        let (master, _) = self.world.truth();
        let verdict = &self.bench.verdict;
        if verdict.conclusion.primary != Some(addr_of(master)) {
            return Err(format!(
                "all is well, and {} is not served",
                addr_of(master)
            ));
        }
        if verdict.fence {
            return Err("all is well, and a fence stands".to_owned());
        }
        Ok(())
    }
}

impl Shadow {
    fn see(&mut self, now: Moment, seen: &Seen) {
        match seen {
            Seen::Answer {
                sentinel,
                answer: Answer::Names { master, epoch, .. },
            } => self.claims[*sentinel] = Some((master.clone(), *epoch, now)),
            Seen::Role { addr, role } => {
                if matches!(role, Role::Master { .. }) {
                    self.masters.insert(addr.clone(), now);
                } else {
                    self.masters.remove(addr);
                }
            }
            _ => {}
        }
    }

    fn combine(&mut self, now: Moment, topology: &Topology) {
        for (master, epoch, at) in self.claims.iter().flatten() {
            let lease = Duration::from_millis(2300);
            let said = self.masters.get(master);
            let proven = said.is_some_and(|said| now.since(*said) <= lease);
            let fresh = now.since(*at) <= ANSWER_LEASE;
            // An epoch that was accepted already says nothing new about another.
            let known = topology.term >= Some(*epoch) && topology.primary_addr() != Some(master);
            let newer = !known && self.newest.as_ref().is_none_or(|n| *epoch > n.1);
            if proven && fresh && newer {
                self.newest = Some((master.clone(), *epoch));
            }
        }
    }
}

fn play(seed: u64) {
    let mut run = Run::new(seed);
    run.bench.logs = false;
    if run.play().is_err() {
        // Again, with every step written down.
        let mut run = Run::new(seed);
        let error = run.play().err().unwrap_or_default();
        panic!("seed {seed}: {error}\n{}", run.bench.tail());
    }
}

#[test]
fn whatever_happens_the_guarantees_hold() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    if let Some(seed) = number("PILOTFISH_SIM_SEED") {
        return play(seed);
    }
    let seeds = number("PILOTFISH_SIM_SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                (thread..seeds)
                    .step_by(usize::try_from(threads).unwrap())
                    .for_each(play)
            });
        }
    });
}
