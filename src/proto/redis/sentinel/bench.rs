//! A judge on the bench: what is checked after every single call, whoever drives it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::judge::{Seen, SentinelJudge};
use super::view::describe;
use crate::addr::Addr;
use crate::clock::Moment;
use crate::monitor::{Judge, Verdict};
use crate::net::tls::TlsSettings;
use crate::proto::redis::node;
use crate::proto::redis::role::Role;
use crate::proto::spec::{FenceOn, Minority, SentinelSpec, SwitchOn};
use crate::secret::Credentials;
use crate::topology::reduce::reduce;
use crate::topology::{Cause, Endpoint, Topology};

pub const HOLD: Duration = Duration::from_millis(800);

/// One letter is one server.
pub fn addr(name: char) -> Addr {
    format!("10.0.0.{}:6379", u32::from(name) - u32::from('a') + 1)
        .parse()
        .unwrap()
}

pub fn spec(sentinels: usize) -> SentinelSpec {
    SentinelSpec {
        master: "shop".into(),
        sentinels: (1..=sentinels)
            .map(|i| format!("10.1.0.{i}:26379").parse().unwrap())
            .collect(),
        credentials: Credentials::default(),
        sentinel_credentials: Credentials::default(),
        sentinel_tls: TlsSettings::default(),
        minority: Minority::Serve,
        fence: FenceOn::Failover,
        switch_on: SwitchOn::Announcement,
        probe_interval: Duration::from_secs(1),
        address_map: BTreeMap::new(),
    }
}

pub struct Bench {
    pub judge: SentinelJudge,
    pub topology: Topology,
    pub verdict: Verdict,
    pub now: Moment,
    lease: Duration,
    words: BTreeMap<Addr, (Role, Moment)>,
    pub notes: Vec<(Moment, String)>,
    /// The last steps, for a failure's message.
    pub log: Vec<String>,
}

impl Bench {
    pub fn new(spec: SentinelSpec, hold: Duration) -> Self {
        let lease = node::lease(spec.probe_interval);
        let mut judge = SentinelJudge::new(spec, hold);
        let now = Moment::default();
        Self {
            verdict: judge.judge(now),
            judge,
            topology: Topology::empty(now),
            now,
            lease,
            words: BTreeMap::new(),
            notes: Vec::new(),
            log: Vec::new(),
        }
    }

    pub fn step(&mut self, what: String) {
        self.log.push(format!("{:?} {what}", self.now));
        if self.log.len() > 400 {
            self.log.drain(..200);
        }
    }

    pub fn tail(&self) -> String {
        self.log[self.log.len().saturating_sub(40)..].join("\n")
    }

    pub fn see(&mut self, seen: Seen) {
        match &seen {
            Seen::Role { addr, role } => {
                // A busy server says nothing of its role.
                let busy = matches!(role, Role::Busy(_));
                if !(busy && self.words.contains_key(addr)) {
                    let known = self
                        .words
                        .insert(addr.clone(), (role.clone(), self.now))
                        .map(|w| w.0);
                    if known.as_ref() != Some(role) {
                        self.step(format!("{addr} says {role:?}"));
                    }
                }
            }
            Seen::Answer { sentinel, answer } => {
                self.step(format!("s{sentinel}: {}", describe(answer)));
            }
            other => self.step(format!("{other:?}")),
        }
        self.judge.see(self.now, seen);
    }

    /// Judges, twice, and checks what must always hold.
    pub fn judge(&mut self) -> Result<(), String> {
        let first = self.judge.judge(self.now);
        let again = self.judge.judge(self.now);
        let mut all = first.notes.clone();
        all.extend(again.notes.clone());
        for note in all {
            self.step(format!("note: {note}"));
            self.notes.push((self.now, note));
        }
        if !same(&first, &again) {
            return Err(format!("judged anew: {again:?}\nnot: {first:?}"));
        }
        let conclusion = &first.conclusion;
        if let Some(primary) = &conclusion.primary {
            let proven = self.words.get(primary).is_some_and(|(role, at)| {
                matches!(role, Role::Master { .. }) && self.now.since(*at) <= self.lease
            });
            if !proven {
                return Err(format!("{primary} is published and not proven"));
            }
        }
        let before = self.topology.term;
        let endpoint = |a: &Addr| Endpoint::new(a.clone(), None);
        match reduce(&self.topology, conclusion, self.now, endpoint) {
            Err(error) => return Err(error.to_string()),
            Ok(None) => {}
            Ok(Some(next)) => {
                if next.term < before && next.cause != Cause::EpochReset {
                    return Err(format!("term {before:?} -> {:?}", next.term));
                }
                self.topology = next;
            }
        }
        let (was, is) = (&self.verdict.conclusion, conclusion);
        if (&was.primary, was.term, self.verdict.fence) != (&is.primary, is.term, first.fence) {
            self.step(format!(
                "=> {:?} term {:?} {} fence {}",
                is.primary, is.term, is.cause, first.fence
            ));
        }
        self.verdict = first;
        Ok(())
    }
}

/// All but the notes, which are told once.
fn same(a: &Verdict, b: &Verdict) -> bool {
    let (nodes, sources) = (a.nodes == b.nodes, a.sources == b.sources);
    let shown = nodes && sources && a.troubles == b.troubles;
    let wanted = a.probes == b.probes && (a.ask_again, a.recheck) == (b.ask_again, b.recheck);
    let held = (a.fence, a.evidence_at) == (b.fence, b.evidence_at);
    shown && wanted && held && a.conclusion == b.conclusion
}
