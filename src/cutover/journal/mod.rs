//! The journal: what happened in every run, written down before anything that follows from it is done.
//!
//! A file of lines, each a checksum and a JSON object. The checksum covers the line before as well, so a
//! line that is missing, doubled or changed shows. What a crash can leave behind is a last line without
//! its end: that one is cut. Anything else that is wrong is damage, and nothing is done on top of it. Only
//! one process at a time has the file open for writing. No secret is ever in an event.

mod line;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::machine::{At, Event, Misfit, State, replay};

const NAME: &str = "cutover.journal";
/// A file that has grown beyond this is put aside before the next run begins.
const ROTATE_AT: u64 = 1 << 20;
/// Files that were put aside, besides the one in use.
const KEPT: u32 = 4;
/// More is not a journal of ours.
const MAX_FILE: u64 = 64 << 20;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From 1, in each file.
    pub seq: u64,
    /// RFC 3339.
    pub time: String,
    /// Which run it belongs to.
    pub run: String,
    pub what: Event,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the journal {}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the journal {} is damaged in line {line}: {why}; look at it before anything else", path.display())]
    Damaged {
        path: PathBuf,
        line: usize,
        why: String,
    },
    #[error("another process writes the journal {}", .0.display())]
    Busy(PathBuf),
    #[error("the journal of {run} makes no sense: {misfit}")]
    Misfit { run: String, misfit: Misfit },
}

/// A run and where it stands.
#[derive(Clone, Debug)]
pub struct Run {
    pub id: String,
    pub state: State,
}

/// All runs in `dir`, oldest first; none where there is no journal.
///
/// # Errors
/// When it cannot be read, or is damaged. A torn last line is no damage.
pub fn runs(dir: &Path) -> Result<Vec<Run>, JournalError> {
    let mut entries = Vec::new();
    for at in (0..=KEPT).rev() {
        let path = file(dir, at);
        let found = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(JournalError::Io { path, source }),
            Ok(file) => read(&path, file)?,
        };
        entries.extend(found.entries);
    }
    grouped(entries)
}

fn grouped(entries: Vec<Entry>) -> Result<Vec<Run>, JournalError> {
    let mut runs: Vec<Run> = Vec::new();
    for part in entries.chunk_by(|a, b| a.run == b.run) {
        let events = part.iter().map(|entry| At {
            time: &entry.time,
            event: &entry.what,
        });
        let id = part[0].run.clone();
        match replay(events) {
            Ok(Some(state)) => runs.push(Run { id, state }),
            Ok(None) => {}
            Err(misfit) => return Err(JournalError::Misfit { run: id, misfit }),
        }
    }
    Ok(runs)
}

fn file(dir: &Path, at: u32) -> PathBuf {
    match at {
        0 => dir.join(NAME),
        n => dir.join(format!("{NAME}.{n}")),
    }
}

struct Reading {
    entries: Vec<Entry>,
    /// Bytes that are whole lines.
    whole: u64,
    torn: bool,
    sum: String,
}

fn read(path: &Path, file: File) -> Result<Reading, JournalError> {
    let mut bytes = Vec::new();
    let io = |source| JournalError::Io {
        path: path.to_owned(),
        source,
    };
    let damaged = |line, why: String| JournalError::Damaged {
        path: path.to_owned(),
        line,
        why,
    };
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(damaged(0, "it is too long".to_owned()));
    }
    let whole = bytes
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    let mut reading = Reading {
        entries: Vec::new(),
        whole: whole as u64,
        torn: whole < bytes.len(),
        sum: line::BEGINNING.to_owned(),
    };
    for (at, text) in bytes[..whole]
        .split_inclusive(|&byte| byte == b'\n')
        .enumerate()
    {
        let (entry, sum) = line::parse(text, &reading.sum).map_err(|why| damaged(at + 1, why))?;
        if entry.seq != at as u64 + 1 {
            return Err(damaged(at + 1, format!("it is number {}", entry.seq)));
        }
        reading.entries.push(entry);
        reading.sum = sum;
    }
    Ok(reading)
}

/// The journal, open for writing by nobody else.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    file: File,
    seq: u64,
    sum: String,
    len: u64,
    /// A line that could not be written whole may be in the file.
    broken: bool,
}

impl Writer {
    /// Opens it, and cuts a torn last line; says what runs there are, and whether one was cut. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// When another process has it open, it cannot be written, or it is damaged.
    pub fn open(dir: &Path) -> Result<(Self, Vec<Run>, bool), JournalError> {
        let path = file(dir, 0);
        let io = |source| JournalError::Io {
            path: path.clone(),
            source,
        };
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(io)?;
        let file = File::options()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => JournalError::Busy(path.clone()),
            other => io(other.into()),
        })?;
        // The file itself must survive a crash too.
        sync_dir(dir).map_err(io)?;
        let reading = read(&path, file.try_clone().map_err(io)?)?;
        if reading.torn {
            file.set_len(reading.whole).map_err(io)?;
            file.sync_all().map_err(io)?;
        }
        let writer = Self {
            dir: dir.to_owned(),
            file,
            seq: reading.entries.len() as u64,
            sum: reading.sum,
            len: reading.whole,
            broken: false,
        };
        Ok((writer, runs(dir)?, reading.torn))
    }

    /// Writes one event down; it is on the disk when this returns. Blocks.
    ///
    /// # Errors
    /// When it is not certain that it is; then nothing more can be written.
    pub fn append(&mut self, run: &str, time: &str, what: &Event) -> Result<(), JournalError> {
        let path = file(&self.dir, 0);
        let io = |source| JournalError::Io {
            path: path.clone(),
            source,
        };
        if self.broken {
            return Err(io(std::io::Error::other(
                "an earlier line could not be written",
            )));
        }
        let entry = Entry {
            seq: self.seq + 1,
            time: time.to_owned(),
            run: run.to_owned(),
            what: what.clone(),
        };
        let (text, sum) = line::write(&entry, &self.sum).map_err(io)?;
        let written = self.file.write_all(text.as_bytes());
        if let Err(error) = written.and_then(|()| self.file.sync_all()) {
            self.broken = self.file.set_len(self.len).is_err();
            self.broken |= self.file.sync_all().is_err();
            return Err(io(error));
        }
        self.seq += 1;
        self.sum = sum;
        self.len += text.len() as u64;
        Ok(())
    }

    /// Puts a file that has grown long aside. Only between two runs. Blocks.
    ///
    /// # Errors
    /// When a file cannot be renamed.
    pub fn rotate(self) -> Result<Self, JournalError> {
        if self.len < ROTATE_AT {
            return Ok(self);
        }
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::Io { path, source }
        };
        for at in (0..KEPT).rev() {
            let (from, to) = (file(&self.dir, at), file(&self.dir, at + 1));
            match fs::rename(&from, &to) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io(&from)(error));
                }
                _ => {}
            }
        }
        sync_dir(&self.dir).map_err(io(&self.dir))?;
        let dir = self.dir.clone();
        drop(self);
        Self::open(&dir).map(|(writer, _, _)| writer)
    }
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
