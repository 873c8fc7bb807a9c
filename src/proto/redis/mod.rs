//! Redis: RESP, ROLE, Sentinel.

pub mod ask;
pub mod client;
pub mod failover;
pub mod node;
mod omen;
pub mod resp;
pub mod role;
pub mod sentinel;
pub mod standalone;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::failover::{NodesFailover, SentinelFailover};
use self::sentinel::watch::SentinelWatcher;
use self::standalone::StandaloneWatcher;
use super::fixed::{self, FixedWatcher};
use super::spec::{Discovery, ProtocolKind, RedisSpec, SentinelSpec, ServiceSpec, StaticSpec};
use super::{Found, Omen, Protocol, Refusal, Wire, WireError};
use crate::handover::Handover;
use crate::monitor::Watcher;
use crate::net::dial::Dialer;
use crate::net::tls::Connector;
use crate::topology::Role;

/// The protocol's entry in `PROTOCOLS`.
pub struct Redis;

impl Protocol for Redis {
    fn kind(&self) -> ProtocolKind {
        ProtocolKind::Redis
    }

    fn bind(&self, spec: &ServiceSpec) -> Result<Arc<dyn Wire>, WireError> {
        let finder = match spec.discovery.clone() {
            Discovery::Sentinel(spec) => {
                let tls = Connector::build(&spec.sentinel_tls)?;
                let spec = Box::new(spec);
                Finder::Sentinel { spec, tls }
            }
            Discovery::Redis(spec) => Finder::Nodes(spec),
            Discovery::Static(spec) => Finder::Static(spec),
            other => {
                return Err(WireError::Discovery {
                    protocol: "redis",
                    discovery: other.as_str(),
                });
            }
        };
        Ok(Arc::new(RedisWire {
            name: spec.name.clone(),
            hold_timeout: spec.limits.hold_timeout,
            finder,
        }))
    }
}

/// How the primary is found.
enum Finder {
    Sentinel {
        spec: Box<SentinelSpec>,
        tls: Connector,
    },
    Nodes(RedisSpec),
    Static(StaticSpec),
}

struct RedisWire {
    name: Arc<str>,
    hold_timeout: Duration,
    finder: Finder,
}

impl Wire for RedisWire {
    fn watcher(&self) -> Box<dyn Watcher> {
        match &self.finder {
            Finder::Sentinel { spec, tls } => Box::new(SentinelWatcher {
                spec: (**spec).clone(),
                sentinel_tls: tls.clone(),
                hold_timeout: self.hold_timeout,
            }),
            Finder::Nodes(spec) => Box::new(StandaloneWatcher { spec: spec.clone() }),
            Finder::Static(spec) => Box::new(FixedWatcher { spec: spec.clone() }),
        }
    }

    fn handover(&self) -> Option<Arc<dyn Handover>> {
        match &self.finder {
            Finder::Sentinel { spec, tls } => Some(Arc::new(SentinelFailover {
                spec: Arc::new((**spec).clone()),
                tls: tls.clone(),
            })),
            Finder::Nodes(spec) => {
                let spec = Arc::new(spec.clone());
                Some(Arc::new(NodesFailover { spec }))
            }
            Finder::Static(_) => None,
        }
    }

    fn look_around(&self, dialer: Dialer) -> Pin<Box<dyn Future<Output = Vec<Found>> + Send + '_>> {
        Box::pin(async move {
            match &self.finder {
                Finder::Sentinel { spec, tls } => {
                    let sentinels = Dialer {
                        tls: tls.clone(),
                        ..dialer.clone()
                    };
                    ask::through_sentinels(spec, &dialer, &sentinels).await
                }
                Finder::Nodes(spec) => ask::of_nodes(spec, &dialer).await,
                Finder::Static(spec) => fixed::look_around(spec, &dialer).await,
            }
        })
    }

    /// LOADING is the one error that clients of Redis take as "soon" (Predis tries again on it).
    fn refusal(&self, why: Refusal) -> Option<Bytes> {
        Some(match why {
            Refusal::NoPrimary => {
                let name = &self.name;
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

    fn omen(&self, role: Role) -> Option<Omen> {
        Some(omen::for_role(role))
    }

    fn server_half_closes(&self) -> bool {
        false
    }
}
