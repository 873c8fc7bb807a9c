//! Logins, under the rule of the relay: nothing from a client to a server that is not the right one.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::relay::{Chunk, Linked, Login, Outcome, Unlink};
use super::{Door, EndReason, refuse};
use crate::monitor::hints::Evidence;
use crate::net::Stream;
use crate::proto::login::{
    ClientEnd, Ends, Leave, LoggedIn, LoginError, LoginFuture, Opening, OpeningFuture, ServerEnd,
};
use crate::proto::track::Farewell;
use crate::signal::{Crossing, Signal};
use crate::topology::pick::{Standing, standing};
use crate::topology::{Endpoint, Occupied, Role};

/// How long a client may take to say who it is (PostgreSQL's `authentication_timeout`).
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server may take to hang up after a message that it does not answer.
const HANG_UP: Duration = Duration::from_secs(1);

/// What the client said first, where the protocol wants that before anything else.
///
/// # Errors
/// The reason why this client needs no server any more.
pub async fn open(client: &mut Stream, door: &Arc<Door>) -> Result<Bytes, EndReason> {
    match door.service.wire.opening(client) {
        None => Ok(Bytes::new()),
        Some(opening) => Box::pin(open_slowly(opening, door)).await,
    }
}

async fn open_slowly(opening: OpeningFuture<'_>, door: &Arc<Door>) -> Result<Bytes, EndReason> {
    let opened = tokio::select! {
        opened = opening => opened,
        () = closing(door) => return Err(EndReason::Drained),
        () = sleep(PATIENCE) => return Err(EndReason::LoginTimeout),
    };
    match opened {
        Ok(Opening::Session(words)) => Ok(words),
        Ok(Opening::Message { to, words }) => {
            if let Some(to) = to {
                deliver(&to, &words, door).await;
            }
            Err(EndReason::CancelRequest)
        }
        Err(error) => Err(ended(&error, door)),
    }
}

async fn closing(door: &Door) {
    loop {
        let rung = door.service.signal.rung();
        if door.service.drain.is_closing() {
            return;
        }
        rung.await;
    }
}

/// Says `words` to the server `to`, if that is one of those that clients may go to now, and waits until
/// it hangs up: then it has read them.
pub async fn deliver(to: &Arc<Endpoint>, words: &[u8], door: &Door) {
    let service = &door.service;
    let pass = Pass::new(door, service.signal.version());
    if !serves(to, door) {
        return;
    }
    let dialled = service
        .dialer
        .dial(
            &to.addr,
            to.server_name.as_deref(),
            service.limits.connect_timeout,
        )
        .await;
    let Ok(server) = dialled else { return };
    let mut server = ServerEnd::new(server, &pass);
    let say = async {
        let words = (to.as_ref(), words);
        service.wire.convey(&mut server, words).await?;
        server.read(&mut [0; 64]).await
    };
    // A server that lost its place meanwhile is not written to, and this then takes its time.
    let _ = timeout(HANG_UP, say).await;
}

/// Whether sessions may be on `endpoint` now.
fn serves(endpoint: &Endpoint, door: &Door) -> bool {
    let topology = door.service.topology.load();
    let is = |other: &Arc<Endpoint>| other.addr == endpoint.addr;
    topology.primary.as_ref().is_some_and(is)
        || topology.leaving.as_ref().is_some_and(|l| is(&l.endpoint))
        || topology.replicas.iter().any(is)
}

/// Logs the client of `linked` in, where its protocol has logins.
///
/// # Errors
/// How the session ended, or that it should be tried elsewhere.
pub async fn run(linked: Linked, opening: &Bytes, door: &Arc<Door>) -> Result<Linked, Outcome> {
    if !door.service.wire.logs_in() {
        return Ok(linked);
    }
    Box::pin(log_in(linked, opening, door)).await
}

/// Why a login goes no further.
enum Halt {
    Failed(LoginError),
    Leave(EndReason),
    /// Another server is the right one now.
    Moved,
    /// Nobody knows which server is, and the client has heard nothing: it is held as others are.
    Unproven,
}

async fn log_in(linked: Linked, opening: &Bytes, door: &Arc<Door>) -> Result<Linked, Outcome> {
    let service = &door.service;
    let endpoint = linked.place.endpoint().clone();
    let pass = Pass::new(door, linked.version);
    let mut ends = Ends {
        client: ClientEnd::new(linked.client),
        server: ServerEnd::new(linked.upstream, &pass),
        endpoint: endpoint.clone(),
        opening: opening.clone(),
    };
    let heard = ends.client.heard();
    let followed = match service.wire.login(&mut ends) {
        None => Err(Halt::Leave(EndReason::ProtocolError)),
        Some(login) => follow(login, (&pass, &heard), &endpoint, door).await,
    };
    let halt = match followed {
        Ok(done) => {
            let version = pass.version.load(Ordering::Relaxed);
            return finished(done, ends, linked.place, version);
        }
        Err(halt) => halt,
    };
    let (heard, cut) = (ends.client.has_heard(), ends.client.is_cut());
    let mut client = ends.client.into_stream();
    let retry = |client, why| Outcome::Unlinked {
        client,
        pending: None,
        why,
    };
    let reason = match halt {
        Halt::Moved if !heard => return Err(retry(client, Unlink::Switched)),
        Halt::Unproven if !heard => return Err(retry(client, Unlink::UpstreamLost)),
        Halt::Moved | Halt::Unproven => EndReason::Switched,
        Halt::Leave(reason) => reason,
        Halt::Failed(error) => {
            let server = matches!(error, LoginError::Server(_) | LoginError::ServerNonsense(_));
            if server {
                door.service.hint(&endpoint, Evidence::Login);
            }
            if server || matches!(error, LoginError::Refused(_)) {
                note_failure(door, &endpoint, &error);
            }
            if server && !heard {
                return Err(retry(client, Unlink::UpstreamLost));
            }
            ended(&error, door)
        }
    };
    if let Some(why) = farewell(reason).filter(|_| !cut)
        && let Some(words) = service.wire.login_ended(why)
    {
        refuse::say(&mut client, &words).await;
    }
    Err(Outcome::Ended(refuse::end(client, reason).await))
}

