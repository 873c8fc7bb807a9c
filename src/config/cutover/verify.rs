//! `[cutover.verify]`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::super::error::shown;
use super::super::report::Bad;
use super::super::table::{Item, Table};
use super::super::value::{HOUR, count, duration, text};
use super::{MAX_LIST, MINUTE, SECOND};
use crate::dns::spec::VerifySpec;

/// The zone is that of [cutover.dns], and set there.
pub fn read(parent: &mut Table) -> (VerifySpec, (Duration, Duration)) {
    let mut table = parent.section("verify");
    let help = "addresses of resolvers, for example [\"9.9.9.9:53\"]";
    let resolvers = table.items("resolvers", help).unwrap_or_default();
    let resolvers = table
        .each(resolvers, name_server)
        .into_iter()
        .take(MAX_LIST);
    let resolvers: Vec<SocketAddr> = resolvers.map(|(addr, _)| addr).collect();
    let mut address_map = BTreeMap::new();
    for (ip, spot, item) in table.section("address_map").pairs() {
        let Ok(ip) = ip.parse::<IpAddr>() else {
            let bad = Bad::new(
                format!("`{}` is not an IP address", shown(ip)),
                "write \"192.0.2.53\"",
            );
            table.report().error(&spot, bad);
            continue;
        };
        match name_server(&item) {
            Ok(addr) => drop(address_map.insert(ip, addr)),
            Err(bad) => table.report().error(&item.spot, bad),
        }
    }
    let parent = table.read("parent", name_server);
    let times = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let matches = table.read("matches", count(1..=100)).map_or(3, times);
    let short = SECOND / 20..=MINUTE;
    let pause = table
        .read("pause", duration(short.clone()))
        .unwrap_or(SECOND);
    let question = table
        .read("question", duration(short))
        .unwrap_or(3 * SECOND);
    let long = SECOND..=24 * HOUR;
    let mut within = |key| {
        table
            .read(key, duration(long.clone()))
            .unwrap_or(10 * MINUTE)
    };
    let waits = (within("deployed_within"), within("served_within"));
    table.finish();
    // Never asked for: the caller sets the zone.
    let nowhere = "zone.invalid".parse().expect("it is a name");
    let spec = VerifySpec {
        parent,
        address_map,
        matches,
        pause,
        question,
        ..VerifySpec::new(nowhere, resolvers)
    };
    (spec, waits)
}

/// `192.0.2.53:53`, or without a port.
fn name_server(item: &Item) -> Result<SocketAddr, Bad> {
    let text = text(item)?;
    let alone = |text: &str| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    let parsed = text.parse::<SocketAddr>().or_else(|_| alone(&text));
    parsed.map_err(|_| {
        let help = "an IP address, with a port unless it is 53: \"9.9.9.9\" or \"127.0.0.1:5300\"";
        Bad::new(
            format!("`{}` is not a name server's address", shown(&text)),
            help,
        )
    })
}
