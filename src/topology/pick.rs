//! Which endpoint a session belongs on.

use std::sync::Arc;

use super::{Endpoint, Role, Topology};
use crate::clock::Moment;

/// What a listener for reads does while no replica is fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    Primary,
    Hold,
    Refuse,
}

/// The answer for a client that wants a session.
#[derive(Debug)]
pub enum Pick {
    Go(Arc<Endpoint>),
    /// Nothing is fit now; wait for a change.
    Wait,
    /// Nothing is fit now, and the config says not to wait.
    Refuse,
}

/// Chooses for a new session.
pub fn pick(topology: &Topology, role: Role, fallback: Fallback) -> Pick {
    let primary = || match &topology.primary {
        Some(endpoint) => Pick::Go(endpoint.clone()),
        None => Pick::Wait,
    };
    if role == Role::Primary {
        return primary();
    }
    // The least-loaded; of equals the first, and the next one as soon as that one is taken.
    match (
        topology.replicas.iter().min_by_key(|e| e.sessions()),
        fallback,
    ) {
        (Some(endpoint), _) => Pick::Go(endpoint.clone()),
        (None, Fallback::Primary) => primary(),
        (None, Fallback::Hold) => Pick::Wait,
        (None, Fallback::Refuse) => Pick::Refuse,
    }
}

/// Where a session on `endpoint` stands after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may go on.
    Right,
    /// Its endpoint is not proven now, and nothing took its place: it waits.
    Unproven,
    /// Something else took its place, and until then it may end what it began.
    Leaving(Moment),
    /// Something else took its place: it must leave.
    Wrong,
}

/// Judges a session that was linked to `endpoint`.
pub fn standing(
    topology: &Topology,
    endpoint: &Endpoint,
    role: Role,
    fallback: Fallback,
) -> Standing {
    let is = |other: &Arc<Endpoint>| other.addr == endpoint.addr;
    let primary = match &topology.primary {
        Some(primary) if is(primary) => Standing::Right,
        Some(_) => match &topology.leaving {
            Some(leaving) if is(&leaving.endpoint) => Standing::Leaving(leaving.until),
            _ => Standing::Wrong,
        },
        None => Standing::Unproven,
    };
    if role == Role::Primary {
        return primary;
    }
    if topology.replicas.iter().any(is) {
        return Standing::Right;
    }
    match (topology.replicas.is_empty(), fallback) {
        // A read that went to the primary may stay there: it is never stale.
        (_, Fallback::Primary) if primary == Standing::Right => Standing::Right,
        (true, Fallback::Hold) => Standing::Unproven,
        _ => Standing::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(n: u8) -> Arc<Endpoint> {
        Endpoint::new(format!("10.0.0.{n}:1").parse().unwrap(), None)
    }

    fn topology(primary: Option<&Arc<Endpoint>>, replicas: &[&Arc<Endpoint>]) -> Topology {
        Topology {
            primary: primary.cloned(),
            replicas: replicas.iter().map(|&e| e.clone()).collect(),
            ..Topology::empty(Moment::default())
        }
    }

    fn picked(topology: &Topology, role: Role, fallback: Fallback) -> String {
        match pick(topology, role, fallback) {
            Pick::Go(endpoint) => endpoint.addr.to_string(),
            Pick::Wait => "wait".into(),
            Pick::Refuse => "refuse".into(),
        }
    }

    #[test]
    fn reads_go_to_the_least_loaded_replica() {
        let (a, b, c) = (endpoint(1), endpoint(2), endpoint(3));
        let all = topology(Some(&a), &[&b, &c]);
        let busy = b.occupy();
        assert_eq!(
            picked(&all, Role::Replica, Fallback::Refuse),
            c.addr.to_string()
        );
        let _busier = (c.occupy(), c.occupy());
        assert_eq!(
            picked(&all, Role::Replica, Fallback::Refuse),
            b.addr.to_string()
        );
        drop(busy);
        assert_eq!(b.sessions(), 0);
        assert_eq!(
            picked(&all, Role::Primary, Fallback::Refuse),
            a.addr.to_string()
        );
    }

    #[test]
    fn without_a_fit_replica_the_fallback_decides() {
        let a = endpoint(1);
        let (alone, nothing) = (topology(Some(&a), &[]), topology(None, &[]));
        let a = a.addr.to_string();
        for (fallback, with_primary, without) in [
            (Fallback::Primary, a.as_str(), "wait"),
            (Fallback::Hold, "wait", "wait"),
            (Fallback::Refuse, "refuse", "refuse"),
        ] {
            assert_eq!(picked(&alone, Role::Replica, fallback), with_primary);
            assert_eq!(picked(&nothing, Role::Replica, fallback), without);
        }
    }

    #[test]
    fn a_session_stays_waits_or_leaves() {
        let (a, b, c) = (endpoint(1), endpoint(2), endpoint(3));
        let old = topology(Some(&a), &[&b]);
        let none = topology(None, &[]);
        let new = topology(Some(&b), &[&c]);
        let table = [
            (&old, &a, Role::Primary, Fallback::Primary, Standing::Right),
            (
                &none,
                &a,
                Role::Primary,
                Fallback::Primary,
                Standing::Unproven,
            ),
            (&new, &a, Role::Primary, Fallback::Primary, Standing::Wrong),
            (&old, &b, Role::Replica, Fallback::Primary, Standing::Right),
            (&new, &b, Role::Replica, Fallback::Primary, Standing::Right),
            (&new, &b, Role::Replica, Fallback::Hold, Standing::Wrong),
            (&none, &b, Role::Replica, Fallback::Hold, Standing::Unproven),
            (&none, &b, Role::Replica, Fallback::Refuse, Standing::Wrong),
            (&none, &b, Role::Replica, Fallback::Primary, Standing::Wrong),
        ];
        for (topology, endpoint, role, fallback, expected) in table {
            assert_eq!(standing(topology, endpoint, role, fallback), expected);
        }
    }
}
