//! What a Redis server says it is: the answer to ROLE, and the task that keeps asking.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::client::{AskError, Connection, brief};
use super::resp::{Frame, number, text};
use crate::addr::Addr;
use crate::clock::Clock;
use crate::monitor::Pace;
use crate::monitor::backoff::Backoff;
use crate::net::dial::Dialer;
use crate::secret::Credentials;

/// A server's own word on its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    Master {
        offset: u64,
        /// Connected replicas and how far each has come.
        replicas: Vec<(Addr, u64)>,
    },
    Replica {
        master: Option<Addr>,
        /// Whether its link to the master is up.
        connected: bool,
        offset: u64,
    },
    /// It is there and cannot answer now (-BUSY, too many clients): no word on its role.
    Busy(String),
    /// It does not answer, or not as a Redis server should.
    Down(String),
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Master { replicas, .. } => {
                write!(f, "master, {} replicas connected", replicas.len())
            }
            Self::Replica {
                master, connected, ..
            } => {
                let state = if *connected {
                    "connected"
                } else {
                    "not connected"
                };
                let master = master
                    .as_ref()
                    .map_or_else(|| "nobody".to_owned(), Addr::to_string);
                write!(f, "replica of {master}, {state}")
            }
            Self::Busy(why) => write!(f, "busy: {why}"),
            Self::Down(why) => f.write_str(why),
        }
    }
}

/// Reads the answer to ROLE (redis.io/commands/role).
pub fn parse(frame: &Frame) -> Role {
    match frame {
        Frame::Error(error) => refused(error),
        Frame::Array(parts) => parse_parts(parts)
            .unwrap_or_else(|| Role::Down("an answer to ROLE that makes no sense".into())),
        _ => Role::Down("an answer to ROLE that makes no sense".into()),
    }
}

fn refused(error: &str) -> Role {
    let busy = error.starts_with("BUSY") || error.contains("max number of clients");
    let text = brief(error);
    if busy {
        Role::Busy(text)
    } else {
        Role::Down(text)
    }
}

fn parse_parts(parts: &[Frame]) -> Option<Role> {
    match (text(parts.first()?)?, parts) {
        ("master", [_, offset, Frame::Array(replicas)]) => {
            // A replica whose address makes no sense changes nothing about its master.
            let replicas = replicas.iter().filter_map(|replica| match replica {
                Frame::Array(r) => Some((address(r.first()?, r.get(1)?)?, number(r.get(2)?)?)),
                _ => None,
            });
            Some(Role::Master {
                offset: number(offset)?,
                replicas: replicas.collect(),
            })
        }
        ("slave", [_, host, port, state, offset]) => Some(Role::Replica {
            master: address(host, port),
            connected: text(state)? == "connected",
            // -1 before the first synchronisation.
            offset: number(offset).unwrap_or(0),
        }),
        ("sentinel", _) => Some(Role::Down("this is a sentinel, not a Redis server".into())),
        _ => None,
    }
}

/// Host and port that came as two values.
pub fn address(host: &Frame, port: &Frame) -> Option<Addr> {
    let port = u16::try_from(number(port)?).ok().filter(|&p| p > 0)?;
    Addr::from_parts(text(host)?, port).ok()
}

/// What a prober needs to ask one server.
#[derive(Clone)]
pub struct Prober {
    pub addr: Addr,
    pub server_name: Option<String>,
    pub dialer: Dialer,
    pub credentials: Credentials,
    pub clock: Clock,
    pub probe_seconds: metrics::Histogram,
}

/// Bounds on how long one question may take: a late answer proves nothing.
const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(1);

