//! `proxy.toml`: from text to values that never have to be checked again.
//!
//! [`parse`] is pure: no file, no environment, no clock. It reports every mistake of the text at
//! once, each with its key, its place and what would be right. [`load`] adds the outside: it reads
//! the file and the secrets that the file points at.
//!
//! Layout, from the outside in: `load` files and secrets · `service`, `discovery`, `tls`, `secret`
//! one table of the config each · `cutover` the regional cutover · `cross` what only shows across services · `value` single values ·
//! `table` the typed reader · `report` what it finds · `error` · `mask` what may be printed of the text.

mod cross;
mod cutover;
mod diff;
mod discovery;
mod error;
mod load;
pub mod mask;
mod report;
mod secret;
mod service;
mod sql;
mod suggest;
mod table;
mod tls;
mod value;

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeTable;

use crate::addr::Addr;
use crate::admin::spec::AdminSpec;
use crate::cutover::spec::CutoverSpec;
use crate::proto::spec::ServiceSpec;
use crate::telemetry::spec::{HttpSpec, LogFormat, LogSpec};
pub use diff::{Diff, diff};
pub use error::{ConfigError, Warning, locate};
pub use load::{LoadError, Loaded, load, read_text};
use load::{Nothing, Outside};
use report::{Bad, Report, Spot};
use table::{Item, Table};
use value::{HOUR, count, duration, http_listener, label, mode, one_of, socket_path, text};

/// A whole `proxy.toml`: valid values, checked once. `Debug` shows no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `None`: the host name.
    pub name: Option<String>,
    pub region: Option<String>,
    /// Data threads; 0 is one per core.
    pub workers: usize,
    /// How long sessions may take to end by themselves after SIGTERM.
    pub drain_timeout: Duration,
    pub http: HttpSpec,
    pub admin: AdminSpec,
    pub log: LogSpec,
    /// At least one.
    pub services: Vec<ServiceSpec>,
    /// `None`: this process moves no records.
    pub cutover: Option<CutoverSpec>,
}

/// Reads a config without touching anything outside of it: secrets that it only points at are left
/// out, and the files that it names are not looked for.
///
/// # Errors
/// All mistakes of the text, in its order; never an empty list.
pub fn parse(text: &str) -> Result<(Config, Vec<Warning>), Vec<ConfigError>> {
    read(text, &Nothing)
}

fn read(text: &str, outside: &dyn Outside) -> Result<(Config, Vec<Warning>), Vec<ConfigError>> {
    let (document, syntax) = DeTable::parse_recoverable(text);
    let report = Report::new(text, outside);
    for error in syntax {
        report.syntax(error.span().unwrap_or(0..0), error.message());
    }
    let config = config(Table::root(document.get_ref(), &report), &report);
    match (config, report.finish()) {
        (Some(config), (errors, warnings)) if errors.is_empty() => Ok((config, warnings)),
        (_, (errors, _)) => Err(errors),
    }
}

/// The keys that were looked for while reading `text`, without indices (`service[].listen`), and
/// whether it has them. For the test that keeps the reference config complete.
pub fn keys(text: &str) -> BTreeMap<String, bool> {
    let (document, _) = DeTable::parse_recoverable(text);
    let report = Report::new(text, &Nothing);
    config(Table::root(document.get_ref(), &report), &report);
    report.keys()
}

/// The admin socket that `text` names, whatever else may be wrong with it: a half-edited config
/// must not stand between an operator and the running process.
pub fn admin_socket(text: &str) -> Option<std::path::PathBuf> {
    let (document, _) = DeTable::parse_recoverable(text);
    let report = Report::new(text, &Nothing);
    let mut root = Table::root(document.get_ref(), &report);
    root.section("admin").read("socket", socket_path)
}

/// `None` when something indispensable is missing; that is noted, as all other mistakes are.
fn config<'a>(mut root: Table<'a>, report: &'a Report<'a>) -> Option<Config> {
    let name = root.read("name", label);
    let region = root.read("region", label);
    let workers = root.read("workers", count(0..=1024)).unwrap_or(0);
    let drain_timeout = root
        .read("drain_timeout", duration(Duration::ZERO..=HOUR))
        .unwrap_or(Duration::from_secs(30));
    let mut listeners = Vec::new();
    let http = http(&mut root, &mut listeners);
    let admin = admin(&mut root, &mut listeners);
    let log = log(&mut root);
    let help = "add at least one `[[service]]`";
    let mut drafts = Vec::new();
    for item in root.need_items("service", help).unwrap_or_default() {
        drafts.extend(root.element(&item, "service").map(service::read));
    }
    let cutover = cutover::read(&mut root, &drafts, &mut listeners);
    root.finish();
    cross::check(&drafts, &listeners, report);
    let services: Option<Vec<ServiceSpec>> = drafts
        .into_iter()
        .map(|draft| {
            let region = region.as_deref().map(Into::into);
            draft.spec.map(|spec| ServiceSpec { region, ..spec })
        })
        .collect();
    let services = services.filter(|services| !services.is_empty())?;
    Some(Config {
        name,
        region,
        workers,
        drain_timeout,
        http,
        admin,
        log,
        services,
        cutover,
    })
}

