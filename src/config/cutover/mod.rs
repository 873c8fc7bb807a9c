//! `[cutover]`: the records, the regions they may lead to, and who keeps them.

mod dns;
mod lock;
mod region;
mod verify;
mod word;

use std::path::PathBuf;
use std::time::Duration;

use super::report::{Bad, Report, Spot};
use super::service::Draft;
use super::table::{Item, Table};
use super::value::{HOUR, address, count, duration, one_of, path, service_name, size, text};
use crate::addr::Addr;
use crate::cutover::spec::{
    CommandSpec, CutoverSpec, FenceSpec, GateSpec, HookSpec, PromoteSpec, RegionSpec, When,
};
use crate::dns::change::Change;
use crate::dns::record::{Key, MAX_TTL};
use crate::dns::spec::DnsSpec;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// More than any site has.
const MAX_LIST: usize = 64;

const WHEN: [(&str, When); 3] = [
    ("before-apply", When::BeforeApply),
    ("after-done", When::AfterDone),
    ("after-rollback", When::AfterRollback),
];

/// `None` without the table, or when something indispensable is missing, which is noted.
/// What it listens on goes to `listeners`.
pub fn read(
    root: &mut Table,
    services: &[Draft],
    listeners: &mut Vec<(Addr, Spot)>,
) -> Option<CutoverSpec> {
    let mut table = root.section("cutover");
    if !table.given() {
        return None;
    }
    let limits = limits(&mut table);
    let help =
        "the records that move, for example [\"shop.example.com A\", \"shop.example.com AAAA\"]";
    let items = table.need_items("record", help);
    let records = items.map(|items| table.each(items, record));
    let regions = region::read(&mut table);
    let dns = dns::read(&mut table);
    let verify = verify::read(&mut table);
    let gates = gates(&mut table);
    let hooks = hooks(&mut table);
    let fence = fence(&mut table);
    let promote = promote(&mut table, services);
    let first = records.iter().flatten().map(|(key, _)| key).next();
    let about = lock::About {
        dns: dns.as_ref(),
        record: first,
    };
    let lock = lock::read(&mut table, &about);
    let notify = word::notify(&mut table);
    let auto = word::auto(&mut table, regions.as_deref(), limits.cooldown, listeners);
    let report = table.report();
    table.finish();
    let records = records?;
    duplicates(report, &records);
    let (dns, (verify, waits)) = (dns?, verify);
    outside(report, &records, &dns);
    let regions = regions?;
    let spec = CutoverSpec {
        state_dir: limits.state_dir,
        records: records.iter().map(|(key, _)| key.clone()).collect(),
        ttl: limits.ttl,
        ttl_ceiling: limits.ttl_ceiling,
        cooldown: limits.cooldown,
        soak: limits.soak,
        expiry: limits.expiry,
        target_lag: limits.target_lag,
        target_lag_bytes: limits.target_lag_bytes,
        regions: regions.iter().map(|(region, _)| region.clone()).collect(),
        verify: crate::dns::spec::VerifySpec {
            zone: dns.zone.clone(),
            ..verify
        },
        dns,
        deployed_within: waits.0,
        served_within: waits.1,
        gates,
        hooks,
        fence,
        promote,
        lock,
        notify,
        auto,
    };
    every_region_fits(report, &spec, &regions);
    Some(spec)
}

struct Limits {
    state_dir: PathBuf,
    ttl: u32,
    ttl_ceiling: u32,
    cooldown: Duration,
    soak: Duration,
    expiry: Duration,
    target_lag: Duration,
    target_lag_bytes: u64,
}

fn limits(table: &mut Table) -> Limits {
    let seconds = |n: usize| u32::try_from(n).unwrap_or(MAX_TTL);
    let day = 24 * HOUR;
    Limits {
        state_dir: table
            .read("state_dir", path)
            .unwrap_or_else(|| PathBuf::from("/var/lib/pilotfish")),
        ttl: table.read("ttl", count(0..=86_400)).map_or(60, seconds),
        ttl_ceiling: table
            .read("ttl_ceiling", count(0..=MAX_TTL))
            .map_or(300, seconds),
        cooldown: table
            .read("cooldown", duration(Duration::ZERO..=7 * day))
            .unwrap_or(30 * MINUTE),
        soak: table
            .read("soak", duration(Duration::ZERO..=30 * day))
            .unwrap_or(60 * MINUTE),
        expiry: table
            .read("expiry", duration(MINUTE / 6..=day))
            .unwrap_or(10 * MINUTE),
        target_lag: table
            .read("target_lag", duration(Duration::ZERO..=HOUR))
            .unwrap_or(10 * SECOND),
        target_lag_bytes: table.read("target_lag_bytes", size).unwrap_or(16 << 20),
    }
}

