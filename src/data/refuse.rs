//! Telling a client, in its own words, that it cannot have a session.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::admit::Place;
use super::{Door, EndReason, login};
use crate::net::Stream;
use crate::proto::Refusal;
use crate::proto::login::Opening;

/// How long a client that speaks first may take to do so, and then to hang up.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of a request that are read and thrown away while a client is told off.
const DISCARDED: u64 = 1 << 20;

/// Says `why` and closes. With too many at it already, the connection is just closed. `spoken`: the
/// client's request was read already.
pub async fn tell(client: Stream, door: &Door, why: Refusal, spoken: bool) {
    if let Some(place) = door.service.admission.refusing.take() {
        // Boxed, so that its buffers are not part of every session that never needs it.
        Box::pin(speak(client, door, why, spoken, place)).await;
    }
}

/// As [`tell`], with a place among those that are told off.
pub async fn speak(mut client: Stream, door: &Door, why: Refusal, spoken: bool, _place: Place) {
    let service = &door.service;
    let Some(words) = service.wire.refusal(why) else {
        let _ = end(client, EndReason::TooMany).await;
        return;
    };
    if !spoken && let Some(opening) = service.wire.opening(&mut client) {
        // A protocol with an opening has to be heard out before it takes any words.
        match timeout(PATIENCE, opening).await {
            Ok(Ok(Opening::Session(_))) => {}
            // Who has no room for one more can still be helped to end what others do.
            Ok(Ok(Opening::Message {
                to: Some(to),
                words,
            })) => return login::deliver(&to, &words, door).await,
            _ => return,
        }
    } else if service.wire.client_speaks_first() && !spoken {
        // As the answer to a request: an unexpected word would be taken for the answer to the next.
        let mut first = [0; 1024];
        match timeout(PATIENCE, client.read(&mut first)).await {
            Ok(Ok(n)) if n > 0 => {}
            _ => return,
        }
    }
    if client.write_all(&words).await.is_err() || client.shutdown().await.is_err() {
        return;
    }
    // Closing with a request unread would send RST, and the words would be lost on their way.
    let mut rest = client.take(DISCARDED);
    let _ = timeout(PATIENCE, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}

/// One try: a client that does not read need not be told.
pub async fn say(client: &mut Stream, words: &[u8]) {
    poll_fn(|cx| {
        let _ = Pin::new(&mut *client).poll_write(cx, words);
        Poll::Ready(())
    })
    .await;
}

/// Closes without a word.
pub async fn end(mut client: Stream, reason: EndReason) -> EndReason {
    let _ = client.shutdown().await;
    client.discard_received(64 * 1024);
    reason
}
