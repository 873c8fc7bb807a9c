//! What has to be known of a server with asynchronous replication before it is made the primary, or stops being
//! it. Pure.
//!
//! Sources: "SHOW REPLICA STATUS", "Privileges Provided by MySQL" in the MySQL reference manual; "SHOW REPLICA
//! STATUS", "GRANT" in the MariaDB documentation (READ_ONLY ADMIN, CONNECTION ADMIN and REPLICATION SLAVE ADMIN
//! came with 10.5, SUPER lost the first of them with 10.11).

use std::collections::BTreeSet;

use crate::proto::mysql::galera::facts::{is_on, says_on};
use crate::proto::mysql::probe::table::Table;

/// Whose words it understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// Its version.
    MariaDb(u32, u32),
    /// Whether it knows the words for replicas that came with 8.0.22.
    MySql { replicas: bool },
}

impl Flavor {
    /// Of the version in a server's greeting.
    pub fn of(version: &str) -> Self {
        // MariaDB pretends to be 5.5.5 for old replicas.
        let plain = version.strip_prefix("5.5.5-").unwrap_or(version);
        let digits = |part: &str| {
            let end = part.find(|c: char| !c.is_ascii_digit());
            part[..end.unwrap_or(part.len())]
                .parse()
                .unwrap_or_default()
        };
        let mut parts = plain.split('.').map(digits);
        let mut next = || parts.next().unwrap_or_default();
        let (major, minor, patch) = (next(), next(), next());
        match version.contains("MariaDB") {
            true => Self::MariaDb(major, minor),
            false => Self::MySql {
                replicas: (major, minor, patch) >= (8, 0, 22),
            },
        }
    }

    fn says_replica(self) -> bool {
        self == Self::MySql { replicas: true }
    }

    pub fn stop(self) -> &'static str {
        if self.says_replica() {
            "STOP REPLICA"
        } else {
            "STOP SLAVE"
        }
    }

    pub fn start(self) -> &'static str {
        if self.says_replica() {
            "START REPLICA"
        } else {
            "START SLAVE"
        }
    }

    pub fn reset(self) -> &'static str {
        if self.says_replica() {
            "RESET REPLICA ALL"
        } else {
            "RESET SLAVE ALL"
        }
    }

    pub fn status(self) -> &'static str {
        match self {
            Self::MariaDb(..) => "SHOW ALL SLAVES STATUS",
            Self::MySql { replicas: true } => "SHOW REPLICA STATUS",
            Self::MySql { replicas: false } => "SHOW SLAVE STATUS",
        }
    }

    /// What closes a server to everybody who may be closed out. MariaDB has no word for those who may
    /// administer it.
    pub fn close(self) -> &'static str {
        match self {
            Self::MariaDb(..) => "SET GLOBAL read_only = ON",
            Self::MySql { .. } => "SET GLOBAL super_read_only = ON",
        }
    }

    /// The transactions that were committed on a server as a primary.
    pub fn written(self) -> &'static str {
        match self {
            Self::MariaDb(..) => "SELECT @@GLOBAL.gtid_binlog_pos",
            Self::MySql { .. } => "SELECT @@GLOBAL.gtid_executed",
        }
    }

    /// Those that were applied on it as a replica.
    pub fn applied(self) -> &'static str {
        match self {
            Self::MariaDb(..) => "SELECT @@GLOBAL.gtid_slave_pos",
            Self::MySql { .. } => "SELECT @@GLOBAL.gtid_executed",
        }
    }
}

/// Undoes [`Flavor::close`] on either kind.
pub const REOPEN: &str = "SET GLOBAL read_only = OFF";

pub const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('server_id', 'read_only', \
     'super_read_only', 'log_bin', 'gtid_mode')";

/// One source of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The `server_id` of who it copies from.
    pub server_id: u64,
    /// Both of its threads run.
    pub runs: bool,
    /// Seconds that it waits on purpose.
    pub delay: u64,
    /// It leaves something out.
    pub filtered: bool,
    /// It finds its place by global ids, so that another server can be its source.
    pub by_gtid: bool,
    /// Everything that it has received is applied.
    pub drained: bool,
    /// What its threads complain of.
    pub error: String,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub flavor: Flavor,
    pub server_id: u64,
    pub closed: bool,
    pub log_bin: bool,
    /// Transactions have global ids; MariaDB's always do.
    pub gtids: bool,
    pub sources: Vec<Source>,
    privileges: BTreeSet<String>,
}

