//! Where operators' wishes arrive: looked at, refused or carried out, one run at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::feed::{Feed, Line};
use super::gate::{OverrideError, check_overrides, gather, overrule};
use super::journal::{self, JournalError, Run, Writer};
use super::lock::{self, LockError};
use super::machine::{End, Event, Order};
use super::plan::{self, Given, PlanError, Way};
use super::report::{Preview, RegionStatus, RunReport, trouble};
use super::run::lease::Lease;
use super::run::{Beginning, Runner, next_epoch};
use super::tools::Tools;
use crate::dns::DnsError;
use crate::events::By;

/// A look at the provider, for status.
const LOOK: Duration = Duration::from_secs(4);

/// Why a wish is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("there is no [cutover] in the configuration")]
    NotConfigured,
    #[error("a run is under way: {0}")]
    Busy(String),
    #[error("{0}")]
    Unfinished(String),
    #[error("nothing is unfinished")]
    Nothing,
    #[error("the run is over: a `failback` goes back")]
    Over,
    #[error("{0}")]
    Override(#[from] OverrideError),
    #[error("{0}")]
    Plan(#[from] PlanError),
    #[error("the lock: {0}")]
    Lock(#[from] LockError),
    #[error("{0}")]
    Dns(#[from] DnsError),
    #[error("{0}")]
    Journal(#[from] JournalError),
    #[error("it shuts down")]
    ShutsDown,
    #[error("another process takes over; try again when it has")]
    TakenOver,
}

/// How a refusal is told to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The same wish will fail again.
    Usage,
    /// A safety rule forbids it now.
    Rule,
    Failed,
}

impl Refusal {
    pub fn class(&self) -> Class {
        match self {
            Self::NotConfigured | Self::Override(OverrideError::Unknown(..)) => Class::Usage,
            Self::Override(OverrideError::NoReason) | Self::Plan(PlanError::NoRegion(..)) => {
                Class::Usage
            }
            Self::Busy(_) | Self::Unfinished(_) | Self::Nothing => Class::Rule,
            Self::Over | Self::TakenOver => Class::Rule,
            Self::Override(_) | Self::Plan(_) | Self::Lock(_) => Class::Rule,
            Self::Journal(JournalError::Busy(_)) => Class::Rule,
            Self::Dns(_) | Self::Journal(_) | Self::ShutsDown => Class::Failed,
        }
    }
}

/// What an operator wants, as the admin socket takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub way: Way,
    /// `None`: home, for a failback.
    pub to: Option<String>,
    pub reason: Option<String>,
    pub overrides: Vec<String>,
    pub digest: Option<String>,
}

/// What was begun, and where its lines begin in the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    pub run: String,
    pub from: u64,
}

/// What is under way.
struct Current {
    run: String,
    words: mpsc::Sender<Event>,
}

/// A run for the worker.
pub struct Work {
    begin: Beginning,
    first: Event,
    words: mpsc::Receiver<Event>,
}

/// One per process.
pub struct Desk {
    tools: Arc<Tools>,
    /// Taken before anything is opened, so that two wishes cannot both begin.
    current: Mutex<Option<Current>>,
    work: mpsc::Sender<Work>,
}

impl Desk {
    /// The desk, and what [`Desk::work`] needs.
    pub fn new(tools: Tools) -> (Arc<Self>, mpsc::Receiver<Work>) {
        let (work, works) = mpsc::channel(1);
        let desk = Self {
            tools: Arc::new(tools),
            current: Mutex::default(),
            work,
        };
        (Arc::new(desk), works)
    }

    /// Carries out what is begun, until the process ends. Dropping it is like a crash.
    pub async fn work(self: Arc<Self>, mut works: mpsc::Receiver<Work>) {
        self.look().await;
        while let Some(work) = works.recv().await {
            Runner::new(self.tools.clone(), work.begin, work.words)
                .run(work.first)
                .await;
            *self.current() = None;
            self.look().await;
        }
    }

    /// Says what is unfinished.
    async fn look(&self) {
        let why = match self.runs().await {
            Ok(runs) => runs.last().and_then(trouble),
            Err(error) => Some(error.to_string()),
        };
        self.tools.metrics.unfinished(why.is_some());
        if let Some(why) = &why {
            tracing::warn!(event = "cutover-unfinished", "{why}");
        }
        self.tools.world.trouble(why);
    }

    pub fn feed(&self) -> Arc<Feed> {
        self.tools.feed.clone()
    }

    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn runs(&self) -> Result<Vec<Run>, Refusal> {
        let dir = self.tools.state_dir();
        let read = tokio::task::spawn_blocking(move || journal::runs(&dir)).await;
        Ok(read.map_err(|_| Refusal::ShutsDown)??)
    }

    async fn open(&self) -> Result<(Writer, Vec<Run>), Refusal> {
        let dir = self.tools.state_dir();
        let opened = tokio::task::spawn_blocking(move || {
            let (writer, runs, torn) = Writer::open(&dir)?;
            if torn {
                tracing::warn!(
                    event = "cutover-journal",
                    "cut a last line that was not written whole"
                );
            }
            // What is unfinished stays where it is.
            let writer = match runs.last().is_some_and(|run| !run.state.is_over()) {
                true => writer,
                false => writer.rotate()?,
            };
            Ok::<_, JournalError>((writer, runs))
        });
        Ok(opened.await.map_err(|_| Refusal::ShutsDown)??)
    }

    fn order(&self, wish: Wish, by: Option<By>) -> Result<Order, Refusal> {
        let spec = &self.tools.spec;
        let own: Vec<String> = spec.gates.iter().map(|gate| gate.name.clone()).collect();
        check_overrides(&wish.overrides, wish.reason.as_deref(), &own)?;
        let home = || spec.regions.first().map(|region| region.name.clone());
        let to = wish.to.or_else(home).unwrap_or_default();
        if spec.region(&to).is_none() {
            let names: Vec<&str> = spec.regions.iter().map(|r| r.name.as_str()).collect();
            return Err(PlanError::NoRegion(to, names.join(", ")).into());
        }
        Ok(Order {
            way: wish.way,
            to,
            reason: wish.reason,
            overrides: wish.overrides,
            digest: wish.digest,
            by,
        })
    }

    /// What would be done, and every gate's verdict. Changes nothing.
    ///
    /// # Errors
    /// When there is no plan, or the records cannot be read.
    pub async fn plan(&self, wish: Wish) -> Result<Preview, Refusal> {
        let tools = &self.tools;
        let order = self.order(
            Wish {
                // A preview needs no reason.
                reason: wish.reason.clone().or_else(|| Some("preview".to_owned())),
                ..wish
            },
            None,
        )?;
        let runs = self.runs().await?;
        let unfinished = runs.last().and_then(trouble);
        let history: Vec<Run> = runs.into_iter().filter(|run| run.state.is_over()).collect();
        let observed = tools.provider.read(&tools.spec.watched()).await?;
        let lock = self.holder().await;
        let plan = plan::plan(&Given {
            spec: &tools.spec,
            way: order.way,
            to: &order.to,
            observed: &observed,
            capabilities: tools.provider.capabilities(),
            epoch: next_epoch(&history),
            now: tools.wall(),
        })?;
        let asked = gather::Asked {
            run: "preview",
            order: &order,
            plan: &plan,
            observed: &observed,
            lock: match unfinished {
                Some(why) => Ok(Some(why)),
                None => lock,
            },
            history: &history,
        };
        let mut verdicts = gather::verdicts(tools, &asked).await;
        overrule(&mut verdicts, &order.overrides);
        tools.metrics.gates(&verdicts);
        Ok(Preview::new(plan, verdicts))
    }

    /// Who has the lock.
    async fn holder(&self) -> Result<Option<String>, String> {
        lock::who_holds(self.tools.lock.as_deref()).await
    }

    /// Begins a run.
    ///
    /// # Errors
    /// When one is under way or unfinished, or the journal cannot be written.
    pub async fn start(&self, wish: Wish, by: Option<By>) -> Result<Started, Refusal> {
        let order = self.order(wish, by)?;
        let reserved = self.reserve()?;
        let (journal, history) = self.open().await?;
        if let Some(why) = history.last().and_then(trouble) {
            return Err(Refusal::Unfinished(why));
        }
        let now = self.tools.wall();
        let run = format!("{}-{}", now.strftime("%Y%m%dT%H%M%S%.3fZ"), order.to);
        let first = Event::Begun {
            order,
            sidecar: self.tools.sidecar.clone(),
        };
        let begin = Beginning {
            journal,
            run,
            state: None,
            history,
            lease: None,
        };
        reserved.begin(begin, first).await
    }

    /// Goes on with what is unfinished, as `event` says.
    ///
    /// # Errors
    /// When nothing is, or somebody else has the lock.
    pub async fn go_on(&self, event: Event) -> Result<Started, Refusal> {
        if let Event::RollbackAsked { .. } = event
            && let Some(started) = self.interrupt(&event).await?
        {
            return Ok(started);
        }
        let reserved = self.reserve()?;
        let (journal, mut history) = self.open().await?;
        let last = history.pop().ok_or(Refusal::Nothing)?;
        if last.state.is_over() {
            return Err(match (&event, last.state.end) {
                (Event::RollbackAsked { .. }, Some(End::Done)) => Refusal::Over,
                _ => Refusal::Nothing,
            });
        }
        let lease = match event {
            // Somebody else's run has nothing to do with what a human has done by hand.
            Event::GivenUp { .. } => None,
            _ => self.lease(&last).await?,
        };
        let begin = Beginning {
            journal,
            run: last.id,
            state: Some(last.state),
            history,
            lease,
        };
        reserved.begin(begin, event).await
    }

    /// What has been sent is finished or taken back also when nobody can be asked for the lock.
    async fn lease(&self, run: &Run) -> Result<Option<Lease>, Refusal> {
        let purpose = format!(
            "{} to {}, again",
            run.state.order.way.as_str(),
            run.state.order.to
        );
        match Lease::acquire(&self.tools, &purpose, None).await {
            Ok(lease) => Ok(Some(lease)),
            Err(LockError::Unavailable(why)) if run.state.touched => {
                tracing::warn!(event = "cutover-lock", "goes on without the lock: {why}");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Says it to a run that is under way; `None`: there is none.
    async fn interrupt(&self, event: &Event) -> Result<Option<Started>, Refusal> {
        let (words, run) = match &*self.current() {
            None => return Ok(None),
            Some(current) => (current.words.clone(), current.run.clone()),
        };
        let from = self.tools.feed.next();
        let told = words.send(event.clone()).await;
        told.map_err(|_| Refusal::Nothing)?;
        tracing::info!(event = "cutover", run, "an operator wants it back");
        Ok(Some(Started { run, from }))
    }

    fn reserve(&self) -> Result<Reserved<'_>, Refusal> {
        let mut current = self.current();
        if let Some(current) = &*current {
            return Err(Refusal::Busy(current.run.clone()));
        }
        let (words, heard) = mpsc::channel(1);
        *current = Some(Current {
            run: "about to begin".to_owned(),
            words,
        });
        Ok(Reserved {
            desk: self,
            heard: Some(heard),
        })
    }

    /// What runs, if something does.
    pub fn running(&self) -> Option<String> {
        self.current().as_ref().map(|current| current.run.clone())
    }

    /// All runs, newest last.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn history(&self) -> Result<Vec<RunReport>, Refusal> {
        Ok(self.runs().await?.iter().map(RunReport::of).collect())
    }

    /// Where everything stands. Changes nothing.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn status(&self) -> Result<RegionStatus, Refusal> {
        let tools = &self.tools;
        let runs = self.runs().await?;
        let watched = tools.spec.watched();
        let read = timeout(LOOK, tools.provider.read(&watched));
        let (read, holder) = tokio::join!(read, self.holder());
        let read = match read {
            Ok(Ok(observed)) => Ok(observed),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", LOOK.as_secs())),
        };
        let (mut active, mut records, mut problem) = (None, Vec::new(), None);
        match read {
            Err(why) => problem = Some(why),
            Ok(observed) => {
                records = observed.records.values().map(ToString::to_string).collect();
                match plan::standing(&tools.spec, &observed) {
                    plan::Standing::On(region) => active = Some(region),
                    plan::Standing::Mixed(lines) => problem = Some(lines.join("; ")),
                }
            }
        }
        let open = runs.last().filter(|run| !run.state.is_over());
        let over = runs.iter().rev().find(|run| run.state.is_over());
        Ok(RegionStatus {
            active,
            records,
            problem,
            regions: tools.spec.regions.iter().map(|r| r.name.clone()).collect(),
            provider: tools.spec.dns.provider.kind().as_str().to_owned(),
            zone: tools.spec.dns.zone.to_string(),
            lock: holder.ok().flatten(),
            run: open.map(RunReport::of),
            running: self.running().is_some(),
            last: over.map(RunReport::of),
        })
    }
}

/// The right to begin a run; let go when dropped.
struct Reserved<'a> {
    desk: &'a Desk,
    heard: Option<mpsc::Receiver<Event>>,
}

