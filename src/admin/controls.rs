//! What an operator can change, and everything that comes with changing it: the event, the file.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

use super::freeze::Freeze;
use super::pins::Pins;
use crate::addr::Addr;
use crate::cutover::desk::Desk;
use crate::drain::{Drain, Phase};
use crate::events::{By, Entry, Events};
use crate::gate::{Gate, HoldReason};
use crate::handover::Ask;
use crate::handover::account::Account;
use crate::handover::run::{Handovers, Subject, ended};
use crate::monitor::pin::Pin;
use crate::telemetry::health;
use crate::telemetry::surface::Surface;

/// One service's.
#[derive(Clone)]
pub struct ServiceControl {
    pub gate: Arc<Gate>,
    pub pin: watch::Sender<Option<Pin>>,
    /// What a forced failover needs.
    pub subject: Subject,
}

/// All of them.
pub struct Controls {
    pub surface: Arc<Surface>,
    pub drain: Arc<Drain>,
    pub events: Arc<Events>,
    pub pins: Arc<Pins>,
    pub freeze: Arc<Freeze>,
    pub handovers: Arc<Handovers>,
    pub services: ArcSwap<BTreeMap<Arc<str>, ServiceControl>>,
    /// To whoever can reload.
    pub reload: mpsc::Sender<ReloadWish>,
    /// `None`: no [cutover] in the config.
    pub cutover: Option<Arc<Desk>>,
}

/// Somebody wants the file to be read again.
pub struct ReloadWish {
    pub by: By,
    /// What changed, a line each, or why nothing did.
    pub answer: oneshot::Sender<Result<Vec<String>, String>>,
}

/// Why an operator's wish was not followed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such service: there is {0}")]
    NoService(String),
    /// What would be forgotten by a restart is not done.
    #[error("a pin has to survive a restart, and it could not be written down: {0}")]
    NotKept(String),
    /// The file is wrong, or what it names cannot be had; the old one stays in force.
    #[error("{0}")]
    BadConfig(String),
    #[error("it drains because it shuts down, and that cannot be undone")]
    ShutsDown,
    #[error("another process is taking over; ask again in a moment, and it will answer")]
    TakenOver,
}

impl Controls {
    fn service(&self, name: &str) -> Result<ServiceControl, Refusal> {
        let services = self.services.load();
        services.get(name).cloned().ok_or_else(|| self.no_such())
    }

    pub fn no_such(&self) -> Refusal {
        let services = self.services.load();
        let names: Vec<&str> = services.keys().map(|name| &**name).collect();
        Refusal::NoService(names.join(", "))
    }

    fn record(&self, entry: Entry<'_>) {
        info!(
            event = entry.event,
            service = entry.service,
            uid = entry.by.map(|by| by.uid),
            pid = entry.by.and_then(|by| by.pid),
            "{}",
            entry.message
        );
        self.events.record(entry);
    }

    /// New clients wait, and what runs may finish. As everything here, it says what is true now, and
    /// asking for what is true already is no mistake.
    ///
    /// # Errors
    /// Without such a service.
    pub fn pause(&self, name: &str, by: By) -> Result<String, Refusal> {
        let gate = self.service(name)?.gate;
        if gate.holds(HoldReason::Operator) {
            return Ok(format!("{name} was paused already"));
        }
        gate.hold(HoldReason::Operator);
        self.record(Entry::of(name, "paused", "paused: clients wait").by(by));
        Ok(format!(
            "{name} is paused: clients wait until `resume`, or a restart"
        ))
    }

    /// # Errors
    /// Without such a service.
    pub fn resume(&self, name: &str, by: By) -> Result<String, Refusal> {
        let gate = self.service(name)?.gate;
        if !gate.holds(HoldReason::Operator) {
            return Ok(format!("{name} was not paused"));
        }
        gate.release(HoldReason::Operator);
        self.record(Entry::of(name, "resumed", "clients go on").by(by));
        Ok(format!("{name} goes on"))
    }

    /// Makes `address` the primary until it is undone, whatever the monitor says.
    ///
    /// # Errors
    /// Without such a service, and when it could not be kept over a restart.
    pub fn pin(&self, name: &str, address: Addr, by: By) -> Result<String, Refusal> {
        let control = self.service(name)?;
        let message = format!("pinned to {address}");
        let pin = Pin {
            address,
            uid: by.uid,
            since: health::wall(&self.surface.clock, self.surface.clock.now()),
        };
        let apply = || {
            control.pin.send_replace(Some(pin.clone()));
        };
        let kept = self.pins.set(name, Some(&pin), apply);
        kept.map_err(Refusal::NotKept)?;
        let said = format!("{name} is {message} until `unpin`, restarts included");
        self.record(Entry::of(name, "pinned", message).by(by));
        Ok(said)
    }

    /// # Errors
    /// Without such a service, and when the file could not be changed.
    pub fn unpin(&self, name: &str, by: By) -> Result<String, Refusal> {
        let control = self.service(name)?;
        if control.pin.borrow().is_none() {
            return Ok(format!("{name} was not pinned"));
        }
        let apply = || {
            control.pin.send_replace(None);
        };
        let kept = self.pins.set(name, None, apply);
        kept.map_err(Refusal::NotKept)?;
        self.record(Entry::of(name, "unpinned", "the monitor decides again").by(by));
        Ok(format!(
            "{name} is not pinned any more: the monitor decides"
        ))
    }

    /// Has the database of a service move its primary. Dropping the future calls it off, and everything
    /// is put back.
    ///
    /// # Errors
    /// Without such a service; how it ended is in the account.
    pub async fn failover(&self, name: &str, ask: Ask, by: By) -> Result<Account, Refusal> {
        let subject = self.service(name)?.subject;
        let told = match self.handovers.begin(subject, ask.clone(), by) {
            Ok(begun) => begun.account().await,
            Err(account) => Some(*account),
        };
        Ok(told.unwrap_or_else(|| ended(name, &ask)))
    }

