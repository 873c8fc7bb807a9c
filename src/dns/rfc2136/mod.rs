//! RFC 2136: updates by DNS itself, signed with TSIG (RFC 8945). BIND, Knot, PowerDNS and others.
//!
//! Everything goes over TCP to the zone's primary and to no other server: a second server cannot know
//! whether the first one has carried an update out. Questions are signed as well, so that what is
//! compared with the expectation is what the primary said.

mod message;

use std::time::Duration;

use data_encoding::BASE64;
use hickory_net::proto::op::{Message, ResponseCode};
use hickory_net::proto::rr::rdata::tsig::TsigAlgorithm as WireAlgorithm;
use hickory_net::proto::rr::{RData, RecordType as WireType, TSigner};

use super::record::records;
use super::wire::{self, AskError, wire_name};
use super::{
    Access, Call, Capabilities, CompareAndSet, DnsError, DnsSpec, Env, Key, Kind, Maker, Name,
    Observed, Proof, PropagationSignal, Provider, ProviderKind, ProviderSpec, PublishStep, Receipt,
    SetChange, TtlRule, Undo,
};
use crate::addr::Addr;
use crate::clock::Clock;
use crate::dns::spec::TsigAlgorithm;
use crate::net::dial::Dialer;
use crate::net::tls::Connector;
use crate::secret::Secret;

/// Clocks may differ by this many seconds (RFC 8945, section 10).
const FUDGE: u16 = 300;
const NAME: &str = ProviderKind::Rfc2136.as_str();

pub struct Rfc2136;

impl Maker for Rfc2136 {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Rfc2136
    }

    fn make(&self, spec: &DnsSpec, env: &Env) -> Result<Box<dyn Provider>, DnsError> {
        let ProviderSpec::Rfc2136(settings) = &spec.provider else {
            return Err(super::wrong_settings(ProviderKind::Rfc2136));
        };
        Ok(Box::new(Primary {
            zone: spec.zone.clone(),
            server: settings.server.clone(),
            signer: signer(&settings.key_name, settings.algorithm, &settings.key)?,
            dialer: Dialer {
                resolver: env.resolver.clone(),
                tls: Connector::PLAIN,
                keepalive: spec.patience.request,
            },
            limit: spec.patience.request,
            clock: env.clock,
        }))
    }
}

fn signer(name: &str, algorithm: TsigAlgorithm, key: &Secret) -> Result<TSigner, DnsError> {
    let bad = |why| fail(Kind::Invalid, why);
    let name = wire_name(name).map_err(|_| bad("the key's name is not a name in the DNS"))?;
    // What the decoder complains about would show a part of the key.
    let secret = BASE64.decode(key.expose().trim().as_bytes());
    let secret = secret.map_err(|_| bad("the key is not base64"))?;
    if secret.is_empty() {
        return Err(bad("the key is empty"));
    }
    let algorithm = match algorithm {
        TsigAlgorithm::HmacSha256 => WireAlgorithm::HmacSha256,
        TsigAlgorithm::HmacSha384 => WireAlgorithm::HmacSha384,
        TsigAlgorithm::HmacSha512 => WireAlgorithm::HmacSha512,
    };
    TSigner::new(secret, algorithm, name, FUDGE)
        .map_err(|_| bad("the key's algorithm is not supported"))
}

fn fail(kind: Kind, why: impl std::fmt::Display) -> DnsError {
    DnsError::new(NAME, kind, why)
}

/// The primary of one zone.
struct Primary {
    zone: Name,
    server: Addr,
    signer: TSigner,
    dialer: Dialer,
    limit: Duration,
    clock: Clock,
}

/// An answer, and whether its signature is right.
struct Answer {
    message: Message,
    signed: bool,
}

impl Primary {
    /// `doubt` is what it means when the question was sent and no answer came.
    async fn ask(&self, question: Message, doubt: Kind) -> Result<Answer, DnsError> {
        let answer = self.exchange(question, doubt, true).await?;
        let tsig = answer.message.signature().and_then(|r| r.data.error);
        if answer.message.response_code == ResponseCode::NotAuth && tsig.is_none() {
            // PowerDNS says the same of a zone it does not keep and of a key it does not accept.
            if self.keeps_zone().await {
                let why = format!("{} keeps the zone and does not accept the key", self.server);
                return Err(fail(Kind::BadCredentials, why));
            }
        }
        Ok(answer)
    }

    async fn keeps_zone(&self) -> bool {
        let Ok(question) = message::query(&self.zone, WireType::SOA) else {
            return false;
        };
        let answer = self.exchange(question, Kind::Unavailable, false).await;
        answer.is_ok_and(|answer| answer.message.authoritative)
    }

