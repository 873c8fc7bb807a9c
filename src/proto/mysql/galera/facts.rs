//! What a node of a Galera or Percona XtraDB cluster says of itself. Pure.
//!
//! Sources: "Galera Status Variables" and "Galera System Variables" in the MariaDB documentation, "Index of
//! wsrep status variables" and `pxc_maint_mode` in Percona's.

use crate::proto::mysql::probe::table::{Reply, Table};

/// What a node is asked: SHOW only. A node that is not ready answers SELECT with error 1047.
pub const QUESTIONS: &[&str] = &[
    "SHOW GLOBAL STATUS LIKE 'wsrep_%'",
    "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('wsrep_on', 'wsrep_desync', 'wsrep_reject_queries', \
     'wsrep_sst_donor_rejects_queries', 'pxc_maint_mode', 'read_only', 'super_read_only')",
    "SHOW GLOBAL STATUS LIKE 'Uptime'",
];

/// A node's `wsrep_local_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalState {
    Joining,
    /// It feeds a joining node, or was desynchronised by hand.
    Donor,
    Joined,
    Synced,
    Other(u64),
}

impl LocalState {
    fn of(number: u64) -> Self {
        match number {
            1 => Self::Joining,
            2 => Self::Donor,
            3 => Self::Joined,
            4 => Self::Synced,
            other => Self::Other(other),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Donor => "donor",
            Self::Joined => "joined",
            Self::Synced => "synced",
            Self::Other(_) => "no-state",
        }
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `wsrep_cluster_status` is Primary: it is of the part that has the majority.
    pub primary: bool,
    pub ready: bool,
    pub connected: bool,
    pub state: LocalState,
    pub desync: bool,
    /// `wsrep_reject_queries`, where it is not NONE.
    pub rejects: Option<String>,
    pub donor_rejects: bool,
    pub read_only: bool,
    /// `pxc_maint_mode`, where it is not DISABLED.
    pub maintenance: Option<String>,
    /// Which history its data belongs to.
    pub history: String,
    /// How many times the membership has changed since the cluster was founded, and how many are in it.
    pub component: (u64, u64),
    pub recv_queue: u64,
    /// Seconds since it was started.
    pub uptime: u64,
}

impl Facts {
    /// Reads the answers to [`QUESTIONS`].
    ///
    /// # Errors
    /// Says what is missing.
    pub fn read(replies: &[Reply]) -> Result<Self, String> {
        let [status, variables, uptime] = replies else {
            return Err("not all questions were answered".to_owned());
        };
        let open = |reply: &Reply| reply.clone().map_err(|error| error.to_string());
        let (status, variables, uptime) = (open(status)?, open(variables)?, open(uptime)?);
        let cluster = status
            .named("wsrep_cluster_status")
            .filter(|_| variables.named("wsrep_on").is_none_or(is_on))
            .ok_or("it is no Galera node (wsrep is off)")?;
        let number = |name: &str| status.named(name).and_then(|text| text.parse().ok());
        let other_than = |name: &str, usual: &str| {
            let value = variables.named(name)?;
            (!value.eq_ignore_ascii_case(usual)).then(|| value.to_owned())
        };
        Ok(Self {
            primary: cluster.eq_ignore_ascii_case("primary"),
            ready: status.named("wsrep_ready").is_some_and(is_on),
            connected: status.named("wsrep_connected").is_some_and(is_on),
            state: LocalState::of(number("wsrep_local_state").unwrap_or_default()),
            desync: says_on(&variables, "wsrep_desync"),
            rejects: other_than("wsrep_reject_queries", "NONE"),
            donor_rejects: says_on(&variables, "wsrep_sst_donor_rejects_queries"),
            read_only: says_on(&variables, "read_only") || says_on(&variables, "super_read_only"),
            maintenance: other_than("pxc_maint_mode", "DISABLED"),
            history: status
                .named("wsrep_cluster_state_uuid")
                .unwrap_or_default()
                .to_owned(),
            component: (
                number("wsrep_cluster_conf_id").unwrap_or_default(),
                number("wsrep_cluster_size").unwrap_or_default(),
            ),
            recv_queue: number("wsrep_local_recv_queue").unwrap_or_default(),
            uptime: uptime
                .named("Uptime")
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
        })
    }

