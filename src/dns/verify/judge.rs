//! What the answers of the authoritative servers mean: answers in, verdict out.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use crate::dns::change::{Change, Observed};
use crate::dns::record::{Key, Name, Records, RrSet, records};

/// What the servers shall answer, and what they answered before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    before: Records,
    after: Records,
    keys: Vec<Key>,
}

impl Expected {
    /// For a change that was made, as the provider reads it back: with the TTLs that it has stored. What
    /// its own proxy answers says nothing about the records and is not asked for.
    pub fn new(change: &Change, observed: &Observed) -> Self {
        let mut keys = change.keys();
        keys.retain(|key| !observed.proxied.contains(key));
        let ours = |set: &RrSet| keys.contains(&set.key());
        let before = change.sets().iter().filter_map(|set| set.from.clone());
        let after = observed.records.values().cloned();
        Self {
            before: records(before.filter(ours)),
            after: records(after.filter(ours)),
            keys,
        }
    }

    pub fn keys(&self) -> &[Key] {
        &self.keys
    }
}

/// One address of one name server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameServer {
    pub name: Name,
    pub addr: SocketAddr,
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.addr.ip())
    }
}

/// What a server says about one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Its records; `None`: it says that there are none.
    Set {
        set: Option<RrSet>,
        authoritative: bool,
    },
    /// No answer, or none that says anything.
    Nothing(String),
    /// This host has no way to that address.
    NoRoute,
}

/// What one server said in one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub server: NameServer,
    pub sets: BTreeMap<Key, Heard>,
    /// Of the zone's SOA.
    pub serial: Option<u32>,
}

/// Where a server stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Right often enough.
    Serves,
    /// Right so many times in a row.
    Right(u32),
    /// Still answers what was there before.
    Old(RrSet),
    /// Says that there are no records where some were and others shall be.
    Empty(Key),
    /// Answers what was neither there before nor shall be.
    Other(RrSet),
    /// The right values with a TTL that is still too long.
    LongTtl {
        key: Key,
        ttl: u32,
    },
    /// Answers from elsewhere: it does not keep the zone.
    NotAuthoritative,
    Silent(String),
    /// This host has no way to that address, such as one of IPv6.
    NoRoute,
    NotAsked,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serves => f.write_str("serves the new records"),
            Self::Right(times) => write!(f, "right {times} times in a row"),
            Self::Old(set) => write!(f, "still has {set}"),
            Self::Empty(key) => write!(f, "has no {key}"),
            Self::Other(set) => write!(f, "has {set}, which nobody expects"),
            Self::LongTtl { key, ttl } => write!(f, "{key} still has a TTL of {ttl} s"),
            Self::NotAuthoritative => f.write_str("does not keep the zone"),
            Self::Silent(why) => write!(f, "does not answer: {why}"),
            Self::NoRoute => f.write_str("cannot be reached from here"),
            Self::NotAsked => f.write_str("was not asked yet"),
        }
    }
}

/// A server and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub state: State,
    /// The newest that it has shown.
    pub serial: Option<u32>,
    /// Its serial is older than another server's.
    pub lags: bool,
}

/// What is known after the rounds so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub servers: BTreeMap<NameServer, Standing>,
}

impl Verdict {
    /// Whether every server serves what shall be. Never of no servers. An address that this host has no
    /// way to says nothing while the same server serves at another one.
    pub fn served(&self) -> bool {
        !self.servers.is_empty() && self.servers.keys().all(|server| self.is_right(server))
    }

    fn is_right(&self, server: &NameServer) -> bool {
        let serves = |server: &NameServer| self.servers[server].state == State::Serves;
        let elsewhere = || {
            self.servers
                .keys()
                .any(|s| s.name == server.name && serves(s))
        };
        serves(server) || (self.servers[server].state == State::NoRoute && elsewhere())
    }

    /// Those that do not serve it yet, for people: name, state and serial.
    pub fn waiting_for(&self) -> Vec<String> {
        let open = self.servers.iter().filter(|(s, _)| !self.is_right(s));
        let line = |(server, standing): (&NameServer, &Standing)| {
            let serial = match (standing.serial, standing.lags) {
                (Some(serial), true) => format!(" (serial {serial}, behind the others)"),
                (Some(serial), false) => format!(" (serial {serial})"),
                (None, _) => String::new(),
            };
            format!("{server} {}{serial}", standing.state)
        };
        open.map(line).collect()
    }
}

/// Remembers how often each server was right in a row.
#[derive(Clone, Debug)]
pub struct Judge {
    expected: Expected,
    matches: u32,
    servers: BTreeMap<NameServer, (State, Option<u32>)>,
}

