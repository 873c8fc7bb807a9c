//! A stream of messages, seen through its heads: one byte of type, four of length, and a body of which
//! at most the beginning is looked at.

/// The beginning of a body, in place: a session must not need memory of its own for it.
#[derive(Clone, Debug)]
pub struct Body {
    bytes: [u8; Self::MOST],
    length: usize,
}

impl Body {
    pub const MOST: usize = 64;

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = &mut self.bytes[self.length..];
        let n = bytes.len().min(room.len());
        room[..n].copy_from_slice(&bytes[..n]);
        self.length += n;
    }
}

/// A length that no message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength;

/// One direction.
#[derive(Clone, Debug)]
pub struct Frames {
    head: [u8; 5],
    /// Bytes of the head that are there. 5: inside a body, or at its end.
    have: usize,
    /// Bytes of the body to come.
    left: u64,
    /// Of these, how many are to be looked at.
    wanted: usize,
    body: Body,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            head: [0; 5],
            have: 0,
            left: 0,
            wanted: 0,
            body: Body {
                bytes: [0; Body::MOST],
                length: 0,
            },
        }
    }
}

impl Frames {
    /// Takes bytes up to the end of the next message at most. Returns how many, and the message's type
    /// if it is complete. `worth` says how much of the body to look at, at most [`Body::MOST`].
    ///
    /// # Errors
    /// A length that no message has.
    pub fn take(
        &mut self,
        bytes: &[u8],
        worth: impl FnOnce(u8) -> usize,
    ) -> Result<(usize, Option<u8>), BadLength> {
        let mut used = 0;
        if self.have < 5 {
            used = bytes.len().min(5 - self.have);
            self.head[self.have..self.have + used].copy_from_slice(&bytes[..used]);
            self.have += used;
            if self.have < 5 {
                return Ok((used, None));
            }
            let [_, length @ ..] = self.head;
            // The server's own limit is a gigabyte and a little; lengths are signed.
            let length = u32::from_be_bytes(length);
            if !(4..=u32::MAX >> 1).contains(&length) {
                return Err(BadLength);
            }
            self.left = u64::from(length - 4);
            self.wanted = worth(self.head[0]).min(Body::MOST);
            self.body.length = 0;
        }
        let rest = &bytes[used..];
        let n = usize::try_from(self.left).map_or(rest.len(), |left| left.min(rest.len()));
        let look = n.min(self.wanted);
        self.body.add(&rest[..look]);
        self.wanted -= look;
        self.left -= n as u64;
        used += n;
        Ok((used, self.complete()))
    }

    /// What was to be looked at of the message that was taken last.
    pub fn body(&self) -> &Body {
        &self.body
    }

    fn complete(&mut self) -> Option<u8> {
        if self.have < 5 || self.left > 0 {
            return None;
        }
        self.have = 0;
        Some(self.head[0])
    }

    /// How many of the next bytes need not be seen: the body but its last byte, so that its end is.
    pub fn unseen(&self) -> u64 {
        if self.wanted > 0 {
            return 0;
        }
        self.left.saturating_sub(1)
    }

    /// `count` bytes passed unseen. `false`: more than there are.
    #[must_use]
    pub fn skip(&mut self, count: u64) -> bool {
        let fits = count <= self.unseen();
        self.left = self.left.saturating_sub(count);
        fits
    }

    /// Whether the next byte is a message's first.
    pub fn at_boundary(&self) -> bool {
        self.have == 0
    }
}
