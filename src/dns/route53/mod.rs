//! Amazon Route 53, API version 2013-04-01.
//!
//! A batch of DELETE (which must match exactly) and CREATE (which must be new) is carried out as a
//! whole: that is its compare-and-set. Changes to one zone are made one after the other; a second one
//! meanwhile gets `PriorRequestNotComplete`, and too many get `Throttling`, both as a 400.

mod sign;
mod xml;

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::http::{Answer, Ask, Http, Method, Settings, encode};
use super::record::{RrSet, records};
use super::{
    Access, Call, Capabilities, CompareAndSet, DnsError, DnsSpec, Env, Key, Kind, Maker, Name,
    Observed, Proof, PropagationSignal, Provider, ProviderKind, ProviderSpec, PublishStep,
    Published, Receipt, SetChange, TtlRule, Undo,
};
use sign::SigV4;
use xml::Action;

const KIND: ProviderKind = ProviderKind::Route53;
const BASE: &str = "/2013-04-01";

pub struct Route53;

impl Maker for Route53 {
    fn kind(&self) -> ProviderKind {
        KIND
    }

    fn make(&self, spec: &DnsSpec, env: &Env) -> Result<Box<dyn Provider>, DnsError> {
        let ProviderSpec::Route53(settings) = &spec.provider else {
            return Err(super::wrong_settings(KIND));
        };
        let mut secrets = vec![settings.secret_access_key.clone()];
        secrets.extend(settings.session_token.clone());
        let http = Http::new(
            Settings {
                kind: KIND,
                endpoint: &settings.endpoint,
                default_url: "https://route53.amazonaws.com",
                patience: spec.patience,
                dialect: Arc::new(SigV4::new(settings)),
                secrets,
            },
            env,
        )?;
        Ok(Box::new(Zone {
            http,
            zone: spec.zone.clone(),
            id: OnceCell::new_with(settings.zone_id.clone()),
        }))
    }
}

struct Zone {
    http: Http,
    zone: Name,
    id: OnceCell<String>,
}

impl Zone {
    async fn id(&self) -> Result<&str, DnsError> {
        let id = self.id.get_or_try_init(|| self.find_id()).await?;
        Ok(id)
    }

    async fn find_id(&self) -> Result<String, DnsError> {
        let name = encode(&self.zone.absolute());
        let path = format!("{BASE}/hostedzonesbyname?dnsname={name}&maxitems=10");
        let answer = self.ask(Ask::get(path)).await?;
        let zones = xml::zones(&self.text(&answer)?);
        let zones = zones.map_err(|e| self.http.fail(Kind::Malformed, e))?;
        let mine = |zone: &&xml::Zone| zone.name == self.zone.absolute() && !zone.is_private();
        let mut mine = zones.iter().filter(mine);
        match (mine.next(), mine.next()) {
            (Some(zone), None) => Ok(zone.id.trim_start_matches("/hostedzone/").to_owned()),
            (None, _) => Err(self
                .http
                .fail(Kind::NoZone, format!("no public zone {}", self.zone))),
            (Some(_), Some(_)) => {
                let why = format!("several public zones are named {}: set zone_id", self.zone);
                Err(self.http.fail(Kind::NoZone, why))
            }
        }
    }

    /// A success, or what its error code means.
    async fn ask(&self, ask: Ask) -> Result<Answer, DnsError> {
        let answer = self.http.send(&ask.accept("text/xml")).await?;
        if answer.is_success() {
            return Ok(answer);
        }
        let code = xml::error(&answer.body).map(|(code, _)| code);
        let kind = match (code.as_deref(), answer.status) {
            (Some("InvalidChangeBatch"), _) => Kind::Conflict {
                found: super::Records::new(),
            },
            (Some("AccessDenied" | "AccessDeniedException"), _) => Kind::Denied,
            (Some("NoSuchHostedZone"), _) => Kind::NoZone,
            (_, 401 | 403) => Kind::BadCredentials,
            (_, 404) => Kind::NoZone,
            _ => Kind::Invalid,
        };
        Err(self.http.refusal(kind, &answer))
    }

    fn text(&self, answer: &Answer) -> Result<String, DnsError> {
        let text = String::from_utf8(answer.body.clone());
        text.map_err(|_| {
            self.http
                .fail(Kind::Malformed, "an answer that is not UTF-8")
        })
    }

    async fn look_up(&self, keys: &[Key]) -> Result<Observed, DnsError> {
        let id = self.id().await?;
        let mut found = Vec::new();
        for key in keys {
            let (name, rtype) = (encode(&key.name.absolute()), key.rtype);
            // The list begins there; the first one that is another name or type ends it.
            let query = format!("name={name}&type={rtype}&maxitems=1");
            let path = format!("{BASE}/hostedzone/{}/rrset?{query}", encode(id));
            let answer = self.ask(Ask::get(path)).await?;
            let sets = xml::listed(&self.text(&answer)?);
            let sets = sets.map_err(|e| self.http.fail(Kind::Malformed, e))?;
            if let Some(set) = sets.first().filter(|set| set.is(key)) {
                found.push(self.plain(key, set)?);
            }
        }
        Ok(Observed {
            records: records(found),
            ..Observed::default()
        })
    }

