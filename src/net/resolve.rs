//! Host names to addresses, through hickory-resolver, which keeps answers for as long as their TTL
//! says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RecordType;

use crate::addr::Addr;

/// Why a name led nowhere.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveError {
    #[error("{0}")]
    Lookup(String),
    #[error("the name has no address")]
    Empty,
    #[error("no resolver: {0}")]
    NoResolver(String),
}

/// Shared by all threads; clones share the cache.
#[derive(Clone)]
pub struct Resolver {
    inner: Result<Arc<TokioResolver>, String>,
}

impl Resolver {
    /// With the system's name servers and hosts file. Without any, IP addresses still work and names
    /// fail with the reason.
    pub fn from_system() -> Self {
        let built = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        Self {
            inner: built.map(Arc::new).map_err(|e| e.to_string()),
        }
    }

    /// The addresses of a TCP endpoint, in the order to try them. Cancel safe.
    ///
    /// # Errors
    /// When the name cannot be resolved. A Unix socket has no addresses and is an empty list.
    pub async fn resolve(&self, addr: &Addr) -> Result<Vec<SocketAddr>, ResolveError> {
        match addr {
            Addr::Ip(addr) => Ok(vec![*addr]),
            Addr::Unix(_) => Ok(Vec::new()),
            Addr::Name { host, port } => {
                let inner = self
                    .inner
                    .as_ref()
                    .map_err(|e| ResolveError::NoResolver(e.clone()))?;
                let found = inner.lookup_ip(&**host).await;
                let found = found.map_err(|e| ResolveError::Lookup(e.to_string()))?;
                let addrs: Vec<_> = found
                    .iter()
                    .map(|ip: IpAddr| SocketAddr::new(ip, *port))
                    .collect();
                if addrs.is_empty() {
                    Err(ResolveError::Empty)
                } else {
                    Ok(addrs)
                }
            }
        }
    }

    /// Forgets a name whose addresses did not work, so that the next try asks again.
    pub fn forget(&self, addr: &Addr) {
        if let (Ok(inner), Some(host)) = (&self.inner, addr.host_name()) {
            inner.clear_lookup_cache(host, RecordType::A);
            inner.clear_lookup_cache(host, RecordType::AAAA);
        }
    }
}
