//! A change of record sets with its expectation, and what is left of it to do: the part that only decides.

use std::collections::BTreeSet;

use super::record::{Key, Name, RecordType, Records, RrSet, Values};
use super::rows::Row;

/// Why a change is never sent to anybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("nothing is to be changed")]
    Nothing,
    #[error("`{0}` would be left without any record")]
    Empty(Name),
    #[error("`{0}` would have a CNAME next to other records")]
    CnameAndOthers(Name),
    #[error("`{key}` would point to {value}, where no server can be")]
    Nowhere { key: Key, value: String },
    #[error("`{0}` does not lie in the zone {1}")]
    Outside(Name, Name),
}

/// One set: what must be there, and what shall be. `None` is no records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetChange {
    pub key: Key,
    pub from: Option<RrSet>,
    pub to: Option<RrSet>,
}

impl SetChange {
    /// Whether other values are wanted, not just another TTL.
    pub fn moves(&self) -> bool {
        self.from.as_ref().map(RrSet::values) != self.to.as_ref().map(RrSet::values)
    }
}

/// What one call changes, together. Every name in it has records before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    sets: Vec<SetChange>,
    /// For the provider's own log, where it keeps one. No secret.
    pub note: String,
}

impl Change {
    /// From what is there to what shall be. A key of `from` that `to` lacks is removed.
    ///
    /// # Errors
    /// When a name would be left without records, or with records that no server could have.
    pub fn new(from: &Records, to: &Records, note: impl Into<String>) -> Result<Self, ChangeError> {
        let keys: BTreeSet<&Key> = from.keys().chain(to.keys()).collect();
        if keys.is_empty() {
            return Err(ChangeError::Nothing);
        }
        for key in &keys {
            let has = |rtype| to.contains_key(&Key::new(key.name.clone(), rtype));
            let cname = has(RecordType::Cname);
            let others = RecordType::ALL
                .into_iter()
                .any(|t| t != RecordType::Cname && has(t));
            if !(cname || others) {
                return Err(ChangeError::Empty(key.name.clone()));
            }
            if cname && others {
                return Err(ChangeError::CnameAndOthers(key.name.clone()));
            }
        }
        for set in to.values() {
            possible(set)?;
        }
        let set = |key: &Key| SetChange {
            key: key.clone(),
            from: from.get(key).cloned(),
            to: to.get(key).cloned(),
        };
        Ok(Self {
            sets: keys.into_iter().map(set).collect(),
            note: note.into(),
        })
    }

    pub fn sets(&self) -> &[SetChange] {
        &self.sets
    }

    pub fn keys(&self) -> Vec<Key> {
        self.sets.iter().map(|set| set.key.clone()).collect()
    }

    /// What is there afterwards.
    pub fn to(&self) -> Records {
        let sets = self.sets.iter().filter_map(|set| set.to.clone());
        super::record::records(sets)
    }

    /// The way back.
    ///
    /// # Errors
    /// When a name had no records before: then there is no way back that leaves it any.
    pub fn inverse(&self, note: impl Into<String>) -> Result<Self, ChangeError> {
        let from = super::record::records(self.sets.iter().filter_map(|set| set.from.clone()));
        Self::new(&self.to(), &from, note)
    }

    /// # Errors
    /// When a name does not lie in `zone`.
    pub fn check_zone(&self, zone: &Name) -> Result<(), ChangeError> {
        let outside = self.sets.iter().find(|set| !set.key.name.is_within(zone));
        outside.map_or(Ok(()), |set| {
            Err(ChangeError::Outside(set.key.name.clone(), zone.clone()))
        })
    }
}

fn possible(set: &RrSet) -> Result<(), ChangeError> {
    let nowhere = match set.values() {
        Values::A(addrs) => addrs
            .iter()
            .find(|a| a.is_unspecified() || a.is_multicast() || a.is_broadcast())
            .map(ToString::to_string),
        Values::Aaaa(addrs) => addrs
            .iter()
            .find(|a| a.is_unspecified() || a.is_multicast())
            .map(ToString::to_string),
        Values::Cname(target) => (target == set.name()).then(|| target.to_string()),
        Values::Txt(_) => None,
    };
    nowhere.map_or(Ok(()), |value| {
        Err(ChangeError::Nowhere {
            key: set.key(),
            value,
        })
    })
}

