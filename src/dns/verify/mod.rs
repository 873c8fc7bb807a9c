//! The proof that records are served: by every server that the parent delegates to, with authority,
//! several times in a row; then what resolvers answer, and whether the signatures still hold.
//!
//! "Accepted by the provider" is not "served": only the servers themselves know. What their answers mean
//! is decided in [`judge`]; [`chain`] follows CNAMEs. The rest only asks.

pub mod ask;
pub mod chain;
mod delegation;
pub mod judge;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_net::DnsError as NetDnsError;
use hickory_net::NetError;
use hickory_net::dnssec::DnssecDnsHandle;
use hickory_net::proto::dnssec::{Proof, TrustAnchors};
use hickory_net::proto::op::{DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_net::proto::rr::{RData, Record, RecordType as WireType};
use hickory_net::xfer::{DnsHandle, FirstAnswer};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Env;
use super::record::{Key, Name, RrSet};
use super::spec::VerifySpec;
use super::wire::{answered, is_name, wire_name, wire_type};
use crate::clock::{Clock, Moment};
use crate::net::dial::Dialer;
use crate::net::tls::Connector;
use ask::Asker;
use chain::{Chain, ChainError, Walk};
use judge::{Expected, Heard, Judge, NameServer, Said, Verdict};

/// Of name servers.
const PORT: u16 = 53;

/// Why the proof cannot even begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("no resolver is configured")]
    NoResolver,
    #[error("{0} cannot be asked for: {1}")]
    Unanswered(String, String),
    #[error("nobody delegates {0}")]
    NotDelegated(Name),
    #[error("none of the name servers of {0} has an address")]
    NoAddresses(Name),
    #[error("{0}")]
    Chain(#[from] ChainError),
    #[error("the trust anchors are not DNSKEY records: {0}")]
    TrustAnchors(String),
}

/// What a SOA says besides its serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Soa {
    pub serial: u32,
    /// How long "there is no such record" is kept, in seconds (RFC 2308, section 5).
    pub negative_ttl: u32,
}

/// What a resolver says about a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub resolver: SocketAddr,
    pub key: Key,
    /// `Ok(None)`: no such records. The TTL is what is left of it.
    pub heard: Result<Option<RrSet>, String>,
}

/// Whether a set's signatures hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    /// From the trust anchor down to the set.
    Secure,
    /// The zone is not signed, or nobody vouches for its keys.
    Unsigned,
    /// Resolvers that validate answer SERVFAIL.
    Bogus(String),
    /// It could not be found out.
    Unknown(String),
}

/// Why a question has no answer that says anything.
#[derive(Debug, thiserror::Error)]
enum Miss {
    #[error("no way to that address from here")]
    NoRoute,
    #[error("{0}")]
    Other(String),
}

impl From<NetError> for Miss {
    fn from(error: NetError) -> Self {
        use std::io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};
        match &error {
            NetError::Io(io)
                if matches!(
                    io.kind(),
                    AddrNotAvailable | HostUnreachable | NetworkUnreachable
                ) =>
            {
                Self::NoRoute
            }
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Asks about one zone.
#[derive(Clone)]
pub struct Verifier {
    spec: VerifySpec,
    env: Env,
    anchors: Arc<TrustAnchors>,
}

impl Verifier {
    /// # Errors
    /// When there is nobody to ask, or the trust anchors cannot be read.
    pub fn new(spec: VerifySpec, env: Env) -> Result<Self, VerifyError> {
        if spec.resolvers.is_empty() {
            return Err(VerifyError::NoResolver);
        }
        let anchors = match &spec.trust_anchors {
            None => TrustAnchors::default(),
            Some(text) => {
                let parsed: Result<TrustAnchors, _> = text.parse();
                parsed.map_err(|error| VerifyError::TrustAnchors(error.to_string()))?
            }
        };
        Ok(Self {
            spec,
            env,
            anchors: Arc::new(anchors),
        })
    }

    /// The clock that deadlines are on.
    pub fn clock(&self) -> Clock {
        self.env.clock
    }

    fn at(&self, server: SocketAddr) -> Asker {
        Asker {
            server,
            limit: self.spec.question,
            dialer: Dialer {
                resolver: self.env.resolver.clone(),
                tls: Connector::PLAIN,
                keepalive: self.spec.question,
            },
        }
    }

    fn reach(&self, server: IpAddr) -> SocketAddr {
        let elsewhere = self.spec.address_map.get(&server).copied();
        elsewhere.unwrap_or(SocketAddr::new(server, PORT))
    }

    /// Asks the resolvers, one after the other until one answers.
    async fn resolve(&self, name: &str, rtype: WireType) -> Result<DnsResponse, VerifyError> {
        let mut last = String::new();
        for resolver in &self.spec.resolvers {
            match self.question(*resolver, name, rtype, true).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = format!("{resolver}: {error}"),
            }
        }
        Err(VerifyError::Unanswered(format!("{name} {rtype}"), last))
    }

    /// An answer that says something: records, or that there are none.
    async fn question(
        &self,
        server: SocketAddr,
        name: &str,
        rtype: WireType,
        recurse: bool,
    ) -> Result<DnsResponse, Miss> {
        let name = wire_name(name).map_err(|e| Miss::Other(e.to_string()))?;
        let answer = self.at(server).ask(name, rtype, recurse).await?;
        match answer.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(answer),
            code => Err(Miss::Other(code.to_string())),
        }
    }

