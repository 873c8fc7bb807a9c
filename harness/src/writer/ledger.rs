//! What was written, what was acknowledged, and what a server has of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::resp::{Conn, Value};
use crate::sql;

/// Where SQL writers insert their rows. One key may be there more than once, so that it would be seen.
pub const LEDGER_TABLE: &str = "CREATE TABLE shop.ledger (id BIGINT AUTO_INCREMENT PRIMARY KEY, \
     writer VARCHAR(60) NOT NULL, seq BIGINT NOT NULL, INDEX (writer, seq))";

pub(super) fn insert(label: &str, seq: u64) -> String {
    format!("INSERT INTO shop.ledger (writer, seq) VALUES ('{label}', {seq})")
}

pub(super) fn key(label: &str, seq: u64) -> String {
    format!("ledger:{label}:{seq}")
}

/// One write and its end.
#[derive(Clone, Debug)]
pub struct Write {
    pub seq: u64,
    /// Before connecting, where it connects.
    pub started: Instant,
    /// When the reply was read, or the error seen.
    pub ended: Instant,
    pub result: Result<(), String>,
}

impl Write {
    pub fn is_acked(&self) -> bool {
        self.result.is_ok()
    }

    pub fn took(&self) -> Duration {
        self.ended.duration_since(self.started)
    }
}

/// All finished writes of one writer.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub label: String,
    /// In the order in which they ended.
    pub writes: Vec<Write>,
    /// Turns that passed because all connections were busy.
    pub skipped: u64,
    /// Kept connections found closed before use, and replaced.
    pub reconnects: u64,
}

impl Ledger {
    pub fn acked(&self) -> impl Iterator<Item = &Write> {
        self.writes.iter().filter(|write| write.is_acked())
    }

    pub fn errors(&self) -> impl Iterator<Item = &Write> {
        self.writes.iter().filter(|write| !write.is_acked())
    }

    /// Each different error and how often it came.
    pub fn error_counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for write in self.errors() {
            *counts
                .entry(write.result.clone().err().unwrap_or_default())
                .or_insert(0) += 1;
        }
        counts
    }

    /// The first acknowledgement after `t`, whenever the write began.
    pub fn first_ack_after(&self, t: Instant) -> Option<&Write> {
        self.acked()
            .filter(|write| write.ended >= t)
            .min_by_key(|write| write.ended)
    }

    /// The first acknowledged write that ended after `t` and that the new master has, given those it does not have.
    pub fn first_lasting_ack_after(&self, t: Instant, missing: &[Write]) -> Option<&Write> {
        let lost = |write: &&Write| missing.iter().any(|other| other.seq == write.seq);
        self.acked()
            .filter(|write| write.ended >= t && !lost(write))
            .min_by_key(|write| write.ended)
    }

    /// The longest time without an acknowledgement, and when it began.
    pub fn longest_gap(&self) -> Option<(Instant, Duration)> {
        let mut acks: Vec<Instant> = self.acked().map(|write| write.ended).collect();
        acks.sort_unstable();
        acks.windows(2)
            .map(|pair| (pair[0], pair[1].duration_since(pair[0])))
            .max_by_key(|(_, gap)| *gap)
    }

    /// The latency of acknowledged writes that `fraction` of them do not exceed; zero if there are none.
    pub fn percentile(&self, fraction: f64) -> Duration {
        let mut took: Vec<Duration> = self.acked().map(Write::took).collect();
        took.sort_unstable();
        let index = ((took.len() as f64 * fraction).ceil() as usize).saturating_sub(1);
        took.get(index.min(took.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }

    /// The acknowledged write that took longest.
    pub fn slowest(&self) -> Option<&Write> {
        self.acked().max_by_key(|write| write.took())
    }

    /// Compares with the rows in [`LEDGER_TABLE`] that the server behind `conn` has.
    pub fn count_in(&self, conn: &mut sql::Conn) -> Result<Counted> {
        let label = &self.label;
        let sql =
            format!("SELECT seq, COUNT(*) FROM shop.ledger WHERE writer = '{label}' GROUP BY seq");
        let mut counts = BTreeMap::new();
        for row in conn.query(&sql).context("counting the rows")? {
            let number = |cell: &Option<String>| cell.as_deref().unwrap_or_default().parse::<u64>();
            counts.insert(number(&row[0])?, number(&row[1])?);
        }
        let acked: Vec<&Write> = self.acked().collect();
        let there = acked
            .iter()
            .filter(|write| counts.contains_key(&write.seq))
            .count();
        let missing = acked
            .into_iter()
            .filter(|write| !counts.contains_key(&write.seq));
        Ok(Counted {
            missing: missing.cloned().collect(),
            repeated: counts
                .iter()
                .filter(|(_, n)| **n > 1)
                .map(|(seq, _)| *seq)
                .collect(),
            unheard: counts.len() - there,
        })
    }

    /// Acknowledged writes that the server behind `conn` (see [`crate::redis::RedisServer::conn`]) does not have.
    pub fn missing_from(&self, mut conn: Conn) -> Result<Vec<Write>> {
        let acked: Vec<&Write> = self.acked().collect();
        let mut missing = Vec::new();
        for chunk in acked.chunks(500) {
            let keys: Vec<String> = chunk
                .iter()
                .map(|write| key(&self.label, write.seq))
                .collect();
            let commands: Vec<Vec<&str>> =
                keys.iter().map(|key| vec!["GET", key.as_str()]).collect();
            let replies = conn
                .pipeline(&commands)
                .context("looking for the acknowledged writes")?;
            for (write, reply) in chunk.iter().zip(replies) {
                if reply.ok()? != Value::Bulk(write.seq.to_string().into_bytes()) {
                    missing.push((*write).clone());
                }
            }
        }
        Ok(missing)
    }
}

/// What a SQL server has of a ledger's writes.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Acknowledged, and not there.
    pub missing: Vec<Write>,
    /// There more than once, acknowledged or not.
    pub repeated: Vec<u64>,
    /// There, and not acknowledged: whoever wrote them cannot know.
    pub unheard: usize,
}