impl Reserved<'_> {
    async fn begin(mut self, begin: Beginning, first: Event) -> Result<Started, Refusal> {
        let Some(words) = self.heard.take() else {
            return Err(Refusal::ShutsDown);
        };
        let started = Started {
            run: begin.run.clone(),
            from: self.desk.tools.feed.next(),
        };
        if let Some(current) = &mut *self.desk.current() {
            current.run.clone_from(&begin.run);
        }
        let work = Work {
            begin,
            first,
            words,
        };
        if self.desk.work.send(work).await.is_err() {
            *self.desk.current() = None;
            return Err(Refusal::ShutsDown);
        }
        Ok(started)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        // It was not begun.
        if self.heard.is_some() {
            *self.desk.current() = None;
        }
    }
}

/// The lines of a run, from its beginning in the feed to the one with its result.
pub struct Lines {
    feed: Arc<Feed>,
    run: String,
    next: u64,
    over: bool,
}

impl Lines {
    pub fn new(feed: Arc<Feed>, started: &Started) -> Self {
        Self {
            feed,
            run: started.run.clone(),
            next: started.from,
            over: false,
        }
    }

    /// The next lines, when there are some; `None` after the last. Cancel safe.
    pub async fn next(&mut self) -> Option<Vec<Arc<Line>>> {
        let mut told = self.feed.subscribe();
        while !self.over {
            let (lines, next) = self.feed.from(self.next);
            self.next = next;
            let mut mine = Vec::new();
            for line in lines {
                if line.run == self.run && !self.over {
                    self.over = line.result.is_some();
                    mine.push(line);
                }
            }
            if !mine.is_empty() {
                return Some(mine);
            }
            let wanted = self.next;
            told.wait_for(|now| *now > wanted).await.ok()?;
        }
        None
    }
}