impl Facts {
    /// Of the answers to [`VARIABLES`], the status of replication, and SHOW GRANTS.
    pub fn read(flavor: Flavor, variables: &Table, status: &Table, grants: &Table) -> Self {
        let gtids = |mode: &str| mode.to_ascii_uppercase().starts_with("ON");
        Self {
            flavor,
            server_id: number(variables.named("server_id")),
            closed: says_on(variables, "read_only") || says_on(variables, "super_read_only"),
            log_bin: variables.named("log_bin").is_some_and(is_on),
            gtids: match flavor {
                Flavor::MariaDb(..) => true,
                Flavor::MySql { .. } => variables.named("gtid_mode").is_some_and(gtids),
            },
            sources: sources(status),
            privileges: privileges(grants),
        }
    }

    /// What the account lacks to close a server, or to open one.
    pub fn lacks(&self) -> Option<&'static str> {
        let has = |any: &[&str]| {
            let all = ["ALL PRIVILEGES", "ALL"];
            any.iter().chain(&all).any(|p| self.privileges.contains(*p))
        };
        let needed: &[(&str, &[&str])] = match self.flavor {
            Flavor::MariaDb(major, minor) if (major, minor) >= (10, 11) => &[
                ("READ_ONLY ADMIN", &["READ_ONLY ADMIN", "READ ONLY ADMIN"]),
                ("CONNECTION ADMIN", &["CONNECTION ADMIN", "SUPER"]),
                (
                    "REPLICATION SLAVE ADMIN",
                    &["REPLICATION SLAVE ADMIN", "SUPER"],
                ),
                ("PROCESS", &["PROCESS"]),
                ("RELOAD", &["RELOAD"]),
            ],
            Flavor::MariaDb(major, minor) if (major, minor) >= (10, 5) => &[
                (
                    "READ_ONLY ADMIN",
                    &["READ_ONLY ADMIN", "READ ONLY ADMIN", "SUPER"],
                ),
                ("CONNECTION ADMIN", &["CONNECTION ADMIN", "SUPER"]),
                (
                    "REPLICATION SLAVE ADMIN",
                    &["REPLICATION SLAVE ADMIN", "SUPER"],
                ),
                ("PROCESS", &["PROCESS"]),
                ("RELOAD", &["RELOAD"]),
            ],
            Flavor::MariaDb(..) | Flavor::MySql { replicas: false } => &[
                ("SUPER", &["SUPER"]),
                ("PROCESS", &["PROCESS"]),
                ("RELOAD", &["RELOAD"]),
            ],
            Flavor::MySql { replicas: true } => &[
                (
                    "SYSTEM_VARIABLES_ADMIN",
                    &["SYSTEM_VARIABLES_ADMIN", "SUPER"],
                ),
                ("CONNECTION_ADMIN", &["CONNECTION_ADMIN", "SUPER"]),
                (
                    "REPLICATION_SLAVE_ADMIN",
                    &["REPLICATION_SLAVE_ADMIN", "SUPER"],
                ),
                ("PROCESS", &["PROCESS"]),
                ("RELOAD", &["RELOAD"]),
            ],
        };
        needed
            .iter()
            .find(|(_, any)| !has(any))
            .map(|(name, _)| *name)
    }

    /// Whether another server may log in with the account to copy from this one.
    pub fn feeds(&self) -> bool {
        let has = |p: &str| self.privileges.contains(p);
        let may = ["ALL PRIVILEGES", "ALL", "REPLICATION SLAVE"];
        self.log_bin && may.iter().any(|p| has(p))
    }

    /// Why this one, a replica, must not take over from `old`.
    pub fn objection(&self, old: &Self) -> Option<String> {
        let [source] = self.sources.as_slice() else {
            return Some(format!(
                "it copies from {} servers, and not from one",
                self.sources.len()
            ));
        };
        if source.server_id != old.server_id {
            let (theirs, ours) = (source.server_id, old.server_id);
            return Some(format!(
                "it copies from server_id {theirs}, and the primary's is {ours}"
            ));
        }
        if !old.log_bin || !old.gtids || !self.gtids {
            return Some("the primary writes no binary log with global transaction ids".to_owned());
        }
        if source.filtered {
            return Some("it leaves something out: it has a replication filter".to_owned());
        }
        if source.delay > 0 {
            return Some(format!("it is kept {} s behind on purpose", source.delay));
        }
        (!source.runs).then(|| format!("its replication does not run {}", source.error))
    }
}

