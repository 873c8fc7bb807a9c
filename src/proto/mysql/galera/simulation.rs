//! Seeds of a model world against two judges, and what must hold whatever happens in it.
//!
//! `PILOTFISH_SIM_SEEDS` sets how many, `PILOTFISH_SIM_SEED` plays one again.

use fastrand::Rng;

use super::facts::LocalState;
use super::tests::{addr, healthy, spec};
use super::*;
use crate::proto::mysql::probe::Said;
use crate::topology::reduce::reduce;
use crate::topology::{Endpoint, Topology};

const SEEDS: u64 = 120;
const STEP: u64 = 20;
const LENGTH: u64 = 60_000;
/// No trouble begins after this: what then remains is for ever.
const QUIET_FROM: u64 = 40_000;
const NODES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Down,
    Frozen,
    NonPrimary,
    ReadOnly,
    Donor,
    Full,
    /// It woke up, and still believes in the component of then.
    Past(u64),
}

struct World {
    nodes: [State; NODES],
    conf_id: u64,
}

impl World {
    fn disturb(&mut self, rng: &mut Rng) {
        let node = rng.usize(..NODES);
        self.nodes[node] = match rng.u8(..10) {
            0 => State::Down,
            1 => State::Frozen,
            2 => State::NonPrimary,
            3 => State::ReadOnly,
            4 => State::Donor,
            5 => State::Full,
            6 => State::Past(self.conf_id),
            _ => State::Up,
        };
        self.conf_id += match self.nodes[node] {
            State::Past(_) => 1,
            _ => rng.u64(..2),
        };
        // All of it was stopped.
        if rng.u8(..40) == 0 {
            self.conf_id = 1;
        }
    }

    /// Nobody believes in the past for ever.
    fn wake(&mut self) {
        for node in &mut self.nodes {
            if matches!(node, State::Past(_)) {
                *node = State::Up;
            }
        }
    }

    fn ask(&self, node: usize) -> Said<Facts> {
        let mut facts = healthy();
        facts.component = (self.conf_id, 3);
        match self.nodes[node] {
            State::Up => {}
            State::Down => return Said::Refused("refused".into()),
            State::Frozen => return Said::Silent("silent".into()),
            State::Full => return Said::Busy("full".into()),
            State::NonPrimary => (facts.primary, facts.component.0) = (false, u64::MAX),
            State::ReadOnly => facts.read_only = true,
            State::Donor => facts.state = LocalState::Donor,
            State::Past(conf_id) => facts.component.0 = conf_id,
        }
        Said::Answer(facts)
    }
}

/// What an onlooker knows of what a judge was told of one node.
#[derive(Clone, Default)]
struct Shadow {
    /// The last good answer, if nothing has been said against it.
    good_at: Option<Moment>,
    silent: u32,
    /// The last word was that it is full.
    busy: bool,
    /// Since when nothing was said against it.
    fit_since: Option<Moment>,
    /// Of the last good answer.
    component: u64,
}

impl Shadow {
    fn hear(&mut self, now: Moment, said: &Said<Facts>, fall: u32) {
        self.busy = matches!(said, Said::Busy(_));
        match said {
            Said::Answer(facts) if facts.flaw(false).is_none() => {
                (self.good_at, self.silent) = (Some(now), 0);
                self.component = facts.component.0;
                self.fit_since.get_or_insert(now);
            }
            Said::Answer(_) | Said::Refused(_) => self.fell(),
            Said::Busy(_) => {}
            Said::Silent(_) => {
                self.silent += 1;
                if self.silent >= fall {
                    self.fell();
                }
            }
        }
    }

    fn fell(&mut self) {
        (self.good_at, self.fit_since) = (None, None);
    }

    fn vouches(&self, now: Moment, lease: Duration) -> bool {
        self.good_at.is_some_and(|at| now.since(at) <= lease)
    }
}

/// A judge, what it was told, and what it said.
struct Side {
    judge: GaleraJudge,
    shadow: [Shadow; NODES],
    topology: Topology,
    primary: Option<usize>,
    /// Who was accepted last, and whether anything was said against them since.
    accepted: Option<(usize, bool)>,
    next: [u64; NODES],
    /// This host is paused until then.
    paused: u64,
}

impl Side {
    fn new(spec: &GaleraSpec, rng: &mut Rng) -> Self {
        Self {
            judge: GaleraJudge::new(spec, None),
            shadow: Default::default(),
            topology: Topology::empty(Moment::default()),
            primary: None,
            accepted: None,
            next: [0; NODES].map(|_: u64| rng.u64(..500)),
            paused: 0,
        }
    }