    async fn exchange(
        &self,
        mut question: Message,
        doubt: Kind,
        sign: bool,
    ) -> Result<Answer, DnsError> {
        let now = self.clock.wall_now().as_second();
        let now =
            u64::try_from(now).map_err(|_| fail(Kind::Invalid, "the clock is before 1970"))?;
        let verifier = match sign {
            true => question.finalize(&self.signer, now),
            false => Ok(None),
        };
        let verifier =
            verifier.map_err(|_| fail(Kind::Invalid, "the question cannot be signed"))?;
        let bytes = question.to_vec();
        let bytes = bytes.map_err(|e| fail(Kind::Invalid, format!("the question: {e}")))?;
        let answer = wire::ask_tcp(&self.dialer, &self.server, &bytes, self.limit).await;
        let answer = answer.map_err(|error| match &error {
            AskError::NotSent(_) => fail(Kind::Unavailable, error),
            AskError::NoAnswer(_) => fail(doubt.clone(), error),
        })?;
        let verified = verifier.is_some_and(|mut verifier| verifier.verify(&answer).is_ok());
        let message = Message::from_vec(&answer);
        Ok(Answer {
            message: message.map_err(|e| fail(doubt, format!("the server's answer: {e}")))?,
            signed: verified,
        })
    }

    /// A question about the zone. `None`: there is no such record.
    async fn look(&self, name: &Name, rtype: WireType) -> Result<Message, DnsError> {
        let question = message::query(name, rtype).map_err(|e| fail(Kind::Invalid, e))?;
        let Answer { message, signed } = self.ask(question, Kind::Unavailable).await?;
        let tsig = message.signature().and_then(|record| record.data.error);
        let code = message.response_code;
        match code {
            ResponseCode::NoError | ResponseCode::NXDomain if tsig.is_none() => {
                if !signed {
                    let why = "the server's answer is not signed with our key";
                    return Err(fail(Kind::BadCredentials, why));
                }
                if !message.authoritative {
                    let why = format!("{} does not keep {}", self.server, self.zone);
                    return Err(fail(Kind::NoZone, why));
                }
                Ok(message)
            }
            ResponseCode::ServFail => {
                let why = format!("{} says {code}", self.server);
                Err(fail(Kind::Unavailable, why))
            }
            _ => {
                let refused = message::refusal(code, tsig);
                let (kind, why) = refused.unwrap_or((Kind::Malformed, code.to_string()));
                Err(fail(kind, format!("{}: {why}", self.server)))
            }
        }
    }

    async fn look_up_all(&self, keys: &[Key]) -> Result<Observed, DnsError> {
        let soa = self.look(&self.zone, WireType::SOA).await?;
        let serial = soa.answers.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.serial.to_string()),
            _ => None,
        });
        if serial.is_none() {
            let why = format!("{} does not keep {}", self.server, self.zone);
            return Err(fail(Kind::NoZone, why));
        }
        let mut found = Vec::new();
        for key in keys {
            let answer = self.look(&key.name, wire::wire_type(key.rtype)).await?;
            let set = wire::answered(&answer, key).map_err(|e| fail(Kind::Malformed, e))?;
            found.extend(set);
        }
        Ok(Observed {
            records: records(found),
            version: serial,
            ..Observed::default()
        })
    }

    async fn update(&self, message: Message, keys: &[Key]) -> Result<(), DnsError> {
        let Answer { message, signed } = self.ask(message, Kind::Unknown).await?;
        let tsig = message.signature().and_then(|record| record.data.error);
        match message::refusal(message.response_code, tsig) {
            None if signed => Ok(()),
            None => Err(fail(
                Kind::Unknown,
                "the server's answer is not signed with our key",
            )),
            Some((Kind::Conflict { .. }, why)) => {
                // For the message only: whatever it says now, nothing was changed.
                let found = self.look_up_all(keys).await.unwrap_or_default().records;
                Err(fail(Kind::Conflict { found }, why))
            }
            Some((kind, why)) => Err(fail(kind, format!("{}: {why}", self.server))),
        }
    }
}

impl Provider for Primary {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Rfc2136
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            compare_and_set: CompareAndSet::Server,
            compares_ttl: false,
            atomic: true,
            publish: PublishStep::None,
            signal: PropagationSignal::None,
            ttl: TtlRule::ANY,
            proxied_mode: false,
            undo: Undo::Inverse,
        }
    }

    fn read<'a>(&'a self, keys: &'a [Key]) -> Call<'a, Observed> {
        Box::pin(self.look_up_all(keys))
    }

    fn send<'a>(
        &'a self,
        sets: &'a [SetChange],
        _seen: &'a Observed,
        _note: &'a str,
    ) -> Call<'a, Receipt> {
        Box::pin(async move {
            let message = message::update(&self.zone, sets).map_err(|e| fail(Kind::Invalid, e))?;
            let keys: Vec<Key> = sets.iter().map(|set| set.key.clone()).collect();
            self.update(message, &keys).await?;
            Ok(Receipt::default())
        })
    }

    fn check<'a>(&'a self, keys: &'a [Key]) -> Call<'a, Access> {
        Box::pin(async move {
            let seen = self.look_up_all(keys).await?;
            let probe = message::probe(&self.zone, keys, &seen.records);
            let probe = probe.map_err(|e| fail(Kind::Invalid, e))?;
            self.update(probe, keys).await?;
            Ok(Access::both(Proof::Proven))
        })
    }
}
