//! Accepts clients on one data thread. Nothing that happens to a client ends a listener.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Door, session};
use crate::monitor::backoff::Backoff;
use crate::net::fds::is_resource_error;
use crate::net::listen::Listener;
use crate::supervise;

/// Accepts until `stop`. Established sessions go on.
pub async fn accept_loop(listener: Listener, door: Arc<Door>, stop: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(200));
    let mut short = false;
    let mut stopped = pin!(stop.cancelled());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept_from() => accepted,
            () = &mut stopped => return,
        };
        match accepted {
            Ok((client, from)) => {
                backoff.reset();
                short = false;
                if let Some(entry) = session::enter(&door) {
                    supervise::session(session::run(client, from, door.clone(), entry));
                }
            }
            Err(error) if is_resource_error(&error) => {
                door.service.metrics.accept_resource_errors.increment(1);
                // Once per shortage: the log must not eat what is left.
                if !std::mem::replace(&mut short, true) {
                    warn!(service = %door.service.name, %error, "cannot accept clients for now");
                }
                tokio::time::sleep(backoff.next(fastrand::f64())).await;
            }
            Err(error) => note_connection_error(&door, &error),
        }
    }
}

/// The client was gone before it was accepted (accept(2): ECONNABORTED, EPROTO and their like).
fn note_connection_error(door: &Door, error: &io::Error) {
    door.service.metrics.accept_connection_errors.increment(1);
    tracing::debug!(service = %door.service.name, %error, "a client left before it was accepted");
}
