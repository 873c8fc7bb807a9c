//! The time between two masters: from the first sign of a failover to its end.

use std::time::Duration;

use crate::addr::Addr;
use crate::clock::Moment;
use crate::topology::Term;

/// How long a promotion may go unconfirmed by every sentinel.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(3);

/// A replica that was told to become master.
#[derive(Clone, Debug)]
pub struct Promotion {
    pub replica: Addr,
    pub since: Moment,
    pub stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has not said master since. -> Provisional, Deposing, or over
    Awaiting,
    /// It says master, and is served before any sentinel names it. -> Unconfirmed, or confirmed
    Provisional { since: Moment },
    /// It says master, and its predecessor is not released before the sentinels have spoken. -> over
    Deposing { since: Moment },
    /// Nobody named it in time: nobody is served until they agree. -> over
    Unconfirmed { since: Moment },
}

/// Why writes are held although a primary is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The sentinels agree that the master is down.
    Down,
    /// One of them names another master at a newer epoch, which is not proven.
    Claim(Addr, Term),
}

/// A bounded hold.
#[derive(Clone, Debug)]
pub struct Fence {
    pub sign: Sign,
    pub until: Moment,
}
