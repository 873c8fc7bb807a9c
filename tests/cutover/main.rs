//! The regional cutover: the real sidecar, a parent zone, a primary, a secondary and a resolver, all real.
// Nothing here decides or runs on a runtime, and a helper that fails is a test that fails.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod stage;

mod crash;
mod fences;
mod fleet;
mod gates;
mod lock;
mod look;
mod moves;
mod promote;
mod providers;
mod servers;
