//! Health, metrics, admin and Alertmanager's wishes: on the control thread, with listeners of their own.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::addr::Addr;
use crate::admin::controls::Controls;
use crate::admin::server::Admin;
use crate::config::Config;
use crate::cutover::auto::serve::Receiver;
use crate::net::inherit::Inherited;
use crate::net::listen::{Bound, ListenError, Listener, open_control};
use crate::supervise::Supervisor;
use crate::telemetry::surface::Surface;
use crate::telemetry::{agent, http};

/// A listener that nobody accepts from yet.
enum Counter {
    Http(Listener),
    Agent(Listener),
    Alertmanager(Arc<Receiver>, Listener),
    Admin(Admin),
}

/// All of them, bound.
pub struct Counters {
    counters: Vec<Counter>,
    /// Closed, and Unix sockets removed, when this goes.
    pub bound: Vec<Bound>,
    /// Ends them, and the conversations there.
    pub stop: CancellationToken,
}

impl Counters {
    /// Binds what is not open already. `receiver` is there exactly when the config wants it.
    ///
    /// # Errors
    /// When an address cannot be had.
    pub fn bind(
        config: &Config,
        inherited: &mut Inherited,
        receiver: Option<Arc<Receiver>>,
        stop: CancellationToken,
    ) -> Result<Self, ListenError> {
        let (mut counters, mut all) = (Vec::new(), Vec::new());
        for &addr in &config.http.listen {
            let (bound, listener) = open_control(&Addr::Ip(addr), 0, inherited)?;
            info!(event = "listening", http = %addr, "listening");
            counters.push(Counter::Http(listener));
            all.push(bound);
        }
        if let Some(addr) = config.http.agent {
            let (bound, listener) = open_control(&Addr::Ip(addr), 0, inherited)?;
            info!(event = "listening", agent = %addr, "listening");
            counters.push(Counter::Agent(listener));
            all.push(bound);
        }
        let auto = config.cutover.as_ref().and_then(|spec| spec.auto.as_ref());
        if let Some((auto, receiver)) = auto.zip(receiver) {
            let (bound, listener) = open_control(&Addr::Ip(auto.listen), 0, inherited)?;
            info!(event = "listening", alertmanager = %auto.listen, "listening");
            counters.push(Counter::Alertmanager(receiver, listener));
            all.push(bound);
        }
        let spec = &config.admin;
        let mut admin = Admin::open((&spec.socket, spec.mode), &spec.allow_groups, inherited)?;
        all.extend(admin.take_bound());
        counters.push(Counter::Admin(admin));
        Ok(Self {
            counters,
            bound: all,
            stop,
        })
    }

    /// Answers until `stop`.
    pub fn open(
        &mut self,
        supervisor: &Supervisor,
        surface: &Arc<Surface>,
        controls: &Arc<Controls>,
    ) {
        for counter in self.counters.drain(..) {
            let stop = self.stop.clone();
            match counter {
                Counter::Http(listener) => {
                    supervisor.spawn("http", http::serve(listener, surface.clone(), stop));
                }
                Counter::Agent(listener) => {
                    supervisor.spawn("agent", agent::serve(listener, surface.clone(), stop));
                }
                Counter::Alertmanager(receiver, listener) => {
                    supervisor.spawn("cutover-auto", receiver.serve(listener, stop));
                }
                Counter::Admin(admin) => {
                    supervisor.spawn("admin", admin.serve(controls.clone(), stop));
                }
            }
        }
    }

    /// Answers no more, because another process does, in the same sockets.
    pub fn stop_listening(&mut self) {
        self.stop.cancel();
        self.bound.iter_mut().for_each(|bound| bound.leave(true));
        self.bound.clear();
    }
}