    /// The zone's SOA as this server has it. Cancel safe.
    ///
    /// # Errors
    /// When it does not answer, or does not keep the zone.
    pub async fn soa(&self, server: SocketAddr) -> Result<Soa, VerifyError> {
        let zone = self.spec.zone.as_str();
        let failed = |why: String| VerifyError::Unanswered(format!("{zone} SOA"), why);
        let answer = self.question(server, zone, WireType::SOA, false).await;
        let answer = answer.map_err(|miss| failed(format!("{server}: {miss}")))?;
        let soa = answer.answers.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(Soa {
                serial: soa.serial,
                negative_ttl: record.ttl.min(soa.minimum),
            }),
            _ => None,
        });
        let soa = soa.filter(|_| answer.authoritative);
        soa.ok_or_else(|| failed(format!("{server} does not keep the zone")))
    }

    /// Asks every server for every key, all at once. Cancel safe.
    pub async fn round(&self, servers: &[NameServer], keys: &[Key]) -> Vec<Said> {
        let mut asked = JoinSet::new();
        for server in servers {
            let (me, server, keys) = (self.clone(), server.clone(), keys.to_vec());
            asked.spawn(async move { me.said(server, &keys).await });
        }
        asked.join_all().await
    }

    async fn said(&self, server: NameServer, keys: &[Key]) -> Said {
        let mut sets = BTreeMap::new();
        for key in keys {
            let rtype = wire_type(key.rtype);
            let answer = self
                .question(server.addr, key.name.as_str(), rtype, false)
                .await;
            let heard = match answer {
                Ok(answer) => heard(&answer, key),
                Err(Miss::NoRoute) => Heard::NoRoute,
                Err(miss) => Heard::Nothing(miss.to_string()),
            };
            let silent = !matches!(heard, Heard::Set { .. });
            sets.insert(key.clone(), heard);
            if silent {
                // It would be silent again, for as long as a question may take.
                return Said {
                    server,
                    sets,
                    serial: None,
                };
            }
        }
        let serial = self.soa(server.addr).await.ok().map(|soa| soa.serial);
        Said {
            server,
            sets,
            serial,
        }
    }

    /// Asks all `servers` again and again until each serves what is `expected`, or until `deadline`.
    /// `progress` hears every verdict; so does the caller the last one. Cancel safe.
    pub async fn served(
        &self,
        expected: &Expected,
        servers: &[NameServer],
        deadline: Moment,
        mut progress: impl FnMut(&Verdict),
    ) -> Verdict {
        let mut judge = Judge::new(expected.clone(), servers, self.spec.matches);
        loop {
            for said in self.round(servers, expected.keys()).await {
                judge.hear(&said);
            }
            let verdict = judge.verdict();
            progress(&verdict);
            if verdict.served() || self.env.clock.now() + self.spec.pause >= deadline {
                return verdict;
            }
            sleep(self.spec.pause).await;
        }
    }

    /// What every resolver answers for every key. Cancel safe.
    pub async fn sample(&self, keys: &[Key]) -> Vec<Sample> {
        let mut asked = JoinSet::new();
        for resolver in self.spec.resolvers.iter().copied() {
            for key in keys.iter().cloned() {
                let me = self.clone();
                asked.spawn(async move {
                    let rtype = wire_type(key.rtype);
                    let answer = me.question(resolver, key.name.as_str(), rtype, true).await;
                    let heard = answer.map_err(|miss| miss.to_string()).and_then(|answer| {
                        answered(&answer, &key).map_err(|error| error.to_string())
                    });
                    Sample {
                        resolver,
                        key,
                        heard,
                    }
                });
            }
        }
        let mut samples = asked.join_all().await;
        samples.sort_by(|a, b| (a.resolver, &a.key).cmp(&(b.resolver, &b.key)));
        samples
    }

    /// Follows the CNAMEs from `key`'s name to its records, link by link. Cancel safe.
    ///
    /// # Errors
    /// When the resolvers do not answer, or the chain has no end.
    pub async fn chain(&self, key: &Key) -> Result<Chain, VerifyError> {
        let mut walk = Walk::new(key.name.clone());
        loop {
            let asked = walk.at().clone();
            let answer = self.resolve(asked.as_str(), wire_type(key.rtype)).await?;
            let here = |name: &Name| Key::new(name.clone(), key.rtype);
            loop {
                let end = answered(&answer, &here(walk.at())).unwrap_or_default();
                if end.is_some() {
                    return Ok(walk.end(end));
                }
                let Some((target, ttl)) = link(&answer.answers, walk.at()) else {
                    break;
                };
                walk.follow(target, ttl)?;
            }
            // Nothing more in this answer: either another one continues it, or it ends here.
            if *walk.at() == asked {
                return Ok(walk.end(None));
            }
        }
    }

    /// Whether the signatures of `key` hold, from the trust anchors on, as the first resolver passes them
    /// on. Worth one question after a change: a signer that is down turns it into SERVFAIL. Cancel safe.
    pub async fn validate(&self, key: &Key) -> Signed {
        let Some(resolver) = self.spec.resolvers.first() else {
            return Signed::Unknown(VerifyError::NoResolver.to_string());
        };
        let said = self.follow(*resolver, key).await;
        if let Signed::Bogus(_) = said
            && let Err(why) = self.root_keys(*resolver).await
        {
            return Signed::Unknown(why);
        }
        said
    }

    /// Where no way leads up to the root, as in a closed network, every zone looks like one that was
    /// robbed of its signatures.
    async fn root_keys(&self, resolver: SocketAddr) -> Result<(), String> {
        if self.spec.trust_anchors.is_some() {
            return Ok(());
        }
        let failed = |why: String| format!("the keys of the root are not to be had: {why}");
        let answer = self.question(resolver, ".", WireType::DNSKEY, true).await;
        let answer = answer.map_err(|miss| failed(miss.to_string()))?;
        let is_key = |record: &Record| record.record_type() == WireType::DNSKEY;
        match answer.answers.iter().any(is_key) {
            true => Ok(()),
            false => Err(failed("there are none".to_owned())),
        }
    }

    async fn follow(&self, resolver: SocketAddr, key: &Key) -> Signed {
        let name = match wire_name(&key.name) {
            Ok(name) => name,
            Err(error) => return Signed::Unknown(error.to_string()),
        };
        let handle = DnssecDnsHandle::with_trust_anchor(self.at(resolver), self.anchors.clone());
        let mut options = DnsRequestOptions::default();
        options.edns_set_dnssec_ok = true;
        let query = Query::query(name, wire_type(key.rtype));
        match handle.lookup(query, options).first_answer().await {
            Ok(answer) => signed(&answer, key),
            Err(NetError::Dns(NetDnsError::Nsec { proof, .. })) => match proof {
                Proof::Insecure => Signed::Unsigned,
                Proof::Bogus => Signed::Bogus("that there are no records is not proven".to_owned()),
                proof => Signed::Unknown(proof.to_string()),
            },
            Err(error) => Signed::Unknown(error.to_string()),
        }
    }
}

