//! HTTP/1.1 on a listening socket, for the control side: few clients, and none of them trusted to be
//! quick, honest or gone when they should be.

use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::monitor::backoff::Backoff;
use crate::net::Stream;
use crate::net::fds::is_resource_error;
use crate::net::listen::Listener;
use crate::supervise;

/// What one connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a request's head, and idle between two requests.
    pub head: Duration,
    /// For the connection as a whole; then the request at hand is answered and the rest closed.
    /// It bounds a client that sends or reads slowly for ever. `None`: as long as it likes.
    pub lifetime: Option<Duration>,
    pub keep_alive: bool,
}

/// What a request that is being answered gets when its connection's time is over.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Heads of ours are far smaller; hyper wants 8 kB at least.
const MAX_HEAD: usize = 16 * 1024;

/// Accepts until `stop`. What `greet` makes of a connection runs in a task of its own; when it makes
/// nothing of it, because there are too many, it is closed.
pub async fn accept_loop<F>(
    listener: &Listener,
    stop: &CancellationToken,
    mut greet: impl FnMut(Stream) -> Option<F>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(200));
    let mut short = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok(stream) => {
                backoff.reset();
                short = false;
                match greet(stream) {
                    Some(conversation) => supervise::session(conversation),
                    None => debug!("too many control connections, closed one"),
                }
            }
            Err(error) if is_resource_error(&error) => {
                if !std::mem::replace(&mut short, true) {
                    warn!(%error, "cannot accept control connections for now");
                }
                tokio::time::sleep(backoff.next(fastrand::f64())).await;
            }
            Err(error) => debug!(%error, "a client left before it was accepted"),
        }
    }
}

/// Answers the requests of one connection with `service` until either side has had enough.
pub async fn converse<S, B>(stream: Stream, patience: Patience, service: S, stop: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(MAX_HEAD)
        .max_headers(64)
        .keep_alive(patience.keep_alive)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let over = async {
        match patience.lifetime {
            Some(lifetime) => tokio::time::sleep(lifetime).await,
            None => std::future::pending().await,
        }
    };
    // Whatever ends a connection is the client's affair.
    tokio::select! {
        ended = &mut connection => return note(ended),
        () = over => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    if let Ok(ended) = tokio::time::timeout(LAST_WORDS, connection).await {
        note(ended);
    }
}

fn note(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        debug!(%error, "a control connection ended badly");
    }
}
