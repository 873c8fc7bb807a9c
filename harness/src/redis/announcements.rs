//! What every sentinel publishes, with the time at which it arrived here.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{START, Sentinel};
use crate::resp::{Auth, Conn, Target, Value, is_timeout};
use crate::wait;

/// How soon a thread notices that it should end.
const NOTICE: Duration = Duration::from_millis(50);

/// One published event.
#[derive(Clone, Debug)]
pub struct Announcement {
    pub at: Instant,
    /// Index of the sentinel.
    pub sentinel: usize,
    /// Such as `+switch-master`.
    pub channel: String,
    pub payload: String,
}

impl Announcement {
    /// The new master of a `+switch-master`.
    pub fn switch_to(&self) -> Option<SocketAddr> {
        if self.channel != "+switch-master" {
            return None;
        }
        let words: Vec<&str> = self.payload.rsplitn(3, ' ').collect();
        format!("{}:{}", words.get(1)?, words.first()?).parse().ok()
    }
}

#[derive(Default)]
struct Shared {
    events: Mutex<Vec<Announcement>>,
    arrived: Condvar,
    stop: AtomicBool,
}

/// Records until dropped. A sentinel that is stopped and started again is followed again.
pub struct Announcements {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Announcements {
    pub(super) fn start(sentinels: &[Sentinel]) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut all = Self {
            shared: shared.clone(),
            threads: Vec::new(),
        };
        for (index, sentinel) in sentinels.iter().enumerate() {
            let listener = Listener {
                index,
                target: sentinel.control.into(),
                auth: sentinel.auth(),
                shared: shared.clone(),
            };
            let first = wait::until("a subscription to a sentinel", START, || {
                listener.subscribe().map(Some)
            })?;
            let thread = std::thread::Builder::new()
                .name(format!("announcements-{index}"))
                .spawn(move || listener.run(first))
                .context("starting a listener of announcements")?;
            all.threads.push(thread);
        }
        Ok(all)
    }

    /// Everything so far, in the order of arrival.
    pub fn events(&self) -> Vec<Announcement> {
        self.lock().clone()
    }

    pub fn events_after(&self, t: Instant) -> Vec<Announcement> {
        self.lock()
            .iter()
            .filter(|event| event.at >= t)
            .cloned()
            .collect()
    }

    /// The first `+switch-master` of any sentinel after `t`: from here on everybody can know.
    pub fn first_announcement_after(&self, t: Instant) -> Option<Announcement> {
        self.lock()
            .iter()
            .find(|event| event.at >= t && event.switch_to().is_some())
            .cloned()
    }

    /// [`Self::first_announcement_after`], waiting for it.
    pub fn wait_announcement(&self, t: Instant, timeout: Duration) -> Result<Announcement> {
        self.wait_event("+switch-master", timeout, |event| {
            event.at >= t && event.switch_to().is_some()
        })
    }

    /// The first event, past or to come, that is `wanted`.
    pub fn wait_event(
        &self,
        what: &str,
        timeout: Duration,
        wanted: impl Fn(&Announcement) -> bool,
    ) -> Result<Announcement> {
        let deadline = Instant::now() + timeout;
        let mut events = self.lock();
        loop {
            if let Some(found) = events.iter().find(|event| wanted(event)) {
                return Ok(found.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "waited {timeout:?} for {what}, but the sentinels only said:\n{}",
                    listing(&events)
                );
            }
            events = self
                .shared
                .arrived
                .wait_timeout(events, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Announcement>> {
        self.shared
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Announcements {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn listing(events: &[Announcement]) -> String {
    events
        .iter()
        .map(|it| {
            format!(
                "  sentinel {}: {} {}\n",
                it.sentinel + 1,
                it.channel,
                it.payload
            )
        })
        .collect()
}

struct Listener {
    index: usize,
    target: Target,
    auth: Option<Auth>,
    shared: Arc<Shared>,
}

impl Listener {
    fn subscribe(&self) -> Result<Conn> {
        let mut conn = Conn::connect_auth(&self.target, self.auth.as_ref(), START)?;
        conn.command(&["PSUBSCRIBE", "*"])?.ok()?;
        conn.set_timeout(NOTICE)?;
        Ok(conn)
    }

    fn run(&self, first: Conn) {
        let mut conn = Some(first);
        while !self.shared.stop.load(Ordering::Relaxed) {
            match &mut conn {
                Some(live) => match live.read_value() {
                    Ok(value) => self.record(&value),
                    Err(error) if is_timeout(&error) => {}
                    Err(_) => conn = None,
                },
                None => {
                    std::thread::sleep(NOTICE);
                    conn = self.subscribe().ok();
                }
            }
        }
    }

    fn record(&self, value: &Value) {
        let at = Instant::now();
        let words: Vec<String> = value
            .array()
            .unwrap_or_default()
            .iter()
            .filter_map(Value::text)
            .collect();
        // ["pmessage", pattern, channel, payload]
        if let [kind, _, channel, payload] = words.as_slice()
            && kind == "pmessage"
        {
            let event = Announcement {
                at,
                sentinel: self.index,
                channel: channel.clone(),
                payload: payload.clone(),
            };
            self.shared
                .events
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(event);
            self.shared.arrived.notify_all();
        }
    }
}