    /// Why nothing should be written to it; `None`: it is fit.
    pub fn flaw(&self, accept_donor: bool) -> Option<String> {
        let donor = accept_donor && !self.donor_rejects;
        let state = match self.state {
            LocalState::Synced => None,
            LocalState::Donor if donor => None,
            LocalState::Donor if self.desync => {
                Some("it is desynchronised (wsrep_desync)".to_owned())
            }
            LocalState::Donor => Some("it is a donor: it feeds another node".to_owned()),
            LocalState::Other(number) => Some(format!("wsrep_local_state is {number}")),
            other => Some(format!("it is {}", other.as_str())),
        };
        if !self.primary {
            Some("it is not in the primary component".to_owned())
        } else if !self.connected {
            Some("it is not connected to the cluster".to_owned())
        } else if state.is_some() {
            state
        } else if !self.ready {
            Some("wsrep_ready is OFF".to_owned())
        } else if self.desync && !donor {
            Some("it is desynchronised (wsrep_desync)".to_owned())
        } else if let Some(rejects) = &self.rejects {
            Some(format!("wsrep_reject_queries is {rejects}"))
        } else if self.read_only {
            Some("it is read-only".to_owned())
        } else {
            let mode = self.maintenance.as_ref()?;
            Some(format!("pxc_maint_mode is {mode}"))
        }
    }
}

/// A switch in SQL: ON, 1, YES, TRUE.
pub fn is_on(value: &str) -> bool {
    ["on", "1", "yes", "true"]
        .iter()
        .any(|on| value.eq_ignore_ascii_case(on))
}

/// A variable that is not there is off. One with a word we do not know is on: newer servers have more than
/// one kind of read-only.
pub fn says_on(table: &Table, name: &str) -> bool {
    const OFF: [&str; 4] = ["off", "0", "no", "false"];
    let is_off = |value: &str| OFF.iter().any(|off| value.eq_ignore_ascii_case(off));
    table.named(name).is_some_and(|value| !is_off(value))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn table(pairs: &[(&str, &str)]) -> Table {
        let text = |it: &str| Some(it.to_owned());
        Table {
            columns: vec!["Variable_name".into(), "Value".into()],
            rows: pairs.iter().map(|(k, v)| vec![text(k), text(v)]).collect(),
        }
    }

    /// A healthy node's answers, with these values in place of the usual ones.
    fn facts(other: &[(&str, &str)]) -> Result<Facts, String> {
        let pick = |usual: &[(&'static str, &'static str)]| {
            let chosen = usual.iter().map(|(key, value)| {
                let changed = other.iter().find(|(name, _)| name == key);
                (*key, changed.map_or(*value, |(_, value)| *value))
            });
            Ok(table(
                &chosen.filter(|(_, v)| *v != "absent").collect::<Vec<_>>(),
            ))
        };
        Facts::read(&[
            pick(&[
                ("wsrep_cluster_status", "Primary"),
                ("wsrep_ready", "ON"),
                ("wsrep_connected", "ON"),
                ("wsrep_local_state", "4"),
                ("wsrep_cluster_state_uuid", "u"),
                ("wsrep_cluster_conf_id", "7"),
                ("wsrep_cluster_size", "3"),
                ("wsrep_local_recv_queue", "5"),
            ]),
            pick(&[
                ("wsrep_on", "ON"),
                ("wsrep_desync", "OFF"),
                ("wsrep_reject_queries", "NONE"),
                ("wsrep_sst_donor_rejects_queries", "OFF"),
                ("read_only", "OFF"),
                ("super_read_only", "absent"),
                ("pxc_maint_mode", "absent"),
            ]),
            pick(&[("Uptime", "90")]),
        ])
    }

    #[test]
    fn a_healthy_node() {
        let facts = facts(&[]).unwrap();
        assert_eq!(facts.flaw(false), None);
        assert_eq!(facts.component, (7, 3));
        assert_eq!(
            (facts.history.as_str(), facts.recv_queue, facts.uptime),
            ("u", 5, 90)
        );
    }

    #[test]
    fn what_makes_a_node_unfit() {
        let table = [
            (
                &[("wsrep_cluster_status", "non-Primary")][..],
                "primary component",
            ),
            (
                &[("wsrep_cluster_status", "Disconnected")],
                "primary component",
            ),
            (&[("wsrep_ready", "OFF")], "wsrep_ready"),
            (&[("wsrep_ready", "absent")], "wsrep_ready"),
            (&[("wsrep_connected", "OFF")], "not connected"),
            (&[("wsrep_local_state", "2")], "donor"),
            (&[("wsrep_local_state", "3")], "joined"),
            (&[("wsrep_local_state", "1")], "joining"),
            (&[("wsrep_local_state", "0")], "wsrep_local_state is 0"),
            (&[("wsrep_desync", "ON")], "desynchronised"),
            (
                &[("wsrep_local_state", "2"), ("wsrep_desync", "ON")],
                "desynchronised",
            ),
            (
                &[("wsrep_reject_queries", "ALL")],
                "wsrep_reject_queries is ALL",
            ),
            (&[("wsrep_reject_queries", "ALL_KILL")], "ALL_KILL"),
            (&[("read_only", "ON")], "read-only"),
            (&[("read_only", "NO_LOCK")], "read-only"),
            (&[("super_read_only", "1")], "read-only"),
            (
                &[("pxc_maint_mode", "SHUTDOWN")],
                "pxc_maint_mode is SHUTDOWN",
            ),
        ];
        for (changed, why) in table {
            let flaw = facts(changed).unwrap().flaw(false).unwrap_or_default();
            assert!(flaw.contains(why), "{changed:?}: {flaw}");
        }
        assert_eq!(
            facts(&[("pxc_maint_mode", "DISABLED")])
                .unwrap()
                .flaw(false),
            None
        );
    }

    #[test]
    fn donors_where_they_are_accepted() {
        let donor = ("wsrep_local_state", "2");
        for (changed, fit) in [
            (&[donor][..], true),
            (&[donor, ("wsrep_desync", "ON")], true),
            (&[donor, ("wsrep_sst_donor_rejects_queries", "ON")], false),
            (&[("wsrep_local_state", "3")], false),
        ] {
            assert_eq!(
                facts(changed).unwrap().flaw(true).is_none(),
                fit,
                "{changed:?}"
            );
        }
    }

    #[test]
    fn what_is_no_galera_node() {
        for changed in [("wsrep_cluster_status", "absent"), ("wsrep_on", "OFF")] {
            assert!(facts(&[changed]).unwrap_err().contains("no Galera node"));
        }
        assert!(Facts::read(&[]).is_err());
        let error = crate::proto::mysql::packet::ServerError {
            code: 1227,
            text: "Access denied".into(),
        };
        let refused = [Err(error), Ok(Table::default()), Ok(Table::default())];
        assert!(Facts::read(&refused).unwrap_err().contains("1227"));
    }
}