fn record(item: &Item) -> Result<Key, Bad> {
    let text = text(item)?;
    let key: Result<Key, _> = text.parse();
    let key = key.map_err(|error| Bad::new(error.to_string(), "write \"shop.example.com A\""))?;
    match key.rtype {
        crate::dns::record::RecordType::Txt => {
            let help = "A, AAAA and CNAME lead to a region";
            Err(Bad::new("a TXT record leads nobody anywhere", help))
        }
        _ => Ok(key),
    }
}

fn duplicates(report: &Report, records: &[(Key, Spot)]) {
    for (at, (key, spot)) in records.iter().enumerate() {
        if records[..at].iter().any(|(before, _)| before == key) {
            let bad = Bad::new(format!("`{key}` is named twice"), "remove one");
            report.error(spot, bad);
        }
    }
}

fn outside(report: &Report, records: &[(Key, Spot)], dns: &DnsSpec) {
    for (key, spot) in records {
        if !key.name.is_within(&dns.zone) {
            let message = format!("`{}` does not lie in the zone {}", key.name, dns.zone);
            let bad = Bad::new(message, "name a record of the zone in [cutover.dns]");
            report.error(spot, bad);
        }
    }
}

/// From every region to every other one there must be a change that leaves no name empty.
fn every_region_fits(report: &Report, spec: &CutoverSpec, regions: &[(RegionSpec, Spot)]) {
    let types: Vec<_> = spec.records.iter().map(|key| key.rtype).collect();
    for (region, spot) in regions {
        if let Some(rtype) = region.values.keys().find(|rtype| !types.contains(rtype)) {
            let message = format!(
                "`{}` has values for {rtype}, and no record of that type moves",
                region.name
            );
            let help = format!("add it to cutover.record, or remove {rtype}");
            report.error(spot, Bad::new(message, help));
            continue;
        }
        let wanted = spec.wanted(region);
        let empty = spec
            .records
            .iter()
            .find(|key| !wanted.keys().any(|other| other.name == key.name));
        if let Some(key) = empty {
            let message = format!("in `{}`, {} would have no records", region.name, key.name);
            let help = "give it an A, AAAA or CNAME";
            report.error(spot, Bad::new(message, help));
        } else if let Err(error) = Change::new(&wanted, &wanted, "") {
            let help = "correct the region's values";
            report.error(spot, Bad::new(error.to_string(), help));
        }
    }
    for (at, (region, spot)) in regions.iter().enumerate() {
        let same = regions[..at]
            .iter()
            .find(|(other, _)| other.values == region.values);
        if let Some((other, _)) = same {
            let message = format!("`{}` has the values of `{}`", region.name, other.name);
            let help = "records that are the same cannot tell the regions apart";
            report.error(spot, Bad::new(message, help));
        }
    }
}

/// The program and its arguments.
fn argv(item: &Item) -> Result<Vec<String>, Bad> {
    let help = "a program and its arguments: [\"/usr/local/bin/check\", \"--fast\"]";
    let Some(array) = item.value.as_array() else {
        return Err(Bad::kind(item.value, "a list", help));
    };
    let words: Option<Vec<String>> = array
        .iter()
        .take(MAX_LIST + 1)
        .map(|word| word.get_ref().as_str().map(ToOwned::to_owned))
        .collect();
    match words {
        Some(words)
            if words.first().is_some_and(|first| !first.is_empty())
                && words.len() <= MAX_LIST
                && !words.iter().any(|word| word.contains('\0')) =>
        {
            Ok(words)
        }
        _ => Err(Bad::new("this is no command", help)),
    }
}

