//! `[service.tls]` and `[service.discovery.tls]`.

use std::path::PathBuf;

use super::report::{Bad, Report, Spot};
use super::table::{Item, Table};
use super::value::{one_of, optional_path, server_name};
use crate::addr::Addr;
use crate::net::tls::{ClientCert, TlsMode, TlsSettings};

const MODES: [(&str, TlsMode); 4] = [
    ("off", TlsMode::Off),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
];

/// TLS settings and where they stand.
pub struct Tls {
    pub settings: TlsSettings,
    pub spot: Spot,
}

/// Reads the table `tls` of `parent`. Without it there is no TLS; with it, it is the safest kind.
pub fn read(parent: &mut Table) -> Tls {
    let mut table = parent.section("tls");
    let report = table.report();
    let default = if table.given() {
        TlsMode::VerifyFull
    } else {
        TlsMode::Off
    };
    let mode = table.read("mode", one_of(&MODES)).unwrap_or(default);
    let ca_file = file(&mut table, "ca_file");
    let name = table.read("server_name", server_name).flatten();
    let cert = pair(&mut table);
    let spot = table.spot.clone();
    if mode == TlsMode::Off && (ca_file.is_some() || name.is_some() || cert.is_some()) {
        let message = "mode is \"off\", so the other keys here do nothing";
        report.warn(
            &spot,
            message,
            "set mode to \"verify-full\", or remove them",
        );
    }
    if mode == TlsMode::Require
        && let Some(ca) = ca_file.as_ref().and(table.name_spot("ca_file"))
    {
        let bad = Bad::new(
            "mode \"require\" takes any certificate, so this file would not be looked at",
            "set mode to \"verify-ca\" or \"verify-full\", or remove ca_file",
        );
        report.error(&ca, bad);
    }
    table.finish();
    Tls {
        settings: TlsSettings {
            mode,
            ca_file,
            server_name: name,
            cert,
        },
        spot,
    }
}

fn file(table: &mut Table, key: &'static str) -> Option<PathBuf> {
    let report = table.report();
    table
        .read(key, |item: &Item| {
            let Some(path) = optional_path(item)? else {
                return Ok(None);
            };
            let readable = report.outside.readable(&path);
            readable.map_err(|e| Bad::new(e, "name a file that this user can read"))?;
            Ok(Some(path))
        })
        .flatten()
}

fn pair(table: &mut Table) -> Option<ClientCert> {
    let cert_file = file(table, "cert_file");
    let key_file = file(table, "key_file");
    let set = |table: &Table, key| table.name_spot(key).filter(|_| !table.is_blank(key));
    let (cert_spot, key_spot) = (set(table, "cert_file"), set(table, "key_file"));
    match (cert_spot, key_spot) {
        (Some(spot), None) => {
            let help = "name the certificate's private key with key_file";
            table
                .report()
                .error(&spot, Bad::new("cert_file without key_file", help));
        }
        (None, Some(spot)) => {
            let help = "name the key's certificate with cert_file";
            table
                .report()
                .error(&spot, Bad::new("key_file without cert_file", help));
        }
        _ => {}
    }
    Some(ClientCert {
        cert_file: cert_file?,
        key_file: key_file?,
    })
}

/// With `verify-full`, a server's certificate has to carry a name, and an IP address is rarely one.
/// Unix sockets have no TLS, whatever the mode, as in libpq.
pub fn check_name(tls: &Tls, addr: &Addr, own: Option<&str>, place: (&Spot, &Report)) {
    let (spot, report) = place;
    let named = own.is_some() || tls.settings.server_name.is_some();
    if tls.settings.mode != TlsMode::VerifyFull || named || !matches!(addr, Addr::Ip(_)) {
        return;
    }
    let key = if tls.spot.key.is_empty() {
        "tls"
    } else {
        &tls.spot.key
    };
    let message = format!("`{addr}` has no name that its certificate could be checked for");
    let help = format!(
        "write a host name here, or set `server_name` in `{key}` to the name (or IP address) in \
         the certificate, or its mode to \"verify-ca\""
    );
    report.error(spot, Bad::new(message, help));
}
