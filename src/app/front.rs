//! What a service listens on, and who accepts there.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::data::{Door, listener};
use crate::net::listen::{Bound, ThreadSocket};
use crate::runtime::DataThreads;

/// The doors of one service, first shut.
#[derive(Default)]
pub struct Front {
    /// Closed, and Unix sockets removed, when this goes.
    pub bound: Vec<Bound>,
    shut: Vec<(Arc<Door>, ThreadSocket)>,
    /// Ends the accept loops.
    pub stop: CancellationToken,
    loops: TaskTracker,
}

impl Front {
    /// One more, to be opened.
    pub fn hang(&mut self, door: Arc<Door>, socket: ThreadSocket) {
        self.shut.push((door, socket));
    }

    /// Serves. Clients that come before the first proof are held.
    pub fn open(&mut self, threads: &DataThreads) {
        for (door, socket) in self.shut.drain(..) {
            let (thread, stop) = (door.thread, self.stop.clone());
            let accepting = self.loops.track_future(async move {
                match socket.into_listener() {
                    Ok(listener) => listener::accept_loop(listener, door, stop).await,
                    Err(error) => warn!(service = %door.service.name, %error, "cannot listen"),
                }
            });
            threads.spawn_on(thread, accepting);
        }
    }

    /// Completes when nobody is accepted any more: some time after it was told to stop.
    pub async fn stopped(&self) {
        self.loops.close();
        self.loops.wait().await;
    }

    /// Accepts no more, because another process does, in the same sockets.
    pub fn leave(&mut self) {
        self.stop.cancel();
        self.bound.iter_mut().for_each(|bound| bound.leave(true));
        self.bound.clear();
    }
}
