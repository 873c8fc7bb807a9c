//! A model of sentinels and Redis servers, as far as a judge can tell it from real ones. Times and
//! orders of events follow the measured failovers.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::super::answer::Answer;
use super::super::bench::addr;
use super::super::event::Event;
use crate::proto::redis::role::Role;
use crate::topology::Term;

pub const NODES: usize = 3;

/// When all faults are over.
pub const QUIET_FROM: u64 = 32_000;

#[derive(Clone, Debug)]
pub struct Node {
    pub alive: bool,
    pub frozen: bool,
    pub cut: bool,
    /// The one it follows; a master follows nobody.
    pub follows: Option<usize>,
    stray_since: Option<(u64, u64)>,
}

#[derive(Clone, Debug)]
pub struct Sentinel {
    pub alive: bool,
    pub frozen: bool,
    /// From the judge, not from the others.
    pub cut: bool,
    pub view: (usize, u64),
    pub liar: bool,
    lie: Option<(char, u64)>,
}

/// What happens later.
#[derive(Clone, Debug)]
pub enum Later {
    Fault,
    Elect {
        old: usize,
        planned: bool,
    },
    Promote {
        leader: usize,
        replica: usize,
    },
    Learn {
        leader: usize,
        master: usize,
        epoch: u64,
    },
    Follow {
        sentinel: usize,
    },
    Repoint,
    Restart {
        node: usize,
    },
    Thaw {
        node: usize,
    },
    Wake {
        sentinel: usize,
    },
    Uncut,
    Lie {
        sentinel: usize,
    },
    Recreate,
}

pub struct World {
    pub rng: Rng,
    pub now: u64,
    pub nodes: Vec<Node>,
    pub sentinels: Vec<Sentinel>,
    queue: BTreeMap<(u64, u64), Later>,
    order: u64,
    voted: u64,
    electing: bool,
    /// The last truth; while no sentinel works nobody else has one.
    known: (usize, u64),
    pub always_honest: bool,
    /// Events for the judge: when they were published, by whom.
    pub events: Vec<(usize, Event)>,
    pub story: Vec<String>,
}

impl World {
    pub fn new(mut rng: Rng) -> Self {
        let count = if rng.u8(0..4) == 0 { 5 } else { 3 };
        let epoch = rng.u64(0..9);
        let node = |i: usize| Node {
            alive: true,
            frozen: false,
            cut: false,
            follows: (i > 0).then_some(0),
            stray_since: None,
        };
        let sentinel = |_| Sentinel {
            alive: true,
            frozen: false,
            cut: false,
            view: (0, epoch),
            liar: false,
            lie: None,
        };
        let mut world = Self {
            nodes: (0..NODES).map(node).collect(),
            sentinels: (0..count).map(sentinel).collect(),
            now: 0,
            queue: BTreeMap::new(),
            order: 0,
            voted: epoch,
            electing: false,
            known: (0, epoch),
            always_honest: true,
            events: vec![],
            story: vec![],
            rng,
        };
        if world.rng.u8(0..3) == 0 {
            world.always_honest = false;
            for liar in 0..world.rng.usize(1..=(count - 1) / 2) {
                world.sentinels[liar].liar = true;
                world.later(500, Later::Lie { sentinel: liar });
            }
        }
        let first = world.rng.u64(1000..5000);
        world.later(first, Later::Fault);
        world
    }

    fn later(&mut self, after: u64, what: Later) {
        self.order += 1;
        self.queue.insert((self.now + after, self.order), what);
    }

    pub fn next_at(&self) -> Option<u64> {
        self.queue.keys().next().map(|k| k.0)
    }

    fn working(&self, s: usize) -> bool {
        let s = &self.sentinels[s];
        s.alive && !s.frozen && !s.liar
    }

    fn working_ones(&self) -> Vec<usize> {
        (0..self.sentinels.len())
            .filter(|&s| self.working(s))
            .collect()
    }

    /// What the working sentinels will all believe.
    pub fn truth(&self) -> (usize, u64) {
        let views = self.working_ones();
        let newest = views.iter().map(|&s| self.sentinels[s].view);
        newest.max_by_key(|v| v.1).unwrap_or(self.known)
    }

    pub fn is_master(&self, node: usize) -> bool {
        self.nodes[node].alive && self.nodes[node].follows.is_none()
    }

    fn publish(&mut self, sentinel: usize, event: Event) {
        self.events.push((sentinel, event));
    }

    fn tell(&mut self, line: String) {
        self.story.push(line);
    }
}

// === what happens ===

