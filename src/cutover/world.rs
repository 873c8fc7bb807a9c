//! What a cutover wants of the rest of the process, and of other sidecars. The app provides it.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use super::gate::judge::ServiceFact;
use crate::addr::Addr;

/// An answer for people, or why there is none.
pub type Told<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// The databases, seen from here, and the sidecars of other regions.
pub trait World: Send + Sync {
    /// This sidecar's services, as of now.
    fn services(&self) -> Vec<ServiceFact>;

    /// What operators should know as long as it is so; `None`: nothing.
    fn trouble(&self, why: Option<String>);

    /// Makes the database of `service` the primary, at `to` where it says so. What is primary there
    /// already is no error. Dropping it leaves the outcome open.
    fn promote<'a>(
        &'a self,
        service: &'a str,
        to: Option<&'a Addr>,
        limit: Duration,
    ) -> Told<'a, String>;

    /// The services that let clients through at the sidecar behind this admin socket. Cancel safe.
    fn open_services<'a>(&'a self, admin: &'a Path) -> Told<'a, Vec<String>>;

    /// Pauses all services of that sidecar, or lets them go on. Can be repeated.
    fn pause<'a>(&'a self, admin: &'a Path, pause: bool) -> Told<'a, String>;
}
