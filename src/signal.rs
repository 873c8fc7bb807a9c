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
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
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
    /// Rings that are not over yet. Counted before the version, so whoever has that has this.
    ringing: AtomicUsize,
    waiters: Notify,
    crossings: Crossings,
}

impl Signal {
    pub fn new(crossings: Crossings) -> Arc<Self> {
        Arc::new(Self {
            version: AtomicU64::new(0),
            ringing: AtomicUsize::new(0),
            waiters: Notify::new(),
            crossings,
        })
    }

    /// Says that something changed. When it returns, no data thread is writing any more because of
    /// what held before; what it writes from now on, it decided after seeing the change.
    pub fn ring(&self) {
        self.ringing.fetch_add(1, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
        fence(Ordering::SeqCst);
        for crossing in self.crossings.iter() {
            crossing.passed();
        }
        self.waiters.notify_waiters();
        self.ringing.fetch_sub(1, Ordering::Release);
    }

    /// The count of changes so far. Read it *before* the values it stands for.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Completes at the next [`Signal::ring`] after this call, polled or not. Cancel safe.
    pub fn rung(&self) -> Notified<'_> {
        self.waiters.notified()
    }

    /// Polls `work` until it is ready. `None`: it said so, or there was a ring since `version` was read
    /// (which was after `rung` was made). It may be `None` without one. Only for a task of its own: its
    /// waker must not change.
    pub async fn unless_rung<T>(
        &self,
        mut rung: Pin<&mut Notified<'_>>,
        version: u64,
        mut work: impl FnMut(&mut Context<'_>) -> Poll<Option<T>>,
    ) -> Option<T> {
        // Registering takes a lock, so it is done once; after that the version says the same. But a ring
        // that `version` counts already may still be about to tell its waiters. That would use up the
        // registration, and the next ring would reach nobody: until it is over, ask.
        let mut settled = false;
        poll_fn(|cx| {
            if !settled {
                // In this order: what has ended by now has told its waiters before the next line.
                settled = self.ringing.load(Ordering::Acquire) == 0;
                if rung.as_mut().poll(cx).is_ready() {
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
    use std::pin::pin;
    use std::sync::atomic::AtomicBool;
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wakes {
        fn count(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

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

    /// A ring in slow motion, met by a session after each of its steps: however that falls, the session
    /// hears the next ring.
    #[test]
    fn who_looks_in_the_middle_of_a_ring_hears_the_next_one() {
        for (made, polled) in [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 3)] {
            let signal = Signal::new(crossings(0));
            let wakes = Arc::new(Wakes::default());
            let waker = Waker::from(wakes.clone());
            let mut cx = Context::from_waker(&waker);
            let step = |n: u32| match n {
                0 => drop(signal.ringing.fetch_add(1, Ordering::Relaxed)),
                1 => drop(signal.version.fetch_add(1, Ordering::Release)),
                2 => signal.waiters.notify_waiters(),
                _ => drop(signal.ringing.fetch_sub(1, Ordering::Release)),
            };
            let mut at = 0;
            let mut until = |wanted: u32| {
                while at <= wanted {
                    step(at);
                    at += 1;
                }
            };
            until(made);
            let mut rung = pin!(signal.rung());
            let version = signal.version();
            until(polled);
            let idle = |_: &mut Context<'_>| Poll::<Option<()>>::Pending;
            let mut wait = pin!(signal.unless_rung(rung.as_mut(), version, idle));
            let mut told = wait.as_mut().poll(&mut cx).is_ready();
            until(3);
            if !told && wakes.count() > 0 {
                told = wait.as_mut().poll(&mut cx).is_ready();
            }
            if !told {
                let before = wakes.count();
                signal.ring();
                assert!(
                    wakes.count() > before,
                    "made after step {made}, polled after {polled}"
                );
            }
        }
    }
}