impl World {
    pub fn advance(&mut self, to: u64) {
        self.known = self.truth();
        while let Some((&key, _)) = self.queue.iter().next() {
            if key.0 > to {
                break;
            }
            self.now = key.0;
            if let Some(what) = self.queue.remove(&key) {
                self.happen(what);
            }
        }
        self.now = to;
        self.watch_over();
    }

    fn happen(&mut self, what: Later) {
        self.tell(format!("{what:?}"));
        self.known = self.truth();
        match what {
            Later::Fault => self.fault(),
            Later::Elect { old, planned } => self.elect(old, planned),
            Later::Promote { leader, replica } => self.promote(leader, replica),
            Later::Learn {
                leader,
                master,
                epoch,
            } => self.learn(leader, master, epoch),
            Later::Follow { sentinel } => {
                let newest = self.truth();
                if self.working(sentinel) && self.sentinels[sentinel].view.1 < newest.1 {
                    self.sentinels[sentinel].view = newest;
                    self.publish(sentinel, Event::Other);
                }
            }
            Later::Repoint => {
                let (master, _) = self.truth();
                for node in 0..NODES {
                    if node != master && self.nodes[node].follows.is_some() {
                        self.nodes[node].follows = Some(master);
                    }
                }
            }
            Later::Restart { node } => self.nodes[node].alive = true,
            Later::Thaw { node } => self.nodes[node].frozen = false,
            Later::Wake { sentinel } => {
                let truth = self.truth();
                let s = &mut self.sentinels[sentinel];
                if !s.alive {
                    s.view = truth;
                }
                (s.alive, s.frozen, s.cut) = (true, false, false);
                self.follow_soon(sentinel);
            }
            Later::Uncut => {
                self.nodes.iter_mut().for_each(|n| n.cut = false);
                self.sentinels.iter_mut().for_each(|s| s.cut = false);
            }
            Later::Lie { sentinel } => self.lie(sentinel),
            Later::Recreate => {
                if !self.electing {
                    let (master, _) = self.truth();
                    self.voted = 0;
                    for s in &mut self.sentinels {
                        s.view = (master, 0);
                    }
                }
            }
        }
    }

    fn follow_soon(&mut self, sentinel: usize) {
        let after = self.rng.u64(20..2200);
        self.later(after, Later::Follow { sentinel });
    }

    fn fault(&mut self) {
        let again = self.rng.u64(2000..12_000);
        if self.now + again < QUIET_FROM - 8000 {
            self.later(again, Later::Fault);
        }
        let (master, _) = self.truth();
        let back = self
            .rng
            .u64(1500..16_000)
            .min(QUIET_FROM.saturating_sub(self.now));
        let sentinel = self.rng.usize(0..self.sentinels.len());
        let detected = self.rng.u64(500..1500);
        match self.rng.u8(0..10) {
            0 | 1 => {
                self.nodes[master].alive = false;
                self.later(back, Later::Restart { node: master });
                self.failover_after(detected, master, false);
            }
            2 | 3 => {
                self.nodes[master].frozen = true;
                self.later(back, Later::Thaw { node: master });
                self.failover_after(detected, master, false);
            }
            4 | 5 => self.failover_after(1, master, true),
            6 => {
                self.sentinels[sentinel].frozen = true;
                self.later(back, Later::Wake { sentinel });
            }
            7 => {
                self.sentinels[sentinel].alive = false;
                self.later(back, Later::Wake { sentinel });
            }
            8 => {
                for s in 0..self.sentinels.len() {
                    self.sentinels[s].cut = self.rng.bool();
                }
                let node = self.rng.usize(0..NODES);
                self.nodes[node].cut = self.rng.bool();
                self.later(back, Later::Uncut);
            }
            _ => self.later(100, Later::Recreate),
        }
    }

    fn failover_after(&mut self, after: u64, old: usize, planned: bool) {
        if !self.electing {
            self.electing = true;
            self.later(after, Later::Elect { old, planned });
        }
    }

    fn elect(&mut self, old: usize, planned: bool) {
        let working = self.working_ones();
        let enough = planned || working.len() > self.sentinels.len() / 2;
        let healthy = self.nodes[old].alive && !self.nodes[old].frozen;
        let fit = |n: &usize| *n != old && self.nodes[*n].alive && !self.nodes[*n].frozen;
        let replicas: Vec<usize> = (0..NODES).filter(fit).collect();
        let gone = old != self.truth().0 || !planned && healthy;
        if gone || !enough || replicas.is_empty() || working.is_empty() {
            self.electing = false;
            return;
        }
        let leader = working[self.rng.usize(0..working.len())];
        let replica = replicas[self.rng.usize(0..replicas.len())];
        if !planned {
            for s in working {
                let master = addr_of(old);
                self.publish(s, Event::Down { master });
            }
        }
        let event = Event::Promoting {
            replica: addr_of(replica),
            master: addr_of(old),
        };
        self.publish(leader, event);
        let after = self.rng.u64(20..200);
        self.later(after, Later::Promote { leader, replica });
    }

