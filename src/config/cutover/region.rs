//! `[[cutover.region]]`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::error::shown;
use super::super::report::{Bad, Spot};
use super::super::table::{Item, Table};
use super::super::value::{duration, optional_path, server_name, service_name, socket_path, text};
use super::{MAX_LIST, SECOND, tables};
use crate::cutover::network::Network;
use crate::cutover::spec::{CheckSpec, RegionSpec};
use crate::dns::record::{RecordType, Values};

const HELP: &str = "at least two `[[cutover.region]]`";

/// All regions, each with its place.
pub fn read(table: &mut Table) -> Option<Vec<(RegionSpec, Spot)>> {
    let mut regions: Vec<(RegionSpec, Spot)> = Vec::new();
    let elements = tables(table, "region", HELP);
    let count = elements.len();
    for mut element in elements {
        let spot = element.spot.clone();
        let Some(region) = one(&mut element) else {
            continue;
        };
        element.finish();
        if regions.iter().any(|(other, _)| other.name == region.name) {
            let message = format!("there is a region `{}` already", region.name);
            table
                .report()
                .error(&spot, Bad::new(message, "give it another name"));
        }
        regions.push((region, spot));
    }
    if count < 2 {
        table.missing("region", HELP);
    }
    (regions.len() >= 2).then_some(regions)
}

fn one(table: &mut Table) -> Option<RegionSpec> {
    let name = table.need("name", "for example name = \"gra\"", service_name);
    let mut values = BTreeMap::new();
    for (key, rtype) in [("A", RecordType::A), ("AAAA", RecordType::Aaaa)] {
        let parse = |item: &Item| list(item, rtype);
        values.extend(table.read(key, parse).map(|found| (rtype, found)));
    }
    let rtype = RecordType::Cname;
    let parse = |item: &Item| parsed(rtype, &[text(item)?]);
    values.extend(table.read("CNAME", parse).map(|found| (rtype, found)));
    let check = check(table);
    let help = "admin sockets: [\"/run/pilotfish/rbx-app-01.sock\"]";
    let admin = table.items("admin", help).unwrap_or_default();
    let admin = table.each(admin, socket_path).into_iter().take(MAX_LIST);
    let networks = table.items("networks", "for example [\"192.0.2.0/24\"]");
    let networks = table.each(networks.unwrap_or_default(), network);
    let given = ["A", "AAAA", "CNAME"]
        .iter()
        .any(|key| table.name_spot(key).is_some());
    if !given && name.is_some() {
        table.missing("A", "the addresses of the region: A, AAAA or CNAME");
    }
    Some(RegionSpec {
        name: name?,
        values,
        check,
        admin: admin.map(|(path, _)| path).collect(),
        networks: networks.into_iter().map(|(network, _)| network).collect(),
    })
}

fn list(item: &Item, rtype: RecordType) -> Result<Values, Bad> {
    let help = "a list of addresses, for example [\"192.0.2.10\"]";
    let Some(array) = item.value.as_array() else {
        return Err(Bad::kind(item.value, "a list", help));
    };
    let texts = array
        .iter()
        .map(|value| value.get_ref().as_str().map(ToOwned::to_owned));
    let texts: Option<Vec<String>> = texts.collect();
    parsed(
        rtype,
        &texts.ok_or_else(|| Bad::new("addresses are wanted here", help))?,
    )
}

fn parsed(rtype: RecordType, texts: &[String]) -> Result<Values, Bad> {
    let values = Values::parse(rtype, texts.iter().map(String::as_str));
    values.map_err(|error| Bad::new(error.to_string(), "correct the value, or remove it"))
}

fn network(item: &Item) -> Result<Network, Bad> {
    let text = text(item)?;
    text.parse().map_err(|()| {
        let help = "an address and a number of bits: \"192.0.2.0/24\"";
        Bad::new(format!("`{}` is no network", shown(&text)), help)
    })
}

fn check(table: &mut Table) -> Option<CheckSpec> {
    let url = table.read("check", url);
    let sni = table.read("sni", server_name).flatten();
    let host = table.read("host", server_name).flatten();
    let report = table.report();
    let ca_file = table.read("ca_file", |item: &Item| {
        let Some(path) = optional_path(item)? else {
            return Ok(None);
        };
        let readable = report.outside.readable(&path);
        readable.map_err(|e| Bad::new(e, "name a file that this user can read"))?;
        Ok(Some(path))
    });
    let range = SECOND / 10..=60 * SECOND;
    let timeout = table.read("check_timeout", duration(range));
    Some(CheckSpec {
        url: url?,
        sni,
        host,
        ca_file: ca_file.flatten(),
        timeout: timeout.unwrap_or(Duration::from_secs(5)),
    })
}

/// An absolute `http` or `https` URL without a user in it.
pub fn url(item: &Item) -> Result<String, Bad> {
    let text = text(item)?;
    let help = "write \"https://192.0.2.10/healthz\"";
    let parsed = reqwest::Url::parse(&text);
    let fits = parsed.is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    });
    match fits {
        true => Ok(text),
        false => Err(Bad::new(
            format!("`{}` is not an http or https URL", shown(&text)),
            help,
        )),
    }
}
