//! What sentinels announce by themselves, and what of it concerns us.
//!
//! An event is a reason to ask, never an answer. The two that fence are the exception: they cost a
//! bounded hold at worst. Payloads: redis.io, "Sentinel Pub/Sub messages".

use super::super::resp::{Frame, text};
use crate::addr::Addr;

/// The channels that make us ask, or fence.
pub const CHANNELS: [&[u8]; 18] = [
    b"+switch-master",
    b"+config-update-from",
    b"+promoted-slave",
    b"+failover-state-reconf-slaves",
    b"+failover-state-send-slaveof-noone",
    b"+failover-end",
    b"+failover-end-for-timeout",
    b"+convert-to-slave",
    b"+role-change",
    b"-role-change",
    b"+odown",
    b"-odown",
    b"+reset-master",
    b"+reboot",
    b"+tilt",
    b"-tilt",
    b"+sdown",
    b"+monitor",
];

/// Those with an open end.
pub const PATTERN: &[u8] = b"-failover-abort-*";

/// An announcement about our master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `replica` is being told to become master; what `master` acknowledges from now on may be lost.
    Promoting {
        replica: Addr,
        master: Addr,
    },
    /// The promotion did not happen.
    Aborted,
    Down {
        master: Addr,
    },
    UpAgain {
        master: Addr,
    },
    /// Something changed: ask.
    Other,
}

/// What came over a subscribed connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    Event {
        channel: String,
        payload: String,
    },
    /// The answer to SUBSCRIBE or PING.
    Alive,
}

/// Reads a message; `None` when it is none.
pub fn push(frame: &Frame) -> Option<Push> {
    let Frame::Array(parts) = frame else {
        // A plain +PONG, as before the first subscription.
        return matches!(frame, Frame::SimpleString(_)).then_some(Push::Alive);
    };
    let (channel, payload) = match (text(parts.first()?)?, parts.as_slice()) {
        ("message", [_, channel, payload]) | ("pmessage", [_, _, channel, payload]) => {
            (channel, payload)
        }
        ("subscribe" | "psubscribe" | "pong", _) => return Some(Push::Alive),
        _ => return None,
    };
    Some(Push::Event {
        channel: text(channel)?.to_owned(),
        payload: text(payload)?.to_owned(),
    })
}

/// What an event means for the master named `master`; `None` when it concerns another one.
pub fn read(channel: &str, payload: &str, master: &str) -> Option<Event> {
    let words: Vec<&str> = payload.split_whitespace().collect();
    match channel {
        "+tilt" | "-tilt" => Some(Event::Other),
        "+switch-master" => (words.first() == Some(&master)).then_some(Event::Other),
        _ => {
            let about = details(&words).filter(|d| d.master_name == master)?;
            Some(match channel {
                "+failover-state-send-slaveof-noone" => Event::Promoting {
                    replica: about.instance,
                    master: about.master?,
                },
                "+odown" => Event::Down {
                    master: about.instance,
                },
                "-odown" => Event::UpAgain {
                    master: about.instance,
                },
                c if c.starts_with("-failover-abort-") => Event::Aborted,
                _ => Event::Other,
            })
        }
    }
}

struct Details<'a> {
    instance: Addr,
    master_name: &'a str,
    /// Of an instance that is not the master itself.
    master: Option<Addr>,
}

/// `<type> <name> <ip> <port> [@ <master-name> <master-ip> <master-port>] …`
fn details<'a>(words: &[&'a str]) -> Option<Details<'a>> {
    let addr = |host: &str, port: &str| Addr::from_parts(host, port.parse().ok()?).ok();
    match *words {
        ["master", name, host, port, ..] => Some(Details {
            instance: addr(host, port)?,
            master_name: name,
            master: None,
        }),
        [_, _, host, port, "@", name, master_host, master_port, ..] => Some(Details {
            instance: addr(host, port)?,
            master_name: name,
            master: addr(master_host, master_port),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Addr {
        text.parse().unwrap()
    }

    #[test]
    fn events_of_our_master() {
        let promoting = "slave 127.0.0.1:6380 127.0.0.1 6380 @ shop 127.0.0.1 6379";
        let table = [
            (
                "+failover-state-send-slaveof-noone",
                promoting,
                Some(Event::Promoting {
                    replica: addr("127.0.0.1:6380"),
                    master: addr("127.0.0.1:6379"),
                }),
            ),
            ("+promoted-slave", promoting, Some(Event::Other)),
            (
                "+odown",
                "master shop 127.0.0.1 6379 #quorum 2/2",
                Some(Event::Down {
                    master: addr("127.0.0.1:6379"),
                }),
            ),
            (
                "-odown",
                "master shop 127.0.0.1 6379",
                Some(Event::UpAgain {
                    master: addr("127.0.0.1:6379"),
                }),
            ),
            (
                "-failover-abort-slave-timeout",
                "master shop 127.0.0.1 6379",
                Some(Event::Aborted),
            ),
            (
                "+switch-master",
                "shop 127.0.0.1 6379 127.0.0.1 6380",
                Some(Event::Other),
            ),
            ("+tilt", "#tilt mode entered", Some(Event::Other)),
            (
                "+switch-master",
                "other 127.0.0.1 6379 127.0.0.1 6380",
                None,
            ),
            ("+odown", "master other 127.0.0.1 6379 #quorum 2/2", None),
            ("+odown", "", None),
            ("+odown", "master shop", None),
            ("+odown", "master shop 127.0.0.1 99999", None),
            (
                "+promoted-slave",
                "slave a 1.1.1.1 1 @ other 1.1.1.1 2",
                None,
            ),
        ];
        for (channel, payload, expected) in table {
            assert_eq!(
                read(channel, payload, "shop"),
                expected,
                "{channel} {payload}"
            );
        }
    }
}
