//! The one place that reads the time.
//!
//! Decisions get a [`Moment`] as an argument, so that tests and simulations can choose it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// A point on the process' monotonic clock: the time since the clock was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    pub const fn from_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// The moment `age` ago; the beginning where that lies before it.
    pub fn before(self, age: Duration) -> Self {
        Self(self.0.saturating_sub(age))
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(rhs))
    }
}

/// Keeps what may happen very often to one line of the log per second.
#[derive(Debug, Default)]
pub struct Seldom(AtomicU64);

impl Seldom {
    /// Whether the last line is a second old.
    pub fn may_speak(&self, now: Moment) -> bool {
        // 0 is "never".
        let now = u64::try_from(now.0.as_millis()).unwrap_or(u64::MAX).max(1);
        let due = |last: u64| (last == 0 || now.saturating_sub(last) >= 1000).then_some(now);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, due)
            .is_ok()
    }
}

/// Monotonic time, and what the wall clock said when it began.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    wall: Timestamp,
}

impl Clock {
    #[allow(clippy::disallowed_methods)] // here is where it is allowed
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
            wall: Timestamp::now(),
        }
    }

    pub fn now(&self) -> Moment {
        Moment(self.origin.elapsed())
    }

    /// The system's monotonic clock in microseconds, as the service manager wants to be told (sd_notify(3),
    /// `MONOTONIC_USEC=`).
    pub fn monotonic_micros() -> i64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec * 1_000_000 + now.tv_nsec / 1000
    }

    /// The runtime's instant for `moment`, to wait for it.
    pub fn instant(&self, moment: Moment) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.origin + moment.0)
    }

    /// What the wall clock says now, its steps included: for signatures that a server compares with
    /// its own clock, and for nothing else.
    #[allow(clippy::disallowed_methods)] // here is where it is allowed
    pub fn wall_now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Wall-clock time of `moment`. Steps of the wall clock after start are not followed, so that
    /// the order of events never changes.
    pub fn wall(&self, moment: Moment) -> Timestamp {
        let nanos = i64::try_from(moment.0.as_nanos()).unwrap_or(i64::MAX);
        self.wall
            .saturating_add(jiff::SignedDuration::from_nanos(nanos))
            .unwrap_or(Timestamp::MAX)
    }
}
