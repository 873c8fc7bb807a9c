//! Where a session stands, read from packets as they pass.
//!
//! Of a packet only its head is looked at. Whatever is not understood pins the session: then nothing is
//! known about it any more, which is safe.

mod answer;
mod frames;

use std::collections::VecDeque;

use bytes::Bytes;

use self::answer::{Answer, Dialect, Effect, Packet, Read};
use self::frames::{Event, Frames};
use super::packet::{Words, errno, status};
use crate::proto::spec::InFlight;
use crate::proto::track::{Direction, Farewell, Opaque, SessionState, Tracker};

/// Requests under way; clients that do not wait for answers send some hundreds at most.
const MOST_UNDER_WAY: usize = 4096;

/// How a session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the capabilities that both sides have, and the status of the login's OK.
    Readable {
        caps: u64,
        status: u16,
    },
    Opaque(Opaque),
}

/// See [`Tracker`].
#[derive(Debug)]
pub struct MysqlTracker {
    talk: Result<Talk, Opaque>,
    in_flight: InFlight,
    hint: bool,
}

#[derive(Debug)]
struct Talk {
    dialect: Dialect,
    up: Frames,
    down: Frames,
    under_way: VecDeque<Answer>,
    /// What the server's packet that is passing means.
    effect: Effect,
    /// What the client's packet that is passing means once it has passed.
    file_ends: bool,
    /// Of the last OK or EOF.
    status: u16,
    /// A part of a statement's parameters is on the server already.
    parts_sent: bool,
    /// The client did not wait for an answer.
    pipelined: bool,
    /// The sequence id after the last packet.
    next_seq: u8,
}

/// It is not what the protocol allows, or what it allows and we do not know.
struct Unknown;

impl MysqlTracker {
    pub fn new(start: Start, in_flight: InFlight) -> Self {
        let talk = match start {
            Start::Readable { caps, status } => Ok(Talk::new(caps, status)),
            Start::Opaque(why) => Err(why),
        };
        Self {
            talk,
            in_flight,
            hint: false,
        }
    }

    fn pin(&mut self) {
        self.talk = Err(Opaque::Unknown);
    }
}

impl Tracker for MysqlTracker {
    fn see(&mut self, direction: Direction, bytes: &[u8]) -> u64 {
        let Ok(talk) = &mut self.talk else {
            return u64::MAX;
        };
        let seen = match direction {
            Direction::Up => talk.see_up(bytes),
            Direction::Down => talk.see_down(bytes, &mut self.hint),
        };
        match seen {
            Ok(unseen) => unseen,
            Err(Unknown) => {
                self.pin();
                u64::MAX
            }
        }
    }

    fn skip(&mut self, direction: Direction, count: u64) {
        let Ok(talk) = &mut self.talk else {
            return;
        };
        if talk.skip(direction, count).is_err() {
            self.pin();
        }
    }

    fn state(&self) -> SessionState {
        match &self.talk {
            Ok(talk) => talk.state(),
            Err(why) => SessionState::Pinned(*why),
        }
    }

    fn farewell(&self, why: Farewell) -> Option<Bytes> {
        let what = match why {
            Farewell::Switched => "the primary has moved",
            Farewell::Drained => "the proxy shuts down",
            Farewell::ServerLost => "the server is gone",
            Farewell::Idle => return None,
        };
        let talk = self.talk.as_ref().ok()?;
        if self.in_flight != InFlight::Error || !talk.takes_an_error() {
            return None;
        }
        let text = format!("Pilotfish: {what}; whether this was carried out is not known");
        let words = Words {
            code: errno::SERVER_SHUTDOWN,
            state: Some("08S01"),
            text: &text,
        };
        Some(words.packet(talk.next_seq))
    }

    fn take_hint(&mut self) -> bool {
        std::mem::take(&mut self.hint)
    }
}

impl Talk {
    fn new(caps: u64, status: u16) -> Self {
        Self {
            dialect: Dialect::new(caps),
            up: Frames::default(),
            down: Frames::default(),
            under_way: VecDeque::new(),
            effect: Effect::Stay,
            file_ends: false,
            status,
            parts_sent: false,
            pipelined: false,
            next_seq: 0,
        }
    }

    fn state(&self) -> SessionState {
        let cursor = status::CURSOR_EXISTS | status::LAST_ROW_SENT;
        let open = self.status & status::IN_TRANS != 0
            || self.status & cursor == status::CURSOR_EXISTS
            || self.parts_sent;
        if !self.under_way.is_empty() || self.up.is_within() || self.down.is_within() {
            SessionState::InFlight
        } else if open {
            SessionState::InTransaction
        } else {
            SessionState::Idle
        }
    }

    /// Whether the client reads an error packet as (the rest of) the answer that it waits for.
    fn takes_an_error(&self) -> bool {
        let waits = !matches!(
            self.under_way.front(),
            None | Some(Answer::Login | Answer::File)
        );
        let alone = self.under_way.len() == 1 && !self.pipelined;
        waits && alone && !self.up.is_within() && !self.down.is_within()
    }

    fn see_up(&mut self, mut bytes: &[u8]) -> Result<u64, Unknown> {
        while let Some(event) = self.up.next(&mut bytes, |_| 1) {
            self.up_event(event)?;
        }
        Ok(self.up.unseen())
    }

