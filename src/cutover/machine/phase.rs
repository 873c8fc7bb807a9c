//! Where a run is, and how it ends.

use serde::{Deserialize, Serialize};

/// What a run is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Planning,
    Gates,
    HooksBefore,
    Fencing,
    Proving,
    Promoting,
    /// The target's clients are let go.
    Opening,
    /// Before an attempt.
    Applying,
    Sending,
    Settling,
    Deploying,
    Serving,
    Releasing,
    Converging,
    HooksAfter,
    /// It waits for a human.
    NeedsHuman,
    Over,
}

impl Phase {
    pub const ALL: [Self; 17] = [
        Self::Planning,
        Self::Gates,
        Self::HooksBefore,
        Self::Fencing,
        Self::Proving,
        Self::Promoting,
        Self::Opening,
        Self::Applying,
        Self::Sending,
        Self::Settling,
        Self::Deploying,
        Self::Serving,
        Self::Releasing,
        Self::Converging,
        Self::HooksAfter,
        Self::NeedsHuman,
        Self::Over,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planning => "planning",
            Self::Gates => "gates",
            Self::HooksBefore => "hooks-before",
            Self::Fencing => "fencing",
            Self::Proving => "proving",
            Self::Promoting => "promoting",
            Self::Opening => "opening",
            Self::Applying => "applying",
            Self::Sending => "sending",
            Self::Settling => "settling",
            Self::Deploying => "deploying",
            Self::Serving => "serving",
            Self::Releasing => "releasing",
            Self::Converging => "converging",
            Self::HooksAfter => "hooks-after",
            Self::NeedsHuman => "needs-human",
            Self::Over => "over",
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    Done,
    /// The records led there already.
    Idle,
    RolledBack,
    /// A safety rule forbade it; nothing was changed.
    Refused,
    /// It could not be done; nothing was changed.
    Failed,
    /// An operator took it over.
    GivenUp,
}

impl End {
    pub const ALL: [Self; 6] = [
        Self::Done,
        Self::Idle,
        Self::RolledBack,
        Self::Refused,
        Self::Failed,
        Self::GivenUp,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Idle => "already-there",
            Self::RolledBack => "rolled-back",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::GivenUp => "given-up",
        }
    }
}