fn signed(answer: &DnsResponse, key: &Key) -> Signed {
    let mine = answer
        .answers
        .iter()
        .filter(|r| r.record_type() == wire_type(key.rtype) && is_name(&r.name, &key.name));
    let proofs: Vec<Proof> = mine.map(|record| record.proof).collect();
    match proofs.iter().min() {
        Some(Proof::Secure) => Signed::Secure,
        Some(Proof::Insecure) => Signed::Unsigned,
        Some(Proof::Bogus) => Signed::Bogus("a signature is missing or wrong".to_owned()),
        Some(proof) => Signed::Unknown(proof.to_string()),
        None => Signed::Unknown(format!("{key} has no records ({})", answer.response_code)),
    }
}

fn heard(answer: &DnsResponse, key: &Key) -> Heard {
    match answered(answer, key) {
        Ok(set) => Heard::Set {
            set,
            authoritative: answer.authoritative,
        },
        Err(error) => Heard::Nothing(error.to_string()),
    }
}

/// The CNAME of `name`, with its TTL.
fn link(records: &[Record], name: &Name) -> Option<(Name, u32)> {
    records.iter().find_map(|record| match &record.data {
        RData::CNAME(target) if is_name(&record.name, name) => {
            Some((target.0.to_ascii().parse().ok()?, record.ttl))
        }
        _ => None,
    })
}
