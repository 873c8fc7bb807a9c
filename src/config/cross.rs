//! What only shows when all parts of a config are looked at together.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::report::{Bad, Report, Spot};
use super::service::Draft;
use crate::addr::Addr;

/// `others`: the listeners that belong to no service.
pub fn check(drafts: &[Draft], others: &[(Addr, Spot)], report: &Report) {
    names(drafts, report);
    let services = drafts.iter().flat_map(|draft| &draft.listeners);
    let all: Vec<&(Addr, Spot)> = others.iter().chain(services).collect();
    listeners(&all, report);
    for draft in drafts {
        loops(draft, report);
    }
}

fn names(drafts: &[Draft], report: &Report) {
    let mut first: BTreeMap<&str, &Spot> = BTreeMap::new();
    for (name, spot) in drafts.iter().filter_map(|draft| draft.name.as_ref()) {
        if let Some(before) = first.get(name.as_str()) {
            let message = format!("there are two services named `{name}`");
            let help = format!("give this one another name: {} has it already", before.key);
            report.error(spot, Bad::new(message, help));
        } else {
            first.insert(name, spot);
        }
    }
}

fn listeners(all: &[&(Addr, Spot)], report: &Report) {
    let mut first: BTreeMap<&Addr, &Spot> = BTreeMap::new();
    for (addr, spot) in all {
        if let Some(before) = first.get(addr) {
            let message = format!("`{addr}` is listened on twice");
            let help = format!("write another address: {} has it already", before.key);
            report.error(spot, Bad::new(message, help));
            continue;
        }
        first.insert(addr, spot);
        if let Addr::Ip(ip) = addr
            && !ip.ip().is_loopback()
        {
            let message = format!("`{addr}` can be reached from other hosts, in plain text");
            report.warn(
                spot,
                message,
                format!("\"127.0.0.1:{}\" is for this host only", ip.port()),
            );
        }
    }
    for (addr, spot) in all {
        if let Some((wide, before)) = wildcard(addr).and_then(|wide| first.get_key_value(&wide)) {
            let message = format!("`{addr}` is also covered by `{wide}`");
            let help = format!(
                "clients of this address come here and not to {}",
                before.key
            );
            report.warn(spot, message, help);
        }
    }
}

/// The address that listens on all of the host's, and so on `addr` too.
fn wildcard(addr: &Addr) -> Option<Addr> {
    let Addr::Ip(addr) = addr else { return None };
    let any: IpAddr = match addr.ip() {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    (addr.ip() != any).then(|| Addr::Ip(SocketAddr::new(any, addr.port())))
}

/// A service that looks for its servers where it listens itself would connect to itself forever.
fn loops(draft: &Draft, report: &Report) {
    for (target, spot) in &draft.targets {
        if let Some((_, own)) = draft.listeners.iter().find(|(addr, _)| addr == target) {
            let message = format!("`{target}` is this service's own listener");
            let help = format!("name the database server here, or change {}", own.key);
            report.error(spot, Bad::new(message, help));
        }
    }
}
