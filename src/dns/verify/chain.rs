//! Chains of CNAMEs, walked by ourselves: what a client waits for is the shortest TTL of all its links.

use std::collections::BTreeSet;

use crate::dns::record::{Name, RrSet};

/// RFC 1034 sets no limit; resolvers give up at about this.
const MAX_LINKS: usize = 10;

/// From a name to the addresses it ends at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The names after the first.
    pub links: Vec<Name>,
    /// The shortest TTL on the way, in seconds; that of the addresses included.
    pub ttl: u32,
    /// `None`: the last name has no such records.
    pub end: Option<RrSet>,
}

/// Why a chain has no end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("{0} leads back to itself")]
    Loop(Name),
    #[error("more than {MAX_LINKS} names, one after the other")]
    Long,
}

/// A chain that is being walked.
#[derive(Clone, Debug)]
pub struct Walk {
    at: Name,
    seen: BTreeSet<Name>,
    links: Vec<Name>,
    ttl: u32,
}

impl Walk {
    pub fn new(from: Name) -> Self {
        Self {
            seen: BTreeSet::from([from.clone()]),
            at: from,
            links: Vec::new(),
            ttl: u32::MAX,
        }
    }

    /// The name to ask for next.
    pub fn at(&self) -> &Name {
        &self.at
    }

    /// Follows one CNAME.
    ///
    /// # Errors
    /// When it leads back, or the chain is too long.
    pub fn follow(&mut self, target: Name, ttl: u32) -> Result<(), ChainError> {
        if !self.seen.insert(target.clone()) {
            return Err(ChainError::Loop(target));
        }
        if self.links.len() >= MAX_LINKS {
            return Err(ChainError::Long);
        }
        self.ttl = self.ttl.min(ttl);
        self.links.push(target.clone());
        self.at = target;
        Ok(())
    }

    pub fn end(self, end: Option<RrSet>) -> Chain {
        let ttl = end.as_ref().map_or(self.ttl, |set| self.ttl.min(set.ttl()));
        Chain {
            links: self.links,
            ttl,
            end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn the_shortest_link_counts() {
        let mut walk = Walk::new(name("shop.example.com"));
        walk.follow(name("lb.example.net"), 300).unwrap();
        walk.follow(name("gra.example.org"), 30).unwrap();
        let end = RrSet::parse(&"gra.example.org A".parse().unwrap(), 60, ["192.0.2.1"]).unwrap();
        let chain = walk.end(Some(end));
        assert_eq!((chain.ttl, chain.links.len()), (30, 2));
    }

    #[test]
    fn chains_without_end_end() {
        let mut walk = Walk::new(name("a.example"));
        walk.follow(name("b.example"), 1).unwrap();
        assert_eq!(
            walk.follow(name("a.example"), 1),
            Err(ChainError::Loop(name("a.example")))
        );
        let mut walk = Walk::new(name("a.example"));
        let longer = (0..20).map(|n| walk.follow(name(&format!("n{n}.example")), 1));
        assert_eq!(
            longer.filter(Result::is_err).last(),
            Some(Err(ChainError::Long))
        );
    }
}
