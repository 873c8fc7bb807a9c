//! Who is asked: the name servers that the zone above delegates to.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use hickory_net::proto::op::DnsResponse;
use hickory_net::proto::rr::{RData, Record, RecordType as WireType};

use super::judge::NameServer;
use super::{Verifier, VerifyError};
use crate::dns::record::Name;
use crate::dns::wire::is_name;

/// More name servers than any zone has.
const MAX_SERVERS: usize = 30;

impl Verifier {
    /// The servers that the parent zone delegates to, each with all its addresses. Not what the zone says
    /// about itself: resolvers begin at the parent. Cancel safe.
    ///
    /// # Errors
    /// When the zone is not delegated, or nobody answers.
    pub async fn delegation(&self) -> Result<Vec<NameServer>, VerifyError> {
        let answer = self.ask_parent().await?;
        let mut names = BTreeSet::new();
        for record in answer.answers.iter().chain(&answer.authorities) {
            if let RData::NS(ns) = &record.data
                && is_name(&record.name, &self.spec.zone)
                && let Ok(name) = ns.0.to_ascii().parse::<Name>()
            {
                names.insert(name);
            }
        }
        if names.is_empty() {
            return Err(VerifyError::NotDelegated(self.spec.zone.clone()));
        }
        let mut servers = Vec::new();
        for name in names {
            // What lies in the zone itself is only known from the glue next to the delegation.
            let mut found = match name.is_within(&self.spec.zone) {
                true => addresses(&answer.additionals, &name),
                false => BTreeSet::new(),
            };
            if found.is_empty() {
                found = self.look_up(&name).await;
            }
            let server = |ip: IpAddr| NameServer {
                name: name.clone(),
                addr: self.reach(ip),
            };
            servers.extend(found.into_iter().map(server));
        }
        servers.truncate(MAX_SERVERS);
        match servers.is_empty() {
            true => Err(VerifyError::NoAddresses(self.spec.zone.clone())),
            false => Ok(servers),
        }
    }

    async fn ask_parent(&self) -> Result<DnsResponse, VerifyError> {
        let zone = self.spec.zone.as_str();
        let mut last = String::new();
        for parent in self.parents().await? {
            match self.question(parent, zone, WireType::NS, false).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = format!("{parent}: {error}"),
            }
        }
        Err(VerifyError::Unanswered(format!("{zone} NS"), last))
    }

    /// The servers of the nearest zone above.
    async fn parents(&self) -> Result<Vec<SocketAddr>, VerifyError> {
        if let Some(parent) = self.spec.parent {
            return Ok(vec![parent]);
        }
        let mut above = self.spec.zone.parent();
        while let Some(zone) = above {
            let answer = self.resolve(zone, WireType::NS).await?;
            let mut found = Vec::new();
            for record in answer.answers.iter().take(MAX_SERVERS) {
                if let RData::NS(ns) = &record.data
                    && let Ok(name) = ns.0.to_ascii().parse::<Name>()
                {
                    let addrs = self.look_up(&name).await.into_iter();
                    found.extend(addrs.map(|ip| self.reach(ip)));
                }
                // One that answers is enough.
                if found.len() >= 4 {
                    break;
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
            above = zone.split_once('.').map(|(_, above)| above);
        }
        Err(VerifyError::NotDelegated(self.spec.zone.clone()))
    }

    async fn look_up(&self, name: &Name) -> BTreeSet<IpAddr> {
        let mut found = BTreeSet::new();
        for rtype in [WireType::A, WireType::AAAA] {
            if let Ok(answer) = self.resolve(name.as_str(), rtype).await {
                found.extend(
                    answer
                        .answers
                        .iter()
                        .filter_map(|record| record.data.ip_addr()),
                );
            }
        }
        found
    }
}

fn addresses(records: &[Record], name: &Name) -> BTreeSet<IpAddr> {
    let mine = records.iter().filter(|record| is_name(&record.name, name));
    mine.filter_map(|record| record.data.ip_addr()).collect()
}