    /// Makes `to`, or whoever has most, the primary of a service whose former one is dead or fenced: for a
    /// regional cutover. See [`Handovers::promote`].
    ///
    /// # Errors
    /// Without such a service; how it ended is in the account.
    pub async fn promote(
        &self,
        name: &str,
        to: Option<Addr>,
        within: std::time::Duration,
        by: By,
    ) -> Result<Account, Refusal> {
        let subject = self.service(name)?.subject;
        Ok(self.handovers.promote(subject, to, within, by).await)
    }

    /// Reads the file again and follows it.
    ///
    /// # Errors
    /// When it is wrong; then nothing has changed.
    pub async fn reload(&self, by: By) -> Result<String, Refusal> {
        let (answer, answered) = oneshot::channel();
        // Nobody answers only when the process ends.
        let sent = self.reload.send(ReloadWish { by, answer }).await;
        match sent.map(|()| answered) {
            Ok(answered) => match answered.await {
                Ok(Ok(lines)) => Ok(lines.join("\n")),
                Ok(Err(why)) => Err(Refusal::BadConfig(why)),
                Err(_) => Err(Refusal::ShutsDown),
            },
            Err(_) => Err(Refusal::ShutsDown),
        }
    }

    /// Health says 503; clients are still served.
    pub fn drain(&self, by: By) -> String {
        match self.drain.begin() {
            false => "it drains already".to_owned(),
            true => {
                let message = "health says 503, clients are still served";
                self.record(Entry::new("drain", message).by(by));
                format!("drains: {message}")
            }
        }
    }

    /// # Errors
    /// When it drains because it shuts down.
    pub fn undrain(&self, by: By) -> Result<String, Refusal> {
        let message = "health says what is true again";
        match self.drain.undo() {
            true => self.record(Entry::new("undrain", message).by(by)),
            false if self.drain.phase() == Phase::Serving => {
                return Ok("it did not drain".to_owned());
            }
            false => return Err(Refusal::ShutsDown),
        }
        Ok(format!("drains no more: {message}"))
    }
}

#[cfg(test)]
impl Controls {
    /// Those of a sample process, whose one service is `cache`.
    pub fn of(sample: &crate::telemetry::sample::Sample) -> Arc<Self> {
        let surface = sample.surface.clone();
        let control = ServiceControl {
            gate: sample.gate.clone(),
            pin: watch::channel(None).0,
            subject: Subject::nowhere("cache", &sample.gate, surface.clock),
        };
        let events = Events::new(surface.clock);
        let supervisor = crate::supervise::Supervisor::default();
        Arc::new(Self {
            handovers: Handovers::new(
                surface.clock,
                events.clone(),
                supervisor,
                &crate::telemetry::metrics::Registry::new(),
            ),
            events,
            surface,
            drain: sample.drain.clone(),
            pins: Arc::new(Pins::scratch()),
            freeze: Arc::default(),
            services: ArcSwap::from_pointee(BTreeMap::from([("cache".into(), control)])),
            reload: mpsc::channel(1).0,
            cutover: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::health::Status;
    use crate::telemetry::sample::Sample;

    const BY: By = By {
        uid: 7,
        pid: Some(9),
    };

    fn recorded(controls: &Controls) -> Vec<String> {
        let (events, _) = controls.events.from(0);
        assert!(events.iter().all(|event| event.by == Some(BY)));
        events.iter().map(|event| event.event.clone()).collect()
    }

    #[test]
    fn a_pause_holds_and_says_who() {
        let sample = Sample::proven();
        let controls = Controls::of(&sample);
        assert!(controls.pause("cache", BY).unwrap().contains("is paused"));
        assert!(controls.pause("cache", BY).unwrap().contains("already"));
        assert!(sample.gate.holds(HoldReason::Operator));
        controls.resume("cache", BY).unwrap();
        assert!(controls.resume("cache", BY).unwrap().contains("was not"));
        assert!(sample.gate.is_open());
        let error = controls.pause("cahce", BY).unwrap_err();
        assert!(error.to_string().contains("there is cache"), "{error}");
        assert_eq!(recorded(&controls), ["paused", "resumed"]);
    }

    #[test]
    fn a_drain_can_be_undone_but_not_the_end() {
        let sample = Sample::proven();
        let controls = Controls::of(&sample);
        controls.drain(BY);
        assert_eq!(sample.surface.status(), Status::Draining);
        controls.undrain(BY).unwrap();
        assert_eq!(sample.surface.status(), Status::Ok);
        sample.drain.set(Phase::Leaving);
        assert!(matches!(controls.undrain(BY), Err(Refusal::ShutsDown)));
        assert_eq!(recorded(&controls), ["drain", "undrain"]);
    }

    #[test]
    fn a_pin_stands_until_it_is_undone() {
        let controls = Controls::of(&Sample::proven());
        let address: Addr = "10.0.0.9:6379".parse().unwrap();
        controls.pin("cache", address.clone(), BY).unwrap();
        let pinned = |controls: &Controls| {
            let services = controls.services.load();
            services["cache"].pin.borrow().clone()
        };
        assert_eq!(pinned(&controls).unwrap().address, address);
        assert_eq!(controls.pins.of("cache"), pinned(&controls));
        controls.unpin("cache", BY).unwrap();
        assert_eq!((pinned(&controls), controls.pins.of("cache")), (None, None));
        assert!(controls.unpin("cache", BY).unwrap().contains("was not"));
        assert_eq!(recorded(&controls), ["pinned", "unpinned"]);
    }
}
