//! "Look again": one signal per service, and the proof that every data thread has seen it.
//!
//! Publishing a topology, shutting a gate and ending a drain all mean the same to a session: what it
//! knew may no longer hold. They change their own value first and then [`Signal::ring`].
//!
//! `ring` returns when no data thread is still writing on the strength of what was true before. That
//! closes the gap between a session's check and its write, which would otherwise let a request slip
//! to the previous primary just after the next one was published (guarantee G1).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// A data thread's "I am writing" flag: odd while it checks and writes. On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Crossing(AtomicU64);

impl Crossing {
    /// Marks the thread as writing until the guard goes. Only the owning thread may call it, and
    /// never twice at a time.
    pub fn enter(&self) -> CrossingGuard<'_> {
        let odd = self.0.load(Ordering::Relaxed) | 1;
        self.0.store(odd, Ordering::Relaxed);
        // Pairs with the fence in `ring`: either this thread sees the new version, or `ring` sees
        // the odd count and waits.
        fence(Ordering::SeqCst);
        CrossingGuard(self, odd)
    }

    /// Waits until a write that was under way when called has ended.
    fn passed(&self) {
        let seen = self.0.load(Ordering::Acquire);
        if seen.is_multiple_of(2) {
            return;
        }
        let mut spins = 0_u32;
        while self.0.load(Ordering::Acquire) == seen {
            // The other side makes at most one non-blocking system call; it is only late when it was
            // descheduled, and then it needs our core.
            spins += 1;
            if spins < 64 {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

/// Ends the mark of [`Crossing::enter`].
pub struct CrossingGuard<'a>(&'a Crossing, u64);

impl Drop for CrossingGuard<'_> {
    fn drop(&mut self) {
        self.0.0.store(self.1.wrapping_add(1), Ordering::Release);
    }
}

/// The flags of all data threads.
pub type Crossings = Arc<[Crossing]>;

/// Flags for `threads` data threads.
pub fn crossings(threads: usize) -> Crossings {
    (0..threads).map(|_| Crossing::default()).collect()
}

/// A service's version count, its waiters, and the threads that must have noticed.
#[derive(Debug)]
pub struct Signal {
    version: AtomicU64,
    waiters: Notify,
    crossings: Crossings,
}

impl Signal {
    pub fn new(crossings: Crossings) -> Arc<Self> {
        Arc::new(Self {
            version: AtomicU64::new(0),
            waiters: Notify::new(),
            crossings,
        })
    }

    /// Says that something changed. When it returns, no data thread is writing any more because of
    /// what held before; what it writes from now on, it decided after seeing the change.
    pub fn ring(&self) {
        self.version.fetch_add(1, Ordering::Release);
        fence(Ordering::SeqCst);
        for crossing in self.crossings.iter() {
            crossing.passed();
        }
        self.waiters.notify_waiters();
    }

    /// The count of changes so far. Read it *before* the values it stands for.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Completes at the next [`Signal::ring`] after this call, polled or not. Cancel safe.
    pub fn rung(&self) -> Notified<'_> {
        self.waiters.notified()
    }

    /// Polls `work` until it is ready. `None`: it said so, or there was a ring since `rung` was made,
    /// or one after `version` was read. Only for a task of its own: its waker must not change.
    pub async fn unless_rung<T>(
        &self,
        mut rung: Pin<&mut Notified<'_>>,
        version: u64,
        mut work: impl FnMut(&mut Context<'_>) -> Poll<Option<T>>,
    ) -> Option<T> {
        // Registering once is enough; after that the version says the same without a lock.
        let mut registered = false;
        poll_fn(|cx| {
            if !registered {
                registered = true;
                if rung.as_mut().poll(cx).is_ready() {
                    // Rung before it could register: it never will. `version` may be the new one, for
                    // the waiters are told after it is counted.
                    return Poll::Ready(None);
                }
            }
            if self.version() != version {
                return Poll::Ready(None);
            }
            work(cx)
        })
        .await
    }

    /// This data thread's flag.
    pub fn crossing(&self, thread: usize) -> &Crossing {
        &self.crossings[thread]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    /// After `ring` nobody acts on the old value: the threads below would set `stale` otherwise.
    #[test]
    fn after_ring_nobody_crosses_on_the_old_version() {
        let signal = Signal::new(crossings(2));
        let (published, stale, stop) = (
            AtomicU64::new(0),
            AtomicBool::new(false),
            AtomicBool::new(false),
        );
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (signal, published, stale, stop) = (&signal, &published, &stale, &stop);
                scope.spawn(move || {
                    let mut known = signal.version();
                    while !stop.load(Ordering::Relaxed) {
                        let guard = signal.crossing(thread).enter();
                        if signal.version() == known {
                            // "The write": what was announced as passed must not be newer.
                            if published.load(Ordering::SeqCst) > known {
                                stale.store(true, Ordering::SeqCst);
                            }
                        }
                        drop(guard);
                        known = signal.version();
                    }
                });
            }
            for round in 1..=20_000 {
                signal.ring();
                published.store(round, Ordering::SeqCst);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(!stale.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_ring_between_look_and_wait_is_not_lost() {
        let signal = Signal::new(crossings(0));
        let rung = signal.rung();
        signal.ring();
        rung.await;
        assert_eq!(signal.version(), 1);
    }

    /// The version is counted before the waiters are told. Whoever looks in between has the new one,
    /// and hears of it again when it waits: it must then wait anew, or no later ring reaches it.
    #[tokio::test]
    async fn who_looked_in_the_middle_of_a_ring_hears_the_next_one() {
        let signal = Signal::new(crossings(0));
        let mut rung = std::pin::pin!(signal.rung());
        signal.ring();
        let version = signal.version();
        let idle = |_: &mut Context<'_>| Poll::<Option<()>>::Pending;
        let woken = signal.unless_rung(rung.as_mut(), version, idle);
        let limit = std::time::Duration::from_secs(5);
        assert_eq!(tokio::time::timeout(limit, woken).await, Ok(None));
    }
}
