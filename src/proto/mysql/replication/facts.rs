//! What a server with asynchronous replication says of itself. Pure.
//!
//! Sources: "SHOW REPLICA STATUS" and "Server System Variables" in the MySQL reference manual, "SHOW ALL
//! REPLICAS STATUS" in the MariaDB documentation.

use std::fmt;
use std::time::Duration;

use crate::proto::mysql::galera::facts::says_on;
use crate::proto::mysql::probe::table::{Reply, Table};

const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
     ('read_only', 'super_read_only', 'offline_mode', 'innodb_read_only')";

/// What a server of this version is asked. The words for replicas came with MySQL 8.0.22, and MariaDB, which
/// can have several sources, has words of its own.
pub fn questions(version: &str) -> &'static [&'static str] {
    const MARIADB: &[&str] = &[VARIABLES, "SHOW ALL SLAVES STATUS"];
    const NEW: &[&str] = &[VARIABLES, "SHOW REPLICA STATUS"];
    const OLD: &[&str] = &[VARIABLES, "SHOW SLAVE STATUS"];
    if version.contains("MariaDB") {
        return MARIADB;
    }
    let digits = |part: &str| {
        let end = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        part[..end].parse::<u32>().unwrap_or_default()
    };
    let mut parts = version.split('.').map(digits);
    let mut next = || parts.next().unwrap_or_default();
    if (next(), next(), next()) >= (8, 0, 22) {
        NEW
    } else {
        OLD
    }
}

/// How a replica's copying goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// It has no source.
    None,
    /// One of its threads is not running, so nobody knows how far it is behind.
    Stopped,
    /// So many seconds behind; of several sources the worst.
    Behind(u64),
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The first of the variables that keeps it from being written to.
    pub barred: Option<&'static str>,
    /// It takes no clients but operators.
    pub offline: bool,
    pub copying: Copying,
}

impl Server {
    /// Reads the answers to [`questions`].
    ///
    /// # Errors
    /// Says what is missing.
    pub fn read(replies: &[Reply]) -> Result<Self, String> {
        let [variables, replica] = replies else {
            return Err("not all questions were answered".to_owned());
        };
        let variables = variables.as_ref().map_err(ToString::to_string)?;
        if variables.named("read_only").is_none() {
            return Err("it does not say whether it is read-only".to_owned());
        }
        let replica = replica.as_ref().map_err(|error| {
            format!("{error} (REPLICATION CLIENT or REPLICA MONITOR is needed)")
        })?;
        let names = [
            "super_read_only",
            "read_only",
            "offline_mode",
            "innodb_read_only",
        ];
        Ok(Self {
            barred: names.into_iter().find(|name| says_on(variables, name)),
            offline: says_on(variables, "offline_mode"),
            copying: copying(replica),
        })
    }

    /// Why nothing should be written to it; `None`: it can be the primary.
    pub fn flaw(&self) -> Option<String> {
        self.barred.map(|name| format!("{name} is ON"))
    }

    /// Why it gets no reads as a replica.
    pub fn lags(&self, max_lag: Duration) -> Option<String> {
        match self.copying {
            _ if self.offline => Some("offline_mode is ON".to_owned()),
            Copying::None => Some("it replicates from nobody".to_owned()),
            Copying::Stopped => Some("its replication does not run".to_owned()),
            Copying::Behind(lag) if Duration::from_secs(lag) > max_lag => {
                Some(format!("it is {lag} s behind"))
            }
            Copying::Behind(_) => None,
        }
    }

