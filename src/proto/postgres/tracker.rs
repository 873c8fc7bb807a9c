//! Where a session stands, from the heads of its messages (documentation, "Message Flow").
//!
//! The server answers every Query, FunctionCall and Sync with one ReadyForQuery, which says whether a
//! transaction is open; [`Ledger`] knows which of them are still owed. Bodies pass unseen, except the few
//! bytes that say something.

use bytes::Bytes;

use super::cancel::Entry;
use super::frames::{BadLength, Body, Frames};
use super::ledger::Ledger;
use super::message::{self, state};
use crate::proto::track::{Direction, Farewell, Opaque, SessionState, Tracker};

/// What a ReadyForQuery says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Idle,
    /// In a transaction, which may have failed.
    InTransaction,
}

impl Status {
    pub fn read(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' | b'E' => Some(Self::InTransaction),
            _ => None,
        }
    }
}

/// Follows one session.
pub struct PostgresTracker {
    up: Frames,
    down: Frames,
    ledger: Ledger,
    status: Status,
    /// What passes is not the protocol as we know it, and never will be again.
    lost: bool,
    /// A replication session, where messages have no answers of their own.
    replication: bool,
    /// Between CopyBothResponse and the next ReadyForQuery.
    both: bool,
    /// The server has said why it will end the session.
    dismissed: bool,
    hint: bool,
    /// The session's key; what it can cancel ends with it.
    _entry: Option<Entry>,
}

impl PostgresTracker {
    /// After the login's ReadyForQuery, which said `status`.
    pub fn new(status: Status, replication: bool, entry: Option<Entry>) -> Self {
        Self {
            up: Frames::default(),
            down: Frames::default(),
            ledger: Ledger::default(),
            status,
            lost: false,
            replication,
            both: false,
            dismissed: false,
            hint: false,
            _entry: entry,
        }
    }

    fn sent(&mut self, kind: u8) {
        match kind {
            b'Q' | b'F' => self.ledger.command(),
            b'P' | b'B' | b'E' | b'D' | b'C' => self.ledger.extended(),
            b'S' => self.ledger.sync(),
            b'c' | b'f' => self.ledger.copy_done(),
            // Flush and CopyData owe nothing; Terminate ends it all; a password is out of place here,
            // and the server will say so.
            b'H' | b'd' | b'X' | b'p' => {}
            _ => self.lost = true,
        }
    }

    fn said(&mut self, kind: u8) {
        let body = self.down.body();
        match kind {
            b'Z' => {
                let status = body.bytes().first().copied().and_then(Status::read);
                let Some(status) = status else {
                    self.lost = true;
                    return;
                };
                self.status = status;
                self.both = false;
                self.ledger.ready();
            }
            b'E' => {
                let complaint = message::complaint(body.bytes());
                let sqlstate = complaint.sqlstate.as_str();
                // read_only_sql_transaction: this is a standby, or a primary that was closed.
                self.hint |= sqlstate == "25006" || message::is_not_serving(sqlstate);
                self.dismissed = complaint.fatal;
                self.ledger.error();
            }
            b'G' => self.ledger.copy_in(),
            b'W' => self.both = true,
            // A standby that was promoted says so to its sessions (since version 14).
            b'S' => self.hint |= body.bytes().starts_with(b"in_hot_standby\0off\0"),
            b'1' | b'2' | b'3' | b'A' | b'C' | b'D' | b'H' | b'I' | b'K' | b'N' | b'R' | b'T'
            | b'V' | b'c' | b'd' | b'n' | b's' | b't' | b'v' => {}
            _ => self.lost = true,
        }
    }
}

/// How many bytes of a message's body are worth a look.
fn worth(direction: Direction, kind: u8) -> usize {
    match (direction, kind) {
        (Direction::Down, b'Z') => 1,
        // Severity twice and SQLSTATE come first; `in_hot_standby` and its value are shorter.
        (Direction::Down, b'E' | b'S') => Body::MOST,
        _ => 0,
    }
}

impl Tracker for PostgresTracker {
    fn see(&mut self, direction: Direction, bytes: &[u8]) -> u64 {
        if self.lost {
            return u64::MAX;
        }
        let mut rest = bytes;
        while !rest.is_empty() && !self.lost {
            let frames = match direction {
                Direction::Up => &mut self.up,
                Direction::Down => &mut self.down,
            };
            match frames.take(rest, |kind| worth(direction, kind)) {
                Ok((used, message)) => {
                    rest = &rest[used..];
                    match (message, direction) {
                        (Some(kind), Direction::Up) => self.sent(kind),
                        (Some(kind), Direction::Down) => self.said(kind),
                        (None, _) => {}
                    }
                }
                Err(BadLength) => self.lost = true,
            }
        }
        match direction {
            _ if self.lost => u64::MAX,
            Direction::Up => self.up.unseen(),
            Direction::Down => self.down.unseen(),
        }
    }

    fn skip(&mut self, direction: Direction, count: u64) {
        if self.lost {
            return;
        }
        let fits = match direction {
            Direction::Up => self.up.skip(count),
            Direction::Down => self.down.skip(count),
        };
        self.lost |= !fits;
    }

    fn state(&self) -> SessionState {
        if self.lost || self.ledger.is_lost() || self.replication || self.both {
            SessionState::Pinned(Opaque::Unknown)
        } else if self.ledger.owes() || !self.up.at_boundary() {
            SessionState::InFlight
        } else {
            match self.status {
                Status::Idle => SessionState::Idle,
                Status::InTransaction => SessionState::InTransaction,
            }
        }
    }

    fn farewell(&self, why: Farewell) -> Option<Bytes> {
        // Between two messages an error can always be read. In the middle of one it would be taken for
        // a part of it; and who has been told why need not be told again.
        if self.lost || !self.down.at_boundary() || self.dismissed {
            return None;
        }
        let (sqlstate, text) = match why {
            Farewell::Switched => (
                state::ADMIN_SHUTDOWN,
                "terminating connection: Pilotfish moves to another primary",
            ),
            Farewell::Drained => (
                state::ADMIN_SHUTDOWN,
                "terminating connection: Pilotfish shuts down",
            ),
            Farewell::Idle => (
                state::IDLE_SESSION_TIMEOUT,
                "terminating connection due to idle-session timeout",
            ),
            // What was asked last may have been done: no word that would promise the contrary.
            Farewell::ServerLost if self.state() == SessionState::InFlight => (
                state::CONNECTION_FAILURE,
                "Pilotfish: the connection to the server is lost",
            ),
            Farewell::ServerLost => (
                state::ADMIN_SHUTDOWN,
                "terminating connection: the connection to the server is lost",
            ),
        };
        Some(message::fatal(sqlstate, text))
    }

    fn take_hint(&mut self) -> bool {
        std::mem::take(&mut self.hint)
    }
}

#[cfg(test)]
mod tests;
