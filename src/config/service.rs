//! One `[[service]]`.

use std::time::Duration;

use super::discovery::{self, Found};
use super::report::{Bad, Spot};
use super::table::{Item, Table};
use super::tls;
use super::value::{
    HOUR, boolean, count, duration, listener, mode, one_of, postgres_listener, service_name, text,
};
use crate::addr::Addr;
use crate::proto::spec::{
    FailoverSpec, InFlight, Limits, ListenSpec, ProtocolKind, ReplicaFallback, ServiceSpec,
};

const PROTOCOLS: [(&str, ProtocolKind); 4] = [
    ("redis", ProtocolKind::Redis),
    ("mysql", ProtocolKind::Mysql),
    ("postgres", ProtocolKind::Postgres),
    ("tcp", ProtocolKind::Tcp),
];

const PROTOCOL_HELP: &str = "one of: redis, mysql, postgres, tcp";

/// A service as far as it could be read: what concerns other services is checked even when
/// something else is wrong with it.
pub struct Draft {
    pub name: Option<(String, Spot)>,
    pub listeners: Vec<(Addr, Spot)>,
    pub targets: Vec<(Addr, Spot)>,
    pub spec: Option<ServiceSpec>,
}

pub fn read(mut table: Table) -> Draft {
    let name = table.need("name", "for example name = \"cache\"", |item: &Item| {
        Ok((service_name(item)?, item.spot.clone()))
    });
    let protocol = table.need("protocol", PROTOCOL_HELP, one_of(&PROTOCOLS));
    let primary = listen(&mut table, protocol);
    let replica = table.items("replica_listen", "for example [\"127.0.0.1:6380\"]");
    let replica = replica
        .map(|items| addresses(&table, items, protocol))
        .unwrap_or_default();
    let fallback = [
        ("primary", ReplicaFallback::Primary),
        ("hold", ReplicaFallback::Hold),
        ("refuse", ReplicaFallback::Refuse),
    ];
    let fallback = table
        .read("replica_fallback", one_of(&fallback))
        .unwrap_or(ReplicaFallback::Primary);
    let socket_mode = table.read("socket_mode", mode).unwrap_or(0o666);
    let required = table.read("required", boolean).unwrap_or(true);
    let limits = limits(&mut table, protocol);
    let tls = tls::read(&mut table);
    let found = discovery::read(&mut table, protocol, &tls);
    check_replicas(&table, found.as_ref(), replica.len());
    let failover = failover(&mut table);
    let in_flight = in_flight(&mut table, protocol);
    table.finish();

    let (discovery, targets) = found.map_or((None, Vec::new()), |f| (f.discovery, f.targets));
    let plain = |list: &[(Addr, Spot)]| list.iter().map(|(addr, _)| addr.clone()).collect();
    let listen = ListenSpec {
        primary: plain(&primary),
        replica: plain(&replica),
        replica_fallback: fallback,
        socket_mode,
    };
    let spec =
        name.as_ref()
            .zip(protocol)
            .zip(discovery)
            .map(|(((name, _), protocol), discovery)| {
                let name = name.as_str().into();
                ServiceSpec {
                    name,
                    protocol,
                    required,
                    listen,
                    limits,
                    discovery,
                    tls: tls.settings,
                    in_flight,
                    failover,
                    region: None,
                }
            });
    Draft {
        name,
        listeners: primary.into_iter().chain(replica).collect(),
        targets,
        spec,
    }
}

/// Of a command: anything but nothing.
fn argument(item: &Item) -> Result<String, Bad> {
    let text = text(item)?;
    match text.is_empty() || text.contains('\0') {
        true => Err(Bad::new("an argument cannot be empty", "remove it")),
        false => Ok(text),
    }
}

