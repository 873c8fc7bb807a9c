//! Questions and orders to Redis servers and sentinels, each over a connection of its own: what a step
//! left unread cannot be taken for the answer to the next one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::{Facts, Rival};
use crate::addr::Addr;
use crate::handover::{Reason, Refused, Restored};
use crate::net::dial::Dialer;
use crate::proto::redis::client::{Connection, brief};
use crate::proto::redis::resp::{Frame, number, text};
use crate::proto::redis::role::{self, Role, address};
use crate::secret::Credentials;

/// For connect, login and answer.
const WITHIN: Duration = Duration::from_secs(2);

/// Servers of one kind, and how they are reached.
#[derive(Clone)]
pub struct Servers {
    pub dialer: Dialer,
    pub credentials: Credentials,
    /// Those with a certificate name of their own.
    pub names: BTreeMap<Addr, Option<String>>,
}

impl Servers {
    /// The replies to `commands`; an error reply is an error.
    ///
    /// # Errors
    /// For people, without secrets.
    pub async fn ask(&self, addr: &Addr, commands: &[&[&[u8]]]) -> Result<Vec<Frame>, String> {
        let name = self.names.get(addr).and_then(Option::as_deref);
        let opened = Connection::open(&self.dialer, addr, name, &self.credentials, WITHIN).await;
        let mut connection = opened.map_err(|error| error.to_string())?;
        let replies = connection.ask(commands, WITHIN).await;
        let replies = replies.map_err(|error| error.to_string())?;
        for reply in &replies {
            if let Frame::Error(error) = reply {
                return Err(brief(error));
            }
        }
        Ok(replies)
    }

    /// One command whose answer says nothing but that it was done.
    ///
    /// # Errors
    /// As [`Servers::ask`], with the server's address.
    pub async fn order(&self, addr: &Addr, command: &[&[u8]]) -> Result<(), String> {
        let asked = self.ask(addr, &[command]).await;
        asked.map(drop).map_err(|why| format!("{addr}: {why}"))
    }

    pub async fn role(&self, addr: &Addr) -> Result<Role, String> {
        let replies = self.ask(addr, &[&[b"ROLE"]]).await?;
        let reply = replies.first().ok_or("no answer")?;
        match role::parse(reply) {
            Role::Down(why) | Role::Busy(why) => Err(why),
            role => Ok(role),
        }
    }

    pub async fn facts(&self, addr: &Addr) -> Result<Facts, String> {
        // One after the other: the shape of INFO with several sections differs between versions.
        let questions: [&[&[u8]]; 3] = [
            &[b"ROLE"],
            &[b"INFO", b"server"],
            &[b"INFO", b"replication"],
        ];
        let replies = self.ask(addr, &questions).await?;
        let [role, server, replication] = replies.as_slice() else {
            return Err("an answer to something else".to_owned());
        };
        let info = [server, replication].map(|frame| text(frame).unwrap_or_default());
        Facts::read(role::parse(role), &info.join("\n"))
            .ok_or_else(|| "an answer to INFO that makes no sense".to_owned())
    }

    /// Makes all other clients of `addr` wait that want to write, for at most `limit`. A pause that is
    /// longer already stays as long as it is.
    pub async fn pause(&self, addr: &Addr, limit: Duration) -> Result<(), String> {
        let millis = limit.as_millis().to_string();
        let pause: &[&[u8]] = &[b"CLIENT", b"PAUSE", millis.as_bytes(), b"WRITE"];
        self.order(addr, pause).await
    }

    pub async fn unpause(&self, addr: &Addr) -> Restored {
        match self.order(addr, &[b"CLIENT", b"UNPAUSE"]).await {
            Ok(()) => Restored::Done(format!("other clients of {addr} may write again")),
            Err(why) => Restored::Failed(format!("{why}; the pause ends by itself")),
        }
    }

    /// Makes `addr` follow `master`, until it is started again: see [`Servers::remember`].
    pub async fn follow(&self, addr: &Addr, master: &Addr) -> Result<(), String> {
        let (host, port) = host_and_port(master)?;
        let follow: &[&[u8]] = &[b"REPLICAOF", host.as_bytes(), port.as_bytes()];
        self.order(addr, follow).await
    }

    /// Makes `addr` a master, until it is started again.
    pub async fn promote(&self, addr: &Addr) -> Result<(), String> {
        self.order(addr, &[b"REPLICAOF", b"NO", b"ONE"]).await
    }

    /// Has `addr` write down what it is, as Sentinel does after each change. It waits for the disk. A
    /// server without a file has nowhere to write it to.
    pub async fn remember(&self, addr: &Addr) {
        let _ = self.order(addr, &[b"CONFIG", b"REWRITE"]).await;
    }

    /// Ends the connections of clients, so that they ask again who is master, as Sentinel does when it
    /// demotes one.
    pub async fn send_away(&self, addr: &Addr) {
        let kill: &[&[u8]] = &[b"CLIENT", b"KILL", b"TYPE", b"normal"];
        let _ = self.order(addr, kill).await;
    }
}

/// On the master, as long as somebody moves it away from there.
const CLAIM: &[u8] = b"pilotfish:failover";

/// Nobody else moves this master: a subscription that every sidecar makes on it, and that ends with it.
pub struct Claim {
    _kept: Connection,
}

