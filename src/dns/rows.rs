//! For providers that keep every record apart, with an id of its own: how one list of records becomes
//! another without a moment in which the name has none.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Observed, SetChange};
use super::error::{DnsError, Kind};
use super::record::{Key, RecordError, Records, RrSet};

/// One record as a provider keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: String,
    pub key: Key,
    /// As the provider writes it.
    pub value: String,
    /// Seconds.
    pub ttl: u64,
    /// Answered by the provider's proxy.
    pub proxied: bool,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Update { row: Row, value: String, ttl: u32 },
    Create { key: Key, value: String, ttl: u32 },
    Delete { row: Row },
}

impl Step {
    pub fn key(&self) -> &Key {
        match self {
            Self::Update { row, .. } | Self::Delete { row } => &row.key,
            Self::Create { key, .. } => key,
        }
    }
}

/// The rows as record sets. Records of one name and type have one TTL in the DNS; where rows differ,
/// the lowest is what resolvers should take (RFC 2181, section 5.2).
///
/// # Errors
/// When a row is not of its type.
pub fn to_records(rows: &[Row]) -> Result<Records, RecordError> {
    let mut by_key: BTreeMap<&Key, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        by_key.entry(&row.key).or_default().push(row);
    }
    let mut found = Records::new();
    for (key, rows) in by_key {
        let ttl = rows.iter().map(|row| row.ttl).min().unwrap_or_default();
        let values = rows.iter().map(|row| row.value.as_str());
        found.insert(key.clone(), RrSet::parse(key, ttl, values)?);
    }
    Ok(found)
}

/// What the rows say, with them in it for the change that may follow.
///
/// # Errors
/// As [`to_records`].
pub fn observed(rows: Vec<Row>) -> Result<Observed, RecordError> {
    Ok(Observed {
        records: to_records(&rows)?,
        proxied: rows
            .iter()
            .filter(|row| row.proxied)
            .map(|row| row.key.clone())
            .collect(),
        version: None,
        rows,
    })
}

/// What turns `rows` into what `sets` want: updates in place first, then new records, and only when all
/// of those are there, what is too much.
pub fn steps(rows: &[Row], sets: &[SetChange]) -> Vec<Step> {
    let (mut updates, mut creates, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
    for set in sets {
        let mine: Vec<&Row> = rows.iter().filter(|row| row.key == set.key).collect();
        let Some(to) = &set.to else {
            deletes.extend(mine.into_iter().cloned().map(|row| Step::Delete { row }));
            continue;
        };
        let ttl = to.ttl();
        let mut wanted: BTreeSet<String> = to.texts().into_iter().collect();
        let mut spare = Vec::new();
        for row in mine {
            // A row that has a wanted value keeps it; the second one with the same value is spare.
            let value = canonical(row);
            if !wanted.remove(&value) {
                spare.push(row.clone());
            } else if row.ttl != u64::from(ttl) {
                let row = row.clone();
                updates.push(Step::Update { row, value, ttl });
            }
        }
        let mut spare = spare.into_iter();
        for value in wanted {
            match spare.next() {
                Some(row) => updates.push(Step::Update { row, value, ttl }),
                None => creates.push(Step::Create {
                    key: set.key.clone(),
                    value,
                    ttl,
                }),
            }
        }
        deletes.extend(spare.map(|row| Step::Delete { row }));
    }
    updates.extend(creates);
    updates.extend(deletes);
    updates
}

/// The row's value as [`RrSet::texts`] writes it.
fn canonical(row: &Row) -> String {
    let set = RrSet::parse(&row.key, 0, [row.value.as_str()]);
    set.ok()
        .and_then(|set| set.texts().pop())
        .unwrap_or_else(|| row.value.clone())
}

/// The keys of which every step is among the first `done` of `steps`.
pub fn finished(steps: &[Step], done: usize) -> Vec<Key> {
    let (before, after) = steps.split_at(done.min(steps.len()));
    let open: BTreeSet<&Key> = after.iter().map(Step::key).collect();
    let keys: BTreeSet<&Key> = before.iter().map(Step::key).collect();
    keys.difference(&open).map(|key| (*key).clone()).collect()
}

/// What it means that step number `done` failed with `error`, where every step counts at once.
pub fn interrupted(steps: &[Step], done: usize, error: DnsError) -> DnsError {
    if done == 0 || error.kind == Kind::Unknown {
        return error;
    }
    DnsError {
        kind: Kind::Partial {
            done: finished(steps, done),
        },
        detail: format!("after {done} of {} steps: {}", steps.len(), error.detail),
        ..error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::change::Change;
    use crate::dns::record::records;

    fn row(id: u32, key: &str, value: &str, ttl: u64) -> Row {
        Row {
            id: id.to_string(),
            key: key.parse().unwrap(),
            value: value.to_owned(),
            ttl,
            proxied: false,
        }
    }

    const A: &str = "shop.example.com A";
    const AAAA: &str = "shop.example.com AAAA";

    fn set(key: &str, values: &[&str]) -> RrSet {
        RrSet::parse(&key.parse().unwrap(), 60, values.iter().copied()).unwrap()
    }

    /// What the rows are after each step, to see that no name is ever without records.
    fn walk(mut rows: Vec<Row>, steps: &[Step]) -> Vec<Row> {
        for step in steps {
            match step {
                Step::Update { row, value, ttl } => {
                    let found = rows.iter_mut().find(|r| r.id == row.id).unwrap();
                    found.value.clone_from(value);
                    found.ttl = u64::from(*ttl);
                }
                Step::Create { key, value, ttl } => {
                    rows.push(self::row(1000, &key.to_string(), value, u64::from(*ttl)));
                }
                Step::Delete { row } => rows.retain(|r| r.id != row.id),
            }
            assert!(!rows.is_empty(), "{step:?}");
        }
        rows
    }

    #[test]
    fn rows_become_what_is_wanted_and_are_never_none() {
        let before = vec![
            row(1, A, "192.0.2.1", 300),
            row(2, A, "192.0.2.2", 60),
            row(3, AAAA, "2001:DB8::1", 60),
        ];
        let from = to_records(&before).unwrap();
        assert_eq!(from[&A.parse().unwrap()].ttl(), 60);
        for (to, requests) in [
            (vec![set(A, &["198.51.100.1"])], 3),
            (
                vec![
                    set(A, &["192.0.2.1", "192.0.2.2"]),
                    set(AAAA, &["2001:db8::1"]),
                ],
                1,
            ),
            (
                vec![set(A, &["192.0.2.2", "198.51.100.1", "198.51.100.2"])],
                3,
            ),
            (vec![set(AAAA, &["2001:db8::2"])], 3),
        ] {
            let to = records(to);
            let change = Change::new(&from, &to, "").unwrap();
            let steps = steps(&before, change.sets());
            assert_eq!(steps.len(), requests, "{steps:?}");
            assert_eq!(to_records(&walk(before.clone(), &steps)).unwrap(), to);
        }
    }

    #[test]
    fn a_key_is_finished_when_none_of_its_steps_is_open() {
        let before = [row(1, A, "192.0.2.1", 60), row(2, AAAA, "2001:db8::1", 60)];
        let to = records([
            set(A, &["192.0.2.2", "192.0.2.3"]),
            set(AAAA, &["2001:db8::2"]),
        ]);
        let change = Change::new(&to_records(&before).unwrap(), &to, "").unwrap();
        let steps = steps(&before, change.sets());
        assert_eq!(finished(&steps, 1), []);
        assert_eq!(finished(&steps, 2), [AAAA.parse().unwrap()]);
        assert_eq!(finished(&steps, 3).len(), 2);
    }
}
