//! What happens in a run, as the journal keeps it.

use serde::{Deserialize, Serialize};

use crate::cutover::gate::Verdict;
use crate::cutover::plan::{Plan, PlannedSet, Way};
use crate::cutover::spec::When;
use crate::dns::Receipt;
use crate::events::By;

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub way: Way,
    pub to: String,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub overrides: Vec<String>,
    /// The plan that was shown; another one is not carried out.
    #[serde(default)]
    pub digest: Option<String>,
    #[serde(default)]
    pub by: Option<By>,
}

impl Order {
    /// One for this plan, with nothing else to it.
    pub fn of(plan: &Plan) -> Self {
        Self {
            way: plan.way,
            to: plan.to.clone(),
            reason: None,
            overrides: Vec::new(),
            digest: None,
            by: None,
        }
    }
}

/// What happened. The names are those of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Always the first.
    Begun {
        order: Order,
        sidecar: String,
    },
    /// With the lock, as every plan.
    Planned {
        plan: Plan,
    },
    /// Nothing was changed, and nothing will be. `rule`: a safety rule forbids it.
    Refused {
        why: String,
        rule: bool,
    },
    /// The records lead there already.
    Idle,
    Judged {
        verdicts: Vec<Verdict>,
    },
    HookRan {
        when: When,
        index: usize,
        ok: bool,
        why: String,
        took_ms: u64,
    },
    /// The old region is about to be fenced.
    Fencing,
    Fenced {
        ok: bool,
        why: String,
    },
    Proved {
        verdict: Verdict,
    },
    /// A database is about to be promoted.
    Promoting {
        service: String,
    },
    Promoted {
        service: String,
        ok: bool,
        why: String,
    },
    /// The target's sidecars were told to let their clients go. Not `ok`: none of them did.
    Opened {
        ok: bool,
        why: String,
    },
    /// The change is about to be sent.
    Sending {
        attempt: u32,
    },
    /// The provider has it, or had it already.
    Accepted {
        receipt: Receipt,
        /// As read back.
        stored: Vec<PlannedSet>,
        proxied: Vec<String>,
        notes: Vec<String>,
    },
    /// It is not known what came of it.
    Unsettled {
        why: String,
    },
    /// Certainly nothing came of it. `conflict`: somebody else has changed the records.
    NotSent {
        why: String,
        conflict: bool,
        again: bool,
    },
    /// Read after an unsettled attempt.
    Settled {
        left: Left,
        why: String,
    },
    Deployed {
        signal: bool,
    },
    NotDeployed {
        why: String,
    },
    Served {
        servers: Vec<String>,
    },
    NotServed {
        waiting_for: Vec<String>,
    },
    Converged {
        notes: Vec<String>,
    },
    Released {
        ok: bool,
        why: String,
    },
    LockLost {
        why: String,
    },
    /// Somebody goes on with it.
    Resumed {
        by: Option<By>,
    },
    RollbackAsked {
        by: Option<By>,
        reason: Option<String>,
    },
    /// An operator has taken it into their own hands.
    GivenUp {
        by: Option<By>,
        reason: String,
    },
}

impl Event {
    /// As the journal has it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Begun { .. } => "begun",
            Self::Planned { .. } => "planned",
            Self::Refused { .. } => "refused",
            Self::Idle => "idle",
            Self::Judged { .. } => "judged",
            Self::HookRan { .. } => "hook-ran",
            Self::Fencing => "fencing",
            Self::Fenced { .. } => "fenced",
            Self::Proved { .. } => "proved",
            Self::Promoting { .. } => "promoting",
            Self::Promoted { .. } => "promoted",
            Self::Opened { .. } => "opened",
            Self::Sending { .. } => "sending",
            Self::Accepted { .. } => "accepted",
            Self::Unsettled { .. } => "unsettled",
            Self::NotSent { .. } => "not-sent",
            Self::Settled { .. } => "settled",
            Self::Deployed { .. } => "deployed",
            Self::NotDeployed { .. } => "not-deployed",
            Self::Served { .. } => "served",
            Self::NotServed { .. } => "not-served",
            Self::Converged { .. } => "converged",
            Self::Released { .. } => "released",
            Self::LockLost { .. } => "lock-lost",
            Self::Resumed { .. } => "resumed",
            Self::RollbackAsked { .. } => "rollback-asked",
            Self::GivenUp { .. } => "given-up",
        }
    }
}

/// What is left of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Left {
    Nothing,
    Some,
    All,
    Conflict,
    /// It could not be read.
    Unread,
}
