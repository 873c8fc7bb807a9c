//! Whether a handover may begin, and to whom. Pure: what the monitor published decides.

use super::{Ask, Old, Reason, Refused};
use crate::addr::Addr;
use crate::monitor::{NodeReport, Report, Trouble};
use crate::topology::Topology;

/// What the monitor knows, when that is enough to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// `None` only for [`Old::Gone`].
    pub primary: Option<Addr>,
    /// Fit for reads, the least behind first.
    pub replicas: Vec<Addr>,
    /// Every server, as last seen.
    pub nodes: Vec<NodeReport>,
}

/// Looks at what is known before anybody is asked anything.
///
/// # Errors
/// When it is not safe, or makes no sense.
pub fn admit(
    ask: &Ask,
    topology: &Topology,
    report: &Report,
    pinned: Option<&Addr>,
) -> Result<Known, Refused> {
    if let Some(addr) = pinned {
        let why = format!("it is pinned to {addr}: `unpin` first, or the switch is not followed");
        return Err(Refused::new(Reason::Pinned, why));
    }
    let primary = topology.primary_addr().cloned();
    if primary.is_none() && ask.old == Old::Serves {
        let why = format!("there is no primary now ({})", topology.cause);
        return Err(Refused::new(Reason::NoPrimary, why));
    }
    if let (Some(primary), Old::Gone) = (&primary, ask.old) {
        let why = format!("{primary} is not gone: it is proven as primary");
        return Err(Refused::new(Reason::OldAlive, why));
    }
    if primary.is_some() && ask.to == primary {
        let why = "that is the primary already".to_owned();
        return Err(Refused::new(Reason::AlreadyPrimary, why));
    }
    if let Some(trouble) = report.troubles.iter().find(|t| forbids(t, ask.old)) {
        let why = format!("the monitor is not sure: {trouble}");
        return Err(Refused::new(Reason::Uncertain, why));
    }
    let mut replicas: Vec<Addr> = topology.replicas.iter().map(|r| r.addr.clone()).collect();
    replicas.sort_by_key(|addr| behind(&report.nodes, addr));
    Ok(Known {
        primary,
        replicas,
        nodes: report.nodes.clone(),
    })
}

/// Unknown is far behind.
fn behind(nodes: &[NodeReport], addr: &Addr) -> (u64, u64) {
    let node = nodes.iter().find(|node| node.address == *addr);
    let lag = |of: fn(&NodeReport) -> Option<u64>| node.and_then(of);
    match (lag(|n| n.lag_seconds), lag(|n| n.lag_bytes)) {
        (None, None) => (u64::MAX, u64::MAX),
        (seconds, bytes) => (seconds.unwrap_or(0), bytes.unwrap_or(0)),
    }
}

/// Whether a trouble makes it unsafe to move the primary now.
fn forbids(trouble: &Trouble, old: Old) -> bool {
    match trouble {
        Trouble::NoSentinel { .. }
        | Trouble::Minority { .. }
        | Trouble::UnknownMaster { .. }
        | Trouble::Disagreement { .. }
        | Trouble::EpochWentBack { .. }
        | Trouble::Provisional { .. }
        | Trouble::Conflict { .. }
        | Trouble::Parted { .. }
        | Trouble::Pinned { .. } => true,
        // Without a primary these are what one expects to see.
        Trouble::NotProven { .. }
        | Trouble::Fenced { .. }
        | Trouble::NoPrimary
        | Trouble::NoneFit => old == Old::Serves,
        // About servers and sources that are left out anyway.
        Trouble::Stray { .. } | Trouble::Source { .. } => false,
    }
}

