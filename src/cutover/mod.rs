//! A site's move to another region.
//!
//! - [`lock`]: one cutover at a time, whoever is told to do it
//! - [`hook`]: operators' own gates and hooks
//! - [`notify`]: word to others
//! - [`auto`]: a monitoring system that may ask for a cutover

pub mod auto;
pub mod hook;
pub mod lock;
pub mod notify;

use std::future::Future;
use std::pin::Pin;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
