//! What a request is answered with, packet by packet. Pure.

use crate::proto::mysql::packet::{Fields, cap, eof_status, errno, ok_status, status};

use super::frames::LOOK;

/// More columns than a table can have (4,096): then it is something else.
const MOST_COLUMNS: u64 = 65_535;

/// How the answers of a session look, by the capabilities both sides have.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// Results end in an OK packet, and nothing ends their columns.
    deprecate_eof: bool,
    /// The number of columns is followed by whether they are described (MySQL and MariaDB have a flag
    /// of their own for it), and so is (in MySQL only) the answer to a prepare.
    optional_metadata: bool,
    prepare_says_metadata: bool,
    /// Errors may be reports of progress (MariaDB).
    progress: bool,
}

impl Dialect {
    pub fn new(caps: u64) -> Self {
        let has = |flags: u64| caps & flags != 0;
        Self {
            deprecate_eof: has(cap::DEPRECATE_EOF),
            optional_metadata: has(cap::OPTIONAL_METADATA | cap::MARIADB_CACHE_METADATA),
            prepare_says_metadata: has(cap::OPTIONAL_METADATA),
            progress: has(cap::MARIADB_PROGRESS),
        }
    }
}

/// What is still owed for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// OK, an error, a request for a file, or a result.
    Result,
    /// One packet: OK, EOF or an error.
    Simple,
    /// One packet of text.
    Text,
    /// A prepared statement or an error.
    Prepare,
    /// So many packets that describe it.
    Prepared(u64),
    /// So many columns, then rows.
    Columns(u64),
    /// What ends the columns.
    ColumnsEnd,
    /// Rows, up to what ends them.
    Rows,
    /// Packets of a login, up to OK or an error.
    Login,
    /// Nothing before the client has sent its file.
    File,
}

/// What a packet means for the answer that it is a part of, once it has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Stay,
    Become(Answer),
    /// A result is over, and another one follows.
    More(u16),
    /// The answer is complete. An error says nothing about the transaction.
    Done(Option<u16>),
    /// It asks for a file.
    AskFile,
}

/// A packet's beginning, at most [`LOOK`] bytes of it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    pub len: usize,
    pub look: &'a [u8],
}

/// What was noticed besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    pub effect: Effect,
    /// An error that only a server gives that is not the primary.
    pub hint: bool,
}

impl From<Effect> for Read {
    fn from(effect: Effect) -> Self {
        Self {
            effect,
            hint: false,
        }
    }
}

impl Answer {
    /// How much of a payload has to be seen that begins with `first`.
    pub fn wanted(self, first: u8) -> usize {
        match (self, first) {
            (_, 0xfe | 0xff) => LOOK,
            (Self::Rows | Self::Columns(_) | Self::Prepared(_) | Self::Text, _) => 1,
            _ => LOOK,
        }
    }

    /// Reads the next packet. `None`: it cannot be a part of this.
    pub fn read(self, packet: Packet<'_>, dialect: Dialect) -> Option<Read> {
        let first = *packet.look.first()?;
        if first == 0xff {
            return error(packet, dialect);
        }
        let effect = match self {
            Self::Result => result(packet, dialect)?,
            Self::Simple => Effect::Done(Some(one_status(packet, dialect)?)),
            Self::Text => Effect::Done(None),
            Self::Prepare => prepare(packet, dialect)?,
            Self::Prepared(0 | 1) => Effect::Done(None),
            Self::Prepared(left) => Effect::Become(Self::Prepared(left - 1)),
            Self::Columns(0 | 1) => Effect::Become(dialect.after_columns()),
            Self::Columns(left) => Effect::Become(Self::Columns(left - 1)),
            Self::ColumnsEnd => columns_end(packet)?,
            Self::Rows if first == 0xfe => rows_end(packet, dialect)?,
            Self::Rows => Effect::Stay,
            Self::Login if first == 0 => Effect::Done(Some(ok_status(packet.look)?)),
            Self::Login => Effect::Stay,
            Self::File => return None,
        };
        Some(effect.into())
    }
}

impl Dialect {
    fn after_columns(self) -> Answer {
        match self.deprecate_eof {
            true => Answer::Rows,
            false => Answer::ColumnsEnd,
        }
    }
}

fn error(packet: Packet<'_>, dialect: Dialect) -> Option<Read> {
    let mut fields = Fields(packet.look.get(1..)?);
    let code = fields.u16()?;
    if dialect.progress && code == errno::PROGRESS {
        return Some(Effect::Stay.into());
    }
    Some(Read {
        effect: Effect::Done(None),
        hint: errno::is_hint(code),
    })
}

fn finished(status: u16) -> Effect {
    match status & status::MORE_RESULTS {
        0 => Effect::Done(Some(status)),
        _ => Effect::More(status),
    }
}

fn result(packet: Packet<'_>, dialect: Dialect) -> Option<Effect> {
    match packet.look.first()? {
        0 => return Some(finished(ok_status(packet.look)?)),
        0xfb => return Some(Effect::AskFile),
        _ => {}
    }
    let mut fields = Fields(packet.look);
    let columns = fields.lenenc().filter(|n| *n <= MOST_COLUMNS)?;
    let described = !dialect.optional_metadata || flag(&mut fields)?;
    if packet.len > LOOK || !fields.0.is_empty() {
        return None;
    }
    match (described, dialect.deprecate_eof) {
        (true, _) => Some(Effect::Become(Answer::Columns(columns))),
        (false, true) => Some(Effect::Become(Answer::Rows)),
        // No client asks for this, and it is not written down what ends what then.
        (false, false) => None,
    }
}

fn flag(fields: &mut Fields<'_>) -> Option<bool> {
    match fields.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn prepare(packet: Packet<'_>, dialect: Dialect) -> Option<Effect> {
    let mut fields = Fields(packet.look);
    if fields.u8()? != 0 {
        return None;
    }
    fields.u32()?;
    let columns = u64::from(fields.u16()?);
    let params = u64::from(fields.u16()?);
    fields.u8()?;
    fields.u16()?;
    let described = !dialect.prepare_says_metadata || flag(&mut fields)?;
    let ends = match dialect.deprecate_eof {
        true => 0,
        false => u64::from(columns > 0) + u64::from(params > 0),
    };
    Some(match columns + params + ends {
        0 => Effect::Done(None),
        _ if !described => Effect::Done(None),
        packets => Effect::Become(Answer::Prepared(packets)),
    })
}

/// The status of what is an OK or an EOF packet.
fn one_status(packet: Packet<'_>, dialect: Dialect) -> Option<u16> {
    match packet.look.first()? {
        0 => ok_status(packet.look),
        0xfe if dialect.deprecate_eof && packet.len >= 7 => ok_status(packet.look),
        0xfe => eof_status(packet.look),
        _ => None,
    }
}

fn columns_end(packet: Packet<'_>) -> Option<Effect> {
    if packet.look.first()? != &0xfe || packet.len != 5 {
        return None;
    }
    let status = eof_status(packet.look)?;
    Some(match status & status::CURSOR_EXISTS {
        0 => Effect::Become(Answer::Rows),
        // The rows are to be fetched.
        _ => Effect::Done(Some(status)),
    })
}

/// A packet in place of a row that begins with 0xfe: a row does that only if it is longer than 16 MB.
fn rows_end(packet: Packet<'_>, dialect: Dialect) -> Option<Effect> {
    let end = match dialect.deprecate_eof {
        true => packet.len < crate::proto::mysql::packet::FULL,
        false => packet.len < 9,
    };
    if !end {
        return Some(Effect::Stay);
    }
    Some(finished(one_status(packet, dialect)?))
}
