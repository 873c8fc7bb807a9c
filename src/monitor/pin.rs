//! An operator's word over the monitor's.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Trouble, Verdict};
use crate::addr::Addr;
use crate::topology::Cause;

/// The primary, because an operator says so, until it is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    pub address: Addr,
    /// Who said so.
    pub uid: u32,
    /// RFC 3339.
    pub since: String,
}

/// The pin of a service, if there is one.
pub type PinReceiver = watch::Receiver<Option<Pin>>;

/// What is published while `pin` stands: its primary, whatever the evidence, and the monitor's own
/// opinion as what is the matter.
pub fn overrule(verdict: &mut Verdict, pin: &Pin) {
    let conclusion = &mut verdict.conclusion;
    let instead_of = conclusion.primary.replace(pin.address.clone());
    conclusion.cause = Cause::Pinned;
    conclusion.leaving = None;
    conclusion.replicas.retain(|addr| *addr != pin.address);
    verdict.fence = false;
    let pinned = Trouble::Pinned {
        addr: pin.address.clone(),
        instead_of: instead_of.filter(|addr| *addr != pin.address),
    };
    verdict.troubles.insert(0, pinned);
}