impl Servers {
    /// Claims `primary` for one failover. Of two that do so at the same time at most one is let through.
    ///
    /// # Errors
    /// When somebody else has, or the server does not let us.
    pub async fn claim(&self, primary: &Addr) -> Result<Claim, Refused> {
        let unable = |why: String| {
            let why =
                format!("{primary} does not let us claim it (SUBSCRIBE, PUBSUB NUMSUB): {why}");
            Refused::new(Reason::Unable, why)
        };
        let name = self.names.get(primary).and_then(Option::as_deref);
        let opened = Connection::open(&self.dialer, primary, name, &self.credentials, WITHIN).await;
        let mut kept = opened.map_err(|error| unable(error.to_string()))?;
        let subscribed = kept.ask(&[&[b"SUBSCRIBE", CLAIM]], WITHIN).await;
        match subscribed
            .map_err(|error| unable(error.to_string()))?
            .first()
        {
            Some(Frame::Error(error)) => return Err(unable(brief(error))),
            Some(_) => {}
            None => return Err(unable("no answer".to_owned())),
        }
        match self.claims(primary).await.map_err(unable)? {
            0 | 1 => Ok(Claim { _kept: kept }),
            _ => Err(under_way(primary)),
        }
    }

    /// As [`Servers::claim`], and only looks.
    pub async fn is_unclaimed(&self, primary: &Addr) -> Result<(), Refused> {
        match self.claims(primary).await {
            Ok(0) => Ok(()),
            Ok(_) => Err(under_way(primary)),
            Err(why) => Err(Refused::new(Reason::Unable, format!("{primary}: {why}"))),
        }
    }

    async fn claims(&self, primary: &Addr) -> Result<u64, String> {
        let replies = self.ask(primary, &[&[b"PUBSUB", b"NUMSUB", CLAIM]]).await?;
        let count = match replies.first() {
            Some(Frame::Array(pair)) => pair.get(1).and_then(number),
            _ => None,
        };
        count.ok_or_else(|| "an answer that makes no sense".to_owned())
    }
}

fn under_way(primary: &Addr) -> Refused {
    let why = format!("another Pilotfish is moving the master away from {primary}");
    Refused::new(Reason::InProgress, why)
}

/// The two arguments of REPLICAOF.
fn host_and_port(addr: &Addr) -> Result<(String, String), String> {
    match addr {
        Addr::Ip(ip) => Ok((ip.ip().to_string(), ip.port().to_string())),
        Addr::Name { host, port } => Ok((host.to_string(), port.to_string())),
        Addr::Unix(_) => Err(format!("{addr}: replication needs a host and a port")),
    }
}

/// What one sentinel says of the master.
#[derive(Clone, Debug)]
pub struct View {
    /// As it announces it.
    pub master: Addr,
    pub tilt: bool,
    /// A failover is under way.
    pub busy: bool,
    pub down: bool,
    /// After how long a silence it takes a server for dead.
    pub down_after: Duration,
    /// Its replicas, as it announces them.
    pub rivals: Vec<Rival>,
}

/// Asks one sentinel.
///
/// # Errors
/// When it does not answer, or does not know the name.
pub async fn view(sentinels: &Servers, addr: &Addr, name: &str) -> Result<View, String> {
    let name = name.as_bytes();
    let questions: [&[&[u8]]; 4] = [
        &[b"SENTINEL", b"MASTER", name],
        &[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name],
        &[b"INFO", b"sentinel"],
        &[b"SENTINEL", b"REPLICAS", name],
    ];
    let replies = sentinels.ask(addr, &questions).await?;
    read_view(&replies).ok_or_else(|| "an answer that makes no sense".to_owned())
}

fn read_view(replies: &[Frame]) -> Option<View> {
    let [master, named, info, replicas] = replies else {
        return None;
    };
    let (Frame::Array(named), Frame::Array(replicas)) = (named, replicas) else {
        return None;
    };
    let [host, port] = named.as_slice() else {
        return None;
    };
    let master = pairs(master)?;
    let flags: Vec<&str> = text(master.get("flags")?)?.split(',').collect();
    let millis = number(master.get("down-after-milliseconds")?)?;
    Some(View {
        master: address(host, port)?,
        tilt: text(info)?
            .lines()
            .any(|line| line.trim_end() == "sentinel_tilt:1"),
        busy: flags.contains(&"failover_in_progress"),
        down: flags.contains(&"s_down") || flags.contains(&"o_down"),
        down_after: Duration::from_millis(millis),
        rivals: replicas.iter().filter_map(rival).collect(),
    })
}

fn rival(entry: &Frame) -> Option<Rival> {
    let entry = pairs(entry)?;
    let addr = address(entry.get("ip")?, entry.get("port")?)?;
    let flags = text(entry.get("flags")?)?;
    Some(Rival::read(
        addr,
        flags,
        number(entry.get("slave-priority")?)?,
    ))
}

/// A flat list of names and values.
fn pairs(frame: &Frame) -> Option<BTreeMap<&str, &Frame>> {
    let Frame::Array(parts) = frame else {
        return None;
    };
    let entries = parts.chunks_exact(2);
    Some(
        entries
            .filter_map(|pair| Some((text(&pair[0])?, &pair[1])))
            .collect(),
    )
}
