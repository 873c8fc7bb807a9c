//! From what a monitor concluded to the next topology, or to none.
//!
//! Whatever the rules of a monitor are, these hold for all of them: a generation only grows, and an
//! older term is never accepted unless the database itself began to count anew.

use std::sync::Arc;

use super::{Cause, Endpoint, Generation, Leaving, Term, Topology};
use crate::addr::Addr;
use crate::clock::Moment;

/// What a monitor holds to be true now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// The proven primary.
    pub primary: Option<Addr>,
    /// The former primary, while sessions may stay there until they are between transactions, and the
    /// end of that. Only where writing to both does no harm.
    pub leaving: Option<(Addr, Moment)>,
    pub term: Option<Term>,
    /// Why the primary is this one, or why there is none.
    pub cause: Cause,
    /// Fit for reads, in a stable order.
    pub replicas: Vec<Addr>,
}

/// Why a conclusion was not published: a bug in a monitor, caught before it could do harm.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("term {offered:?} is older than the accepted {accepted:?}")]
pub struct OlderTerm {
    pub accepted: Option<Term>,
    pub offered: Option<Term>,
}

/// The topology that follows `previous`, or `None` when nothing changed.
///
/// # Errors
/// When the conclusion carries an older term than the one that was accepted.
pub fn reduce(
    previous: &Topology,
    conclusion: &Conclusion,
    now: Moment,
    endpoint: impl FnMut(&Addr) -> Arc<Endpoint>,
) -> Result<Option<Topology>, OlderTerm> {
    if conclusion.term < previous.term && conclusion.cause != Cause::EpochReset {
        return Err(OlderTerm {
            accepted: previous.term,
            offered: conclusion.term,
        });
    }
    let same_primary = previous.primary_addr() == conclusion.primary.as_ref();
    let same_replicas = previous
        .replicas
        .iter()
        .map(|e| &e.addr)
        .eq(&conclusion.replicas);
    let leaving = conclusion
        .leaving
        .as_ref()
        .map(|(addr, until)| (addr, *until));
    let same_leaving = previous
        .leaving
        .as_ref()
        .map(|l| (&l.endpoint.addr, l.until))
        == leaving;
    // Without a primary the reason is all there is to say, so a new reason is a change.
    let same_cause = conclusion.primary.is_some() || previous.cause == conclusion.cause;
    if same_primary
        && same_leaving
        && same_replicas
        && same_cause
        && previous.term == conclusion.term
    {
        return Ok(None);
    }
    let mut endpoint = endpoint;
    let keeps = same_primary && conclusion.primary.is_some();
    Ok(Some(Topology {
        generation: Generation(previous.generation.0 + 1),
        term: conclusion.term,
        cause: match conclusion.cause {
            Cause::EpochReset => Cause::EpochReset,
            _ if keeps => Cause::Refreshed,
            other => other,
        },
        since: if same_primary { previous.since } else { now },
        proven: previous.proven || conclusion.primary.is_some(),
        primary: conclusion.primary.as_ref().map(&mut endpoint),
        leaving: leaving.map(|(addr, until)| Leaving {
            endpoint: endpoint(addr),
            until,
        }),
        replicas: conclusion.replicas.iter().map(endpoint).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(n: u8) -> Addr {
        format!("10.0.0.{n}:6379").parse().unwrap()
    }

    fn says(primary: Option<u8>, term: u64, cause: Cause) -> Conclusion {
        Conclusion {
            leaving: None,
            primary: primary.map(addr),
            term: Some(Term(term)),
            cause,
            replicas: vec![],
        }
    }

    fn step(previous: &Topology, conclusion: &Conclusion, ms: u64) -> Option<Topology> {
        reduce(previous, conclusion, Moment::from_millis(ms), |a| {
            Endpoint::new(a.clone(), None)
        })
        .unwrap()
    }

    #[test]
    fn each_change_is_one_generation_and_no_change_is_none() {
        let start = Topology::empty(Moment::default());
        let unclear = step(&start, &says(None, 3, Cause::Conflict), 4).unwrap();
        assert!(!unclear.proven, "another reason is no proof");
        let first = step(&start, &says(Some(1), 3, Cause::Proven), 5).unwrap();
        assert_eq!((first.generation.0, first.cause), (1, Cause::Proven));
        assert!(step(&first, &says(Some(1), 3, Cause::Proven), 6).is_none());

        let newer = step(&first, &says(Some(1), 4, Cause::Announced), 7).unwrap();
        assert_eq!((newer.generation.0, newer.cause), (2, Cause::Refreshed));
        assert_eq!(
            newer.since,
            Moment::from_millis(5),
            "the primary is still the same"
        );

        let gone = step(&newer, &says(None, 4, Cause::Unproven), 8).unwrap();
        assert_eq!((gone.generation.0, gone.cause), (3, Cause::Unproven));
        assert!(gone.proven, "once proven is proven for ever");
        let deposed = step(&gone, &says(None, 4, Cause::Deposed), 9).unwrap();
        assert_eq!((deposed.generation.0, deposed.cause), (4, Cause::Deposed));
        assert_eq!(
            deposed.since,
            Moment::from_millis(8),
            "there is none since then"
        );
    }

    #[test]
    fn an_older_term_is_refused_unless_counting_began_anew() {
        let start = Topology::empty(Moment::default());
        let at_five = step(&start, &says(Some(1), 5, Cause::Proven), 1).unwrap();
        for cause in [
            Cause::Announced,
            Cause::Majority,
            Cause::Promoted,
            Cause::Returned,
        ] {
            let older = reduce(&at_five, &says(Some(2), 4, cause), Moment::default(), |a| {
                Endpoint::new(a.clone(), None)
            });
            assert!(older.is_err(), "{cause}");
        }
        let reset = step(&at_five, &says(Some(2), 0, Cause::EpochReset), 2).unwrap();
        assert_eq!(reset.term, Some(Term(0)));
        assert_eq!(reset.cause, Cause::EpochReset);
    }
}
