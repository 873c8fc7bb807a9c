//! Carries handovers out, one per service at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::account::{Account, Around, Outcome};
use super::course::{Course, Doing, Failure, Next, Restored};
use super::judge::admit;
use super::quiet::{Live, Quiet};
use super::{Act, Ask, Case, Ended, Handover, Old, Reason, Refused};
use crate::addr::Addr;
use crate::clock::{Clock, Moment};
use crate::events::{By, Entry, Events};
use crate::gate::{Gate, HoldReason};
use crate::monitor::Report;
use crate::monitor::hints::Teller;
use crate::monitor::pin::Pin;
use crate::net::dial::Dialer;
use crate::signal::Signal;
use crate::supervise::Supervisor;
use crate::telemetry::metrics::{Described, Kind, Registry};
use crate::topology::cell::TopologyReader;

/// For the checks before anything is changed.
const PREPARE_WITHIN: Duration = Duration::from_secs(10);
/// For running requests, or a third of the time where that is less. Who is not done by then is cut off by
/// the switch, as in any failover.
const QUIET_WITHIN: Duration = Duration::from_secs(10);
/// For sessions of which nothing is known but that bytes move. A request is over by then; who listens to
/// something that never ends must not make everybody wait.
const STILL_WITHIN: Duration = Duration::from_millis(250);
/// How often sessions are looked at while they finish.
const LOOK: Duration = Duration::from_millis(5);
/// For a step after the switch, and for putting one back.
const AFTER_WITHIN: Duration = Duration::from_secs(15);
/// While the switch is awaited, the monitor is told this often that there is something to see.
pub(super) const HINT: Duration = Duration::from_millis(50);

/// Names and meanings, for the text output and the documentation.
pub const DESCRIBED: &[Described] = &[
    Described(
        "pilotfish_failovers_total",
        Kind::Counter,
        "Forced failovers, by how they ended",
    ),
    Described(
        "pilotfish_failover_hold_seconds",
        Kind::Histogram,
        "For how long forced failovers held clients",
    ),
];

/// One service, as a handover needs it.
#[derive(Clone)]
pub struct Subject {
    pub service: Arc<str>,
    pub gate: Arc<Gate>,
    pub signal: Arc<Signal>,
    pub topology: TopologyReader,
    pub report: watch::Receiver<Arc<Report>>,
    pub pin: watch::Receiver<Option<Pin>>,
    /// Makes the monitor ask an address at once: a reason to look, never a verdict.
    pub hints: Teller,
    pub dialer: Dialer,
    /// The sessions on the primary.
    pub sessions: Arc<dyn Fn() -> Vec<Live> + Send + Sync>,
    /// `None`: the service has no way to be asked.
    pub how: Option<Arc<dyn Handover>>,
}

#[cfg(test)]
impl Subject {
    /// A service without a primary that cannot be asked for one.
    pub fn nowhere(name: &str, gate: &Arc<Gate>, clock: Clock) -> Self {
        use crate::net::{resolve::Resolver, tls::Connector};
        let signal = Signal::new(crate::signal::crossings(1));
        let (_, topology) = crate::topology::cell::cell(signal.clone(), clock.now());
        Self {
            service: name.into(),
            gate: gate.clone(),
            signal,
            topology,
            report: watch::channel(Arc::new(Report::empty(clock.now()))).1,
            pin: watch::channel(None).1,
            hints: crate::monitor::hints::channel(name.into(), clock, Events::new(clock)).0,
            dialer: Dialer {
                resolver: Resolver::from_system(),
                tls: Connector::PLAIN,
                keepalive: Duration::from_secs(30),
            },
            sessions: Arc::new(Vec::new),
            how: None,
        }
    }
}

/// All services', for whoever may ask: the admin socket, a regional cutover.
pub struct Handovers {
    pub(super) clock: Clock,
    events: Arc<Events>,
    supervisor: Supervisor,
    registry: Registry,
    running: Mutex<Running>,
    /// How many there are.
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct Running {
    closed: bool,
    services: BTreeMap<Arc<str>, CancellationToken>,
}

/// One that was begun. Dropping it before the switch cancels it, and everything is put back.
pub struct Begun {
    answer: oneshot::Receiver<Account>,
    _cancel: DropGuard,
}

impl Begun {
    /// Its end. `None` when the process ended before it. Not cancel safe: dropping cancels the handover.
    pub async fn account(self) -> Option<Account> {
        self.answer.await.ok()
    }
}

/// A service's place among those that are being handed over; the gate opens with it at the latest.
struct Seat {
    desk: Arc<Handovers>,
    service: Arc<str>,
    gate: Arc<Gate>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.gate.release(HoldReason::Handover);
        let left = self.desk.with(|running| {
            running.services.remove(&self.service);
            running.services.len()
        });
        self.desk.count.send_replace(left);
    }
}