    fn promote(&mut self, leader: usize, replica: usize) {
        let dies = self.rng.u8(0..100);
        if !self.nodes[replica].alive || self.nodes[replica].frozen || !self.working(leader) {
            self.publish(leader, Event::Aborted);
            self.electing = false;
            return;
        }
        self.nodes[replica].follows = None;
        if dies < 12 {
            // Nobody else will hear of it.
            self.crash(leader);
            self.electing = false;
            return;
        }
        self.voted = self.voted.max(self.truth().1) + 1;
        let after = self.rng.u64(10..1000);
        let epoch = self.voted;
        let master = replica;
        self.later(
            after,
            Later::Learn {
                leader,
                master,
                epoch,
            },
        );
    }

    fn crash(&mut self, sentinel: usize) {
        let back = self
            .rng
            .u64(1000..10_000)
            .min(QUIET_FROM.saturating_sub(self.now).max(500));
        self.sentinels[sentinel].alive = false;
        self.later(back, Later::Wake { sentinel });
    }

    fn learn(&mut self, leader: usize, master: usize, epoch: u64) {
        self.electing = false;
        if !self.working(leader) || !self.is_master(master) || self.truth().1 >= epoch {
            return;
        }
        self.sentinels[leader].view = (master, epoch);
        self.publish(leader, Event::Other);
        for sentinel in 0..self.sentinels.len() {
            self.follow_soon(sentinel);
        }
        let after = self.rng.u64(300..3000);
        self.later(after, Later::Repoint);
    }

    /// What sentinels do all the time: demote strays, replace a dead master, gossip.
    fn watch_over(&mut self) {
        let (master, _) = self.truth();
        let able = self.working_ones().len() > self.sentinels.len() / 2;
        for node in 0..NODES {
            let stray = node != master && self.is_master(node) && !self.electing;
            let n = &mut self.nodes[node];
            if !stray || n.frozen {
                n.stray_since = None;
                continue;
            }
            let patience = self.rng.u64(8000..18_000);
            let (since, patience) = *n.stray_since.get_or_insert((self.now, patience));
            if able && self.now - since > patience {
                n.follows = Some(master);
                n.stray_since = None;
            }
        }
        let fit = self.is_master(master) && !self.nodes[master].frozen;
        if !fit && able && !self.electing {
            let after = self.rng.u64(1500..4000);
            self.failover_after(after, master, false);
        }
    }

    fn lie(&mut self, sentinel: usize) {
        if self.now > QUIET_FROM {
            let truth = self.truth();
            let s = &mut self.sentinels[sentinel];
            (s.lie, s.liar, s.view) = (None, false, truth);
            self.follow_soon(sentinel);
            return;
        }
        let epoch = match self.rng.u8(0..3) {
            0 => self.truth().1,
            1 => self.rng.u64(0..12),
            _ => self.rng.u64(100..10_000),
        };
        let name = ['a', 'b', 'c', 'z'][self.rng.usize(0..4)];
        self.sentinels[sentinel].lie = Some((name, epoch));
        let master = addr_of(self.truth().0);
        let event = match self.rng.u8(0..5) {
            0 => Event::Promoting {
                replica: addr(name),
                master,
            },
            1 => Event::Aborted,
            2 => Event::Down { master },
            3 => Event::UpAgain { master },
            _ => Event::Other,
        };
        self.publish(sentinel, event);
        let after = self.rng.u64(50..3000);
        self.later(after, Later::Lie { sentinel });
    }
}

// === what it answers ===

pub fn addr_of(node: usize) -> crate::addr::Addr {
    addr(['a', 'b', 'c'][node])
}

impl World {
    pub fn answer(&self, sentinel: usize) -> Answer {
        let s = &self.sentinels[sentinel];
        let (name, epoch) = s.lie.unwrap_or((['a', 'b', 'c'][s.view.0], s.view.1));
        let replicas = ['a', 'b', 'c'].into_iter().filter(|&r| r != name);
        Answer::Names {
            master: addr(name),
            epoch: Term(epoch),
            tilt: false,
            replicas: replicas.map(addr).collect(),
        }
    }

    pub fn role(&self, node: usize) -> Role {
        match self.nodes[node].follows {
            None => Role::Master {
                offset: 1,
                replicas: vec![],
            },
            Some(of) => Role::Replica {
                master: Some(addr_of(of)),
                connected: self.nodes[of].alive,
                offset: 1,
            },
        }
    }
}
