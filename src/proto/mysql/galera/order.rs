//! An operator's word about who comes first. Pure.
//!
//! It is no pin: a preferred node that is not fit is passed over like any other, and when it is fit again it
//! takes over after `failback_after`, as the first of the usual order would.

use super::GaleraJudge;
use crate::addr::Addr;

impl GaleraJudge {
    /// `wish` comes before all others; `None`: the usual order. It takes over as soon as it is fit, the first
    /// time.
    pub(super) fn prefer(&mut self, wish: Option<Addr>) {
        if wish == self.preferred || wish.as_ref().is_some_and(|w| !self.usual.contains(w)) {
            return;
        }
        let addr = |index: usize| self.nodes[index].addr.clone();
        let current = self.current.map(addr);
        let leaving = self.leaving.map(|(index, until)| (addr(index), until));
        self.notes.push(match &wish {
            Some(wish) => format!("{wish} comes first from now on: an operator wants it"),
            None => "the usual order of nodes counts again".to_owned(),
        });
        self.at_once = wish.is_some() && wish != current;
        self.preferred = wish;
        let (usual, preferred) = (&self.usual, self.preferred.as_ref());
        let place = |addr: &Addr| usual.iter().position(|usual| usual == addr);
        self.nodes
            .sort_by_key(|node| (Some(&node.addr) != preferred, place(&node.addr)));
        let index = |addr: &Addr| self.nodes.iter().position(|node| node.addr == *addr);
        self.current = current.as_ref().and_then(index);
        self.leaving = leaving.and_then(|(addr, until)| Some((index(&addr)?, until)));
    }

    pub(super) fn is_wanted_now(&self, addr: &Addr) -> bool {
        self.at_once && self.preferred.as_ref() == Some(addr)
    }

    /// The word is heeded when the node is the writer; from then on it proves itself like any other.
    pub(super) fn heed_word(&mut self, chosen: usize) {
        if self.preferred.as_ref() == Some(&self.nodes[chosen].addr) {
            self.at_once = false;
        }
    }

    /// What status says of it.
    pub(super) fn word_for(&self, addr: &Addr) -> Option<String> {
        let preferred = self.preferred.as_ref() == Some(addr);
        preferred.then(|| "it comes first: an operator wants it, until a restart".to_owned())
    }
}