/// The server to hand over to: the one that was asked for, or the least behind.
///
/// # Errors
/// When there is none, or it is not fit.
pub fn choose(ask: &Ask, known: &Known) -> Result<Addr, Refused> {
    let is_up = |node: &&NodeReport| node.up && Some(&node.address) != known.primary.as_ref();
    let fit: Vec<Addr> = match ask.old {
        Old::Serves => known.replicas.clone(),
        // Its replicas have lost their link to it, and are not fit for reads for that.
        Old::Gone => known
            .nodes
            .iter()
            .filter(is_up)
            .map(|n| n.address.clone())
            .collect(),
    };
    let Some(to) = &ask.to else {
        return fit.into_iter().next().ok_or_else(|| {
            Refused::new(
                Reason::NoReplica,
                "there is no healthy replica to take over",
            )
        });
    };
    if fit.contains(to) {
        return Ok(to.clone());
    }
    let Some(node) = known.nodes.iter().find(|node| node.address == *to) else {
        let names: Vec<String> = known.nodes.iter().map(|n| n.address.to_string()).collect();
        let why = format!(
            "{to} is no server of this service: there is {}",
            names.join(", ")
        );
        return Err(Refused::new(Reason::UnknownTarget, why));
    };
    let detail = node.detail.as_deref().unwrap_or("it is no healthy replica");
    let why = format!("{to} is not fit ({}): {detail}", node.role);
    Err(Refused::new(Reason::UnfitTarget, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::topology::{Cause, Endpoint};
    use std::sync::Arc;

    fn addr(n: u8) -> Addr {
        format!("10.0.0.{n}:6379").parse().unwrap()
    }

    fn node(n: u8, up: bool, lag: Option<u64>) -> NodeReport {
        NodeReport {
            address: addr(n),
            role: if up { "replica" } else { "down" },
            up,
            lag_bytes: lag,
            lag_seconds: None,
            detail: (!up).then(|| "connection refused".to_owned()),
        }
    }

    /// 1 is primary, 2 and 3 replicas of which 3 is nearer, 4 is down.
    fn scene() -> (Topology, Report) {
        let endpoint = |n| Endpoint::new(addr(n), None);
        let topology = Topology {
            cause: Cause::Proven,
            proven: true,
            primary: Some(endpoint(1)),
            replicas: Arc::new([endpoint(2), endpoint(3)]),
            ..Topology::empty(Moment::default())
        };
        let nodes = vec![
            node(1, true, None),
            node(2, true, Some(500)),
            node(3, true, Some(7)),
            node(4, false, None),
        ];
        let report = Report {
            nodes,
            ..Report::empty(Moment::default())
        };
        (topology, report)
    }

    fn to(n: u8) -> Ask {
        Ask {
            to: Some(addr(n)),
            ..Ask::default()
        }
    }

    fn outcome(ask: &Ask, scene: &(Topology, Report)) -> Result<Addr, Reason> {
        let known = admit(ask, &scene.0, &scene.1, None).map_err(|r| r.reason)?;
        choose(ask, &known).map_err(|r| r.reason)
    }

    #[test]
    fn the_target_is_asked_for_or_the_nearest() {
        let scene = scene();
        for (ask, expected) in [
            (Ask::default(), Ok(addr(3))),
            (to(2), Ok(addr(2))),
            (to(1), Err(Reason::AlreadyPrimary)),
            (to(4), Err(Reason::UnfitTarget)),
            (to(9), Err(Reason::UnknownTarget)),
        ] {
            assert_eq!(outcome(&ask, &scene), expected, "{ask:?}");
        }
    }

    #[test]
    fn without_a_primary_only_a_gone_one_is_succeeded() {
        let mut scene = scene();
        let gone = |to| Ask {
            to,
            old: Old::Gone,
            ..Ask::default()
        };
        assert_eq!(outcome(&gone(None), &scene), Err(Reason::OldAlive));
        scene.0.primary = None;
        scene.0.replicas = Arc::new([]);
        scene.1.nodes[0] = node(1, false, None);
        assert_eq!(outcome(&Ask::default(), &scene), Err(Reason::NoPrimary));
        assert_eq!(outcome(&gone(None), &scene), Ok(addr(2)));
        assert_eq!(outcome(&gone(Some(addr(3))), &scene), Ok(addr(3)));
        assert_eq!(
            outcome(&gone(Some(addr(1))), &scene),
            Err(Reason::UnfitTarget)
        );
    }

    #[test]
    fn no_replica_is_no_target() {
        let mut scene = scene();
        scene.0.replicas = Arc::new([]);
        assert_eq!(outcome(&Ask::default(), &scene), Err(Reason::NoReplica));
        assert_eq!(outcome(&to(2), &scene), Err(Reason::UnfitTarget));
    }

    #[test]
    fn a_pin_and_doubts_forbid_it() {
        let (topology, mut report) = scene();
        let mut bereft = topology.clone();
        bereft.primary = None;
        let reason = |report: &Report, old, pin: Option<&Addr>| {
            let ask = Ask {
                old,
                ..Ask::default()
            };
            let topology = match old {
                Old::Serves => &topology,
                Old::Gone => &bereft,
            };
            let admitted = admit(&ask, topology, report, pin);
            admitted.err().map(|refused| refused.reason)
        };
        let pin = addr(1);
        assert_eq!(
            reason(&report, Old::Serves, Some(&pin)),
            Some(Reason::Pinned)
        );
        let uncertain = Some(Reason::Uncertain);
        for (trouble, serving, gone) in [
            (Trouble::Minority { count: 1, of: 3 }, uncertain, uncertain),
            (Trouble::Conflict { addrs: vec![] }, uncertain, uncertain),
            (Trouble::Fenced { why: "" }, uncertain, None),
            (Trouble::NoneFit, uncertain, None),
            (
                Trouble::Source {
                    name: "sentinel".into(),
                    why: "silent".into(),
                },
                None,
                None,
            ),
        ] {
            report.troubles = vec![trouble.clone()];
            assert_eq!(reason(&report, Old::Serves, None), serving, "{trouble}");
            assert_eq!(reason(&report, Old::Gone, None), gone, "{trouble}");
        }
    }
}
