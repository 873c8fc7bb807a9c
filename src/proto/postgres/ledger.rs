//! What a client has asked and the server has not finished answering.
//!
//! Every Query, FunctionCall and Sync gets one ReadyForQuery, with two exceptions: after an error in the
//! extended protocol everything is skipped up to the next Sync, and while the server takes in a COPY it
//! ignores Sync (libpq sends one with the command, and another with CopyDone).

use std::collections::VecDeque;

/// Different things that can be outstanding at once. Clients pipeline many of a kind; who mixes kinds
/// beyond this cannot be followed.
const MOST: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    /// Query or FunctionCall, so many in a row.
    Command(u64),
    /// Messages of the extended protocol, however many, each time up to their Sync.
    Batch(u64),
    /// The same, without a Sync so far.
    Open,
    /// Sync without anything before it.
    Sync(u64),
}

/// The outstanding part of a conversation, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    items: VecDeque<Item>,
    /// The server skips everything up to a Sync that is yet to come.
    skipping: bool,
    /// The server takes in data of a COPY.
    copying: bool,
    /// CopyDone or CopyFail was sent before the server asked for data, after so many Syncs.
    done_early: Option<u64>,
    lost: bool,
}

impl Ledger {
    pub fn owes(&self) -> bool {
        !self.items.is_empty() || self.skipping
    }

    pub fn is_lost(&self) -> bool {
        self.lost
    }

    pub fn command(&mut self) {
        if self.copying {
            // The server would take it for data that is no data.
            self.lost = true;
        } else if self.skipping {
            // It is skipped.
        } else if let Some(Item::Command(n)) = self.items.back_mut() {
            *n += 1;
        } else {
            self.push(Item::Command(1));
        }
    }

    pub fn extended(&mut self) {
        if self.copying {
            self.lost = true;
        } else if !self.skipping && self.items.back() != Some(&Item::Open) {
            self.push(Item::Open);
        }
    }

    pub fn sync(&mut self) {
        if self.copying {
            return;
        }
        self.skipping = false;
        let closes = self.items.back() == Some(&Item::Open);
        if closes {
            self.items.pop_back();
        }
        match (self.items.back_mut(), closes) {
            (Some(Item::Batch(n)), true) | (Some(Item::Sync(n)), false) => *n += 1,
            (_, true) => self.push(Item::Batch(1)),
            (_, false) => self.push(Item::Sync(1)),
        }
    }

    /// CopyDone or CopyFail.
    pub fn copy_done(&mut self) {
        if self.copying {
            self.copying = false;
        } else if !self.items.is_empty() && self.done_early.is_none() {
            // Perhaps of a COPY that failed: then it means nothing.
            self.done_early = Some(self.syncs_of_first());
        }
    }

    /// Syncs sent so far that belong to the oldest command.
    fn syncs_of_first(&self) -> u64 {
        match (self.items.front(), self.items.get(1)) {
            (Some(Item::Batch(1)), Some(Item::Sync(n))) => n + 1,
            (Some(Item::Batch(1)), _) => 1,
            _ => 0,
        }
    }

    /// The server asks for data.
    pub fn copy_in(&mut self) {
        let early = self.done_early.take();
        self.copying = early.is_none();
        let syncs = self.syncs_of_first();
        // More than the COPY, and before it is known to be one: it will not end well.
        self.lost |= matches!(self.items.front(), Some(Item::Batch(n)) if *n > 1);
        if syncs == 0 || self.lost {
            return;
        }
        self.items.pop_front();
        if syncs > 1 {
            self.items.pop_front();
        }
        // Those that came before the data are ignored.
        match syncs - early.unwrap_or(syncs).min(syncs) {
            0 => self.items.push_front(Item::Open),
            1 => self.items.push_front(Item::Batch(1)),
            n => {
                self.items.push_front(Item::Sync(n - 1));
                self.items.push_front(Item::Batch(1));
            }
        }
    }

    /// ErrorResponse.
    pub fn error(&mut self) {
        self.copying = false;
        self.done_early = None;
        if self.items.front() == Some(&Item::Open) {
            while !matches!(
                self.items.front(),
                None | Some(Item::Sync(_) | Item::Batch(_))
            ) {
                self.items.pop_front();
            }
            self.skipping = self.items.is_empty();
        }
    }

    /// ReadyForQuery.
    pub fn ready(&mut self) {
        self.copying = false;
        self.done_early = None;
        self.skipping = false;
        while self.items.front() == Some(&Item::Open) {
            self.items.pop_front();
        }
        if let Some(Item::Command(n) | Item::Batch(n) | Item::Sync(n)) = self.items.front_mut() {
            *n -= 1;
            if *n == 0 {
                self.items.pop_front();
            }
        }
    }

    fn push(&mut self, item: Item) {
        if self.items.len() >= MOST {
            self.lost = true;
            self.items.clear();
        } else if !self.lost {
            self.items.push_back(item);
        }
    }
}
