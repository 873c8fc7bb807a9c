//! Any TCP protocol: bytes, and nothing known about them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::fixed::{self, FixedWatcher};
use super::spec::{Discovery, ProtocolKind, ServiceSpec, StaticSpec};
use super::{Found, Protocol, Refusal, Wire, WireError};
use crate::monitor::Watcher;
use crate::net::dial::Dialer;

/// The protocol's entry in `PROTOCOLS`.
pub struct Tcp;

impl Protocol for Tcp {
    fn kind(&self) -> ProtocolKind {
        ProtocolKind::Tcp
    }

    fn bind(&self, spec: &ServiceSpec) -> Result<Arc<dyn Wire>, WireError> {
        match &spec.discovery {
            Discovery::Static(nodes) => Ok(Arc::new(TcpWire {
                nodes: nodes.clone(),
            })),
            other => Err(WireError::Discovery {
                protocol: "tcp",
                discovery: other.as_str(),
            }),
        }
    }
}

struct TcpWire {
    nodes: StaticSpec,
}

impl Wire for TcpWire {
    fn watcher(&self) -> Box<dyn Watcher> {
        Box::new(FixedWatcher {
            spec: self.nodes.clone(),
        })
    }

    fn look_around(&self, dialer: Dialer) -> Pin<Box<dyn Future<Output = Vec<Found>> + Send + '_>> {
        Box::pin(async move { fixed::look_around(&self.nodes, &dialer).await })
    }

    fn refusal(&self, _: Refusal) -> Option<Bytes> {
        None
    }

    fn client_speaks_first(&self) -> bool {
        false
    }

    fn server_half_closes(&self) -> bool {
        true
    }
}
