//! Akamai: zones at Edge DNS, and properties at Global Traffic Management.

mod edge_dns;
mod edgegrid;
mod gtm;

pub use edge_dns::EdgeDns;
pub use gtm::Gtm;