/// Which TTLs a provider stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlRule {
    /// Seconds.
    pub min: u32,
    /// The only values there are, ascending; empty: every one from `min` on.
    pub values: &'static [u32],
    /// Whether another one is stored differently without an error.
    pub silent: bool,
}

impl TtlRule {
    /// Every TTL is kept.
    pub const ANY: Self = Self {
        min: 0,
        values: &[],
        silent: false,
    };

    /// What becomes of `ttl`, as far as it is known beforehand. Providers that round do so upwards or
    /// to the nearest value; the read-back says which.
    pub fn effective(&self, ttl: u32) -> u32 {
        let at_least = ttl.max(self.min);
        let next = self.values.iter().copied().find(|value| *value >= at_least);
        next.or(self.values.last().copied()).unwrap_or(at_least)
    }

    /// Whether a stored `found` can be what became of a wanted `ttl`.
    fn may_become(&self, ttl: u32, found: u32) -> bool {
        if found == ttl || found == self.effective(ttl) {
            return true;
        }
        let below = self.values.iter().copied().rfind(|value| *value <= ttl);
        self.silent && below == Some(found)
    }
}

/// What the provider holds: the sets that were asked for, and what is special about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub records: Records,
    /// Answered by the provider's own proxy: clients see neither the values nor the TTL.
    pub proxied: BTreeSet<Key>,
    /// What the provider counts changes of the zone with (SOA serial, version), where it was seen.
    pub version: Option<String>,
    /// The same, record by record, where the provider keeps them apart.
    pub rows: Vec<Row>,
}

/// What is left to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// Everything is as it shall be.
    Nothing,
    /// These sets are as expected, all others as wanted.
    Sets(Vec<SetChange>),
    /// These sets are neither as expected nor as wanted.
    Conflict(Vec<Key>),
}

/// Compares every set with what is expected and what is wanted. Doing what is left of a change that
/// was interrupted finishes it; a set that somebody else changed stops all of it.
pub fn left(change: &Change, observed: &Observed, rule: &TtlRule) -> Left {
    let mut todo = Vec::new();
    let mut conflicts = Vec::new();
    for set in change.sets() {
        let found = observed.records.get(&set.key);
        let ttl_matters = !observed.proxied.contains(&set.key);
        let is = |wanted: &Option<RrSet>| same(found, wanted.as_ref(), rule, ttl_matters);
        if is(&set.to) {
            continue;
        }
        if is(&set.from) {
            todo.push(set.clone());
        } else {
            conflicts.push(set.key.clone());
        }
    }
    match (conflicts.is_empty(), todo.is_empty()) {
        (false, _) => Left::Conflict(conflicts),
        (true, true) => Left::Nothing,
        (true, false) => Left::Sets(todo),
    }
}

fn same(found: Option<&RrSet>, wanted: Option<&RrSet>, rule: &TtlRule, ttl_matters: bool) -> bool {
    match (found, wanted) {
        (None, None) => true,
        (Some(found), Some(wanted)) => {
            let ttl = !ttl_matters || rule.may_become(wanted.ttl(), found.ttl());
            ttl && found.values() == wanted.values()
        }
        _ => false,
    }
}

/// A TTL that is not the wanted one, in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clamped {
    pub key: Key,
    pub wanted: u32,
    pub got: u32,
}