impl Judge {
    /// `matches` is how often in a row each server must be right.
    pub fn new(expected: Expected, servers: &[NameServer], matches: u32) -> Self {
        let open = |server: &NameServer| (server.clone(), (State::NotAsked, None));
        Self {
            expected,
            matches: matches.max(1),
            servers: servers.iter().map(open).collect(),
        }
    }

    /// Takes in what a server said. A server that was right and is not any more begins anew.
    pub fn hear(&mut self, said: &Said) {
        let found = self.look(said);
        let Some((state, serial)) = self.servers.get_mut(&said.server) else {
            return;
        };
        *serial = said.serial.or(*serial);
        let before = match state {
            State::Serves => self.matches,
            State::Right(times) => *times,
            _ => 0,
        };
        *state = match found {
            Some(wrong) => wrong,
            None if before + 1 >= self.matches => State::Serves,
            None => State::Right(before + 1),
        };
    }

    pub fn verdict(&self) -> Verdict {
        let newest = self.servers.values().filter_map(|(_, serial)| *serial);
        let newest = newest.reduce(|a, b| if is_newer(b, a) { b } else { a });
        let standing = |(server, (state, serial)): (&NameServer, &(State, Option<u32>))| {
            let lags = serial
                .zip(newest)
                .is_some_and(|(mine, newest)| is_newer(newest, mine));
            let standing = Standing {
                state: state.clone(),
                serial: *serial,
                lags,
            };
            (server.clone(), standing)
        };
        Verdict {
            servers: self.servers.iter().map(standing).collect(),
        }
    }

    /// What is wrong with what a server said; the first thing.
    fn look(&self, said: &Said) -> Option<State> {
        self.expected
            .keys
            .iter()
            .find_map(|key| match said.sets.get(key) {
                None => Some(State::NotAsked),
                Some(Heard::Nothing(why)) => Some(State::Silent(why.clone())),
                Some(Heard::NoRoute) => Some(State::NoRoute),
                Some(Heard::Set {
                    authoritative: false,
                    ..
                }) => Some(State::NotAuthoritative),
                Some(Heard::Set { set, .. }) => self.compare(key, set.as_ref()),
            })
    }

    fn compare(&self, key: &Key, found: Option<&RrSet>) -> Option<State> {
        match (found, self.expected.after.get(key)) {
            (None, None) => None,
            (Some(found), Some(wanted)) if found.values() == wanted.values() => {
                // A cache in front of a server counts the TTL down; it never makes it longer.
                (found.ttl() > wanted.ttl()).then(|| State::LongTtl {
                    key: key.clone(),
                    ttl: found.ttl(),
                })
            }
            (Some(found), _) => {
                let old = self.expected.before.get(key).map(RrSet::values) == Some(found.values());
                let state = if old { State::Old } else { State::Other };
                Some(state(found.clone()))
            }
            (None, Some(_)) => Some(State::Empty(key.clone())),
        }
    }
}

