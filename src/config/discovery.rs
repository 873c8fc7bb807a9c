//! `[service.discovery]`: how the service's primary is found.

use std::collections::BTreeMap;
use std::time::Duration;

use super::report::{Bad, Spot};
use super::secret;
use super::sql;
use super::table::{Item, Table};
use super::tls::{self, Tls};
use super::value::{address, duration, label, one_of, parse_address, server_name};
use crate::addr::Addr;
use crate::net::tls::TlsMode;
use crate::proto::spec::{
    Discovery, FenceOn, Minority, NodeSpec, ProtocolKind, RedisSpec, SentinelSpec, StaticSpec,
    SwitchOn,
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sentinel,
    Redis,
    Galera,
    Mysql,
    Postgres,
    Static,
}

const KINDS: [(&str, Kind); 6] = [
    ("sentinel", Kind::Sentinel),
    ("redis", Kind::Redis),
    ("galera", Kind::Galera),
    ("mysql", Kind::Mysql),
    ("postgres", Kind::Postgres),
    ("static", Kind::Static),
];

impl Kind {
    fn fits(self, protocol: ProtocolKind) -> bool {
        match protocol {
            ProtocolKind::Redis => matches!(self, Self::Sentinel | Self::Redis | Self::Static),
            ProtocolKind::Mysql => matches!(self, Self::Galera | Self::Mysql | Self::Static),
            ProtocolKind::Postgres => matches!(self, Self::Postgres | Self::Static),
            ProtocolKind::Tcp => self == Self::Static,
        }
    }

    pub fn knows_replicas(self) -> bool {
        self != Self::Static
    }
}

/// What the table says, and all addresses in it that the service connects to.
pub struct Found {
    pub discovery: Option<Discovery>,
    pub kind: Kind,
    pub targets: Vec<(Addr, Spot)>,
}

/// Reads the table of `service`. `None` when its kind is not known, so that nothing can be said
/// about the rest of it; `protocol` is `None` when that is wrong already.
pub fn read(service: &mut Table, protocol: Option<ProtocolKind>, tls: &Tls) -> Option<Found> {
    let mut table = service.section("discovery");
    if !table.given() {
        if service.name_spot("discovery").is_none() {
            let help =
                "add `[service.discovery]` with `kind = \"sentinel\"`, \"galera\" or another";
            service
                .report()
                .missing(&table.spot, Bad::new("`discovery` is missing", help));
        }
        return None;
    }
    let help = "one of: sentinel, redis, galera, mysql, postgres, static";
    let kind = table.need("kind", help, one_of(&KINDS))?;
    if let Some(protocol) = protocol.filter(|protocol| !kind.fits(*protocol))
        && let Some(spot) = table.name_spot("kind")
    {
        let fitting: Vec<&str> = KINDS
            .iter()
            .filter(|(_, k)| k.fits(protocol))
            .map(|(name, _)| *name)
            .collect();
        let message = format!(
            "this kind cannot find a {} service's primary",
            protocol.as_str()
        );
        let help = format!(
            "for protocol \"{}\": {}",
            protocol.as_str(),
            fitting.join(", ")
        );
        table.report().error(&spot, Bad::new(message, help));
    }
    let mut targets = Vec::new();
    let discovery = match kind {
        Kind::Sentinel => sentinel(&mut table, tls, &mut targets).map(Discovery::Sentinel),
        Kind::Redis => redis(&mut table, tls, &mut targets).map(Discovery::Redis),
        Kind::Galera => sql::galera(&mut table, tls, &mut targets).map(Discovery::Galera),
        Kind::Mysql => sql::mysql(&mut table, tls, &mut targets).map(Discovery::Mysql),
        Kind::Postgres => sql::postgres(&mut table, tls, &mut targets).map(Discovery::Postgres),
        Kind::Static => fixed(&mut table, tls, &mut targets).map(Discovery::Static),
    };
    table.finish();
    Some(Found {
        discovery,
        kind,
        targets,
    })
}

fn probe_interval(table: &mut Table) -> Duration {
    let range = Duration::from_millis(50)..=Duration::from_secs(60);
    table
        .read("probe_interval", duration(range))
        .unwrap_or(Duration::from_secs(1))
}

fn sentinel(table: &mut Table, tls: &Tls, targets: &mut Vec<(Addr, Spot)>) -> Option<SentinelSpec> {
    let report = table.report();
    let help = "the name in `sentinel monitor NAME ...`, for example \"mymaster\"";
    let master = table.need("master", help, label);
    let help = "all sentinels of the service, for example [\"10.0.1.11:26379\", ...]";
    let sentinels = table
        .need_items("sentinels", help)
        .map(|items| table.each(items, address));
    let credentials = secret::read(table, &secret::SERVER);
    let sentinel_credentials = secret::read(table, &secret::SENTINEL);
    let sentinel_tls = tls::read(table);
    let minority = [("serve", Minority::Serve), ("hold", Minority::Hold)];
    let minority = table
        .read("minority", one_of(&minority))
        .unwrap_or(Minority::Serve);
    let fence = [
        ("failover", FenceOn::Failover),
        ("odown", FenceOn::Odown),
        ("switch", FenceOn::Switch),
    ];
    let fence = table
        .read("fence", one_of(&fence))
        .unwrap_or(FenceOn::Failover);
    let switch_on = [
        ("announcement", SwitchOn::Announcement),
        ("promotion", SwitchOn::Promotion),
    ];
    let switch_on = table
        .read("switch_on", one_of(&switch_on))
        .unwrap_or(SwitchOn::Announcement);
    let probe_interval = probe_interval(table);
    let address_map = address_map(table, targets);
    for (addr, spot) in sentinels.iter().flatten() {
        tls::check_name(&sentinel_tls, addr, None, (spot, report));
    }
    if tls.settings.mode == TlsMode::VerifyFull && tls.settings.server_name.is_none() {
        let message = "sentinels announce IP addresses, unless they are told to resolve host names";
        let help = "set server_name, unless the certificates carry what the sentinels announce";
        report.warn(&tls.spot, message, help);
    }
    if let Some(sentinels) = &sentinels {
        check_sentinels(table, sentinels);
        targets.extend(sentinels.iter().cloned());
    }
    Some(SentinelSpec {
        master: master?,
        sentinels: sentinels?.into_iter().map(|(addr, _)| addr).collect(),
        credentials,
        sentinel_credentials,
        sentinel_tls: sentinel_tls.settings,
        minority,
        fence,
        switch_on,
        probe_interval,
        address_map,
    })
}