    fn step(&mut self, ms: u64, world: &World, rng: &mut Rng, spec: &GaleraSpec) {
        if ms < self.paused {
            return;
        }
        let now = Moment::from_millis(ms);
        for node in 0..NODES {
            if ms < self.next[node] {
                continue;
            }
            let said = world.ask(node);
            // Silence takes the timeout, and is followed by the next try.
            self.next[node] = ms
                + if matches!(said, Said::Silent(_)) {
                    400
                } else {
                    500
                };
            self.next[node] += rng.u64(..40);
            self.shadow[node].hear(now, &said, spec.probe.fall);
            if let Some((accepted, against)) = &mut self.accepted {
                *against |= *accepted == node && self.shadow[node].fit_since.is_none();
            }
            let seen = Seen::Said {
                addr: addr_of(node),
                said,
            };
            self.judge.see(now, seen);
            if rng.bool() {
                self.judge_now(now, spec);
            }
        }
        self.judge_now(now, spec);
    }

    fn judge_now(&mut self, now: Moment, spec: &GaleraSpec) {
        let lease = super::super::node::lease(&spec.probe);
        if let Some((accepted, against)) = &mut self.accepted {
            // Busy is not down, for as long as its last answer counts.
            let shadow = &self.shadow[*accepted];
            *against |= shadow.busy && !shadow.vouches(now, lease);
        }
        let verdict = self.judge.judge(now);
        let conclusion = &verdict.conclusion;
        let new = |a: &Addr| Endpoint::new(a.clone(), None);
        let before = self.topology.generation;
        match reduce(&self.topology, conclusion, now, new) {
            Ok(Some(topology)) => self.topology = topology,
            Ok(None) => {}
            Err(error) => panic!("the last line had to refuse: {error}"),
        }
        assert!(self.topology.generation.0 - before.0 <= 1);
        let index = |addr: &Addr| (0..NODES).find(|n| addr_of(*n) == *addr).unwrap();
        let primary = conclusion.primary.as_ref().map(index);
        for (node, what) in primary.iter().map(|n| (*n, "primary")).chain(
            conclusion
                .replicas
                .iter()
                .map(|addr| (index(addr), "replica")),
        ) {
            assert!(
                self.shadow[node].vouches(now, lease),
                "{what} {node} without evidence at {now:?}"
            );
        }
        if let Some((addr, until)) = &conclusion.leaving {
            assert!(
                self.shadow[index(addr)].vouches(now, lease),
                "leaving an unfit node"
            );
            assert!(primary.is_some() && until.since(now) <= FINISH);
        }
        if let Some(primary) = primary {
            self.check_switch(now, primary, conclusion.leaving.is_some(), spec);
        }
        if let Some(primary) = primary
            && self.accepted.is_none_or(|(before, _)| before != primary)
        {
            self.accepted = Some((primary, false));
        }
        if let (Some(primary), Some((before, against))) = (primary, &mut self.accepted) {
            *against &= primary != *before;
        }
        self.primary = primary;
    }

    fn check_switch(&self, now: Moment, primary: usize, leaving: bool, spec: &GaleraSpec) {
        if let Some((before, against)) = self.accepted
            && primary != before
        {
            let fit_for = self.shadow[primary]
                .fit_since
                .map_or(Duration::ZERO, |at| now.since(at));
            let patient = fit_for >= spec.failback_after && primary < before;
            assert!(
                against || patient,
                "from {before} to {primary} for no reason at {now:?}"
            );
            assert_eq!(leaving, !against, "who leaves, at {now:?}");
            let lease = super::super::node::lease(&spec.probe);
            let part = self.shadow[primary].component;
            let mut others = self.shadow.iter().filter(|it| it.vouches(now, lease));
            assert!(
                against || others.all(|it| it.component == part),
                "from {before} to {primary}, of another component, at {now:?}"
            );
        }
    }
}

fn addr_of(node: usize) -> Addr {
    addr(['a', 'b', 'c'][node])
}

fn play(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut spec = spec();
    spec.failback_after = Duration::from_millis(rng.u64(500..6_000));
    let mut world = World {
        nodes: [State::Up; NODES],
        conf_id: 5,
    };
    let mut sides = [Side::new(&spec, &mut rng), Side::new(&spec, &mut rng)];
    for ms in (0..LENGTH).step_by(STEP as usize) {
        if ms == QUIET_FROM {
            world.wake();
        }
        if ms < QUIET_FROM && rng.u64(..100) == 0 {
            world.disturb(&mut rng);
        }
        for side in &mut sides {
            if ms < QUIET_FROM && rng.u64(..1500) == 0 {
                side.paused = ms + rng.u64(..4000);
            }
            side.step(ms, &world, &mut rng, &spec);
        }
    }
    // Busy is not down, and proves nothing either: such a node is not asked for its opinion here.
    let fit = world.nodes.iter().position(|state| *state == State::Up);
    for side in &sides {
        assert_eq!(side.primary, fit, "{:?}", world.nodes);
    }
}

#[test]
fn seeds() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(seed) = number("PILOTFISH_SIM_SEED") {
        return play(seed);
    }
    for seed in 0..number("PILOTFISH_SIM_SEEDS").unwrap_or(SEEDS) {
        let played = std::panic::catch_unwind(|| play(seed));
        if let Err(cause) = played {
            println!("PILOTFISH_SIM_SEED={seed}");
            std::panic::resume_unwind(cause);
        }
    }
}
