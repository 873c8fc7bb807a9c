//! The only place that spawns. Every task has a name and an end.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::monitor::backoff::Backoff;

/// Runs a session on the calling data thread. A panic would end this session alone, and is logged.
pub fn session(future: impl Future<Output = ()> + Send + 'static) {
    #[allow(clippy::disallowed_methods)] // here is where it is allowed
    tokio::spawn(future);
}

/// Long-lived tasks of the control side.
#[derive(Clone, Debug)]
pub struct Supervisor {
    tasks: TaskTracker,
    stop: CancellationToken,
    lost: Arc<watch::Sender<Option<&'static str>>>,
    restarts: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Default for Supervisor {
    fn default() -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        Self {
            tasks,
            stop,
            lost: Arc::new(watch::channel(None).0),
            restarts: Arc::default(),
        }
    }
}

impl Supervisor {
    /// Cancelled when the tasks are to end.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs a task until it ends or everything stops. A panic is logged.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.spawn_then(name, future, || ());
    }

    /// Runs a task that must not end before everything stops: see [`Supervisor::lost`].
    pub fn essential(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.essential_until(CancellationToken::new(), name, future);
    }

    /// As [`Supervisor::essential`], until it is not needed any more and `done` ends it.
    pub fn essential_until(
        &self,
        done: CancellationToken,
        name: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let lost = self.lost.clone();
        let needed = done.clone();
        let future = async move {
            tokio::select! {
                () = done.cancelled() => {}
                () = future => {}
            }
        };
        self.spawn_then(name, future, move || {
            if !needed.is_cancelled() {
                error!(task = name, "an essential task ended");
                lost.send_replace(Some(name));
            }
        });
    }

    fn spawn_then(
        &self,
        name: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
        then: impl FnOnce() + Send + 'static,
    ) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let guarded = AssertUnwindSafe(future).catch_unwind();
            tokio::select! {
                () = stop.cancelled() => {}
                ended = guarded => {
                    if ended.is_err() {
                        error!(task = name, "a task panicked");
                    }
                    then();
                }
            }
        });
    }

    /// Completes with the name of the first essential task that ended. Cancel safe.
    pub async fn lost(&self) -> &'static str {
        let mut lost = self.lost.subscribe();
        match lost.wait_for(Option::is_some).await {
            Ok(name) => name.unwrap_or("supervisor"),
            Err(_) => std::future::pending().await,
        }
    }

    /// Runs a task that must always run: when it ends or panics, it is made anew after a pause.
    pub fn keep<F>(&self, name: &'static str, mut make: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let restarts = self.restarts.clone();
        let count = move |more| {
            let mut restarts = restarts.lock().unwrap_or_else(PoisonError::into_inner);
            *restarts.entry(name).or_default() += more;
        };
        count(0);
        self.spawn(name, async move {
            loop {
                let ended = AssertUnwindSafe(make()).catch_unwind().await;
                error!(
                    task = name,
                    panicked = ended.is_err(),
                    "a task ended, starting it again"
                );
                count(1);
                tokio::time::sleep(backoff.next(fastrand::f64())).await;
            }
        });
    }

    /// The tasks that are kept, and how often each was made anew.
    pub fn restarts(&self) -> Vec<(&'static str, u64)> {
        let restarts = self.restarts.lock().unwrap_or_else(PoisonError::into_inner);
        restarts
            .iter()
            .map(|(name, count)| (*name, *count))
            .collect()
    }

    /// Ends all tasks and waits for them.
    pub async fn shut_down(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_loss_of_an_essential_task_is_told() {
        let supervisor = Supervisor::default();
        supervisor.spawn("other", async { panic!("not essential") });
        supervisor.essential("monitor", async { panic!("gone") });
        assert_eq!(supervisor.lost().await, "monitor");
    }

    #[tokio::test]
    async fn a_kept_task_is_made_anew_and_counted() {
        let supervisor = Supervisor::default();
        let (again, mut made) = tokio::sync::mpsc::unbounded_channel();
        supervisor.keep("restless", move || {
            let again = again.clone();
            async move { again.send(()).expect("somebody counts") }
        });
        for _ in 0..3 {
            made.recv().await;
        }
        let restarts = supervisor.restarts();
        assert!(
            restarts[0].0 == "restless" && restarts[0].1 >= 2,
            "{restarts:?}"
        );
        supervisor.shut_down().await;
    }

    #[tokio::test]
    async fn stopping_is_no_loss() {
        let supervisor = Supervisor::default();
        supervisor.essential("monitor", std::future::pending());
        supervisor.shut_down().await;
        assert!(supervisor.lost.borrow().is_none());
    }
}
