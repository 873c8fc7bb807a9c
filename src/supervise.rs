//! The only place that spawns. Every task has a name and an end.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
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
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Supervisor {
    /// Cancelled when the tasks are to end.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs a task until it ends or everything stops. It must not end early: that is logged.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let guarded = AssertUnwindSafe(future).catch_unwind();
            tokio::select! {
                () = stop.cancelled() => {}
                ended = guarded => if ended.is_err() {
                    error!(task = name, "a task panicked");
                },
            }
        });
    }

    /// Runs a task that must always run: when it ends or panics, it is made anew after a pause.
    pub fn keep<F>(&self, name: &'static str, mut make: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        self.spawn(name, async move {
            loop {
                let ended = AssertUnwindSafe(make()).catch_unwind().await;
                error!(
                    task = name,
                    panicked = ended.is_err(),
                    "a task ended, starting it again"
                );
                tokio::time::sleep(backoff.next(fastrand::f64())).await;
            }
        });
    }

    /// Ends all tasks and waits for them.
    pub async fn shut_down(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