fn number(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn sources(status: &Table) -> Vec<Source> {
    const FILTERS: [[&str; 1]; 6] = [
        ["Replicate_Do_DB"],
        ["Replicate_Ignore_DB"],
        ["Replicate_Do_Table"],
        ["Replicate_Ignore_Table"],
        ["Replicate_Wild_Do_Table"],
        ["Replicate_Wild_Ignore_Table"],
    ];
    let source = |row: &Vec<Option<String>>| {
        let cell = |names: &[&str]| status.cell(row, names).flatten();
        let yes = |names: &[&str]| cell(names).is_some_and(|word| word.eq_ignore_ascii_case("yes"));
        let by_gtid = cell(&["Using_Gtid"]).is_some_and(|word| !word.eq_ignore_ascii_case("no"))
            || cell(&["Auto_Position"]) == Some("1");
        let received = (
            cell(&["Master_Log_File", "Source_Log_File"]),
            cell(&["Read_Master_Log_Pos", "Read_Source_Log_Pos"]),
        );
        let applied = (
            cell(&["Relay_Master_Log_File", "Relay_Source_Log_File"]),
            cell(&["Exec_Master_Log_Pos", "Exec_Source_Log_Pos"]),
        );
        let errors = [cell(&["Last_IO_Error"]), cell(&["Last_SQL_Error"])];
        let errors = errors.into_iter().flatten().filter(|text| !text.is_empty());
        Source {
            server_id: number(cell(&["Master_Server_Id", "Source_Server_Id"])),
            runs: yes(&["Slave_IO_Running", "Replica_IO_Running"])
                && yes(&["Slave_SQL_Running", "Replica_SQL_Running"]),
            delay: number(cell(&["SQL_Delay"])),
            filtered: FILTERS
                .iter()
                .any(|f| cell(f).is_some_and(|text| !text.is_empty())),
            by_gtid,
            drained: received == applied && received.0.is_some(),
            error: errors.map(brief).collect::<Vec<_>>().join("; "),
        }
    };
    status.rows.iter().map(source).collect()
}

/// A server's text, where it is quoted.
pub fn brief(text: &str) -> String {
    let text: String = text.chars().take(200).collect();
    text.replace(char::is_control, " ")
}

/// What is granted everywhere, of lines like ``GRANT SUPER, PROCESS ON *.* TO `pilotfish`@`%` ``.
fn privileges(grants: &Table) -> BTreeSet<String> {
    let lines = grants.rows.iter().filter_map(|row| row.first()?.as_deref());
    let everywhere = lines.filter_map(|line| {
        let (words, _) = line.strip_prefix("GRANT ")?.split_once(" ON *.* ")?;
        Some(words)
    });
    let words = everywhere.flat_map(|words| words.split(','));
    words.map(|word| word.trim().to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[&str], rows: &[&[&str]]) -> Table {
        let cell = |text: &&str| (*text != "NULL").then(|| (*text).to_owned());
        Table {
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            rows: rows
                .iter()
                .map(|row| row.iter().map(cell).collect())
                .collect(),
        }
    }

    fn grants(lines: &[&str]) -> Table {
        let rows: Vec<&[&str]> = lines.iter().map(std::slice::from_ref).collect();
        table(&["Grants"], &rows)
    }

    const COLUMNS: [&str; 11] = [
        "Master_Server_Id",
        "Slave_IO_Running",
        "Slave_SQL_Running",
        "SQL_Delay",
        "Using_Gtid",
        "Replicate_Do_DB",
        "Master_Log_File",
        "Read_Master_Log_Pos",
        "Relay_Master_Log_File",
        "Exec_Master_Log_Pos",
        "Last_IO_Error",
    ];
    const FINE: [&str; 11] = [
        "1",
        "Yes",
        "Yes",
        "0",
        "Current_Pos",
        "",
        "b.1",
        "9",
        "b.1",
        "9",
        "",
    ];

    fn facts(server_id: &str, status: &Table, log_bin: &str) -> Facts {
        let variables = [
            ["server_id", server_id],
            ["read_only", "ON"],
            ["log_bin", log_bin],
        ];
        let variables: Vec<&[&str]> = variables.iter().map(<[&str; 2]>::as_slice).collect();
        let variables = table(&["Variable_name", "Value"], &variables);
        Facts::read(Flavor::MariaDb(10, 11), &variables, status, &grants(&[]))
    }

    #[test]
    fn who_must_not_take_over() {
        let old = facts("1", &table(&COLUMNS, &[]), "ON");
        let objection = |changed: usize, value: &str| {
            let mut row = FINE;
            row[changed] = value;
            let replica = facts("2", &table(&COLUMNS, &[&row]), "ON");
            replica.objection(&old).unwrap_or_default()
        };
        assert_eq!(
            objection(4, "No"),
            "",
            "its place in the log is enough to wait"
        );
        for (changed, value, why) in [
            (0, "7", "server_id 7"),
            (1, "Connecting", "does not run"),
            (2, "No", "does not run"),
            (3, "3600", "3600 s behind on purpose"),
            (5, "shop", "filter"),
        ] {
            assert!(objection(changed, value).contains(why), "{value}");
        }
        let none = facts("2", &table(&COLUMNS, &[]), "ON");
        assert!(none.objection(&old).unwrap().contains("from 0 servers"));
        let two = facts("2", &table(&COLUMNS, &[&FINE, &FINE]), "ON");
        assert!(two.objection(&old).unwrap().contains("from 2 servers"));
        let silent = facts("1", &table(&COLUMNS, &[]), "OFF");
        let replica = facts("2", &table(&COLUMNS, &[&FINE]), "ON");
        assert!(replica.objection(&silent).unwrap().contains("binary log"));
    }

    #[test]
    fn what_was_received_and_is_not_applied() {
        let drained = |row: &[&str; 11]| sources(&table(&COLUMNS, &[row]))[0].drained;
        assert!(drained(&FINE));
        let mut behind = FINE;
        behind[9] = "8";
        assert!(!drained(&behind));
        assert!(
            !sources(&table(&["SQL_Delay"], &[&["0"]]))[0].drained,
            "it does not say"
        );
    }

    #[test]
    fn what_an_account_lacks() {
        let lacks = |version, lines: &[&str]| {
            let flavor = Flavor::of(version);
            let none = Table::default();
            Facts::read(flavor, &none, &none, &grants(lines)).lacks()
        };
        let maria = "5.5.5-10.11.6-MariaDB-1";
        for (version, lines, expected) in [
            (
                maria,
                &["GRANT ALL PRIVILEGES ON *.* TO `p`@`%` WITH GRANT OPTION"][..],
                None,
            ),
            (
                maria,
                &["GRANT SUPER, PROCESS, RELOAD ON *.* TO `p`@`%`"],
                Some("READ_ONLY ADMIN"),
            ),
            (
                "10.6.1-MariaDB",
                &["GRANT SUPER, PROCESS, RELOAD ON *.* TO `p`@`%`"],
                None,
            ),
            (
                "10.4.1-MariaDB",
                &["GRANT PROCESS ON *.* TO `p`@`%`"],
                Some("SUPER"),
            ),
            (
                maria,
                &[
                    "GRANT PROCESS, RELOAD, CONNECTION ADMIN, READ_ONLY ADMIN, REPLICATION SLAVE ADMIN ON *.* TO p",
                    "GRANT ALL PRIVILEGES ON `shop`.* TO `p`@`%`",
                ],
                None,
            ),
            (
                maria,
                &["GRANT ALL PRIVILEGES ON `shop`.* TO `p`@`%`"],
                Some("READ_ONLY ADMIN"),
            ),
            (
                "8.4.3",
                &[
                    "GRANT PROCESS, RELOAD ON *.* TO p",
                    "GRANT SUPER ON *.* TO p",
                ],
                None,
            ),
            (
                "8.4.3",
                &["GRANT PROCESS ON *.* TO p"],
                Some("SYSTEM_VARIABLES_ADMIN"),
            ),
            ("5.7.44", &["GRANT SUPER ON *.* TO p"], Some("PROCESS")),
        ] {
            assert_eq!(lacks(version, lines), expected, "{version} {lines:?}");
        }
    }

    #[test]
    fn every_version_hears_its_own_words() {
        for (version, flavor, stop) in [
            (
                "10.11.19-MariaDB-0+deb12u1",
                Flavor::MariaDb(10, 11),
                "STOP SLAVE",
            ),
            ("5.5.5-10.4.1-MariaDB", Flavor::MariaDb(10, 4), "STOP SLAVE"),
            ("8.0.22", Flavor::MySql { replicas: true }, "STOP REPLICA"),
            ("8.0.21-12", Flavor::MySql { replicas: false }, "STOP SLAVE"),
            ("", Flavor::MySql { replicas: false }, "STOP SLAVE"),
        ] {
            assert_eq!(
                (Flavor::of(version), Flavor::of(version).stop()),
                (flavor, stop)
            );
        }
    }
}