fn http(root: &mut Table, listeners: &mut Vec<(Addr, Spot)>) -> HttpSpec {
    let mut table = root.section("http");
    let listen = match table.items("listen", "for example [\"127.0.0.1:8600\"]") {
        Some(items) => {
            let listen = table.each(items, http_listener);
            let addresses = listen
                .iter()
                .map(|(addr, spot)| (Addr::Ip(*addr), spot.clone()));
            listeners.extend(addresses);
            listen.into_iter().map(|(addr, _)| addr).collect()
        }
        None => {
            let default = std::net::SocketAddr::from(([127, 0, 0, 1], 8600));
            listeners.push((Addr::Ip(default), default_spot(&table, "listen")));
            vec![default]
        }
    };
    let unhealthy_after = table
        .read("unhealthy_after", duration(Duration::ZERO..=HOUR))
        .unwrap_or(Duration::from_secs(15));
    let agent = table.read("agent", |item: &Item| {
        Ok((http_listener(item)?, item.spot.clone()))
    });
    if let Some((addr, spot)) = &agent {
        listeners.push((Addr::Ip(*addr), spot.clone()));
    }
    table.finish();
    HttpSpec {
        listen,
        agent: agent.map(|(addr, _)| addr),
        unhealthy_after,
    }
}

fn admin(root: &mut Table, listeners: &mut Vec<(Addr, Spot)>) -> AdminSpec {
    let mut table = root.section("admin");
    let default = || AdminSpec::default_socket().to_path_buf();
    let socket = table.read("socket", socket_path).unwrap_or_else(default);
    let spot = table
        .name_spot("socket")
        .unwrap_or_else(|| default_spot(&table, "socket"));
    listeners.push((Addr::Unix(socket.clone().into_boxed_path()), spot));
    let mode = table.read("mode", mode).unwrap_or(0o600);
    let groups = table.items("allow_groups", "names of groups, for example [\"ops\"]");
    let groups = groups
        .map(|items| table.each(items, label))
        .unwrap_or_default();
    table.finish();
    AdminSpec {
        socket,
        mode,
        allow_groups: groups.into_iter().map(|(name, _)| name).collect(),
    }
}

/// Where something would stand that has its default.
fn default_spot(table: &Table, key: &str) -> Spot {
    let Spot { key: parent, span } = table.spot.clone();
    Spot {
        key: format!("the default of {parent}.{key}"),
        span,
    }
}

fn log(root: &mut Table) -> LogSpec {
    let mut table = root.section("log");
    let filter = table
        .read("level", filter)
        .unwrap_or_else(|| "info".to_owned());
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = table
        .read("format", one_of(&formats))
        .unwrap_or(LogFormat::Text);
    table.finish();
    LogSpec { filter, format }
}

const LEVELS: [(&str, ()); 6] = [
    ("off", ()),
    ("error", ()),
    ("warn", ()),
    ("info", ()),
    ("debug", ()),
    ("trace", ()),
];

/// A `tracing` filter. A single word has to be a level: the filter would take any other for the
/// name of a module, and silence everything else.
fn filter(item: &Item) -> Result<String, Bad> {
    let text = text(item)?;
    if text.bytes().all(|b| b.is_ascii_alphanumeric()) && !item_is_level(&text) {
        one_of(&LEVELS)(item)?;
    }
    match tracing_subscriber::EnvFilter::try_new(&text) {
        Ok(_) => Ok(text),
        Err(_) => {
            let help = "a level (\"info\") or a filter (\"info,pilotfish::monitor=debug\")";
            Err(Bad::new(
                format!("`{}` is not a log filter", error::shown(&text)),
                help,
            ))
        }
    }
}

fn item_is_level(text: &str) -> bool {
    LEVELS
        .iter()
        .any(|(level, ())| text.eq_ignore_ascii_case(level))
}
