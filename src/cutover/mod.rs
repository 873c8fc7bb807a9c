//! The regional cutover: a whole site moves to another region by a change of DNS records, with checks
//! before and proof after.
//!
//! In the order a wish meets them:
//!
//! - [`spec`], [`network`]: what the config says
//! - [`auto`]: a monitoring system that may ask for a cutover
//! - [`desk`]: where operators' wishes arrive, one run at a time
//! - [`plan`]: what was seen, what shall be (pure)
//! - [`gate`]: what must be true before; facts are gathered, verdicts are pure
//! - [`machine`]: what happened so far and what is to be done next (pure)
//! - [`run`]: carries that out; [`lock`]: one at a time, in the whole fleet; [`hook`]: operators' programs
//! - [`journal`]: written before anything that follows is done
//! - [`feed`], [`report`], [`notify`], [`metrics`]: what is said about it
//! - [`look`]: one look at everything, for who checks a config
//! - [`world`]: what it wants of the process; [`tools`]: what a run works with

pub mod auto;
pub mod desk;
pub mod feed;
pub mod gate;
pub mod hook;
pub mod journal;
pub mod lock;
pub mod look;
pub mod machine;
pub mod metrics;
pub mod network;
pub mod notify;
pub mod plan;
pub mod report;
pub mod run;
pub mod spec;
pub mod tools;
pub mod world;

pub use futures_util::future::BoxFuture;
