//! Threads: one for control, N for data.
//!
//! Each data thread is a runtime of its own. A session is born on one and never leaves it, so what it
//! shares with others on its thread needs no lock. Monitors, health and admin live on the control
//! thread, which no amount of traffic can occupy (guarantee G6).

use std::future::Future;
use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

/// The data threads. Dropping stops them without waiting.
pub struct DataThreads {
    threads: Vec<(Handle, Option<JoinHandle<()>>)>,
    stop: CancellationToken,
}

impl DataThreads {
    /// Starts `count` threads; 0 is one per core.
    ///
    /// # Errors
    /// When the system refuses a thread or a poller.
    pub fn start(count: usize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let count = if count == 0 { cores() } else { count };
        let start = |index: usize| {
            let runtime = Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build()?;
            let handle = runtime.handle().clone();
            let stop = stop.clone();
            let thread = std::thread::Builder::new()
                .name(format!("data-{index}"))
                .spawn(move || turn(&runtime, &stop))?;
            Ok((handle, Some(thread)))
        };
        let threads: io::Result<Vec<_>> = (0..count).map(start).collect();
        Ok(Self {
            threads: threads?,
            stop,
        })
    }

    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// Runs a task on one thread until it ends or the thread stops.
    pub fn spawn_on(&self, thread: usize, task: impl Future<Output = ()> + Send + 'static) {
        self.threads[thread].0.spawn(task);
    }

    /// Ends whatever still runs there, and waits for the threads.
    pub fn stop(mut self) {
        self.stop.cancel();
        for thread in self
            .threads
            .iter_mut()
            .filter_map(|(_, thread)| thread.take())
        {
            // A panic has been logged where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for DataThreads {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn turn(runtime: &Runtime, stop: &CancellationToken) {
    runtime.block_on(stop.cancelled());
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The control thread's runtime.
///
/// # Errors
/// When the system refuses a poller.
pub fn control() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
