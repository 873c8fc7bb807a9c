//! One client, from accept to its one reason to end.

use std::net::SocketAddr;
use std::sync::Arc;

use super::admit::{Place, Ticket};
use super::connect::{Wish, link};
use super::metrics::Counted;
use super::relay::{self, Outcome, Unlink};
use super::table::{self, Stage};
use super::{Door, EndReason, login, refuse};
use crate::net::Stream;
use crate::proto::Refusal;

/// What a client gets at the door.
pub enum Entry {
    Session(Ticket),
    /// There is no room, but a place to be told so.
    Refusal(Place),
}

/// Counts a client and finds it a place. To be called before anything is awaited: a crowd that has
/// no place must not wait with its descriptors open. `None`: close it.
pub fn enter(door: &Door) -> Option<Entry> {
    door.metrics.total.increment(1);
    let admission = &door.service.admission;
    if let Some(ticket) = admission.admit() {
        return Some(Entry::Session(ticket));
    }
    door.service.metrics.ended(EndReason::TooMany);
    admission.refusing.take().map(Entry::Refusal)
}

/// Serves `client` until it ends. Every way out passes here or `enter` and is counted once.
pub async fn run(client: Stream, from: Option<SocketAddr>, door: Arc<Door>, entry: Entry) {
    let _ticket = match entry {
        Entry::Session(ticket) => ticket,
        Entry::Refusal(place) => {
            return Box::pin(refuse::speak(client, &door, Refusal::TooMany, false, place)).await;
        }
    };
    let _active = Counted::new(&door.metrics.active);
    let service = &door.service;
    let began = service.clock.now();
    let entered = service.table.enter(door.thread, door.role, from, began);
    let reason = serve(client, &door, &entered.entry).await;
    door.service.metrics.ended(reason);
}

async fn serve(mut client: Stream, door: &Arc<Door>, entry: &table::Entry) -> EndReason {
    let service = &door.service;
    let opening = match login::open(&mut client, door).await {
        Ok(opening) => opening,
        Err(reason) => return refuse::end(client, reason).await,
    };
    let spoken = !opening.is_empty();
    let mut wish = Wish {
        client,
        pending: None,
        spoken,
        patience: None,
    };
    loop {
        // Boxed, so that what set-up needs is gone before the long life begins.
        let linked = match Box::pin(link(wish, door)).await {
            Ok(linked) => linked,
            Err(reason) => return reason,
        };
        let patience = linked.patience;
        entry.set_endpoint(Some(linked.session.place.endpoint().clone()));
        entry.set_stage(Stage::LoggingIn);
        let outcome = match login::run(linked.session, &opening, door).await {
            Ok(session) => relay::run(session, door, entry).await,
            Err(outcome) => outcome,
        };
        entry.set_endpoint(None);
        entry.set_stage(Stage::Waiting);
        match outcome {
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
                    if service.wire.logs_in() {
                        refuse::tell(client, door, Refusal::NoPrimary, spoken).await;
                        return EndReason::UpstreamClosed;
                    }
                    return refuse::end(client, EndReason::UpstreamClosed).await;
                }
                wish = Wish {
                    client,
                    pending,
                    spoken,
                    patience,
                };
            }
        }
    }
}