/// Why a login ended that came to nothing through no fault of its own.
fn farewell(reason: EndReason) -> Option<Farewell> {
    match reason {
        EndReason::Switched => Some(Farewell::Switched),
        EndReason::Drained => Some(Farewell::Drained),
        EndReason::LoginTimeout => Some(Farewell::Idle),
        _ => None,
    }
}

fn finished(
    done: LoggedIn,
    ends: Ends<'_>,
    place: Occupied,
    version: u64,
) -> Result<Linked, Outcome> {
    let Some(upstream) = ends.server.into_stream() else {
        return Err(Outcome::Ended(EndReason::UpstreamError));
    };
    Ok(Linked {
        client: ends.client.into_stream(),
        upstream,
        place,
        version,
        pending: Chunk::from_early(&done.early_up),
        login: Some(Login {
            tracker: done.tracker,
            early_down: Chunk::from_early(&done.early_down),
        }),
    })
}

/// Polls a login while its endpoint is the right one.
async fn follow(
    mut login: LoginFuture<'_>,
    (pass, heard): (&Pass<'_>, &AtomicBool),
    endpoint: &Endpoint,
    door: &Arc<Door>,
) -> Result<LoggedIn, Halt> {
    let signal = &door.service.signal;
    let mut patience = pin!(sleep(PATIENCE));
    loop {
        let mut rung = pin!(signal.rung());
        let version = signal.version();
        let flows = flows(endpoint, door, heard.load(Ordering::Relaxed))?;
        pass.version.store(version, Ordering::Relaxed);
        let event = signal
            .unless_rung(rung.as_mut(), version, |cx| {
                if patience.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Some(Err(Halt::Leave(EndReason::LoginTimeout))));
                }
                if !flows {
                    return Poll::Pending;
                }
                let polled = login.as_mut().poll(cx);
                if pass.denied.swap(false, Ordering::Relaxed) {
                    return Poll::Ready(None);
                }
                polled.map(|done| Some(done.map_err(Halt::Failed)))
            })
            .await;
        if let Some(done) = event {
            return done;
        }
    }
}

/// Whether the login may go on now, by the newest gate and topology.
fn flows(endpoint: &Endpoint, door: &Door, heard: bool) -> Result<bool, Halt> {
    let service = &door.service;
    if service.drain.is_closing() {
        return Err(Halt::Leave(EndReason::Drained));
    }
    // The gate before the topology, see `relay`.
    let open = service.gate.is_open();
    let topology = service.topology.load();
    match standing(&topology, endpoint, door.role, service.fallback) {
        Standing::Wrong | Standing::Leaving(_) => Err(Halt::Moved),
        Standing::Unproven if !heard => Err(Halt::Unproven),
        Standing::Unproven => Ok(false),
        Standing::Right => {
            Ok(open
                || (door.role == Role::Replica && topology.primary_addr() != Some(&endpoint.addr)))
        }
    }
}

fn ended(error: &LoginError, door: &Door) -> EndReason {
    debug!(service = %door.service.name, %error, "login");
    match error {
        LoginError::Refused(_) => EndReason::LoginRefused,
        LoginError::ClientLeft => EndReason::ClientClosed,
        LoginError::Server(_) => EndReason::UpstreamClosed,
        LoginError::ClientNonsense(_) | LoginError::ServerNonsense(_) => EndReason::ProtocolError,
    }
}

/// Tells the log once in a while: a crowd of clients must not fill it.
fn note_failure(door: &Door, endpoint: &Endpoint, error: &LoginError) {
    let service = &door.service;
    if service.login_failures.may_speak(service.clock.now()) {
        warn!(service = %service.name, endpoint = %endpoint.addr, %error, "a server did not let a client in");
    }
}

/// See [`Leave`].
struct Pass<'a> {
    signal: &'a Signal,
    crossing: &'a Crossing,
    version: AtomicU64,
    denied: AtomicBool,
}

impl<'a> Pass<'a> {
    fn new(door: &'a Door, version: u64) -> Self {
        let signal = &door.service.signal;
        Self {
            signal,
            crossing: signal.crossing(door.thread),
            version: AtomicU64::new(version),
            denied: AtomicBool::new(false),
        }
    }
}

impl Leave for Pass<'_> {
    fn attempt(&self, write: &mut dyn FnMut()) -> bool {
        let _crossing = self.crossing.enter();
        let current = self.signal.version() == self.version.load(Ordering::Relaxed);
        match current {
            true => write(),
            false => self.denied.store(true, Ordering::Relaxed),
        }
        current
    }
}
