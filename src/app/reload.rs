//! Following a changed config while it runs.
//!
//! Everything that may fail is done first and changes nothing; what follows cannot fail. Services that are
//! the same go on as if nothing had been. A service that changed is started anew beside the old one, on
//! the same sockets; the old one serves the clients it has until they leave.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::service::{self, Pool, Prepared, Running};
use super::{App, AppError};
use crate::addr::Addr;
use crate::config::{self, Config, Diff, LoadError, Loaded};
use crate::events::{By, Entry};
use crate::gate::HoldReason;
use crate::net::inherit::Inherited;
use crate::net::listen::Bound;

/// Why the old config stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong; the text has a line for each mistake.
    #[error("{0}")]
    Config(#[from] LoadError),
    #[error("{0}")]
    App(#[from] AppError),
    #[error("it could not be read")]
    Lost,
    #[error("another process is taking over, and reads the file itself")]
    TakenOver,
}

impl App {
    /// Reads the file again and follows it. Says what changed, a line each.
    ///
    /// # Errors
    /// When the file is wrong, or something it names cannot be had. Then nothing has changed.
    pub(super) async fn reload(&mut self, by: Option<By>) -> Result<Vec<String>, ReloadError> {
        if self.successions.under_way() {
            // It reads the file as it is now, and what would be started here would not be handed over.
            let refused = Err(ReloadError::TakenOver);
            self.record_reload(by, &refused);
            return refused;
        }
        self.manager.reloading();
        let path = self.path.clone();
        // The disk may be slow, and health must not be.
        let read = tokio::task::spawn_blocking(move || config::load(&path)).await;
        let followed = match read {
            Ok(Ok(loaded)) => self.follow(loaded),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(ReloadError::Lost),
        };
        self.record_reload(by, &followed);
        self.keep();
        self.manager.ready();
        followed
    }

    fn record_reload(&self, by: Option<By>, followed: &Result<Vec<String>, ReloadError>) {
        let (event, message) = match followed {
            Ok(lines) => {
                let lines = lines.join("; ");
                info!(event = "reloaded", "{lines}");
                ("reloaded", lines)
            }
            Err(why) => {
                let why = why.to_string().replace('\n', "; ");
                error!(
                    event = "reload-failed",
                    "the old configuration stays: {why}"
                );
                ("reload-failed", why)
            }
        };
        let failed = followed.is_err().then(|| message.clone());
        self.surface.set_config_error(failed);
        self.common.events.record(Entry {
            by,
            ..Entry::new(event, message)
        });
    }

    fn follow(&mut self, loaded: Loaded) -> Result<Vec<String>, ReloadError> {
        for warning in loaded.warning_lines() {
            warn!(event = "config", "{warning}");
        }
        let Loaded { text, config, .. } = loaded;
        let config = config.staying_in(self.config.region.as_deref());
        let diff = config::diff(&self.config, &config);
        let prepared = self.prepare(&config, &diff)?;
        self.apply(&config, &diff, prepared);
        self.show();
        self.surface.set_config_text(config::mask::passwords(&text));
        Ok(diff.lines())
    }

    /// What may fail.
    fn prepare(&self, config: &Config, diff: &Diff) -> Result<Vec<Prepared>, AppError> {
        // What stays keeps its addresses: binding one of them fails, as it should.
        let bound: BTreeMap<&Addr, &Bound> = self
            .services
            .iter()
            .filter(|running| diff.ends(&running.view.name))
            .flat_map(|running| &running.front.bound)
            .map(|bound| (&bound.addr, bound))
            .collect();
        let wanted = config.services.iter();
        let mut nothing = Inherited::default();
        wanted
            .filter(|spec| diff.begins(&spec.name))
            .map(|spec| service::prepare(spec, &self.common, &bound, &mut nothing))
            .collect()
    }

    /// What cannot fail.
    fn apply(&mut self, config: &Config, diff: &Diff, prepared: Vec<Prepared>) {
        let mut pool = Pool::new();
        let patience = config.drain_timeout;
        let (leaving, staying): (Vec<Running>, Vec<Running>) = std::mem::take(&mut self.services)
            .into_iter()
            .partition(|running| diff.ends(&running.view.name));
        let paused: Vec<Arc<str>> = leaving
            .iter()
            .filter(|running| running.control.gate.holds(HoldReason::Operator))
            .map(|running| running.view.name.clone())
            .collect();
        // The sockets first; the old accept loops end only after the new ones have begun.
        let stops: Vec<_> = leaving.iter().map(|r| r.front.stop.clone()).collect();
        for running in leaving {
            self.controls.handovers.cancel(&running.view.name);
            self.retire(running, patience, &mut pool);
        }
        self.services = staying;
        for prepared in prepared {
            let mut running = service::start(prepared, &self.common, &mut pool);
            if paused.contains(&running.view.name) {
                running.control.gate.hold(HoldReason::Operator);
            }
            running.front.open(&self.common.threads);
            self.services.push(running);
        }
        // Where nobody listens any more there is no file either, whoever kept the socket.
        pool.values_mut().for_each(|bound| bound.leave(false));
        stops.iter().for_each(|stop| stop.cancel());
        // As the file lists them, which is what people expect to see.
        let order = |name: &str| config.services.iter().position(|s| *s.name == *name);
        self.services
            .sort_by_key(|running| order(&running.view.name));
        self.config.drain_timeout = config.drain_timeout;
        self.config.http.unhealthy_after = config.http.unhealthy_after;
        self.config.services.clone_from(&config.services);
    }

    fn retire(&mut self, running: Running, patience: Duration, pool: &mut Pool) {
        let service = running.retire(&self.common, patience, pool);
        self.retired.retain(|service| service.strong_count() > 0);
        self.retired.push(Arc::downgrade(&service));
    }
}