fn failover(service: &mut Table) -> Option<FailoverSpec> {
    let mut table = service.section("failover");
    let given = table.given();
    let help = "the program and its arguments, for example [\"/usr/local/bin/switchover\"]";
    let command = match given {
        true => table.need_items("command", help),
        false => table.items("command", help),
    };
    let command = command.map(|items| table.each(items, argument));
    let second = Duration::from_secs(1);
    let timeout = table.read("timeout", duration(second..=HOUR));
    let dry_run = table.read("dry_run", boolean).unwrap_or(false);
    table.finish();
    let command: Vec<String> = command?.into_iter().map(|(text, _)| text).collect();
    let spec = FailoverSpec {
        command,
        timeout,
        dry_run,
    };
    (given && !spec.command.is_empty()).then_some(spec)
}

fn in_flight(table: &mut Table, protocol: Option<ProtocolKind>) -> InFlight {
    let words = [("close", InFlight::Close), ("error", InFlight::Error)];
    let in_flight = table.read("in_flight", one_of(&words));
    if let Some(spot) = table.name_spot("in_flight")
        && protocol.is_some_and(|protocol| protocol != ProtocolKind::Mysql)
    {
        let bad = Bad::new("in_flight is for protocol \"mysql\"", "remove it");
        table.report().error(&spot, bad);
    }
    in_flight.unwrap_or_default()
}

fn listen(table: &mut Table, protocol: Option<ProtocolKind>) -> Vec<(Addr, Spot)> {
    let help = "where clients connect, for example [\"127.0.0.1:6379\", \"unix:/run/pilotfish/redis.sock\"]";
    let items = table.need_items("listen", help).unwrap_or_default();
    addresses(table, items, protocol)
}

fn addresses<'a>(
    table: &Table<'a>,
    items: Vec<Item<'a>>,
    protocol: Option<ProtocolKind>,
) -> Vec<(Addr, Spot)> {
    let outside = table.report().outside;
    table.each(items, |item| match protocol {
        Some(ProtocolKind::Postgres) => postgres_listener(item, |path| outside.is_directory(path)),
        _ => listener(item),
    })
}

fn limits(table: &mut Table, protocol: Option<ProtocolKind>) -> Limits {
    // The WordPress object cache plugin gives up after a second; an answer has to come before.
    let hold_timeout = match protocol {
        Some(ProtocolKind::Redis) => Duration::from_millis(800),
        Some(ProtocolKind::Mysql | ProtocolKind::Postgres | ProtocolKind::Tcp) | None => {
            Duration::from_secs(10)
        }
    };
    let second = Duration::from_secs(1);
    let idle = table.read("idle_timeout", duration(Duration::ZERO..=24 * HOUR));
    Limits {
        hold_timeout: table
            .read("hold_timeout", duration(Duration::ZERO..=HOUR))
            .unwrap_or(hold_timeout),
        max_held: table.read("max_held", count(0..=1_000_000)).unwrap_or(1000),
        max_connections: table
            .read("max_connections", count(1..=1_000_000))
            .unwrap_or(10_000),
        max_connecting: table
            .read("max_connecting", count(1..=100_000))
            .unwrap_or(64),
        connect_timeout: table
            .read("connect_timeout", duration(second / 100..=60 * second))
            .unwrap_or(second),
        idle_timeout: idle.filter(|idle| !idle.is_zero()),
        tcp_keepalive: table
            .read("tcp_keepalive", duration(second..=2 * HOUR))
            .unwrap_or(30 * second),
    }
}

fn check_replicas(table: &Table, found: Option<&Found>, listeners: usize) {
    let report = table.report();
    if let Some(spot) = table.name_spot("replica_listen")
        && listeners > 0
        && found.is_some_and(|found| !found.kind.knows_replicas())
    {
        let message = "this service's discovery is static, which knows no replicas";
        let help = "remove replica_listen, or use discovery of kind \"sentinel\" or \"redis\"";
        report.error(&spot, Bad::new(message, help));
    }
    if let Some(spot) = table.name_spot("replica_fallback")
        && listeners == 0
    {
        let message = "replica_fallback does nothing without replica_listen";
        report.warn(&spot, message, "add replica_listen, or remove this key");
    }
}
