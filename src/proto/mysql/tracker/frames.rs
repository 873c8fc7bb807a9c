//! One direction's bytes as packets. Of each only the first few bytes are kept.

use crate::proto::mysql::packet::{self, FULL, HEADER};

/// As much of a payload as anything needs: an OK packet up to its status flags.
pub const LOOK: usize = 24;

/// What the next bytes were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The beginning of a packet of this length, see [`Frames::look`]. `first`: of a message.
    Head { len: usize, seq: u8, first: bool },
    /// Its end. `last`: of a message.
    End { seq: u8, last: bool },
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    head: [u8; HEADER + LOOK],
    /// Bytes in `head`.
    have: usize,
    /// Whether the head is complete, and then how much of the body is to come.
    body: Option<usize>,
    /// The packet before was a full one: this one goes on with its message.
    goes_on: bool,
}

impl Frames {
    /// Takes from `input` until something is known. `wanted` says how much of a payload that begins
    /// with this byte has to be seen, at most [`LOOK`]; it is not asked about what goes on.
    pub fn next(&mut self, input: &mut &[u8], wanted: impl Fn(u8) -> usize) -> Option<Event> {
        if let Some(left) = self.body {
            let taken = left.min(input.len());
            *input = &input[taken..];
            self.body = Some(left - taken);
            return self.end();
        }
        loop {
            let need = self.need(&wanted);
            if self.have >= need {
                return Some(self.begin());
            }
            let taken = (need - self.have).min(input.len());
            if taken == 0 {
                return None;
            }
            self.head[self.have..self.have + taken].copy_from_slice(&input[..taken]);
            self.have += taken;
            *input = &input[taken..];
        }
    }

    fn need(&self, wanted: impl Fn(u8) -> usize) -> usize {
        if self.have < HEADER {
            return HEADER;
        }
        let (len, _) = self.header();
        if self.goes_on || len == 0 {
            return HEADER;
        }
        if self.have == HEADER {
            return HEADER + 1;
        }
        HEADER + wanted(self.head[HEADER]).clamp(1, LOOK).min(len)
    }

    fn header(&self) -> (usize, u8) {
        let [a, b, c, d, ..] = self.head;
        packet::read_header([a, b, c, d])
    }

    fn begin(&mut self) -> Event {
        let (len, seq) = self.header();
        self.body = Some(len - (self.have - HEADER));
        Event::Head {
            len,
            seq,
            first: !self.goes_on,
        }
    }

    fn end(&mut self) -> Option<Event> {
        if self.body != Some(0) {
            return None;
        }
        let (len, seq) = self.header();
        self.body = None;
        self.have = 0;
        self.goes_on = len == FULL;
        Some(Event::End {
            seq,
            last: !self.goes_on,
        })
    }

    /// The beginning of the payload, after [`Event::Head`].
    pub fn look(&self) -> &[u8] {
        &self.head[HEADER..self.have.max(HEADER)]
    }

    /// How many bytes follow that need not be seen.
    pub fn unseen(&self) -> u64 {
        self.body.map_or(0, |left| left as u64)
    }

    /// `count` bytes passed unseen. `None`: more than could.
    pub fn skip(&mut self, count: u64) -> Option<Option<Event>> {
        let left = self.unseen().checked_sub(count)?;
        self.body = self.body.and_then(|_| usize::try_from(left).ok());
        Some(self.end())
    }

    /// Whether a message has begun and not ended.
    pub fn is_within(&self) -> bool {
        self.have > 0 || self.body.is_some() || self.goes_on
    }
}
