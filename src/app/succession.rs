//! Takeovers, as the app goes through them: as elder on SIGUSR2, as heir at the start.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{error, info, warn};

use super::manager::name_of;
use super::service::Running;
use super::signals::Signals;
use super::takeover::elder::{self, Plan, Successor, TakeoverError};
use super::takeover::heir::{Heir, HeirError};
use super::takeover::{Estate, MOST_HISTORY, Offer, Offered, PROTOCOL};
use super::{App, AppError, DRAIN_LOOK};
use crate::drain::Phase;
use crate::events::Entry;
use crate::gate::HoldReason;
use crate::net::listen::Bound;

/// For the primaries that the elder has. It is longer than any monitor takes where all is well.
const PROVEN_WITHIN: Duration = Duration::from_secs(15);

type Outcome = Result<Successor, TakeoverError>;

/// As elder.
pub struct Successions {
    /// What to start; see [`elder::program`].
    program: PathBuf,
    under_way: Option<Pin<Box<dyn Future<Output = Outcome>>>>,
}

impl Successions {
    pub fn new() -> Self {
        Self {
            program: elder::program(),
            under_way: None,
        }
    }

    pub fn under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Ends the other process, since this one ends too and was told first.
    pub fn abandon(&mut self) {
        self.under_way = None;
    }

    /// Completes when another process serves, or why none does. Cancel safe.
    pub async fn outcome(&mut self) -> Outcome {
        let Some(under_way) = &mut self.under_way else {
            return std::future::pending().await;
        };
        let outcome = under_way.await;
        self.under_way = None;
        outcome
    }
}

impl App {
    /// Starts another process, to which everything is offered.
    pub(super) fn begin_succession(&mut self) {
        if self.successions.under_way() {
            return warn!("SIGUSR2: a takeover is under way already");
        }
        let cutover = self.controls.cutover.as_ref();
        // It would end in the middle, with this process.
        let moving = cutover.is_some_and(|desk| desk.running().is_some());
        let busy = moving || self.controls.handovers.under_way();
        if busy || !self.controls.freeze.freeze() {
            return self.stay(&TakeoverError::Busy);
        }
        let program = &self.successions.program;
        let message = format!("{} is started to take over", program.display());
        info!(event = "takeover", "{message}");
        self.common.events.record(Entry::new("takeover", message));
        match self.plan() {
            Ok(plan) => self.successions.under_way = Some(Box::pin(elder::hand_over(plan))),
            Err(error) => self.stay(&error.into()),
        }
    }

    /// Goes on as before.
    pub(super) fn stay(&mut self, why: &TakeoverError) {
        // Who is at work now has leave already, and a takeover that never began froze nothing.
        if !matches!(why, TakeoverError::Busy) {
            self.controls.freeze.thaw();
        }
        let message = format!("nothing has changed: {why}");
        error!(event = "takeover-failed", "{message}");
        let entry = Entry::new("takeover-failed", message);
        self.common.events.record(entry);
    }

    fn all_bound(&self) -> impl Iterator<Item = &Bound> {
        let services = self.services.iter().flat_map(|r| &r.front.bound);
        services.chain(&self.counters.bound)
    }

    fn plan(&self) -> io::Result<Plan> {
        let (mut offered, mut sockets) = (Vec::new(), Vec::<OwnedFd>::new());
        for bound in self.all_bound() {
            let before = sockets.len();
            for fd in bound.sockets() {
                sockets.push(fd.try_clone_to_owned()?);
            }
            offered.push(Offered {
                addr: bound.addr.clone(),
                count: sockets.len() - before,
                owns_file: bound.owns_file(),
            });
        }
        let has_primary = |r: &&Running| r.view.topology.load().primary.is_some();
        let with_primary = self.services.iter().filter(has_primary);
        let paused = self.services.iter();
        let paused = paused.filter(|r| r.control.gate.holds(HoldReason::Operator));
        let name = |running: &Running| running.view.name.to_string();
        Ok(Plan {
            program: self.successions.program.clone(),
            sockets,
            offer: Offer {
                protocol: PROTOCOL,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                sockets: offered,
                with_primary: with_primary.map(name).collect(),
                estate: Estate {
                    pins: self.common.pins.all(),
                    paused: paused.map(name).collect(),
                    draining: self.common.drain.phase() == Phase::Draining,
                    history: self.common.events.history(MOST_HISTORY),
                },
            },
        })
    }

    /// As heir: proves what the elder has, and returns when it is this process' turn.
    pub(super) async fn await_turn(
        &self,
        heir: &Heir,
        signals: &mut Signals,
    ) -> Result<(), AppError> {
        let turn = async {
            tokio::select! {
                proven = timeout(PROVEN_WITHIN, self.proven(heir)) => if proven.is_err() {
                    return Err(AppError::Unproven(self.unproven(heir).join(", ")));
                },
                () = heir.orphaned() => {
                    let gone = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(HeirError::from(gone).into());
                }
            }
            Ok(heir.ready().await?)
        };
        let outcome = tokio::select! {
            outcome = turn => outcome,
            () = signals.stop() => Err(AppError::Stopped),
            name = self.common.supervisor.lost() => Err(AppError::Ended(name)),
        };
        if let Err(error) = &outcome {
            heir.sorry(error.to_string()).await;
        }
        outcome
    }

    async fn proven(&self, heir: &Heir) {
        while !self.unproven(heir).is_empty() {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    /// Services that the elder has a primary for, and this process not yet.
    fn unproven(&self, heir: &Heir) -> Vec<String> {
        let ours = self.services.iter();
        let lacking = ours.filter(|running| running.view.topology.load().primary.is_none());
        let names = lacking.map(|running| running.view.name.to_string());
        names
            .filter(|name| heir.with_primary.contains(name))
            .collect()
    }

    /// As heir: serves, beside the elder at first.
    pub(super) async fn succeed(&mut self, heir: Heir) {
        self.open();
        heir.serving().await;
        let (pid, version) = (heir.pid, &heir.version);
        let message = format!("took over from Pilotfish {version}, pid {pid}");
        info!(event = "taken-over", pid, version, "{message}");
        self.common.events.record(Entry::new("taken-over", message));
    }

    /// Serves clients and answers operators.
    pub(super) fn open(&mut self) {
        let services = self.services.iter_mut().flat_map(|r| &mut r.front.bound);
        let bound = services.chain(&mut self.counters.bound);
        bound.for_each(|bound| bound.leave(false));
        let threads = &self.common.threads;
        self.services.iter_mut().for_each(|r| r.front.open(threads));
        let supervisor = &self.common.supervisor;
        self.counters
            .open(supervisor, &self.surface, &self.controls);
    }

    /// What comes when this process serves, and serves alone.
    pub(super) fn settle(&mut self) {
        let unwanted = std::mem::take(&mut self.unwanted).discard();
        let names = unwanted.into_iter();
        let names = names.map(|(addr, name)| name.unwrap_or_else(|| name_of(&addr)));
        self.manager.forget(names);
        self.keep();
        self.manager.ready();
        let (manager, surface) = (self.manager.clone(), self.surface.clone());
        let attend = move || manager.clone().attend(surface.clone());
        self.common.supervisor.keep("service-manager", attend);
    }

    /// Has the service manager keep what is listened on.
    pub(super) fn keep(&mut self) {
        let services = self.services.iter_mut().flat_map(|r| &mut r.front.bound);
        self.manager.keep(services.chain(&mut self.counters.bound));
    }
}
