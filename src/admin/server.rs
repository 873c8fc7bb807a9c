//! Accepts on the admin socket.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::command::Asked;
use super::controls::Controls;
use super::handlers::{self, Answer, whole};
use super::peer::{Caller, Policy, Refusals};
use crate::addr::Addr;
use crate::data::admit::Limit;
use crate::events::By;
use crate::net::Stream;
use crate::net::inherit::Inherited;
use crate::net::listen::{Bound, ListenError, Listener, open_control};
use crate::telemetry::problem::Problem;
use crate::telemetry::serve::{Patience, accept_loop, converse};

/// Connections of root and the owner at a time.
const MAX_TRUSTED: usize = 64;
/// Of everybody else together: they must not take the others' places.
const MAX_OTHERS: usize = 32;

/// Of a request: an address, and little else.
const MAX_BODY: usize = 64 * 1024;

/// No lifetime: following events takes as long as somebody looks.
const PATIENCE: Patience = Patience {
    head: Duration::from_secs(5),
    lifetime: None,
    keep_alive: true,
};

/// Long enough to read the refusal.
const PATIENCE_WITH_STRANGERS: Patience = Patience {
    head: Duration::from_secs(1),
    lifetime: Some(Duration::from_secs(2)),
    keep_alive: false,
};

/// The socket, bound. Its file goes when this does.
#[derive(Debug)]
pub struct Admin {
    listener: Listener,
    policy: Policy,
    bound: Option<Bound>,
}

/// What all connections share.
struct Desk {
    controls: Arc<Controls>,
    policy: Policy,
    refusals: Refusals,
    trusted: Arc<Limit>,
    others: Arc<Limit>,
    stop: CancellationToken,
}

impl Admin {
    /// Binds; needs a runtime around it. A mode that lets nobody but the owner write to the file would
    /// keep the members of `allow_groups` out before they can be asked who they are, so it is widened
    /// when there are such groups: the check of the peer is what decides.
    ///
    /// # Errors
    /// When the path is taken, not ours, or not bindable.
    pub fn bind(socket: &Path, mode: u32, allow_groups: &[String]) -> Result<Self, ListenError> {
        Self::open((socket, mode), allow_groups, &mut Inherited::default())
    }

    /// As [`Admin::bind`], with the socket that is open already, if there is one.
    ///
    /// # Errors
    /// As [`Admin::bind`].
    pub fn open(
        (socket, mode): (&Path, u32),
        allow_groups: &[String],
        inherited: &mut Inherited,
    ) -> Result<Self, ListenError> {
        let owner_only = mode & 0o022 == 0;
        let mode = match allow_groups {
            [_, ..] if owner_only => mode | 0o666,
            _ => mode,
        };
        let (bound, listener) = open_control(&Addr::Unix(socket.into()), mode, inherited)?;
        Ok(Self {
            listener,
            policy: Policy::new(allow_groups),
            bound: Some(bound),
        })
    }

    /// Gives away what it is bound to, once: the file goes, or stays, with that.
    pub fn take_bound(&mut self) -> Option<Bound> {
        self.bound.take()
    }

    /// Answers until `stop`.
    pub async fn serve(self, controls: Arc<Controls>, stop: CancellationToken) {
        let desk = Arc::new(Desk {
            controls,
            policy: self.policy,
            refusals: Refusals::default(),
            trusted: Limit::new(MAX_TRUSTED),
            others: Limit::new(MAX_OTHERS),
            stop: stop.clone(),
        });
        accept_loop(&self.listener, &stop, |stream| {
            let caller = Caller::of(&stream)?;
            let places = match desk.policy.trusts(&caller) {
                true => &desk.trusted,
                false => &desk.others,
            };
            let place = places.take()?;
            let desk = desk.clone();
            Some(async move {
                receive(&desk, stream, caller).await;
                drop(place);
            })
        })
        .await;
    }
}

async fn receive(desk: &Arc<Desk>, stream: Stream, caller: Caller) {
    if desk.policy.admits(caller).await {
        let controls = desk.controls.clone();
        let by = By {
            uid: caller.uid,
            pid: caller.pid,
        };
        let service = service_fn(move |request: Request<Incoming>| {
            let controls = controls.clone();
            async move { Ok::<_, Infallible>(respond(&controls, request, by).await) }
        });
        return converse(stream, PATIENCE, service, desk.stop.clone()).await;
    }
    if desk
        .refusals
        .note(caller.uid, desk.controls.surface.clock.now())
    {
        let Caller { uid, pid, .. } = caller;
        warn!(
            event = "admin-refused",
            uid, pid, "this user may not use the admin socket"
        );
    }
    let service = service_fn(|_: Request<Incoming>| {
        let answer = Problem::new(
            StatusCode::FORBIDDEN,
            "only root, the user Pilotfish runs as and members of [admin] allow_groups may",
        );
        async move { Ok::<_, Infallible>(answer.response()) }
    });
    converse(stream, PATIENCE_WITH_STRANGERS, service, desk.stop.clone()).await;
}

async fn respond(controls: &Arc<Controls>, request: Request<Incoming>, by: By) -> Answer {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        let detail = "the body is too long, or did not arrive";
        return whole(Problem::new(StatusCode::BAD_REQUEST, detail).response());
    };
    let asked = Asked {
        method: &head.method,
        path: head.uri.path(),
        query: head.uri.query(),
        body: &body.to_bytes(),
    };
    handlers::respond(controls, &asked, by).await
}

#[cfg(test)]
mod tests;
