//! Redis: RESP, ROLE, Sentinel.

pub mod ask;
pub mod client;
pub mod node;
pub mod probers;
pub mod resp;
pub mod role;
pub mod sentinel;
pub mod standalone;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use self::sentinel::watch::SentinelWatcher;
use self::standalone::StandaloneWatcher;
use super::fixed::{self, FixedWatcher};
use super::spec::{Discovery, ProtocolKind, ServiceSpec};
use super::{Found, Protocol, Refusal, Wire, WireError};
use crate::monitor::Watcher;
use crate::net::dial::Dialer;
use crate::net::tls::Connector;

/// The protocol's entry in `PROTOCOLS`.
pub struct Redis;

impl Protocol for Redis {
    fn kind(&self) -> ProtocolKind {
        ProtocolKind::Redis
    }

    fn bind(&self, spec: &ServiceSpec) -> Result<Arc<dyn Wire>, WireError> {
        let sentinel_tls = match &spec.discovery {
            Discovery::Sentinel(sentinel) => Connector::build(&sentinel.sentinel_tls)?,
            Discovery::Redis(_) | Discovery::Static(_) => Connector::PLAIN,
        };
        Ok(Arc::new(RedisWire {
            spec: spec.clone(),
            sentinel_tls,
        }))
    }
}

struct RedisWire {
    spec: ServiceSpec,
    sentinel_tls: Connector,
}

impl Wire for RedisWire {
    fn watcher(&self) -> Box<dyn Watcher> {
        match self.spec.discovery.clone() {
            Discovery::Sentinel(spec) => Box::new(SentinelWatcher {
                spec,
                sentinel_tls: self.sentinel_tls.clone(),
                hold_timeout: self.spec.limits.hold_timeout,
            }),
            Discovery::Redis(spec) => Box::new(StandaloneWatcher { spec }),
            Discovery::Static(spec) => Box::new(FixedWatcher { spec }),
        }
    }

    fn look_around(&self, dialer: Dialer) -> Pin<Box<dyn Future<Output = Vec<Found>> + Send + '_>> {
        Box::pin(async move {
            match &self.spec.discovery {
                Discovery::Sentinel(spec) => {
                    let sentinels = Dialer {
                        tls: self.sentinel_tls.clone(),
                        ..dialer.clone()
                    };
                    ask::through_sentinels(spec, &dialer, &sentinels).await
                }
                Discovery::Redis(spec) => ask::of_nodes(spec, &dialer).await,
                Discovery::Static(spec) => fixed::look_around(spec, &dialer).await,
            }
        })
    }

    /// LOADING is the one error that clients of Redis take as "soon" (Predis tries again on it).
    fn refusal(&self, why: Refusal) -> Option<Bytes> {
        Some(match why {
            Refusal::NoPrimary => {
                let name = &self.spec.name;
                Bytes::from(format!(
                    "-LOADING Pilotfish: no primary for '{name}', try again\r\n"
                ))
            }
            Refusal::TooMany => Bytes::from_static(b"-ERR max number of clients reached\r\n"),
        })
    }

    fn client_speaks_first(&self) -> bool {
        true
    }

    fn server_half_closes(&self) -> bool {
        false
    }
}