    fn plain(&self, key: &Key, set: &xml::Listed) -> Result<RrSet, DnsError> {
        let (None, None, Some(ttl)) = (&set.set_identifier, &set.alias_target, set.ttl) else {
            let why =
                format!("{key} is an alias or has a routing policy; only plain sets are moved");
            return Err(self.http.fail(Kind::Unsupported, why));
        };
        RrSet::parse(key, ttl, set.values())
            .map_err(|e| self.http.fail(Kind::Malformed, format!("{key}: {e}")))
    }

    async fn batch(&self, actions: &[Action<'_>], note: &str) -> Result<Receipt, DnsError> {
        let path = format!("{BASE}/hostedzone/{}/rrset/", encode(self.id().await?));
        let ask = Ask::write(Method::POST, path).xml(xml::change_batch(actions, note));
        let answer = self.ask(ask).await?;
        let info = self
            .text(&answer)
            .ok()
            .and_then(|text| xml::change_info(&text).ok());
        // Without it the change is still made; only nobody can ask about it.
        let token = info.map(|info| info.id.trim_start_matches("/change/").to_owned());
        Ok(Receipt { token })
    }

    async fn change_sets(&self, sets: &[SetChange], note: &str) -> Result<Receipt, DnsError> {
        let refused = match self.batch(&xml::actions(sets), note).await {
            Err(error) if matches!(error.kind, Kind::Conflict { .. }) => error,
            other => return other,
        };
        let keys: Vec<Key> = sets.iter().map(|set| set.key.clone()).collect();
        let found = self.look_up(&keys).await.unwrap_or_default().records;
        let as_expected = sets
            .iter()
            .all(|set| found.get(&set.key) == set.from.as_ref());
        let kind = match as_expected {
            // Then it was not the comparison that failed.
            true => Kind::Invalid,
            false => Kind::Conflict { found },
        };
        Err(DnsError { kind, ..refused })
    }

    /// A batch that is refused as a whole, and that would change nothing if it were not: deleted with
    /// a TTL that it does not have, created with the one that it has. Only who may change the records
    /// gets as far as `InvalidChangeBatch`.
    async fn probe(&self, key: &Key, seen: &Observed) -> Result<(), DnsError> {
        let nothing = RrSet::parse(key, 1, [nowhere(key)]);
        let nothing = nothing.map_err(|e| self.http.fail(Kind::Invalid, e))?;
        let set = seen.records.get(key);
        let other = set.map(|set| set.with_ttl(u64::from(set.ttl()) + 1));
        let other = other.transpose().unwrap_or(None).unwrap_or(nothing);
        let mut actions = vec![Action::Delete(&other)];
        actions.extend(set.map(Action::Create));
        match self
            .batch(&actions, "may we? (this batch is meant to be refused)")
            .await
        {
            Err(error) if matches!(error.kind, Kind::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(self
                .http
                .fail(Kind::Unknown, "a change that cannot be was accepted")),
        }
    }
}

/// A value for documentation (RFC 5737, RFC 3849), which no record here has.
fn nowhere(key: &Key) -> &'static str {
    match key.rtype {
        super::RecordType::A => "203.0.113.254",
        super::RecordType::Aaaa => "2001:db8:ffff::fffe",
        super::RecordType::Cname => "nowhere.invalid",
        super::RecordType::Txt => "nothing",
    }
}

impl Provider for Zone {
    fn kind(&self) -> ProviderKind {
        KIND
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            compare_and_set: CompareAndSet::Server,
            compares_ttl: true,
            atomic: true,
            publish: PublishStep::None,
            signal: PropagationSignal::Poll,
            ttl: TtlRule::ANY,
            proxied_mode: false,
            undo: Undo::Inverse,
        }
    }

    fn read<'a>(&'a self, keys: &'a [Key]) -> Call<'a, Observed> {
        Box::pin(self.look_up(keys))
    }

    fn send<'a>(
        &'a self,
        sets: &'a [SetChange],
        _seen: &'a Observed,
        note: &'a str,
    ) -> Call<'a, Receipt> {
        Box::pin(self.change_sets(sets, note))
    }

    fn published<'a>(&'a self, receipt: &'a Receipt) -> Call<'a, Published> {
        Box::pin(async move {
            let Some(id) = &receipt.token else {
                return Ok(Published::NoSignal);
            };
            let answer = self
                .ask(Ask::get(format!("{BASE}/change/{}", encode(id))))
                .await?;
            let info = xml::change_info(&self.text(&answer)?);
            let info = info.map_err(|e| self.http.fail(Kind::Malformed, e))?;
            Ok(match info.status.as_str() {
                "INSYNC" => Published::Done,
                _ => Published::Pending(info.status),
            })
        })
    }

    fn check<'a>(&'a self, keys: &'a [Key]) -> Call<'a, Access> {
        Box::pin(async move {
            let seen = self.look_up(keys).await?;
            for key in keys {
                self.probe(key, &seen).await?;
            }
            Ok(Access::both(Proof::Proven))
        })
    }
}