/// RFC 1982, section 3.2.
pub fn is_newer(a: u32, than: u32) -> bool {
    a != than && a.wrapping_sub(than) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(value: &str, ttl: u64) -> RrSet {
        RrSet::parse(&"shop.example.com A".parse().unwrap(), ttl, [value]).unwrap()
    }

    fn aaaa(value: &str) -> RrSet {
        RrSet::parse(&"shop.example.com AAAA".parse().unwrap(), 60, [value]).unwrap()
    }

    fn server(n: u8) -> NameServer {
        NameServer {
            name: format!("ns{n}.example.net").parse().unwrap(),
            addr: SocketAddr::from(([192, 0, 2, n], 53)),
        }
    }

    fn expected() -> Expected {
        let observed = Observed {
            records: change().to(),
            ..Observed::default()
        };
        Expected::new(&change(), &observed)
    }

    fn change() -> Change {
        let from = records([set("192.0.2.1", 300), aaaa("2001:db8::1")]);
        let to = records([set("192.0.2.2", 60)]);
        Change::new(&from, &to, "").unwrap()
    }

    fn said(n: u8, a: Option<RrSet>, v6: Option<RrSet>, serial: u32) -> Said {
        let heard = |set| Heard::Set {
            set,
            authoritative: true,
        };
        let keys = change().keys();
        Said {
            server: server(n),
            sets: keys.into_iter().zip([heard(a), heard(v6)]).collect(),
            serial: Some(serial),
        }
    }

    #[test]
    fn every_server_must_be_right_several_times_in_a_row() {
        let mut judge = Judge::new(expected(), &[server(1), server(2)], 2);
        assert!(!judge.verdict().served());
        let right = |n, ttl| said(n, Some(set("192.0.2.2", ttl)), None, 8);
        judge.hear(&right(1, 60));
        // A cache in front of it counts down.
        judge.hear(&right(1, 41));
        judge.hear(&right(2, 60));
        assert!(!judge.verdict().served());
        assert_eq!(judge.verdict().servers[&server(2)].state, State::Right(1));
        // The cache forgot: back to the beginning.
        judge.hear(&said(
            2,
            Some(set("192.0.2.1", 12)),
            Some(aaaa("2001:db8::1")),
            7,
        ));
        let verdict = judge.verdict();
        assert!(matches!(verdict.servers[&server(2)].state, State::Old(_)));
        assert!(verdict.servers[&server(2)].lags && !verdict.servers[&server(1)].lags);
        let waiting = verdict.waiting_for();
        assert_eq!(waiting.len(), 1);
        assert!(waiting[0].contains("ns2.example.net") && waiting[0].contains("serial 7, behind"));
        judge.hear(&right(2, 60));
        assert!(!judge.verdict().served());
        judge.hear(&right(2, 60));
        assert!(judge.verdict().served());
        // A server that nobody delegated to counts for nothing.
        judge.hear(&said(9, None, None, 1));
        assert!(judge.verdict().served());
        assert!(!Judge::new(expected(), &[], 1).verdict().served());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let new = || Some(set("192.0.2.2", 60));
        let key = || change().keys()[0].clone();
        let mut not_its_zone = said(1, new(), None, 1);
        not_its_zone.sets.insert(
            key(),
            Heard::Set {
                set: new(),
                authoritative: false,
            },
        );
        let mut silent = said(1, new(), None, 1);
        silent
            .sets
            .insert(key(), Heard::Nothing("timeout".to_owned()));
        for (said, state) in [
            (said(1, None, None, 1), State::Empty(key())),
            (
                said(1, Some(set("192.0.2.3", 60)), None, 1),
                State::Other(set("192.0.2.3", 60)),
            ),
            (
                said(1, Some(set("192.0.2.2", 61)), None, 1),
                State::LongTtl {
                    key: key(),
                    ttl: 61,
                },
            ),
            (
                said(1, new(), Some(aaaa("2001:db8::1")), 1),
                State::Old(aaaa("2001:db8::1")),
            ),
            (not_its_zone, State::NotAuthoritative),
            (silent, State::Silent("timeout".to_owned())),
        ] {
            let mut judge = Judge::new(expected(), &[server(1)], 1);
            judge.hear(&said);
            assert_eq!(judge.verdict().servers[&server(1)].state, state);
        }
    }

    #[test]
    fn an_address_without_a_way_counts_only_when_it_is_the_only_one() {
        let v6 = NameServer {
            addr: "[2001:db8::53]:53".parse().unwrap(),
            ..server(1)
        };
        let lost = Said {
            server: v6.clone(),
            sets: BTreeMap::from([(change().keys()[0].clone(), Heard::NoRoute)]),
            serial: None,
        };
        let mut judge = Judge::new(expected(), &[server(1), v6.clone()], 1);
        judge.hear(&lost);
        assert!(!judge.verdict().served());
        judge.hear(&said(1, Some(set("192.0.2.2", 60)), None, 1));
        assert!(judge.verdict().served() && judge.verdict().waiting_for().is_empty());
        let mut alone = Judge::new(expected(), &[v6], 1);
        alone.hear(&lost);
        assert!(!alone.verdict().served());
    }

    #[test]
    fn what_a_provider_stored_otherwise_is_what_is_looked_for() {
        let key = change().keys()[0].clone();
        let observed = Observed {
            records: records([set("192.0.2.2", 120)]),
            ..Observed::default()
        };
        let mut judge = Judge::new(Expected::new(&change(), &observed), &[server(1)], 1);
        judge.hear(&said(1, Some(set("192.0.2.2", 120)), None, 1));
        assert!(judge.verdict().served());
        let proxied = Observed {
            proxied: [key.clone()].into(),
            ..observed
        };
        assert!(!Expected::new(&change(), &proxied).keys().contains(&key));
    }

    #[test]
    fn serials_go_round() {
        assert!(is_newer(2, 1) && !is_newer(1, 2) && !is_newer(1, 1));
        assert!(is_newer(3, u32::MAX - 3) && !is_newer(u32::MAX - 3, 3));
    }
}
