//! Where a session stands, read from the bytes that pass: what makes it safe to close or to move it.

use bytes::Bytes;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// Where a session stands after its login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// The client has all its answers, and nothing is open: it may be closed or moved without loss.
    Idle,
    /// An answer, or a part of one, is still owed.
    InFlight,
    /// The client has its answers, and a transaction is open on the server.
    InTransaction,
    /// It cannot be told.
    Pinned(Opaque),
}

impl SessionState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::InFlight => "in-flight",
            Self::InTransaction => "in-transaction",
            Self::Pinned(why) => why.as_str(),
        }
    }
}

/// Why nothing can be read from the bytes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opaque {
    Compressed,
    Encrypted,
    /// They are not what the protocol allows, or what it allows and we do not know.
    Unknown,
}

impl Opaque {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compressed => "pinned-compressed",
            Self::Encrypted => "pinned-encrypted",
            Self::Unknown => "pinned-unknown",
        }
    }
}

/// Why the sidecar ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Its server is not the right one any more.
    Switched,
    /// The sidecar shuts down.
    Drained,
    /// Nothing was said for `idle_timeout`.
    Idle,
    /// The server ended the connection, or it broke.
    ServerLost,
}

/// Follows one session from its login on. Synchronous, without sockets or clock, and it never changes
/// a byte.
///
/// It is shown bytes when they have been *passed on*: what waits in a buffer has not happened yet.
pub trait Tracker: Send {
    /// Takes in bytes, in whatever pieces they come. Returns how many of the bytes that follow in this
    /// direction it need not be shown; `u64::MAX` is "no more, ever".
    fn see(&mut self, direction: Direction, bytes: &[u8]) -> u64;

    /// `count` bytes passed that it had said it need not see; never more than that.
    fn skip(&mut self, direction: Direction, count: u64);

    fn state(&self) -> SessionState;

    /// What the client should hear before the end, where it can: `None` when it would be read as
    /// something else, in the middle of a message for example.
    fn farewell(&self, why: Farewell) -> Option<Bytes>;

    /// Whether the server said, since the last call, something that only a server says which is not
    /// the primary. A hint to look at it, not a verdict.
    fn take_hint(&mut self) -> bool;
}
