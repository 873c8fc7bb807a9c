//! The DNS providers, against real name servers where there are any, and against stand-ins that keep to
//! the providers' documentation where there are none.
// Nothing here decides or runs on a data thread, and a helper that fails is a test that fails.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod stage;

mod apis;
mod aws;
mod conformance;
mod etcd;
mod locks;
mod primary;
mod tls;
mod verify;