impl Handovers {
    pub fn new(
        clock: Clock,
        events: Arc<Events>,
        supervisor: Supervisor,
        registry: &Registry,
    ) -> Arc<Self> {
        Arc::new(Self {
            clock,
            events,
            supervisor,
            registry: registry.clone(),
            running: Mutex::default(),
            count: watch::channel(0).0,
        })
    }

    fn with<R>(&self, work: impl FnOnce(&mut Running) -> R) -> R {
        work(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins one in a task of its own. A refusal after the first checks is in its account.
    ///
    /// # Errors
    /// When another one of the same service is under way, or the process ends.
    pub fn begin(
        self: &Arc<Self>,
        subject: Subject,
        ask: Ask,
        by: By,
    ) -> Result<Begun, Box<Account>> {
        let cancel = CancellationToken::new();
        let seated = self.with(|running| {
            if running.closed {
                let why = "Pilotfish is about to end";
                return Err(Refused::new(Reason::ShuttingDown, why));
            }
            if running.services.contains_key(&subject.service) {
                let why = "a failover of this service is under way";
                return Err(Refused::new(Reason::InProgress, why));
            }
            let service = subject.service.clone();
            running.services.insert(service, cancel.clone());
            Ok(running.services.len())
        });
        let count = match seated {
            Ok(count) => count,
            Err(refused) => {
                let account = Account::refused(&subject.service, &ask, &refused);
                self.tell(&account, by);
                return Err(Box::new(account));
            }
        };
        self.count.send_replace(count);
        let seat = Seat {
            desk: self.clone(),
            service: subject.service.clone(),
            gate: subject.gate.clone(),
        };
        let (sender, answer) = oneshot::channel();
        let run = Run {
            desk: self.clone(),
            subject,
            ask,
            by,
            cancel: cancel.clone(),
            held: None,
        };
        self.supervisor.spawn("failover", async move {
            let (desk, by) = (run.desk.clone(), run.by);
            let account = run.carry_out().await;
            drop(seat);
            desk.tell(&account, by);
            // Whoever asked may have left.
            let _ = sender.send(account);
        });
        Ok(Begun {
            answer,
            _cancel: cancel.drop_guard(),
        })
    }

    /// Cancels the one of `service`, if there is one: the service ends, or changes.
    pub fn cancel(&self, service: &str) {
        self.with(|running| {
            if let Some(cancel) = running.services.get(service) {
                cancel.cancel();
            }
        });
    }

    /// Whether there is one.
    pub fn under_way(&self) -> bool {
        *self.count.borrow() > 0
    }

    /// Begins no more, cancels those that are under way, and waits until everything is put back.
    pub async fn close(&self) {
        let mut count = self.count.subscribe();
        self.with(|running| {
            running.closed = true;
            running
                .services
                .values()
                .for_each(CancellationToken::cancel);
        });
        // The sender lives as long as `self`.
        let _ = count.wait_for(|count| *count == 0).await;
    }

    fn record(&self, entry: Entry<'_>) {
        let (event, service) = (entry.event, entry.service);
        let uid = entry.by.map(|by| by.uid);
        info!(event, service, uid, "{}", entry.message);
        self.events.record(entry);
    }

    /// The end of one.
    fn tell(&self, account: &Account, by: By) {
        let service = account.service.as_str();
        let outcome = account.outcome.as_str();
        let labels = [("service", service), ("outcome", outcome)];
        let ended = self.registry.counter("pilotfish_failovers_total", &labels);
        ended.increment(1);
        if account.held_ms > 0.0 {
            let name = "pilotfish_failover_hold_seconds";
            let held = self.registry.histogram(name, &labels[..1]);
            held.record(account.held_ms / 1e3);
        }
        let event = match account.outcome {
            Outcome::Done => "failover-done",
            Outcome::Planned => "failover-planned",
            Outcome::Refused => "failover-refused",
            Outcome::Failed => "failover-failed",
        };
        let message = match &account.reason {
            Some(reason) => format!("{reason}: {}", account.message),
            None => account.message.clone(),
        };
        if account.outcome == Outcome::Failed {
            let service = account.service.as_str();
            warn!(event, service, uid = by.uid, "{message}");
            let entry = Entry::of(service, event, message).by(by);
            return self.events.record(entry);
        }
        self.record(Entry::of(&account.service, event, message).by(by));
    }
}

/// Of a process that ended before the handover did.
pub fn ended(service: &str, ask: &Ask) -> Account {
    let why = "Pilotfish ended before the failover did";
    let refused = Refused::new(Reason::ShuttingDown, why);
    Account {
        outcome: Outcome::Failed,
        clean: false,
        ..Account::refused(service, ask, &refused)
    }
}

/// One handover, while it lasts.
struct Run {
    desk: Arc<Handovers>,
    subject: Subject,
    ask: Ask,
    by: By,
    cancel: CancellationToken,
    /// Since when clients are held, and for how long they were.
    held: Option<(Moment, Option<Duration>)>,
}

impl Run {
    fn now(&self) -> Moment {
        self.desk.clock.now()
    }

    fn record(&self, event: &'static str, message: String) {
        let entry = Entry::of(&self.subject.service, event, message);
        self.desk.record(entry.by(self.by));
    }

    async fn carry_out(mut self) -> Account {
        let began = self.now();
        let deadline = began + self.ask.timeout;
        self.record("failover", spelled(&self.ask));
        let service = self.subject.service.clone();
        let (case, mut act) = match self.prepare(deadline).await {
            Ok(prepared) => prepared,
            Err(refused) => {
                let took_ms = self.now().since(began).as_secs_f64() * 1e3;
                let refused = Account::refused(&service, &self.ask, &refused);
                return Account { took_ms, ..refused };
            }
        };
        let mut course = Course::new(&act.planned());
        if !self.ask.dry_run {
            self.follow(&mut course, &case, act.as_mut()).await;
        }
        let now = case.known.primary.clone();
        let to = match course.switched() {
            true => self.subject.topology.load().primary_addr().cloned(),
            false => None,
        };
        let around = Around {
            to: to.or_else(|| act.target()),
            from: now,
            held: self.held.and_then(|(_, held)| held).unwrap_or_default(),
            took: self.now().since(began),
        };
        Account::of(&service, &self.ask, &course, &around)
    }

    /// All checks.
    async fn prepare(&self, deadline: Moment) -> Result<(Case, Box<dyn Act>), Refused> {
        let subject = &self.subject;
        let Some(how) = &subject.how else {
            let why = "this service cannot be asked for another primary: \
                       say how with `[service.failover] command`";
            return Err(Refused::new(Reason::NoWay, why));
        };
        let pin = subject.pin.borrow().as_ref().map(|pin| pin.address.clone());
        let report = subject.report.borrow().clone();
        let topology = subject.topology.load();
        let known = admit(&self.ask, &topology, &report, pin.as_ref())?;
        let case = Case {
            service: subject.service.clone(),
            ask: self.ask.clone(),
            known,
            clock: self.desk.clock,
            deadline,
            dialer: subject.dialer.clone(),
        };
        let within = PREPARE_WITHIN.min(self.ask.timeout);
        let unreachable = |why: &str| Refused::new(Reason::Unreachable, why);
        let act = tokio::select! {
            biased;
            prepared = timeout(within, how.prepare(&case)) => match prepared {
                Ok(prepared) => prepared?,
                Err(_) => return Err(unreachable("the checks were not over in time")),
            },
            () = self.cancel.cancelled() => return Err(unreachable("it was called off")),
        };
        Ok((case, act))
    }

    async fn follow(&mut self, course: &mut Course, case: &Case, act: &mut dyn Act) {
        loop {
            let began = self.now();
            match course.next() {
                Next::Take(number) => {
                    let line = &course.lines()[number];
                    let (doing, name) = (line.doing, line.name);
                    let said = self.take(doing, course.switched(), case, act).await;
                    let took = self.now().since(began);
                    let (how, text) = match &said {
                        Ok(text) => ("done", text),
                        Err((_, text)) => ("failed", text),
                    };
                    let ms = took.as_millis();
                    self.record("failover-step", format!("{name}: {how} in {ms} ms, {text}"));
                    course.took(said, took);
                }
                Next::PutBack(number) => {
                    let line = &course.lines()[number];
                    let (doing, name) = (line.doing, line.name);
                    let ended = match course.switched() {
                        true => Ended::Switched,
                        false => Ended::Failed,
                    };
                    let how = self.put_back(doing, ended, act).await;
                    let (word, text) = match &how {
                        Restored::Done(text) => ("put back", text),
                        Restored::Left(text) => ("left as it is", text),
                        Restored::Failed(text) => ("NOT put back", text),
                    };
                    self.record("failover-step", format!("{name}: {word}, {text}"));
                    course.put_back(number, how, self.now().since(began));
                }
                Next::End => return,
            }
        }
    }

    /// Takes one step, for as long as there is time and somebody wants it.
    async fn take(
        &mut self,
        doing: Doing,
        switched: bool,
        case: &Case,
        act: &mut dyn Act,
    ) -> Result<String, (Failure, String)> {
        let clock = self.desk.clock;
        let until = match switched {
            true => clock.now() + AFTER_WITHIN,
            false => case.deadline,
        };
        if !switched && let Some(other) = self.overtaken(doing, case) {
            let why = format!("{other} became the primary meanwhile");
            return Err((Failure::Overtaken, why));
        }
        let cancel = self.cancel.clone();
        let step = async {
            match doing {
                Doing::Hold => Ok(self.hold()),
                Doing::Quiet => Ok(self.quiet().await),
                Doing::Kind(index) => act.take(index).await,
                Doing::Switch => Ok(self.switch(case, act.target()).await),
            }
        };
        tokio::select! {
            biased;
            said = step => said.map_err(|why| (Failure::Step, why)),
            () = cancel.cancelled(), if !switched => {
                Err((Failure::Cancelled, "whoever asked for it has left, or it was ended".to_owned()))
            }
            () = sleep_until(clock.instant(until)) => {
                let why = match doing {
                    Doing::Switch => "the monitor has not published another primary in time",
                    _ => "not done when the time was up",
                };
                Err((Failure::Timeout, why.to_owned()))
            }
        }
    }

    /// Another primary that was published although nobody here has asked for it yet.
    fn overtaken(&self, doing: Doing, case: &Case) -> Option<Addr> {
        let topology = self.subject.topology.load();
        let now = topology.primary_addr().cloned()?;
        (doing != Doing::Switch && Some(&now) != case.known.primary.as_ref()).then_some(now)
    }

    fn hold(&mut self) -> String {
        self.held = Some((self.now(), None));
        self.subject.gate.hold(HoldReason::Handover);
        "clients wait".to_owned()
    }

    async fn quiet(&self) -> String {
        let clock = self.desk.clock;
        let began = clock.now();
        let until = began + QUIET_WITHIN.min(self.ask.timeout / 3);
        let mut quiet = Quiet::default();
        loop {
            let now = clock.now();
            let running = quiet.look(now, &(self.subject.sessions)());
            let late = now > until || running.busy == 0 && now.since(began) > STILL_WITHIN;
            match running.busy + running.moving {
                0 => return "no request is running".to_owned(),
                1 if late => return "1 session is still at it, and may be cut off".to_owned(),
                n if late => return format!("{n} sessions are still at it, and may be cut off"),
                _ => sleep(LOOK).await,
            }
        }
    }

    /// Until the monitor has published another primary than there was.
    async fn switch(&self, case: &Case, target: Option<Addr>) -> String {
        let Subject {
            signal,
            topology,
            hints,
            ..
        } = &self.subject;
        let worth_a_look = || target.iter().chain(&case.known.primary);
        loop {
            let rung = signal.rung();
            let now = topology.load();
            if let Some(primary) = now.primary_addr()
                && Some(primary) != case.known.primary.as_ref()
            {
                let generation = now.generation.0;
                return format!("{primary}: {}, generation {generation}", now.cause);
            }
            for addr in worth_a_look() {
                hints.ask(addr);
            }
            tokio::select! {
                () = rung => {}
                () = sleep(HINT) => {}
            }
        }
    }

    async fn put_back(&mut self, doing: Doing, ended: Ended, act: &mut dyn Act) -> Restored {
        match doing {
            Doing::Hold => {
                self.subject.gate.release(HoldReason::Handover);
                let now = self.now();
                if let Some((since, held)) = &mut self.held {
                    *held = Some(now.since(*since));
                }
                Restored::Done("clients go on".to_owned())
            }
            Doing::Kind(index) => {
                let back = timeout(AFTER_WITHIN, act.put_back(index, ended)).await;
                let late = || format!("not done within {} s", AFTER_WITHIN.as_secs());
                back.unwrap_or_else(|_| Restored::Failed(late()))
            }
            Doing::Quiet | Doing::Switch => Restored::Done(String::new()),
        }
    }
}

fn spelled(ask: &Ask) -> String {
    let to = ask.to.as_ref();
    let to = to.map_or_else(|| "whoever is best".to_owned(), ToString::to_string);
    let dry = if ask.dry_run { "dry run, " } else { "" };
    let gone = match ask.old {
        Old::Serves => "",
        Old::Gone => ", the former primary is gone",
    };
    let seconds = ask.timeout.as_secs_f64();
    format!("asked for: {dry}to {to}, within {seconds} s{gone}")
}
