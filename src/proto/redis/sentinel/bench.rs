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
use crate::topology::reduce::{Conclusion, reduce};
use crate::topology::{Cause, Endpoint, Topology};

pub const HOLD: Duration = Duration::from_millis(800);

/// One letter is one server.
pub fn addr(name: char) -> Addr {
    let number = u8::try_from(u32::from(name) - 96).unwrap();
    Addr::Ip(([10, 0, 0, number], 6379).into())
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
    calls: u64,
    /// Whether steps are kept, and each moment is judged twice.
    pub logs: bool,
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
            calls: 0,
            logs: true,
            log: Vec::new(),
        }
    }

    pub fn promotes(&self) -> bool {
        self.judge.spec.switch_on == SwitchOn::Promotion
    }

    pub fn step(&mut self, what: impl FnOnce() -> String) {
        if !self.logs {
            return;
        }
        self.log.push(format!("{:?} {}", self.now, what()));
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
                        self.step(|| format!("{addr} says {role:?}"));
                    }
                }
            }
            Seen::Answer { sentinel, answer } => {
                self.step(|| format!("s{sentinel}: {}", describe(answer)));
            }
            other => self.step(|| format!("{other:?}")),
        }
        self.judge.see(self.now, seen);
    }

    /// Judges, as a rule twice, and checks what must always hold.
    pub fn judge(&mut self) -> Result<(), String> {
        let first = self.judge.judge(self.now);
        self.calls += 1;
        let twice = self.logs || self.calls.is_multiple_of(4);
        let again = if twice {
            self.judge.judge(self.now)
        } else {
            first.clone()
        };
        for note in &first.notes {
            self.step(|| format!("note: {note}"));
            self.notes.push((self.now, note.clone()));
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
        let shown = |v: &Verdict| {
            let Conclusion {
                primary,
                term,
                cause,
                ..
            } = &v.conclusion;
            format!("=> {primary:?} {term:?} {cause} fence {}", v.fence)
        };
        if self.logs && shown(&first) != shown(&self.verdict) {
            self.step(|| shown(&first));
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