/// A majority is counted over this list, so each sentinel has to be in it once.
fn check_sentinels(table: &Table, sentinels: &[(Addr, Spot)]) {
    refuse_twice(
        table,
        sentinels.iter().map(|(addr, spot)| (addr, spot)),
        "sentinel",
    );
    let count = sentinels.len();
    if let Some(spot) = table.name_spot("sentinels")
        && (count == 1 || (count > 0 && count.is_multiple_of(2)))
    {
        let message = match count {
            1 => "one sentinel has no majority without it".to_owned(),
            n => format!("{n} sentinels survive no more losses than {} do", n - 1),
        };
        table.report().warn(
            &spot,
            message,
            "three or five sentinels, on hosts of their own",
        );
    }
}

fn refuse_twice<'s>(table: &Table, all: impl Iterator<Item = (&'s Addr, &'s Spot)>, what: &str) {
    let mut first: BTreeMap<&Addr, &Spot> = BTreeMap::new();
    for (addr, spot) in all {
        if let Some(before) = first.get(addr) {
            let message = format!("{what} `{addr}` is in the list twice");
            let help = format!("remove it here: it is {} already", before.key);
            table.report().error(spot, Bad::new(message, help));
        } else {
            first.insert(addr, spot);
        }
    }
}

fn address_map(table: &mut Table, targets: &mut Vec<(Addr, Spot)>) -> BTreeMap<Addr, Addr> {
    let map = table.section("address_map");
    let report = map.report();
    let mut addresses = BTreeMap::new();
    for (name, name_spot, item) in map.pairs() {
        let from = parse_address(name).map_err(|bad| report.error(&name_spot, bad));
        let to = address(&item).map_err(|bad| report.error(&item.spot, bad));
        if let (Ok(from), Ok(to)) = (from, to) {
            targets.push((to.clone(), item.spot));
            addresses.insert(from, to);
        }
    }
    addresses
}

/// The servers that the config names itself: `"host:port"`, or a table with more about one.
pub fn nodes(
    table: &mut Table,
    tls: &Tls,
    targets: &mut Vec<(Addr, Spot)>,
) -> Option<Vec<NodeSpec>> {
    let report = table.report();
    let help = "the servers, for example [\"10.0.1.21:6379\", \"10.0.2.21:6379\"]";
    let mut nodes: Vec<(NodeSpec, Spot)> = Vec::new();
    for item in table.need_items("nodes", help)? {
        let Some((node, spot)) = node(table, item) else {
            continue;
        };
        tls::check_name(
            tls,
            &node.addr,
            node.server_name.as_deref(),
            (&spot, report),
        );
        targets.push((node.addr.clone(), spot.clone()));
        nodes.push((node, spot));
    }
    refuse_twice(
        table,
        nodes.iter().map(|(node, spot)| (&node.addr, spot)),
        "node",
    );
    Some(nodes.into_iter().map(|(node, _)| node).collect())
}

fn node<'a>(table: &Table<'a>, item: Item<'a>) -> Option<(NodeSpec, Spot)> {
    if !item.value.is_table() {
        return match address(&item) {
            Ok(addr) => Some((
                NodeSpec {
                    addr,
                    server_name: None,
                    region: None,
                },
                item.spot,
            )),
            Err(bad) => {
                table.report().error(&item.spot, bad);
                None
            }
        };
    }
    let mut node = table.element(&item, "nodes")?;
    let addr = node.need(
        "address",
        "for example { address = \"10.0.1.21:6379\" }",
        address,
    );
    let server_name = node.read("server_name", server_name).flatten();
    let region = node.read("region", label);
    node.finish();
    Some((
        NodeSpec {
            addr: addr?,
            server_name,
            region,
        },
        item.spot,
    ))
}

fn redis(table: &mut Table, tls: &Tls, targets: &mut Vec<(Addr, Spot)>) -> Option<RedisSpec> {
    let nodes = nodes(table, tls, targets);
    let credentials = secret::read(table, &secret::SERVER);
    let probe_interval = probe_interval(table);
    Some(RedisSpec {
        nodes: nodes?,
        credentials,
        probe_interval,
    })
}

fn fixed(table: &mut Table, tls: &Tls, targets: &mut Vec<(Addr, Spot)>) -> Option<StaticSpec> {
    let nodes = nodes(table, tls, targets);
    let probe_interval = probe_interval(table);
    Some(StaticSpec {
        nodes: nodes?,
        probe_interval,
    })
}
