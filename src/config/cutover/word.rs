//! `[cutover.notify]` and `[cutover.auto]`: who is told, and who may ask.

use std::time::Duration;

use super::super::report::Spot;
use super::super::secret::{self, Keys};
use super::super::table::Table;
use super::super::value::{HOUR, boolean, count, duration, http_listener, label};
use super::lock::webhook;
use super::{MAX_LIST, MINUTE, SECOND};
use crate::addr::Addr;
use crate::cutover::auto::{AutoSpec, Rules};
use crate::cutover::notify::NotifySpec;
use crate::cutover::spec::RegionSpec;
use crate::secret::Secret;

const TOKEN: Keys = Keys {
    username: "",
    literal: "token",
    file: "token_file",
    env: "token_env",
    password_needed: true,
};

/// `None` without the table.
pub fn notify(parent: &mut Table) -> Option<NotifySpec> {
    let mut table = parent.section("notify");
    if !table.given() {
        return None;
    }
    let items = table.need_items("webhook", "URLs that get a JSON object each");
    let webhooks = table.each(items.unwrap_or_default(), webhook).into_iter();
    let timeout = table
        .read("timeout", duration(SECOND..=MINUTE))
        .unwrap_or(10 * SECOND);
    table.finish();
    Some(NotifySpec {
        webhooks: webhooks.map(|(url, _)| url).take(MAX_LIST).collect(),
        timeout,
    })
}

/// `None` without the table, or when something indispensable is missing, which is noted.
/// Where it listens goes to `listeners`.
pub fn auto(
    parent: &mut Table,
    regions: Option<&[(RegionSpec, Spot)]>,
    cooldown: Duration,
    listeners: &mut Vec<(Addr, Spot)>,
) -> Option<AutoSpec> {
    let mut table = parent.section("auto");
    if !table.given() {
        return None;
    }
    let help = "where Alertmanager's webhooks come in: \"127.0.0.1:8602\"";
    let listen = table.need("alertmanager", help, http_listener);
    let spot = table.name_spot("alertmanager");
    listeners.extend(listen.map(Addr::Ip).zip(spot));
    let (given, token) = secret::lone(&mut table, &TOKEN);
    if !given {
        table.missing("token_file", "or token_env");
    }
    let items = table.need_items("alerts", "names of alerts: [\"RegionDown\"]");
    let alerts = table.each(items.unwrap_or_default(), label).into_iter();
    let rules = Rules {
        alerts: alerts.map(|(name, _)| name).take(MAX_LIST).collect(),
        region_label: table
            .read("region_label", label)
            .unwrap_or_else(|| "region".to_owned()),
        regions: regions
            .unwrap_or_default()
            .iter()
            .map(|(region, _)| region.name.clone())
            .collect(),
        persist: table
            .read("persist", duration(Duration::ZERO..=24 * HOUR))
            .unwrap_or(5 * MINUTE),
        repeats: small(&mut table, "repeats", 1, 3),
        cooldown: table
            .read("cooldown", duration(Duration::ZERO..=7 * 24 * HOUR))
            .unwrap_or(cooldown),
        per_day: small(&mut table, "per_day", 1, 1),
        failback: table.read("failback", boolean).unwrap_or(false),
    };
    if let (true, Some(spot)) = (rules.repeats < 2, table.name_spot("repeats")) {
        let why = "a single request is enough to move the site";
        table.report().warn(&spot, why, "2 or more");
    }
    if let Some(spot) = table.name_spot("alertmanager")
        && listen.is_some_and(|addr| !addr.ip().is_loopback())
    {
        let why = "the token crosses the network unencrypted";
        table.report().warn(
            &spot,
            why,
            "listen on loopback, behind something that speaks TLS",
        );
    }
    table.finish();
    if rules.alerts.is_empty() {
        return None;
    }
    Some(AutoSpec {
        listen: listen?,
        // Where it was not read, an empty one stands for it, which nobody can present.
        token: token.unwrap_or_else(|| Secret::new(String::new())),
        rules,
    })
}

fn small(table: &mut Table, key: &'static str, least: u32, default: u32) -> u32 {
    let read = table.read(key, count(least..=1000));
    read.and_then(|n| u32::try_from(n).ok()).unwrap_or(default)
}