/// The TTLs that came out otherwise.
pub fn clamped(change: &Change, observed: &Observed) -> Vec<Clamped> {
    let differs = |set: &SetChange| {
        let (wanted, got) = (
            set.to.as_ref()?.ttl(),
            observed.records.get(&set.key)?.ttl(),
        );
        (wanted != got).then(|| Clamped {
            key: set.key.clone(),
            wanted,
            got,
        })
    };
    change.sets().iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::record::records;

    fn set(key: &str, ttl: u64, values: &[&str]) -> RrSet {
        RrSet::parse(&key.parse().unwrap(), ttl, values.iter().copied()).unwrap()
    }

    fn a(value: &str) -> RrSet {
        set("shop.example.com A", 60, &[value])
    }

    fn aaaa(value: &str) -> RrSet {
        set("shop.example.com AAAA", 60, &[value])
    }

    fn seen(sets: impl IntoIterator<Item = RrSet>) -> Observed {
        Observed {
            records: records(sets),
            ..Observed::default()
        }
    }

    fn both(n: u8) -> Records {
        records([a(&format!("192.0.2.{n}")), aaaa(&format!("2001:db8::{n}"))])
    }

    #[test]
    fn nothing_is_ever_left_empty_or_nowhere() {
        let one = records([a("192.0.2.1")]);
        let none = Records::new();
        assert_eq!(Change::new(&none, &none, ""), Err(ChangeError::Nothing));
        let name: Name = "shop.example.com".parse().unwrap();
        assert_eq!(
            Change::new(&one, &none, ""),
            Err(ChangeError::Empty(name.clone()))
        );
        let created = Change::new(&none, &one, "").unwrap();
        assert_eq!(created.inverse(""), Err(ChangeError::Empty(name.clone())));
        let cname = set("shop.example.com CNAME", 60, &["lb.example.net"]);
        let mixed = records([a("192.0.2.1"), cname.clone()]);
        assert_eq!(
            Change::new(&one, &mixed, ""),
            Err(ChangeError::CnameAndOthers(name))
        );
        assert!(Change::new(&one, &records([cname]), "").is_ok());
        for bad in ["0.0.0.0", "224.0.0.1", "255.255.255.255"] {
            let bad = records([a(bad)]);
            assert!(matches!(
                Change::new(&one, &bad, ""),
                Err(ChangeError::Nowhere { .. })
            ));
        }
        let loops = records([set("shop.example.com CNAME", 60, &["shop.example.com"])]);
        assert!(matches!(
            Change::new(&one, &loops, ""),
            Err(ChangeError::Nowhere { .. })
        ));
        // The address family that the other region lacks goes, the name stays.
        let fewer = Change::new(&both(1), &records([a("192.0.2.2")]), "").unwrap();
        assert_eq!(fewer.sets()[1].to, None);
        assert_eq!(fewer.inverse("").unwrap().inverse("").unwrap(), fewer);
        assert!(fewer.check_zone(&"example.org".parse().unwrap()).is_err());
    }

    #[test]
    fn what_is_left_is_what_is_neither_done_nor_touched() {
        let change = Change::new(&both(1), &both(2), "").unwrap();
        let left = |sets: Vec<RrSet>| left(&change, &seen(sets), &TtlRule::ANY);
        let (a1, a2) = (a("192.0.2.1"), a("192.0.2.2"));
        let (b1, b2) = (aaaa("2001:db8::1"), aaaa("2001:db8::2"));
        assert_eq!(left(vec![a2.clone(), b2.clone()]), Left::Nothing);
        assert_eq!(
            left(vec![a1.clone(), b1.clone()]),
            Left::Sets(change.sets().to_vec())
        );
        assert_eq!(
            left(vec![a2.clone(), b1.clone()]),
            Left::Sets(change.sets()[1..].to_vec())
        );
        let a_key = vec![a1.key()];
        for other in [
            a("192.0.2.3"),
            set("shop.example.com A", 60, &["192.0.2.1", "192.0.2.3"]),
            set("shop.example.com A", 61, &["192.0.2.1"]),
        ] {
            assert_eq!(left(vec![other, b2.clone()]), Left::Conflict(a_key.clone()));
        }
        assert_eq!(left(vec![b1]), Left::Conflict(a_key));
    }

    #[test]
    fn clamped_ttls_count_as_done_and_are_reported() {
        const STEPS: TtlRule = TtlRule {
            min: 30,
            values: &[30, 120, 300],
            silent: true,
        };
        assert_eq!(STEPS.effective(60), 120);
        assert_eq!(STEPS.effective(1), 30);
        assert_eq!(STEPS.effective(9999), 300);
        let change =
            Change::new(&records([a("192.0.2.1")]), &records([a("192.0.2.2")]), "").unwrap();
        for (ttl, done) in [(30, true), (60, true), (120, true), (300, false)] {
            let now = seen([a("192.0.2.2").with_ttl(ttl).unwrap()]);
            assert_eq!(left(&change, &now, &STEPS) == Left::Nothing, done, "{ttl}");
            assert_eq!(clamped(&change, &now).len(), usize::from(ttl != 60));
        }
        let mut proxied = seen([a("192.0.2.2").with_ttl(300).unwrap()]);
        assert!(matches!(
            left(&change, &proxied, &TtlRule::ANY),
            Left::Conflict(_)
        ));
        proxied.proxied.insert(a("192.0.2.2").key());
        assert_eq!(left(&change, &proxied, &TtlRule::ANY), Left::Nothing);
    }
}
