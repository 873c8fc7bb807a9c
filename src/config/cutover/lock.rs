//! `[cutover] lock`: every kind's keys in one table, so that one of another kind is refused by its name.

use std::time::Duration;

use super::super::report::Bad;
use super::super::secret::{self, Keys};
use super::super::table::{Item, Table};
use super::super::tls;
use super::super::value::{duration, label, one_of, path};
use super::region::url;
use super::{MAX_LIST, MINUTE, SECOND};
use crate::cutover::lock::LockSpec;
use crate::cutover::lock::etcd::EtcdSpec;
use crate::dns::record::{Key, Name};
use crate::dns::spec::{DnsSpec, ProviderKind};
use crate::net::tls::TlsSettings;
use crate::secret::Credentials;

const USER: Keys = Keys {
    username: "user",
    literal: "password",
    file: "password_file",
    env: "password_env",
    password_needed: true,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dns,
    Etcd,
    File,
}

const KINDS: [(&str, Kind); 3] = [
    ("dns", Kind::Dns),
    ("etcd", Kind::Etcd),
    ("file", Kind::File),
];

/// What it protects: the zone it may live in, and the first record that moves, after which it is called.
pub struct About<'a> {
    pub dns: Option<&'a DnsSpec>,
    pub record: Option<&'a Key>,
}

/// What was read, whatever the kind.
struct Given {
    name: Option<String>,
    path: Option<std::path::PathBuf>,
    margin: Duration,
    endpoints: Vec<String>,
    user: Credentials,
    tls: TlsSettings,
    timeout: Duration,
}

/// `None` without the table, or when something indispensable is missing, which is noted.
pub fn read(parent: &mut Table, about: &About) -> Option<LockSpec> {
    let mut table = parent.section("lock");
    if !table.given() {
        return None;
    }
    let kind = table.need("kind", "one of: dns, etcd, file", one_of(&KINDS));
    let given = given(&mut table);
    if let Some(kind) = kind {
        for (key, kinds) in [
            ("name", &[Kind::Dns, Kind::Etcd][..]),
            ("margin", &[Kind::Dns]),
            ("path", &[Kind::File]),
            ("endpoints", &[Kind::Etcd]),
            ("user", &[Kind::Etcd]),
            ("tls", &[Kind::Etcd]),
            ("timeout", &[Kind::Etcd]),
        ] {
            only_for(&table, key, kind, kinds);
        }
    }
    let spec = match kind? {
        Kind::Dns => in_zone(&table, given, about),
        Kind::Etcd => etcd(&table, given, about),
        Kind::File => {
            if table.name_spot("path").is_none() {
                table.missing("path", "for example path = \"/srv/shared/pilotfish.lock\"");
            }
            given.path.map(|path| LockSpec::File { path })
        }
    };
    table.finish();
    spec
}

fn given(table: &mut Table) -> Given {
    let items = table.items("endpoints", "for example [\"https://10.0.1.21:2379\"]");
    let endpoints = table.each(items.unwrap_or_default(), url).into_iter();
    Given {
        name: table.read("name", label),
        path: table.read("path", path),
        margin: table
            .read("margin", duration(Duration::ZERO..=60 * MINUTE))
            .unwrap_or(10 * SECOND),
        endpoints: endpoints.map(|(url, _)| url).take(MAX_LIST).collect(),
        user: secret::read(table, &USER),
        tls: tls::read(table).settings,
        timeout: table
            .read("timeout", duration(SECOND / 10..=MINUTE))
            .unwrap_or(3 * SECOND),
    }
}

fn only_for(table: &Table, key: &str, kind: Kind, kinds: &[Kind]) {
    if kinds.contains(&kind) {
        return;
    }
    let Some(spot) = table.name_spot(key) else {
        return;
    };
    let word = |kind: Kind| {
        KINDS
            .iter()
            .find(|(_, k)| *k == kind)
            .map_or("", |(w, _)| w)
    };
    let names: Vec<&str> = kinds.iter().map(|kind| word(*kind)).collect();
    let message = format!("`{key}` means nothing to a lock of kind {}", word(kind));
    let help = format!("it is for {}; remove it", names.join(", "));
    table.report().error(&spot, Bad::new(message, help));
}

fn in_zone(table: &Table, given: Given, about: &About) -> Option<LockSpec> {
    let dns = about.dns?;
    let spot = table.name_spot("kind")?;
    let provider = dns.provider.kind();
    if !provider.compares_and_sets() {
        let able = ProviderKind::ALL
            .into_iter()
            .filter(|kind| kind.compares_and_sets());
        let able: Vec<&str> = able.map(ProviderKind::as_str).collect();
        let message = format!(
            "{} cannot compare and set in one step, so two could hold a lock there",
            provider.as_str()
        );
        let help = format!("use kind = \"etcd\" or \"file\"; {} can", able.join(", "));
        table.report().error(&spot, Bad::new(message, help));
        return None;
    }
    let text = match given.name {
        Some(name) => name,
        None => format!("_pilotfish-lock.{}", about.record?.name),
    };
    let spot = table.name_spot("name").unwrap_or(spot);
    let name: Option<Name> = text.parse().ok();
    let Some(name) = name.filter(|name| name.is_within(&dns.zone)) else {
        let message = format!("`{text}` is not a name in the zone {}", dns.zone);
        let help = format!("for example name = \"_pilotfish-lock.{}\"", dns.zone);
        table.report().error(&spot, Bad::new(message, help));
        return None;
    };
    Some(LockSpec::Dns {
        dns: dns.clone(),
        name,
        margin: given.margin,
    })
}

fn etcd(table: &Table, given: Given, about: &About) -> Option<LockSpec> {
    if given.endpoints.is_empty() {
        if table.name_spot("endpoints").is_none() {
            table.missing("endpoints", "for example [\"https://10.0.1.21:2379\"]");
        }
        return None;
    }
    let user = Some(given.user.username).filter(|name| !name.is_empty());
    let key = match given.name {
        Some(name) => name,
        None => format!("/pilotfish/lock/{}", about.record?.name),
    };
    Some(LockSpec::Etcd(EtcdSpec {
        endpoints: given.endpoints,
        key,
        user: user.zip(given.user.password),
        tls: given.tls,
        timeout: given.timeout,
    }))
}

/// A webhook's URL, which may carry a token: what is wrong with it is said without it.
pub fn webhook(item: &Item) -> Result<crate::secret::Secret, Bad> {
    let help = "write \"https://hooks.example.com/...\"";
    let text = super::super::value::text(item)?;
    let parsed = reqwest::Url::parse(&text);
    let fits = parsed.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match fits {
        true => Ok(crate::secret::Secret::new(text)),
        false => Err(Bad::new("this is not an http or https URL", help)),
    }
}
