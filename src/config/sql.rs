//! `[service.discovery]` for databases that are asked in SQL.

use std::time::Duration;

use super::discovery::nodes;
use super::report::Spot;
use super::secret::{self, Keys};
use super::table::Table;
use super::tls::Tls;
use super::value::{HOUR, boolean, count, duration, label, size};
use crate::addr::Addr;
use crate::proto::spec::{GaleraSpec, MysqlSpec, NodeSpec, PostgresSpec, ProbeSpec};
use crate::secret::Credentials;

const SECOND: Duration = Duration::from_secs(1);

/// Who the probes are.
const PROBE: Keys = Keys {
    username: "user",
    literal: "password",
    file: "password_file",
    env: "password_env",
    password_needed: false,
};

/// What all of them say.
struct Common {
    nodes: Vec<NodeSpec>,
    credentials: Credentials,
    probe: ProbeSpec,
}

fn common(table: &mut Table, tls: &Tls, targets: &mut Vec<(Addr, Spot)>) -> Option<Common> {
    let nodes = nodes(table, tls, targets);
    let credentials = secret::read(table, &PROBE);
    let probe = probe(table);
    if credentials.username.is_empty() && table.name_spot(PROBE.username).is_none() {
        let help = "an account for the probes, for example user = \"pilotfish\"";
        table.missing(PROBE.username, help);
        return None;
    }
    Some(Common {
        nodes: nodes?,
        credentials,
        probe,
    })
}

fn probe(table: &mut Table) -> ProbeSpec {
    let range = SECOND / 20..=60 * SECOND;
    let interval = table
        .read("interval", duration(range.clone()))
        .unwrap_or(SECOND / 2);
    let timeout = table
        .read("timeout", duration(range))
        .unwrap_or(Duration::from_millis(400));
    let times = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    ProbeSpec {
        interval,
        timeout,
        rise: table.read("rise", count(1..=100)).map_or(2, times),
        fall: table.read("fall", count(1..=100)).map_or(2, times),
    }
}

pub fn galera(table: &mut Table, tls: &Tls, targets: &mut Vec<(Addr, Spot)>) -> Option<GaleraSpec> {
    let common = common(table, tls, targets);
    let failback_after = table
        .read("failback_after", duration(Duration::ZERO..=24 * HOUR))
        .unwrap_or(60 * SECOND);
    let accept_donor = table.read("accept_donor", boolean).unwrap_or(false);
    let max_recv_queue = table
        .read("max_recv_queue", count(0..=1_000_000))
        .map_or(100, |n| n as u64);
    let Common {
        nodes,
        credentials,
        probe,
    } = common?;
    Some(GaleraSpec {
        nodes,
        credentials,
        probe,
        failback_after,
        accept_donor,
        max_recv_queue,
    })
}

pub fn mysql(table: &mut Table, tls: &Tls, targets: &mut Vec<(Addr, Spot)>) -> Option<MysqlSpec> {
    let common = common(table, tls, targets);
    let max_lag = table
        .read("max_lag", duration(Duration::ZERO..=24 * HOUR))
        .unwrap_or(10 * SECOND);
    let Common {
        nodes,
        credentials,
        probe,
    } = common?;
    Some(MysqlSpec {
        nodes,
        credentials,
        probe,
        max_lag,
    })
}

pub fn postgres(
    table: &mut Table,
    tls: &Tls,
    targets: &mut Vec<(Addr, Spot)>,
) -> Option<PostgresSpec> {
    let common = common(table, tls, targets);
    let database = table
        .read("database", label)
        .unwrap_or_else(|| "postgres".to_owned());
    let max_lag = table.read("max_lag", size).unwrap_or(16 << 20);
    let Common {
        nodes,
        credentials,
        probe,
    } = common?;
    Some(PostgresSpec {
        nodes,
        credentials,
        database,
        probe,
        max_lag,
    })
}
