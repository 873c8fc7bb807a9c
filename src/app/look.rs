//! A single look at everything that a config names, without serving anybody.

use super::AppError;
use crate::config::Config;
use crate::net::dial::Dialer;
use crate::net::resolve::Resolver;
use crate::net::tls::Connector;
use crate::proto::protocol;
use crate::proto::spec::ServiceSpec;

pub use crate::proto::Found;

/// What was found of one service.
pub struct ServiceFound {
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
    Ok(config.services.iter().map(look).collect())
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