    fn see_down(&mut self, mut bytes: &[u8], hint: &mut bool) -> Result<u64, Unknown> {
        loop {
            // Without a request there is nothing to be said, but perhaps why the server goes.
            let due = self.under_way.front().copied().unwrap_or(Answer::Simple);
            let Some(event) = self.down.next(&mut bytes, |first| due.wanted(first)) else {
                return Ok(self.down.unseen());
            };
            if let Event::Head { len, first, .. } = event {
                self.down_head(len, first, hint)?;
            } else {
                self.down_end(event)?;
            }
        }
    }

    fn skip(&mut self, direction: Direction, count: u64) -> Result<(), Unknown> {
        match direction {
            Direction::Up => match self.up.skip(count).ok_or(Unknown)? {
                Some(event) => self.up_event(event),
                None => Ok(()),
            },
            Direction::Down => match self.down.skip(count).ok_or(Unknown)? {
                Some(event) => self.down_end(event),
                None => Ok(()),
            },
        }
    }

    fn up_event(&mut self, event: Event) -> Result<(), Unknown> {
        match event {
            Event::Head { first: false, .. } => {}
            Event::Head { len, seq, .. } => {
                let command = self.up.look().first().copied();
                match self.under_way.front() {
                    Some(Answer::File) => self.file_ends = len == 0,
                    // An answer to what the server asked.
                    Some(Answer::Login) if seq != 0 => {}
                    _ if seq != 0 => return Err(Unknown),
                    Some(Answer::Login) => return Err(Unknown),
                    _ => self.command(command.ok_or(Unknown)?)?,
                }
            }
            Event::End { seq, last } => {
                self.next_seq = seq.wrapping_add(1);
                if last && std::mem::take(&mut self.file_ends) {
                    self.replace(Answer::Result)?;
                }
            }
        }
        Ok(())
    }

    /// A request begins.
    fn command(&mut self, command: u8) -> Result<(), Unknown> {
        if !self.under_way.is_empty() {
            self.pipelined = true;
        }
        let answer = match command {
            // QUIT
            0x01 => return Ok(()),
            // INIT_DB, CREATE_DB, DROP_DB, REFRESH, SHUTDOWN, PROCESS_KILL, DEBUG, PING, STMT_RESET,
            // SET_OPTION, RESET_CONNECTION
            0x02 | 0x05..=0x08 | 0x0c..=0x0e | 0x1a | 0x1b | 0x1f => Answer::Simple,
            // FIELD_LIST, STMT_FETCH
            0x04 | 0x1c => Answer::Rows,
            // STATISTICS
            0x09 => Answer::Text,
            // QUERY, PROCESS_INFO, STMT_EXECUTE, MariaDB's STMT_BULK_EXECUTE
            0x03 | 0x0a | 0x17 | 0xfa => Answer::Result,
            // CHANGE_USER
            0x11 => Answer::Login,
            // STMT_PREPARE
            0x16 => Answer::Prepare,
            // STMT_SEND_LONG_DATA
            0x18 => {
                self.parts_sent = true;
                return Ok(());
            }
            // STMT_CLOSE
            0x19 => {
                self.parts_sent = false;
                self.status &= !status::CURSOR_EXISTS;
                return Ok(());
            }
            // Replication (0x12, 0x15, 0x1e) and whatever else there is.
            _ => return Err(Unknown),
        };
        if self.under_way.len() >= MOST_UNDER_WAY {
            return Err(Unknown);
        }
        if command != 0x16 {
            self.parts_sent = false;
        }
        self.under_way.push_back(answer);
        Ok(())
    }

    fn down_head(&mut self, len: usize, first: bool, hint: &mut bool) -> Result<(), Unknown> {
        if !first {
            return Ok(());
        }
        let look = self.down.look();
        let packet = Packet { len, look };
        let due = self.under_way.front().copied();
        let Some(read) = due.unwrap_or(Answer::Simple).read(packet, self.dialect) else {
            return Err(Unknown);
        };
        let Read {
            effect,
            hint: noticed,
        } = read;
        *hint |= noticed;
        if due.is_none() || (effect == Effect::AskFile && self.pipelined) {
            return Err(Unknown);
        }
        self.effect = effect;
        Ok(())
    }

    fn down_end(&mut self, event: Event) -> Result<(), Unknown> {
        let Event::End { seq, last } = event else {
            return Err(Unknown);
        };
        self.next_seq = seq.wrapping_add(1);
        if !last {
            return Ok(());
        }
        match std::mem::replace(&mut self.effect, Effect::Stay) {
            Effect::Stay => {}
            Effect::Become(answer) => self.replace(answer)?,
            Effect::AskFile => self.replace(Answer::File)?,
            Effect::More(status) => {
                self.status = status;
                self.replace(Answer::Result)?;
            }
            Effect::Done(status) => {
                self.status = status.unwrap_or(self.status);
                self.under_way.pop_front();
                self.pipelined &= !self.under_way.is_empty();
            }
        }
        Ok(())
    }

    fn replace(&mut self, with: Answer) -> Result<(), Unknown> {
        *self.under_way.front_mut().ok_or(Unknown)? = with;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