/// Asks until `pace` closes, and reports every answer to `seen` as what `wrap` makes of it. One
/// connection is kept, so that a server at its client limit still answers.
pub async fn probe<S: Send>(
    prober: Prober,
    mut pace: watch::Receiver<Pace>,
    seen: mpsc::Sender<S>,
    wrap: impl Fn(Addr, Role) -> S + Send,
) {
    let mut kept = None;
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(250));
    loop {
        let wanted = *pace.borrow_and_update();
        let limit = wanted.every.clamp(SHORTEST, LONGEST);
        let began = prober.clock.now();
        let role = ask(&prober, &mut kept, limit).await;
        let took = prober.clock.now().since(began);
        prober.probe_seconds.record(took.as_secs_f64());
        // This host was paused, and the answer lay here for as long: it proves nothing now. A kept
        // connection that failed is followed by a new one, so two limits may pass by themselves.
        let role = if took > limit * 3 {
            Role::Down(format!("the answer came after {took:?}"))
        } else {
            role
        };
        let failed = matches!(role, Role::Down(_));
        if seen.send(wrap(prober.addr.clone(), role)).await.is_err() {
            return;
        }
        let pause = if failed {
            backoff.next(fastrand::f64()).min(wanted.every)
        } else {
            backoff.reset();
            wanted.every
        };
        tokio::select! {
            () = sleep(pause) => {}
            changed = pace.changed() => if changed.is_err() { return },
        }
    }
}

async fn ask(prober: &Prober, kept: &mut Option<Connection>, limit: Duration) -> Role {
    if let Some(mut connection) = kept.take() {
        match question(&mut connection, limit).await {
            Ok(role) => {
                *kept = Some(connection);
                return role;
            }
            Err(error @ AskError::Timeout(_)) => return Role::Down(error.to_string()),
            // The server closed it since (a failover does that to all of them); one new try tells
            // that from a server that is down.
            Err(_) => {}
        }
    }
    let name = prober.server_name.as_deref();
    let opened = Connection::open(
        &prober.dialer,
        &prober.addr,
        name,
        &prober.credentials,
        limit,
    )
    .await;
    let asked = match opened {
        Ok(mut connection) => question(&mut connection, limit).await.inspect(|_| {
            *kept = Some(connection);
        }),
        Err(error) => Err(error),
    };
    match asked {
        Ok(role) => role,
        Err(AskError::Refused(error)) => refused(&error),
        Err(error) => Role::Down(error.to_string()),
    }
}

async fn question(connection: &mut Connection, limit: Duration) -> Result<Role, AskError> {
    let replies = connection.ask(&[&[b"ROLE"]], limit).await?;
    Ok(replies
        .first()
        .map_or_else(|| Role::Down("no answer".into()), parse))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    fn role(reply: &str) -> Role {
        let mut buf = BytesMut::from(reply.as_bytes());
        parse(&super::super::resp::take_frame(&mut buf).unwrap().unwrap())
    }

    #[test]
    fn answers_to_role() {
        assert_eq!(
            role(
                "*3\r\n$6\r\nmaster\r\n:42\r\n*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$4\r\n6380\r\n$2\r\n40\r\n"
            ),
            Role::Master {
                offset: 42,
                replicas: vec![("127.0.0.1:6380".parse().unwrap(), 40)]
            }
        );
        assert_eq!(
            role("*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n$9\r\nconnected\r\n:-1\r\n"),
            Role::Replica {
                master: Some("127.0.0.1:6379".parse().unwrap()),
                connected: true,
                offset: 0
            }
        );
        assert!(matches!(
            role("-BUSY Redis is busy running a script\r\n"),
            Role::Busy(_)
        ));
        assert!(matches!(
            role("-ERR max number of clients reached\r\n"),
            Role::Busy(_)
        ));
        assert!(matches!(
            role("-NOAUTH Authentication required.\r\n"),
            Role::Down(_)
        ));
    }

    #[test]
    fn answers_that_make_no_sense() {
        for reply in [
            "+OK\r\n",
            "*0\r\n",
            "*1\r\n$6\r\nmaster\r\n",
            "*3\r\n$6\r\nmaster\r\n$1\r\nx\r\n*0\r\n",
            "*2\r\n$8\r\nsentinel\r\n*0\r\n",
            "*1\r\n*1\r\n:1\r\n",
        ] {
            assert!(matches!(role(reply), Role::Down(_)), "{reply:?}");
        }
    }
}
