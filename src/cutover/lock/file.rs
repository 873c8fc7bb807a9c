//! A lock in the file system: it protects only those who share it, which is one host, or hosts with a
//! shared file system that passes `flock` on.
//!
//! Two files: one is locked with flock(2) and never replaced, so that a dead owner's lock vanishes by
//! itself; the other one beside it (`.json`) says who and which epoch, and is replaced as a whole, so
//! that no crash leaves half of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::{Claim, Held, Holder, Lock, LockError};
use crate::cutover::BoxFuture;

/// A look at who holds it takes the lock for a moment, which must not look like a holder.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(25);
/// A file system that hangs must not hang us.
const PATIENCE: Duration = Duration::from_secs(10);
/// The record is a few names; what is longer is something else.
const LONGEST: u64 = 16 * 1024;

/// What the second file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    epoch: u64,
    /// `None`: nobody holds it.
    holder: Option<Who>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Who {
    owner: String,
    purpose: String,
    plan: String,
}

pub struct FileLock {
    paths: Arc<Paths>,
}

struct Paths {
    lock: PathBuf,
    record: PathBuf,
}

/// Closing it releases the lock.
struct Ticket(Arc<File>);

impl FileLock {
    pub fn new(path: PathBuf) -> Self {
        let mut record = path.clone().into_os_string();
        record.push(".json");
        Self {
            paths: Arc::new(Paths {
                lock: path,
                record: record.into(),
            }),
        }
    }

    /// Runs `work` beside the runtime. Dropped, it goes on, and what it took is given back.
    async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Paths) -> Result<T, LockError> + Send + 'static,
    ) -> Result<T, LockError> {
        let paths = self.paths.clone();
        let done = tokio::task::spawn_blocking(move || work(&paths));
        match tokio::time::timeout(PATIENCE, done).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(LockError::Unavailable("the look at the file ended".into())),
            Err(_) => Err(LockError::Unavailable(format!(
                "the file system does not answer: {}",
                self.paths.lock.display()
            ))),
        }
    }
}

impl Lock for FileLock {
    fn kind(&self) -> &'static str {
        "file"
    }

    fn acquire<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<Held, LockError>> {
        Box::pin(async move {
            let who = Who {
                owner: claim.owner.clone(),
                purpose: claim.purpose.clone(),
                plan: claim.plan.clone(),
            };
            let mut tries = 1;
            loop {
                let who = who.clone();
                match self.beside(move |paths| paths.acquire(who)).await {
                    Err(LockError::Busy { .. }) if tries < TRIES => tries += 1,
                    Err(error) => return Err(error),
                    Ok((epoch, file)) => return Ok(Held::new(epoch, Ticket(Arc::new(file)))),
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
    }

    fn renew<'a>(&'a self, held: &'a mut Held) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            let epoch = held.epoch;
            let file = held.ticket::<Ticket>()?.0.clone();
            self.beside(move |paths| paths.still(&file, epoch)).await
        })
    }

    fn release<'a>(&'a self, mut held: Held) -> BoxFuture<'a, Result<(), LockError>> {
        Box::pin(async move {
            let epoch = held.epoch;
            let file = held.ticket::<Ticket>()?.0.clone();
            drop(held);
            let release = move |paths: &Paths| {
                paths.still(&file, epoch)?;
                paths.write(&Record {
                    epoch,
                    holder: None,
                })
            };
            self.beside(release).await
        })
    }

    fn holder<'a>(&'a self) -> BoxFuture<'a, Result<Option<Holder>, LockError>> {
        Box::pin(self.beside(Paths::holder))
    }
}

impl Paths {
    fn acquire(&self, who: Who) -> Result<(u64, File), LockError> {
        let file = loop {
            let file = self.open()?;
            if !self.take(&file, FlockOperation::NonBlockingLockExclusive)? {
                let found = self.read().ok().flatten().and_then(|record| record.holder);
                let holder = found.map_or_else(|| "somebody".to_owned(), |who| who.owner);
                return Err(LockError::Busy {
                    holder,
                    until: None,
                });
            }
            // Somebody may have removed it in between: then this lock is nobody's.
            if self.is(&file) {
                break file;
            }
        };
        let before = self.read()?.map_or(0, |record| record.epoch);
        let epoch = before.checked_add(1).ok_or_else(|| self.damaged())?;
        let holder = Some(who);
        self.write(&Record { epoch, holder })?;
        Ok((epoch, file))
    }

