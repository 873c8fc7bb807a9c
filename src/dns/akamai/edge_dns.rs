//! Akamai Edge DNS, API version 2.
//!
//! A change list is made of one version of the zone and goes stale when the zone changes otherwise;
//! submitted as a whole or not at all, it compares and sets. There is one list per zone, and
//! `overwrite=none` refuses to take somebody else's. `PUT …/recordsets` would replace the whole zone and
//! is never used.

use serde::Deserialize;
use serde_json::{Value, json};

use super::edgegrid;
use crate::dns::http::{Answer, Ask, Http, Method, encode};
use crate::dns::record::{RrSet, records};
use crate::dns::{
    Access, Call, Capabilities, CompareAndSet, DnsError, DnsSpec, Env, Key, Kind, Maker, Observed,
    Proof, PropagationSignal, Provider, ProviderKind, ProviderSpec, PublishStep, Published,
    Receipt, SetChange, TtlRule, Undo,
};

const KIND: ProviderKind = ProviderKind::Akamai;
const BASE: &str = "/config-dns/v2";

pub struct EdgeDns;

impl Maker for EdgeDns {
    fn kind(&self) -> ProviderKind {
        KIND
    }

    fn make(&self, spec: &DnsSpec, env: &Env) -> Result<Box<dyn Provider>, DnsError> {
        let ProviderSpec::Akamai(settings) = &spec.provider else {
            return Err(crate::dns::wrong_settings(KIND));
        };
        let zone = encode(spec.zone.as_str());
        Ok(Box::new(Zone {
            http: edgegrid::http(KIND, settings, spec, env)?,
            path: format!("{BASE}/zones/{zone}"),
            list: format!("{BASE}/changelists/{zone}"),
            open: format!("{BASE}/changelists?zone={zone}&overwrite=none"),
        }))
    }
}

struct Zone {
    http: Http,
    path: String,
    list: String,
    open: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ZoneInfo {
    version_id: String,
    activation_state: String,
}

#[derive(Deserialize)]
struct Set {
    ttl: u64,
    rdata: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChangeList {
    zone_version_id: String,
}

impl Zone {
    async fn info(&self) -> Result<ZoneInfo, DnsError> {
        self.http.json(&Ask::get(&self.path)).await
    }

    async fn look_up(&self, keys: &[Key]) -> Result<Observed, DnsError> {
        let version = self.info().await?.version_id;
        let mut found = Vec::new();
        for key in keys {
            let (name, rtype) = (encode(key.name.as_str()), key.rtype);
            let ask = Ask::get(format!("{}/names/{name}/types/{rtype}", self.path));
            let answer = self.http.send(&ask).await?;
            // The zone is there, so it is the set that is not.
            if answer.status == 404 {
                continue;
            }
            let answer = self.http.success(answer)?;
            let set: Set = self.http.parse(&ask, &answer)?;
            let values = set.rdata.iter().map(String::as_str);
            let set = RrSet::parse(key, set.ttl, values);
            found.push(set.map_err(|e| self.http.fail(Kind::Malformed, format!("{key}: {e}")))?);
        }
        Ok(Observed {
            records: records(found),
            version: Some(version),
            ..Observed::default()
        })
    }

    async fn change_sets(
        &self,
        sets: &[SetChange],
        seen: &Observed,
        note: &str,
    ) -> Result<Receipt, DnsError> {
        let list = self.open_list(sets).await?;
        let filled = async {
            if seen.version.as_ref() != Some(&list.zone_version_id) {
                let found = seen.records.clone();
                let why = "the zone got a new version meanwhile";
                return Err(self.http.fail(Kind::Conflict { found }, why));
            }
            // What goes comes first: a CNAME and an address exclude each other.
            let (gone, kept): (Vec<&SetChange>, Vec<_>) = sets.iter().partition(|s| s.to.is_none());
            for set in gone.into_iter().chain(kept) {
                let path = format!("{}/recordsets/add-change", self.list);
                let ask = Ask::write(Method::POST, path).json(&entry(set));
                self.http.success(self.http.send(&ask).await?)?;
            }
            Ok(())
        };
        if let Err(error) = filled.await {
            // It is only a draft, and would stand in everybody's way.
            return Err(self.discard().await.map_or(error.clone(), |()| error));
        }
        self.submit(sets, note).await?;
        Ok(Receipt {
            token: Some(list.zone_version_id),
        })
    }

    async fn open_list(&self, sets: &[SetChange]) -> Result<ChangeList, DnsError> {
        let ask = Ask::write(Method::POST, &self.open);
        let answer = self.http.send(&ask).await?;
        if answer.status != 409 {
            return self.http.parse(&ask, &self.http.success(answer)?);
        }
        if !self.is_our_draft(sets).await? {
            let why = "somebody has an open change list for the zone: submit or discard it";
            return Err(self.http.fail(Kind::Unavailable, why));
        }
        self.discard().await?;
        let answer = self.http.send(&ask).await?;
        self.http.parse(&ask, &self.http.success(answer)?)
    }

