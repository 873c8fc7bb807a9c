//! From an admitted client to a linked session: hold, pick, dial, and again until the deadline.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SemaphorePermit;

use super::admit::Place;
use super::metrics::Counted;
use super::relay::{Chunk, Linked};
use super::{Door, EndReason, refuse};
use crate::clock::Moment;
use crate::monitor::backoff::Backoff;
use crate::monitor::hints::Evidence;
use crate::net::Stream;
use crate::net::dial::later;
use crate::proto::Refusal;
use crate::topology::pick::{Pick, Standing, pick, standing};
use crate::topology::{Endpoint, Occupied, Role};

/// A connect that begins shortly before the deadline still gets this long.
const SHORTEST_CONNECT: Duration = Duration::from_millis(100);

/// A client that wants a session.
pub struct Wish {
    pub client: Stream,
    /// Read from it already, and sent to nobody.
    pub pending: Option<Chunk>,
    /// Its first words were read in another way, so that an answer is expected.
    pub spoken: bool,
    /// What is left of the patience with a server that took the client and dropped it untouched;
    /// `None`: all of it.
    pub patience: Option<Patience>,
}

/// Until when a client is held, and how long it waits before the next try.
pub struct Patience {
    pub deadline: Moment,
    backoff: Backoff,
}

/// A session, and the patience that its client has left.
pub struct Established {
    pub session: Linked,
    pub patience: Patience,
}

/// What can happen to a client that waits.
enum Waited {
    LookAgain,
    TimedOut,
    ClientLeft,
}

/// A dialled endpoint.
struct Dialled {
    upstream: Stream,
    place: Occupied,
    version: u64,
}

enum Attempt {
    Done(Dialled),
    /// Nothing is fit now.
    Closed,
    /// No replica is fit, and the config says to refuse.
    Refuse,
    Failed,
}

/// Links `wish` to an endpoint, or tells the client why not. Cancel safe: dropping closes both
/// sockets.
pub async fn link(wish: Wish, door: &Arc<Door>) -> Result<Established, EndReason> {
    let spoken = wish.spoken || wish.pending.is_some();
    let dropped = wish.patience.is_some();
    let mut setup = SetUp::new(wish.patience, door);
    let client = wish.client;
    let mut first = true;
    loop {
        let rung = door.service.signal.rung();
        let attempt = match std::mem::take(&mut first) && dropped {
            // A server that drops whom it takes is as little help as one that takes nobody.
            true => Ok(Attempt::Failed),
            false => setup.attempt(&client).await,
        };
        let waited = match attempt {
            Ok(Attempt::Done(dialled)) => {
                return Ok(setup.established(client, wish.pending, dialled));
            }
            Ok(Attempt::Refuse) => {
                refuse::tell(client, door, Refusal::NoPrimary, spoken).await;
                return Err(EndReason::NoReplica);
            }
            Ok(Attempt::Closed) if !setup.hold() => {
                refuse::tell(client, door, Refusal::NoPrimary, spoken).await;
                return Err(EndReason::HoldFull);
            }
            Ok(Attempt::Closed) => setup.wait(&client, rung, None).await,
            Ok(Attempt::Failed) => {
                let pause = setup.patience.backoff.next(fastrand::f64());
                setup.wait(&client, rung, Some(pause)).await
            }
            Err(waited) => waited,
        };
        match waited {
            Waited::LookAgain => {}
            Waited::ClientLeft => return Err(EndReason::HeldClientLeft),
            Waited::TimedOut => {
                setup.count_hold();
                if door.service.drain.is_closing() {
                    return Err(refuse::end(client, EndReason::Drained).await);
                }
                refuse::tell(client, door, Refusal::NoPrimary, spoken).await;
                return Err(EndReason::HoldTimeout);
            }
        }
    }
}

struct SetUp<'a> {
    door: &'a Arc<Door>,
    began: Moment,
    patience: Patience,
    held: Option<(Place, Counted)>,
}

impl<'a> SetUp<'a> {
    fn new(patience: Option<Patience>, door: &'a Arc<Door>) -> Self {
        let began = door.service.clock.now();
        let whole = || Patience {
            deadline: began + door.service.limits.hold_timeout,
            backoff: Backoff::new(Duration::from_millis(10), Duration::from_millis(250)),
        };
        Self {
            door,
            began,
            patience: patience.unwrap_or_else(whole),
            held: None,
        }
    }

    /// Counts the client as held. `false`: there is no room.
    fn hold(&mut self) -> bool {
        if self.held.is_none() {
            let service = &self.door.service;
            let place = service.admission.held.take();
            self.held = place.map(|place| (place, Counted::new(&service.metrics.held)));
        }
        self.held.is_some()
    }

    fn count_hold(&mut self) {
        if self.held.take().is_some() {
            let service = &self.door.service;
            let waited = service.clock.now().since(self.began);
            service.metrics.hold_seconds.record(waited.as_secs_f64());
        }
    }

