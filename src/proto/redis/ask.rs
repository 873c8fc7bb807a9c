//! `pilotfish check --probe`: asks every server once, and tells what each said.

use std::collections::BTreeSet;
use std::time::Duration;

use super::client::{AskError, Connection};
use super::role::{Role, parse as parse_role};
use super::sentinel::answer::{Answer, parse, questions};
use super::sentinel::view::describe;
use crate::addr::Addr;
use crate::net::dial::Dialer;
use crate::proto::Found;
use crate::proto::spec::{NodeSpec, RedisSpec, SentinelSpec};
use crate::secret::Credentials;

/// A person waits for it.
const WITHIN: Duration = Duration::from_secs(2);

/// All sentinels, and every server that they name.
pub async fn through_sentinels(
    spec: &SentinelSpec,
    dialer: &Dialer,
    sentinels: &Dialer,
) -> Vec<Found> {
    let mut found = Vec::new();
    let mut named = BTreeSet::new();
    for addr in &spec.sentinels {
        let answer = ask_sentinel(spec, addr, sentinels).await;
        let ok = matches!(answer, Ok(Answer::Names { tilt: false, .. }));
        let says = match &answer {
            Ok(answer) => describe(answer),
            Err(error) => error.to_string(),
        };
        if let Ok(Answer::Names {
            master, replicas, ..
        }) = answer
        {
            named.insert(master);
            named.extend(replicas);
        }
        found.push(Found {
            what: format!("sentinel {addr}"),
            ok,
            says,
        });
    }
    let mut masters = 0;
    for announced in named {
        let addr = spec.address_map.get(&announced).unwrap_or(&announced);
        let node = NodeSpec {
            addr: addr.clone(),
            server_name: None,
            region: None,
        };
        let role = ask_role(&node, &spec.credentials, dialer).await;
        masters += usize::from(matches!(role, Role::Master { .. }));
        found.push(node_found(&node.addr, &role));
    }
    found.extend(without_master(masters));
    found
}

/// All nodes of the list.
pub async fn of_nodes(spec: &RedisSpec, dialer: &Dialer) -> Vec<Found> {
    let (mut found, mut masters) = (Vec::new(), 0);
    for node in &spec.nodes {
        let role = ask_role(node, &spec.credentials, dialer).await;
        masters += usize::from(matches!(role, Role::Master { .. }));
        found.push(node_found(&node.addr, &role));
    }
    found.extend(without_master(masters));
    found
}

fn without_master(masters: usize) -> Option<Found> {
    let says = match masters {
        0 => "no server says it is master",
        1 => return None,
        _ => "more than one server says it is master",
    };
    Some(Found {
        what: "primary".to_owned(),
        ok: false,
        says: says.to_owned(),
    })
}

fn node_found(addr: &Addr, role: &Role) -> Found {
    let ok = matches!(
        role,
        Role::Master { .. }
            | Role::Replica {
                connected: true,
                ..
            }
    );
    Found {
        what: format!("redis {addr}"),
        ok,
        says: role.to_string(),
    }
}

async fn ask_sentinel(
    spec: &SentinelSpec,
    addr: &Addr,
    dialer: &Dialer,
) -> Result<Answer, AskError> {
    let mut connection =
        Connection::open(dialer, addr, None, &spec.sentinel_credentials, WITHIN).await?;
    let questions = questions(spec.master.as_bytes());
    let questions: Vec<&[&[u8]]> = questions.iter().map(Vec::as_slice).collect();
    let replies = connection.ask(&questions, WITHIN).await?;
    parse(&replies).ok_or(AskError::Nonsense(super::resp::Nonsense::Unexpected))
}

async fn ask_role(node: &NodeSpec, credentials: &Credentials, dialer: &Dialer) -> Role {
    let name = node.server_name.as_deref();
    let asked = async {
        let mut connection =
            Connection::open(dialer, &node.addr, name, credentials, WITHIN).await?;
        connection.ask(&[&[b"ROLE"]], WITHIN).await
    };
    match asked.await {
        Ok(replies) => replies
            .first()
            .map_or_else(|| Role::Down("no answer".to_owned()), parse_role),
        Err(error) => Role::Down(error.to_string()),
    }
}