fn timeout(table: &mut Table, default: Duration) -> Duration {
    table
        .read("timeout", duration(SECOND / 10..=24 * HOUR))
        .unwrap_or(default)
}

/// `command` and `timeout`.
fn command(table: &mut Table, default: Duration) -> Option<CommandSpec> {
    let help = "a program and its arguments";
    let argv = table.need("command", help, argv);
    let timeout = timeout(table, default);
    Some(CommandSpec {
        argv: argv?,
        timeout,
    })
}

fn tables<'a>(table: &mut Table<'a>, key: &'static str, help: &str) -> Vec<Table<'a>> {
    let items = table.items(key, help).unwrap_or_default();
    let element = |item: &Item<'a>| table.element(item, key);
    items.iter().take(MAX_LIST).filter_map(element).collect()
}

fn gates(table: &mut Table) -> Vec<GateSpec> {
    let mut gates: Vec<GateSpec> = Vec::new();
    for mut element in tables(table, "gate", "write `[[cutover.gate]]`") {
        let help = "for example name = \"backup-fresh\"";
        let name = element.need("name", help, service_name);
        let spot = element.name_spot("name");
        let command = command(&mut element, 30 * SECOND);
        element.finish();
        let (Some(name), Some(spot)) = (name, spot) else {
            continue;
        };
        let known = crate::cutover::gate::Name::ALL
            .iter()
            .any(|gate| gate.as_str() == name);
        if known || gates.iter().any(|gate| gate.name == name) {
            let bad = Bad::new(
                format!("there is a gate `{name}` already"),
                "give it another name",
            );
            table.report().error(&spot, bad);
        }
        gates.extend(command.map(|command| GateSpec { name, command }));
    }
    gates
}

fn hooks(table: &mut Table) -> Vec<HookSpec> {
    let mut hooks = Vec::new();
    for mut element in tables(table, "hook", "write `[[cutover.hook]]`") {
        let when = element.need(
            "when",
            "one of: before-apply, after-done, after-rollback",
            one_of(&WHEN),
        );
        let command = command(&mut element, 10 * MINUTE);
        element.finish();
        hooks.extend(
            when.zip(command)
                .map(|(when, command)| HookSpec { when, command }),
        );
    }
    hooks
}

fn fence(table: &mut Table) -> FenceSpec {
    let mut fence = table.section("fence");
    let limit = timeout(&mut fence, MINUTE);
    let mut one = |key| {
        fence.read(key, argv).map(|argv| CommandSpec {
            argv,
            timeout: limit,
        })
    };
    let (command, release, proof) = (one("command"), one("release"), one("proof"));
    let help = "a list of commands, each a list: [[\"ssh\", \"app-09\", \"...\"]]";
    let items = fence.items("witnesses", help).unwrap_or_default();
    let witnesses = fence.each(items, argv);
    let witness = |(argv, _)| CommandSpec {
        argv,
        timeout: limit,
    };
    let witnesses = witnesses.into_iter().take(MAX_LIST).map(witness).collect();
    fence.finish();
    FenceSpec {
        command,
        release,
        proof,
        witnesses,
    }
}

fn promote(table: &mut Table, services: &[Draft]) -> Vec<PromoteSpec> {
    let mut all = Vec::new();
    for mut element in tables(table, "promote", "write `[[cutover.promote]]`") {
        let help = "the name of a [[service]]";
        let service = element.need("service", help, service_name);
        if let (Some(name), Some(spot)) = (&service, element.name_spot("service")) {
            let named = |draft: &Draft| draft.name.as_ref().is_some_and(|(n, _)| n == name);
            if !services.iter().any(named) {
                let bad = Bad::new(format!("there is no service `{name}`"), help);
                table.report().error(&spot, bad);
            }
        }
        let limit = timeout(&mut element, MINUTE);
        let to = element.section("to").pairs().into_iter();
        let to = to.filter_map(|(region, _, item)| match address(&item) {
            Ok(addr) => Some((region.to_owned(), addr)),
            Err(bad) => {
                table.report().error(&item.spot, bad);
                None
            }
        });
        let to = to.collect();
        element.finish();
        all.extend(service.map(|service| PromoteSpec {
            service,
            to,
            timeout: limit,
        }));
    }
    all
}
