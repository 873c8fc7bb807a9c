//! `pilotfish check --probe`: what the servers that the config names say right now.

use std::io::Write;

use super::table::{self, Column};
use super::{ExitCode, done_or_failed};
use crate::config::Loaded;
use crate::net::dial::Dialer;
use crate::net::resolve::Resolver;
use crate::net::tls::Connector;
use crate::proto::spec::ServiceSpec;
use crate::proto::{Found, protocol};

const COLUMNS: [Column; 4] = [
    Column("SERVICE", 16),
    Column("WHAT", 34),
    Column("OK", 3),
    Column("SAYS", 60),
];

/// Connects to everything once; fails when something is not as a working service needs it.
pub fn probe(loaded: Loaded) -> ExitCode {
    let runtime = match crate::runtime::control() {
        Ok(runtime) => runtime,
        Err(error) => return done_or_failed(Err(error.to_string())),
    };
    let (mut rows, mut all_ok) = (Vec::new(), true);
    for service in &loaded.config.services {
        for Found { what, ok, says } in runtime.block_on(look_around(service)) {
            all_ok &= ok;
            let verdict = if ok { "yes" } else { "NO" };
            rows.push([service.name.to_string(), what, verdict.to_owned(), says]);
        }
    }
    let page = table::text("", &COLUMNS, &rows);
    // Nobody is left to tell when the terminal is gone.
    let _ = std::io::stdout().lock().write_all(page.as_bytes());
    if all_ok {
        ExitCode::Done
    } else {
        ExitCode::Failed
    }
}

async fn look_around(spec: &ServiceSpec) -> Vec<Found> {
    let failed = |why: String| {
        vec![Found {
            what: "config".to_owned(),
            ok: false,
            says: why,
        }]
    };
    let tls = match Connector::build(&spec.tls) {
        Ok(tls) => tls,
        Err(error) => return failed(error.to_string()),
    };
    let resolver = Resolver::from_system();
    let dialer = Dialer {
        resolver,
        tls,
        keepalive: spec.limits.tcp_keepalive,
    };
    match protocol(spec.protocol).bind(spec) {
        Ok(wire) => wire.look_around(dialer).await,
        Err(error) => failed(error.to_string()),
    }
}