    fn established(
        mut self,
        client: Stream,
        pending: Option<Chunk>,
        dialled: Dialled,
    ) -> Established {
        self.count_hold();
        let Dialled {
            upstream,
            place,
            version,
        } = dialled;
        Established {
            session: Linked {
                client,
                upstream,
                place,
                version,
                pending,
                login: None,
            },
            patience: self.patience,
        }
    }

    /// The endpoint to go to now, if the gate and the topology have one.
    fn choose(&self) -> Pick {
        let service = &self.door.service;
        // The gate before the topology, see `relay`.
        let open = service.gate.is_open();
        let topology = service.topology.load();
        let picked = pick(&topology, self.door.role, service.fallback);
        match &picked {
            Pick::Go(endpoint) if !open => {
                let primary = topology.primary_addr() == Some(&endpoint.addr);
                if primary || self.door.role == Role::Primary {
                    Pick::Wait
                } else {
                    picked
                }
            }
            _ => picked,
        }
    }

    async fn attempt(&mut self, client: &Stream) -> Result<Attempt, Waited> {
        if self.door.service.drain.is_closing() {
            return Err(Waited::TimedOut);
        }
        let mut turn = self.door.service.connecting.try_acquire().ok();
        loop {
            // Waiting for a turn may take long: choose by what is true after it.
            let version = self.door.service.signal.version();
            let endpoint = match self.choose() {
                Pick::Go(endpoint) => endpoint,
                Pick::Wait => return Ok(Attempt::Closed),
                Pick::Refuse => return Ok(Attempt::Refuse),
            };
            if turn.is_some() {
                return self.dial(endpoint, version).await;
            }
            turn = Some(self.pace(client).await?);
        }
    }

    /// One of `max_connecting` turns.
    async fn pace(&self, client: &Stream) -> Result<SemaphorePermit<'a>, Waited> {
        let service = &self.door.service;
        if let Ok(permit) = service.connecting.try_acquire() {
            return Ok(permit);
        }
        tokio::select! {
            permit = service.connecting.acquire() => permit.map_err(|_| Waited::TimedOut),
            () = client.peer_gone() => Err(Waited::ClientLeft),
            () = tokio::time::sleep_until(service.clock.instant(self.patience.deadline)) => {
                Err(Waited::TimedOut)
            }
        }
    }

    /// One connect. Given up when the topology moves on, so that nobody waits for a dead server
    /// while the new one is known.
    async fn dial(&self, endpoint: Arc<Endpoint>, version: u64) -> Result<Attempt, Waited> {
        let service = &self.door.service;
        let began = service.clock.now();
        let left = self.patience.deadline.since(began).max(SHORTEST_CONNECT);
        let limit = service.limits.connect_timeout.min(left);
        // Before the dial: a crowd that connects at once must spread over the replicas.
        let place = endpoint.occupy();
        let dial = service
            .dialer
            .dial(&endpoint.addr, endpoint.server_name.as_deref(), limit);
        let dialled = tokio::select! {
            biased;
            dialled = dial => dialled,
            () = later(self.moved_on(&endpoint)) => return Err(Waited::LookAgain),
        };
        match dialled {
            Ok(upstream) => {
                let took = service.clock.now().since(began);
                service.metrics.connect_seconds.record(took.as_secs_f64());
                Ok(Attempt::Done(Dialled {
                    upstream,
                    place,
                    version,
                }))
            }
            Err(error) => {
                service.metrics.connect_errors.increment(1);
                tracing::debug!(service = %service.name, addr = %endpoint.addr, %error, "connect");
                if !error.is_local() {
                    service.hint(&endpoint, Evidence::Connect);
                }
                Ok(Attempt::Failed)
            }
        }
    }

    async fn moved_on(&self, endpoint: &Endpoint) {
        let service = &self.door.service;
        loop {
            let rung = service.signal.rung();
            let topology = service.topology.load();
            let now = standing(&topology, endpoint, self.door.role, service.fallback);
            if now != Standing::Right || service.drain.is_closing() {
                return;
            }
            rung.await;
        }
    }

    /// Waits for a change, at most for `pause`.
    async fn wait(
        &self,
        client: &Stream,
        rung: tokio::sync::futures::Notified<'_>,
        pause: Option<Duration>,
    ) -> Waited {
        let clock = &self.door.service.clock;
        let pause = pause.map(|pause| clock.now() + pause);
        let until = pause.map_or(self.patience.deadline, |at| at.min(self.patience.deadline));
        tokio::select! {
            biased;
            () = rung => Waited::LookAgain,
            () = client.peer_gone() => Waited::ClientLeft,
            () = tokio::time::sleep_until(clock.instant(until)) => {
                if until == self.patience.deadline { Waited::TimedOut } else { Waited::LookAgain }
            }
        }
    }
}