/// How many of `writes` were acknowledged later than `grace` after `t`.
pub fn later_than(writes: &[Write], t: Instant, grace: Duration) -> usize {
    writes
        .iter()
        .filter(|write| write.ended > t + grace)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::{RedisConf, RedisServer};
    use crate::writer::{Mode, Options, Writer};

    const MODES: [Mode; 2] = [Mode::PerRequest, Mode::Kept { connections: 4 }];

    #[test]
    fn counts_what_a_server_lost() {
        for mode in MODES {
            let server = RedisServer::start(&RedisConf::default()).unwrap();
            let writer = Writer::start(Options::new("w", server.addr, mode)).unwrap();
            let t0 = Instant::now();
            writer
                .wait_ack_after(t0 + Duration::from_millis(300), Duration::from_secs(5))
                .unwrap();
            let ledger = writer.stop();
            assert_eq!(ledger.errors().count(), 0, "{:?}", ledger.error_counts());
            assert!(ledger.acked().count() > 30);
            assert!(
                ledger
                    .missing_from(server.conn().unwrap())
                    .unwrap()
                    .is_empty()
            );
            server
                .command(&["DEL", &key("w", 3), &key("w", 5)])
                .unwrap();
            let missing = ledger.missing_from(server.conn().unwrap()).unwrap();
            assert_eq!(
                missing.iter().map(|write| write.seq).collect::<Vec<_>>(),
                [3, 5]
            );
            assert_eq!(later_than(&missing, t0, Duration::from_secs(60)), 0);
        }
    }

    #[test]
    fn a_frozen_server_does_not_stop_the_schedule() {
        for mode in MODES {
            let server = RedisServer::start(&RedisConf::default()).unwrap();
            let mut options = Options::new("w", server.addr, mode);
            options.timeout = Duration::from_millis(400);
            let writer = Writer::start(options).unwrap();
            writer
                .wait_ack_after(Instant::now(), Duration::from_secs(5))
                .unwrap();
            server.server().freeze().unwrap();
            std::thread::sleep(Duration::from_secs(1));
            server.server().thaw().unwrap();
            writer
                .wait_ack_after(Instant::now(), Duration::from_secs(5))
                .unwrap();
            let ledger = writer.stop();
            let errors = ledger.errors().count();
            match mode {
                Mode::PerRequest => assert!(errors > 60, "{errors}"),
                Mode::Kept { .. } => assert!(
                    (4..=12).contains(&errors) && ledger.skipped > 100,
                    "{errors}"
                ),
            }
            assert!(ledger.longest_gap().unwrap().1 >= Duration::from_millis(500));
        }
    }
}
