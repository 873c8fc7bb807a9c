//! A single look at everything that a config names, without serving anybody.

use super::{AppError, cutover};
use crate::clock::Clock;
use crate::config::Config;
use crate::cutover::look::Finding;
use crate::dns::Env;
use crate::net::dial::Dialer;
use crate::net::resolve::Resolver;
use crate::net::tls::Connector;
use crate::proto::protocol;
use crate::proto::spec::ServiceSpec;

pub use crate::proto::Found;

const CUTOVER: &str = "[cutover]";

/// What was found of one service, or of the cutover.
pub struct ServiceFound {
    /// Its name; of the cutover the name of its table.
    pub service: String,
    pub found: Vec<Found>,
}

/// Connects once to everything that `config` names.
///
/// # Errors
/// When the control thread cannot be had. What is wrong with a service is among its findings.
pub fn look_around(config: &Config) -> Result<Vec<ServiceFound>, AppError> {
    let control = crate::runtime::control()?;
    let resolver = Resolver::from_system();
    let look = |spec: &ServiceSpec| ServiceFound {
        service: spec.name.to_string(),
        found: control.block_on(look_at(spec, resolver.clone())),
    };
    let mut found: Vec<ServiceFound> = config.services.iter().map(look).collect();
    if let Some(spec) = &config.cutover {
        let env = Env {
            clock: Clock::start(),
            resolver: resolver.clone(),
        };
        let findings = control.block_on(cutover::look(spec, &env));
        found.push(ServiceFound {
            service: CUTOVER.to_owned(),
            found: findings.into_iter().map(finding).collect(),
        });
    }
    Ok(found)
}

fn finding((what, says): Finding) -> Found {
    Found {
        what,
        ok: says.is_ok(),
        says: says.unwrap_or_else(|why| why),
    }
}

async fn look_at(spec: &ServiceSpec, resolver: Resolver) -> Vec<Found> {
    let failed = |says: String| {
        let what = "config".to_owned();
        vec![Found {
            what,
            ok: false,
            says,
        }]
    };
    let tls = match Connector::build(&spec.tls) {
        Ok(tls) => tls,
        Err(error) => return failed(error.to_string()),
    };
    let keepalive = spec.limits.tcp_keepalive;
    match protocol(spec.protocol).bind(spec) {
        Ok(wire) => {
            wire.look_around(Dialer {
                resolver,
                tls,
                keepalive,
            })
            .await
        }
        Err(error) => failed(error.to_string()),
    }
}
