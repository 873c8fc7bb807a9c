//! One look at everything that `[cutover]` names, for `check --probe`. Changes nothing.

use futures_util::future::join_all;

use super::gate::check;
use super::lock::{self, Lock};
use super::plan::{Standing, standing};
use super::spec::{CutoverSpec, RegionSpec};
use crate::dns::verify::judge::NameServer;
use crate::dns::verify::{Sample, Verifier};
use crate::dns::{Access, Env, Proof, Provider, RrSet};

/// What was looked at, and what it says; the error is what is wrong with it.
pub type Finding = (String, Result<String, String>);

/// Who is asked.
pub struct Eyes<'a> {
    pub spec: &'a CutoverSpec,
    pub env: &'a Env,
    pub provider: &'a dyn Provider,
    pub verifier: &'a Verifier,
    pub lock: Option<&'a dyn Lock>,
}

impl Eyes<'_> {
    /// Asks the provider, the name servers, the resolvers, the lock and the regions, all at once and each
    /// within the time its configuration gives it. Cancel safe.
    pub async fn look(&self) -> Vec<Finding> {
        let (provider, servers, resolvers, lock, regions) = tokio::join!(
            self.provider(),
            self.name_servers(),
            self.resolvers(),
            self.lock(),
            join_all(self.spec.regions.iter().map(|region| self.region(region))),
        );
        let regions = regions.into_iter().flatten().collect();
        [provider, servers, resolvers, lock, regions].concat()
    }

    async fn provider(&self) -> Vec<Finding> {
        let (kind, zone) = (self.spec.dns.provider.kind(), &self.spec.dns.zone);
        let watched = self.spec.watched();
        let (read, access) = tokio::join!(
            self.provider.read(&watched),
            self.provider.check(&self.spec.records)
        );
        let records = match read {
            Err(error) => Err(error.to_string()),
            Ok(observed) => match standing(self.spec, &observed) {
                Standing::On(region) => Ok(format!("lead to {region}")),
                Standing::Mixed(lines) => Err(lines.join("; ")),
            },
        };
        let access = access.map(|access| granted(&access));
        vec![
            (format!("{}, {zone}", kind.as_str()), records),
            (
                format!("{}, credentials", kind.as_str()),
                access.map_err(|error| error.to_string()),
            ),
        ]
    }

    async fn name_servers(&self) -> Vec<Finding> {
        let servers = match self.verifier.delegation().await {
            Ok(servers) => servers,
            Err(error) => return vec![("name servers".to_owned(), Err(error.to_string()))],
        };
        let one = async |server: &NameServer| {
            let soa = self.verifier.soa(server.addr).await;
            let says = soa.map(|soa| format!("serial {}", soa.serial));
            (server.to_string(), says.map_err(|error| error.to_string()))
        };
        join_all(servers.iter().map(one)).await
    }

    async fn resolvers(&self) -> Vec<Finding> {
        let samples = self.verifier.sample(&self.spec.records).await;
        let finding = |sample: Sample| {
            let says = match sample.heard {
                Ok(set) => Ok(set
                    .as_ref()
                    .map_or_else(|| "nothing".to_owned(), RrSet::to_string)),
                Err(why) => Err(why),
            };
            (format!("resolver {}", sample.resolver), says)
        };
        samples.into_iter().map(finding).collect()
    }

    async fn lock(&self) -> Vec<Finding> {
        if self.lock.is_none() {
            return Vec::new();
        }
        let holder = lock::who_holds(self.lock).await;
        let words = |holder: Option<String>| match holder {
            None => "free".to_owned(),
            Some(holder) => format!("held by {holder}"),
        };
        vec![("lock".to_owned(), holder.map(words))]
    }

    async fn region(&self, region: &RegionSpec) -> Option<Finding> {
        let answer = check::look(region.check.as_ref()?, self.env).await;
        let says = answer.and_then(|answer| {
            let status = format!("status {}", answer.status);
            match (answer.stranger(&region.name), answer.is_well()) {
                (Some(other), _) => Err(format!("{status}, but it is {other}")),
                (None, true) => Ok(status),
                (None, false) => Err(status),
            }
        });
        Some((format!("region {}", region.name), says))
    }
}

fn granted(access: &Access) -> String {
    let words = |proof: &Proof| match proof {
        Proof::Proven => "proven".to_owned(),
        Proof::Likely(seen) => seen.clone(),
    };
    let (write, publish) = (words(&access.write), words(&access.publish));
    match write == publish {
        true => format!("may write: {write}"),
        false => format!("may write: {write}; may publish: {publish}"),
    }
}