    pub fn lag(&self) -> Option<u64> {
        match self.copying {
            Copying::Behind(lag) => Some(lag),
            Copying::None | Copying::Stopped => None,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.barred {
            None => f.write_str("primary")?,
            Some(name) => write!(f, "{name} is ON")?,
        }
        match self.copying {
            Copying::None => Ok(()),
            Copying::Stopped => f.write_str(", its replication does not run"),
            Copying::Behind(lag) => write!(f, ", replica, {lag} s behind"),
        }
    }
}

fn copying(table: &Table) -> Copying {
    let mut worst = Copying::None;
    for row in &table.rows {
        let cell = |names: &[&str]| table.cell(row, names).flatten();
        let runs = |names| cell(names).is_some_and(|word| word.eq_ignore_ascii_case("yes"));
        let running = runs(&["Replica_IO_Running", "Slave_IO_Running"])
            && runs(&["Replica_SQL_Running", "Slave_SQL_Running"]);
        let lag = cell(&["Seconds_Behind_Source", "Seconds_Behind_Master"]);
        let one = lag.and_then(|text| text.parse().ok()).filter(|_| running);
        worst = match (worst, one) {
            (Copying::Stopped, _) | (_, None) => Copying::Stopped,
            (Copying::Behind(a), Some(b)) => Copying::Behind(a.max(b)),
            (Copying::None, Some(b)) => Copying::Behind(b),
        };
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(on: &[&str]) -> Table {
        let names = ["read_only", "offline_mode", "innodb_read_only"];
        let row = |name: &&str| {
            let value = if on.contains(name) { "ON" } else { "OFF" };
            vec![Some((*name).to_owned()), Some(value.to_owned())]
        };
        Table {
            columns: vec!["Variable_name".into(), "Value".into()],
            rows: names
                .iter()
                .chain(on.iter().filter(|n| !names.contains(n)))
                .map(row)
                .collect(),
        }
    }

    /// `Yes/Yes/3` is one source; words of old and new servers.
    fn replica(old: bool, sources: &[&str]) -> Table {
        let columns = if old {
            [
                "Slave_IO_Running",
                "Slave_SQL_Running",
                "Seconds_Behind_Master",
            ]
        } else {
            [
                "Replica_IO_Running",
                "Replica_SQL_Running",
                "Seconds_Behind_Source",
            ]
        };
        let cell = |text: &str| (text != "NULL").then(|| text.to_owned());
        Table {
            columns: columns.map(Into::into).into(),
            rows: sources
                .iter()
                .map(|s| s.split('/').map(cell).collect())
                .collect(),
        }
    }

    #[test]
    fn who_can_be_written_to() {
        for (on, flaw) in [
            (&[][..], None),
            (&["read_only"], Some("read_only is ON")),
            (
                &["read_only", "super_read_only"],
                Some("super_read_only is ON"),
            ),
            (&["offline_mode"], Some("offline_mode is ON")),
            (&["innodb_read_only"], Some("innodb_read_only is ON")),
        ] {
            let server = Server::read(&[Ok(variables(on)), Ok(Table::default())]).unwrap();
            assert_eq!(server.flaw().as_deref(), flaw, "{on:?}");
        }
        assert!(Server::read(&[Ok(Table::default()), Ok(Table::default())]).is_err());
        assert!(Server::read(&[]).is_err());
    }

    #[test]
    fn how_far_behind() {
        use Copying::{Behind, None, Stopped};
        for (sources, expected) in [
            (&[][..], None),
            (&["Yes/Yes/0"], Behind(0)),
            (&["Yes/Yes/31"], Behind(31)),
            (&["Yes/Yes/NULL"], Stopped),
            (&["Connecting/Yes/NULL"], Stopped),
            (&["Yes/No/NULL"], Stopped),
            (&["No/Yes/5"], Stopped),
            (&["Yes/Yes/2", "Yes/Yes/9", "Yes/Yes/1"], Behind(9)),
            (&["Yes/Yes/2", "Yes/No/NULL", "Yes/Yes/1"], Stopped),
        ] {
            for old in [true, false] {
                assert_eq!(copying(&replica(old, sources)), expected, "{sources:?}");
            }
        }
        let server = |copying| Server {
            barred: Some("read_only"),
            offline: false,
            copying,
        };
        let max = Duration::from_secs(10);
        assert_eq!(server(Behind(10)).lags(max), Option::None);
        for copying in [Behind(11), Stopped, None] {
            assert!(server(copying).lags(max).is_some());
        }
    }

    #[test]
    fn every_version_hears_its_own_words() {
        for (version, word) in [
            ("10.11.19-MariaDB-0+deb12u1", "ALL SLAVES"),
            ("5.5.5-10.4.1-MariaDB", "ALL SLAVES"),
            ("8.0.22", "REPLICA"),
            ("8.4.3-log", "REPLICA"),
            ("8.0.21-12", "SHOW SLAVE"),
            ("5.7.44", "SHOW SLAVE"),
            ("", "SHOW SLAVE"),
        ] {
            assert!(questions(version)[1].contains(word), "{version}");
        }
    }
}
