//! The service manager (systemd): told what goes on, given the listening sockets to keep, and shown that
//! the control thread turns. Without one, nothing of this does anything.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use crate::addr::Addr;
use crate::clock::Clock;
use crate::net::listen::Bound;
use crate::net::notify::Notifier;
use crate::telemetry::surface::Surface;

/// Between two looks at what the status line should say.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// What stopping takes beyond `drain_timeout`, and room for a busy host.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// The way to it, if there is one.
#[derive(Debug, Default)]
pub struct Manager {
    notifier: Option<Notifier>,
    /// How many descriptors it keeps: `FileDescriptorStoreMax=` (systemd.exec(5), `$FDSTORE`).
    store_max: usize,
    /// What it keeps, and how many of each.
    stored: Mutex<BTreeMap<String, usize>>,
    /// Another process speaks for the service now.
    succeeded: AtomicBool,
    /// A sign of life is expected this often.
    watchdog: Option<Duration>,
}

impl Manager {
    /// The one that this process was started by.
    pub fn from_environment() -> Arc<Self> {
        let notifier = match Notifier::from_environment() {
            Ok(notifier) => notifier,
            Err(error) => {
                warn!(%error, "the service manager cannot be told anything");
                None
            }
        };
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        // It may be meant for another process (sd_watchdog_enabled(3)).
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0);
        let store_max = number("FDSTORE").and_then(|n| usize::try_from(n).ok());
        Arc::new(Self {
            store_max: store_max.filter(|_| notifier.is_some()).unwrap_or_default(),
            notifier,
            stored: Mutex::default(),
            succeeded: AtomicBool::new(false),
            watchdog: watchdog.map(Duration::from_micros),
        })
    }

    fn send(&self, lines: &str, fds: &[BorrowedFd<'_>]) -> bool {
        let Some(notifier) = &self.notifier else {
            return false;
        };
        if self.succeeded.load(Ordering::Relaxed) {
            return false;
        }
        let sent = notifier.send(lines, fds);
        if let Err(error) = &sent {
            warn!(%error, "the service manager was not told");
        }
        sent.is_ok()
    }

    /// It serves.
    pub fn ready(&self) {
        self.send("READY=1\n", &[]);
    }

    /// It follows a changed file; `ready` ends that, whatever came of it.
    pub fn reloading(&self) {
        let now = Clock::monotonic_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}\n"), &[]);
    }

    /// It ends, which takes at most `patience` and a little.
    pub fn stopping(&self, patience: Duration) {
        let micros = patience.saturating_add(STOP_MARGIN).as_micros();
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\n"), &[]);
    }

    /// Another process is the service now, and this one has nothing more to say.
    pub fn succeeded_by(&self, pid: u32) {
        self.send(&format!("MAINPID={pid}\n"), &[]);
        self.succeeded.store(true, Ordering::Relaxed);
    }

    /// Has it keep the sockets of all of `bound`, and of nothing else: after a restart or a crash they
    /// come back with whoever connected meanwhile. Whatever it keeps stays where it is when we end.
    pub fn keep<'a>(&self, bound: impl Iterator<Item = &'a mut Bound>) {
        if self.store_max == 0 {
            return;
        }
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *stored);
        let mut total = 0;
        for bound in bound {
            let (name, count) = (name_of(&bound.addr), bound.sockets().count());
            total += count;
            if total > self.store_max {
                warn!(
                    addr = %bound.addr, max = self.store_max,
                    "FileDescriptorStoreMax= is too small: a restart will refuse clients here"
                );
                continue;
            }
            if before.remove(&name) != Some(count) {
                self.store(&name, bound);
            }
            bound.leave(true);
            stored.insert(name, count);
        }
        drop(stored);
        self.forget(before.into_keys());
    }

    fn store(&self, name: &str, bound: &Bound) {
        let fds: Vec<BorrowedFd<'_>> = bound.sockets().collect();
        for some in fds.chunks(32) {
            self.send(&format!("FDSTORE=1\nFDNAME={name}\n"), some);
        }
    }

    /// Has it close what nobody listens on any more.
    pub fn forget(&self, names: impl IntoIterator<Item = String>) {
        for name in names {
            self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), &[]);
        }
    }

    /// Whether it keeps what this process listens on, so that clients wait there meanwhile.
    pub fn keeps(&self) -> bool {
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        !stored.is_empty()
    }

    /// Pings at half the interval that it wants, for as long as the control thread turns: on that this
    /// runs, as `/livez` does. Says how things are beside that.
    pub async fn attend(self: Arc<Self>, surface: Arc<Surface>) {
        if self.notifier.is_none() {
            return std::future::pending().await;
        }
        let every = self.watchdog.map(|interval| interval / 2);
        if let Some(every) = every {
            info!(event = "watchdog", ?every, "the service manager watches");
        }
        let pings = async {
            loop {
                self.send("WATCHDOG=1\n", &[]);
                match every {
                    Some(every) => tokio::time::sleep(every).await,
                    None => std::future::pending().await,
                }
            }
        };
        let words = async {
            let mut said = String::new();
            loop {
                let status = status(&surface);
                if status != said {
                    self.send(&format!("STATUS={status}\n"), &[]);
                    said = status;
                }
                tokio::time::sleep(STATUS_EVERY).await;
            }
        };
        tokio::join!(pings, words);
    }
}

/// `ok: cache at 10.0.0.1:6379, shop without primary`
fn status(surface: &Surface) -> String {
    let health = surface.health();
    let services = health
        .services
        .iter()
        .map(|(name, service)| match &service.primary {
            Some(primary) => format!("{name} at {primary}"),
            None => format!("{name} without primary"),
        });
    let services: Vec<String> = services.take(20).collect();
    format!("{}: {}", health.status.as_str(), services.join(", "))
}

/// What a descriptor is called: letters of the address, without the colon that separates names
/// (sd_notify(3), `FDNAME=`).
pub fn name_of(addr: &Addr) -> String {
    let plain = |c: char| match c {
        c if c.is_ascii_alphanumeric() || "._/-[]".contains(c) => c,
        _ => '_',
    };
    addr.to_string().chars().map(plain).take(255).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_descriptors() {
        for (addr, name) in [
            ("127.0.0.1:6379", "127.0.0.1_6379"),
            ("[::1]:6379", "[__1]_6379"),
            ("unix:/run/a b/é.sock", "unix_/run/a_b/_.sock"),
        ] {
            assert_eq!(name_of(&addr.parse().unwrap()), name);
        }
    }
}