    fn open(&self) -> Result<File, LockError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let opened = options.mode(0o600).open(&self.lock);
        opened.map_err(|error| failed(&self.lock, &error))
    }

    /// Whether it could be taken.
    fn take(&self, file: &File, how: FlockOperation) -> Result<bool, LockError> {
        match rustix::fs::flock(file, how) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(failed(&self.lock, &error.into())),
        }
    }

    /// Whether `file` is still what the path leads to.
    fn is(&self, file: &File) -> bool {
        let (Ok(ours), Ok(there)) = (file.metadata(), std::fs::metadata(&self.lock)) else {
            return false;
        };
        (ours.dev(), ours.ino()) == (there.dev(), there.ino())
    }

    fn still(&self, file: &File, epoch: u64) -> Result<(), LockError> {
        let ours = self.is(file) && self.read()?.is_some_and(|record| record.epoch == epoch);
        ours.then_some(()).ok_or(LockError::Lost)
    }

    fn damaged(&self) -> LockError {
        LockError::Refused(format!(
            "{} is not what a lock writes: see that no cutover runs, then remove it or put it right",
            self.record.display()
        ))
    }

    /// `None`: there was never a holder. A damaged record is refused: beginning at 1 again would make
    /// old epochs look new.
    fn read(&self) -> Result<Option<Record>, LockError> {
        let file = match File::open(&self.record) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&self.record, &error)),
        };
        let mut text = Vec::new();
        let read = file.take(LONGEST).read_to_end(&mut text);
        read.map_err(|error| failed(&self.record, &error))?;
        let record = serde_json::from_slice(&text);
        record.map(Some).map_err(|_| self.damaged())
    }

    /// On disk when it returns.
    fn write(&self, record: &Record) -> Result<(), LockError> {
        let written = || -> io::Result<()> {
            let mut new = self.record.clone().into_os_string();
            new.push(".new");
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&new)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.sync_all()?;
            std::fs::rename(&new, &self.record)?;
            let folder = self.record.parent().filter(|p| !p.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        written().map_err(|error| failed(&self.record, &error))
    }

    fn holder(&self) -> Result<Option<Holder>, LockError> {
        let file = match File::open(&self.lock) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&self.lock, &error)),
        };
        if self.take(&file, FlockOperation::NonBlockingLockShared)? {
            return Ok(None);
        }
        Ok(self.read()?.and_then(|record| {
            record.holder.map(|who| Holder {
                owner: who.owner,
                purpose: who.purpose,
                plan: who.plan,
                epoch: record.epoch,
                until: None,
            })
        }))
    }
}

fn failed(path: &Path, error: &io::Error) -> LockError {
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::ReadOnlyFilesystem => LockError::Refused(text),
        _ => LockError::Unavailable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(owner: &str) -> Claim {
        Claim {
            owner: owner.to_owned(),
            purpose: "cutover to rbx".to_owned(),
            plan: "ab12".to_owned(),
            lease: Duration::from_secs(30),
        }
    }

    #[tokio::test]
    async fn of_twenty_one_holds_and_epochs_grow() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cutover.lock");
        let mut last = 0;
        for _ in 0..3 {
            let locks: Vec<_> = (0..20).map(|_| FileLock::new(path.clone())).collect();
            let claims: Vec<_> = (0..20).map(|n| claim(&format!("app-{n:02}"))).collect();
            let tries = locks.iter().zip(&claims).map(|(l, c)| l.acquire(c));
            let mut held = Vec::new();
            for (at, outcome) in futures_util::future::join_all(tries)
                .await
                .into_iter()
                .enumerate()
            {
                match outcome {
                    Ok(ours) => held.push((at, ours)),
                    Err(LockError::Busy { holder, .. }) => assert!(holder.starts_with("app-")),
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(held.len(), 1);
            let (at, mut ours) = held.remove(0);
            assert!(ours.epoch > last);
            last = ours.epoch;
            let seen = locks[0].holder().await.unwrap().unwrap();
            assert_eq!((seen.owner, seen.epoch), (format!("app-{at:02}"), last));
            locks[at].renew(&mut ours).await.unwrap();
            locks[at].release(ours).await.unwrap();
            assert_eq!(locks[0].holder().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_dead_owner_holds_nothing_and_a_removed_file_is_a_lost_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cutover.lock");
        let lock = FileLock::new(path.clone());
        let dead = lock.acquire(&claim("dead")).await.unwrap();
        let first = dead.epoch;
        drop(dead);
        assert_eq!(lock.holder().await.unwrap(), None);
        let mut ours = lock.acquire(&claim("app-01")).await.unwrap();
        assert!(ours.epoch > first);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(lock.renew(&mut ours).await, Err(LockError::Lost));
        let next = lock.acquire(&claim("app-02")).await.unwrap();
        assert!(next.epoch > ours.epoch);
        assert_eq!(lock.release(ours).await, Err(LockError::Lost));
        assert_eq!(lock.holder().await.unwrap().unwrap().owner, "app-02");
    }

    #[tokio::test]
    async fn half_a_record_is_refused_and_not_counted_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cutover.lock");
        let lock = FileLock::new(path.clone());
        let ours = lock.acquire(&claim("app-01")).await.unwrap();
        lock.release(ours).await.unwrap();
        let record = folder.path().join("cutover.lock.json");
        let whole = std::fs::read(&record).unwrap();
        for half in [
            &whole[..whole.len() / 2],
            b"",
            b"{\"epoch\":18446744073709551615,\"holder\":null}",
        ] {
            std::fs::write(&record, half).unwrap();
            let refused = lock.acquire(&claim("app-02")).await.unwrap_err();
            assert!(matches!(refused, LockError::Refused(_)), "{refused}");
            assert!(refused.to_string().contains("cutover.lock.json"));
        }
        // What a crash leaves beside it does not matter.
        std::fs::write(&record, &whole).unwrap();
        std::fs::write(folder.path().join("cutover.lock.json.new"), b"{\"epo").unwrap();
        assert_eq!(lock.acquire(&claim("app-02")).await.unwrap().epoch, 2);
        let nowhere = FileLock::new(folder.path().join("no/such/folder/lock"));
        let refused = nowhere.acquire(&claim("app-01")).await.unwrap_err();
        assert!(matches!(refused, LockError::Refused(_)), "{refused}");
    }
}