    /// Whether the open list holds nothing but what we are about to do: then a call of ours left it
    /// when it was interrupted. Whatever in it we do not understand is not ours.
    async fn is_our_draft(&self, sets: &[SetChange]) -> Result<bool, DnsError> {
        let diff: Value = self
            .http
            .json(&Ask::get(format!("{}/diff", self.list)))
            .await?;
        let Some(entries) = diff["diffs"].as_array() else {
            return Ok(false);
        };
        let mine = |entry: &Value| {
            let is = |set: &&SetChange| {
                entry["name"].as_str() == Some(set.key.name.as_str())
                    && entry["type"].as_str() == Some(set.key.rtype.as_str())
            };
            sets.iter().find(is)
        };
        let Some(touched) = entries.iter().map(mine).collect::<Option<Vec<_>>>() else {
            return Ok(false);
        };
        let ask = Ask::get(format!("{}/recordsets?showAll=true", self.list));
        let draft: Value = self.http.json(&ask).await?;
        let drafted = |key: &Key| {
            let sets = draft["recordsets"].as_array().into_iter().flatten();
            let mut sets = sets.filter(|set| {
                set["name"].as_str() == Some(key.name.as_str())
                    && set["type"].as_str() == Some(key.rtype.as_str())
            });
            let set = sets.next()?;
            let rdata = set["rdata"].as_array().into_iter().flatten();
            RrSet::parse(key, set["ttl"].as_u64()?, rdata.filter_map(Value::as_str)).ok()
        };
        Ok(touched.into_iter().all(|set| drafted(&set.key) == set.to))
    }

    async fn discard(&self) -> Result<(), DnsError> {
        let ask = Ask::write(Method::DELETE, &self.list).harmless();
        let answer = self.http.send(&ask).await?;
        if answer.status == 404 {
            return Ok(());
        }
        self.http.success(answer).map(drop)
    }

    async fn submit(&self, sets: &[SetChange], note: &str) -> Result<(), DnsError> {
        let path = format!("{}/submit?comment={}", self.list, encode(note));
        let answer: Answer = self.http.send(&Ask::write(Method::POST, path)).await?;
        if answer.is_success() {
            return Ok(());
        }
        // Nothing was published, and the draft is worth nothing any more.
        let discarded = self.discard().await;
        let keys: Vec<Key> = sets.iter().map(|set| set.key.clone()).collect();
        let found = self.look_up(&keys).await.unwrap_or_default().records;
        let as_expected = sets
            .iter()
            .all(|set| found.get(&set.key) == set.from.as_ref());
        if matches!(answer.status, 401 | 403 | 404) || (as_expected && answer.status != 409) {
            discarded?;
            return self.http.success(answer).map(drop);
        }
        Err(self.http.refusal(Kind::Conflict { found }, &answer))
    }
}

fn entry(set: &SetChange) -> Value {
    let op = match (&set.from, &set.to) {
        (_, None) => "DELETE",
        (None, Some(_)) => "ADD",
        (Some(_), Some(_)) => "EDIT",
    };
    let shown = set.to.as_ref().or(set.from.as_ref());
    let rdata = shown.map(RrSet::zone_texts).unwrap_or_default();
    json!({
        "name": set.key.name.as_str(),
        "type": set.key.rtype.as_str(),
        "op": op,
        "ttl": shown.map(RrSet::ttl),
        "rdata": rdata,
    })
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
            publish: PublishStep::Explicit,
            signal: PropagationSignal::Poll,
            ttl: TtlRule {
                min: 30,
                values: &[],
                silent: false,
            },
            proxied_mode: false,
            undo: Undo::Native,
        }
    }

    fn read<'a>(&'a self, keys: &'a [Key]) -> Call<'a, Observed> {
        Box::pin(self.look_up(keys))
    }

    fn send<'a>(
        &'a self,
        sets: &'a [SetChange],
        seen: &'a Observed,
        note: &'a str,
    ) -> Call<'a, Receipt> {
        Box::pin(async move {
            if sets.is_empty() {
                // A list is published by the very step that makes the change.
                return Ok(Receipt::default());
            }
            self.change_sets(sets, seen, note).await
        })
    }

    fn published<'a>(&'a self, receipt: &'a Receipt) -> Call<'a, Published> {
        Box::pin(async move {
            let info = self.info().await?;
            let newer = receipt.token.as_ref() != Some(&info.version_id);
            Ok(match info.activation_state.as_str() {
                "ACTIVE" if newer => Published::Done,
                state => Published::Pending(state.to_owned()),
            })
        })
    }

    fn check<'a>(&'a self, _keys: &'a [Key]) -> Call<'a, Access> {
        Box::pin(async move {
            let ask = Ask::write(Method::POST, &self.open);
            let answer = self.http.send(&ask).await?;
            if answer.status == 409 {
                let why =
                    "somebody has an open change list for the zone, which only who may write sees";
                return Ok(Access::both(Proof::Likely(why.to_owned())));
            }
            self.http.success(answer)?;
            self.discard().await?;
            Ok(Access {
                write: Proof::Proven,
                publish: Proof::Likely("a change list could be opened and discarded".to_owned()),
            })
        })
    }
}
