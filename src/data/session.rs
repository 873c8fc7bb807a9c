//! One client, from accept to its one reason to end.

use std::sync::Arc;

use super::connect::{Wish, link};
use super::metrics::Counted;
use super::relay::{self, Outcome, Unlink};
use super::{Door, EndReason, refuse};
use crate::net::Stream;
use crate::proto::Refusal;

/// Serves `client` until it ends. Every way out passes here and is counted once.
pub async fn run(client: Stream, door: Arc<Door>) {
    door.metrics.total.increment(1);
    let Some(_ticket) = door.service.admission.admit() else {
        door.service.metrics.ended(EndReason::TooMany);
        Box::pin(refuse::tell(client, &door, Refusal::TooMany, false)).await;
        return;
    };
    let _active = Counted::new(&door.metrics.active);
    let reason = serve(client, &door).await;
    door.service.metrics.ended(reason);
}

async fn serve(client: Stream, door: &Arc<Door>) -> EndReason {
    let service = &door.service;
    let mut wish = Wish {
        client,
        pending: None,
        patience: None,
    };
    loop {
        // Boxed, so that what set-up needs is gone before the long life begins.
        let linked = match Box::pin(link(wish, door)).await {
            Ok(linked) => linked,
            Err(reason) => return reason,
        };
        let patience = linked.patience;
        match relay::run(linked.session, door).await {
            Outcome::Ended(reason) => return reason,
            Outcome::Unlinked {
                client,
                pending,
                why,
            } => {
                // A server that takes connections and drops them must not keep a client for ever.
                let patience = (why == Unlink::UpstreamLost).then_some(patience);
                if patience
                    .as_ref()
                    .is_some_and(|p| service.clock.now() >= p.deadline)
                {
                    return refuse::end(client, EndReason::UpstreamClosed).await;
                }
                wish = Wish {
                    client,
                    pending,
                    patience,
                };
            }
        }
    }
}
