//! The process that is taken over from.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{FromElder, FromHeir, MOST_WORD, Offer, VARIABLE, hear, say};
use crate::net::pass::Line;

/// For the heir to start and to prove its primaries.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// For it to accept, once it may.
const SERVING_WITHIN: Duration = Duration::from_secs(10);
/// For an ended child to be reaped, so that its status can be told.
const REAP_WITHIN: Duration = Duration::from_secs(2);

/// Why nobody took over. This process goes on as before.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    #[error("{program} cannot be started: {source}")]
    Start { program: PathBuf, source: io::Error },
    #[error("the new process ended ({0}) before it served; its own lines say why")]
    Ended(ExitStatus),
    #[error("the new process says: {0}")]
    Sorry(String),
    #[error("the new process was not ready within {READY_WITHIN:?}")]
    NotReady,
    #[error("the new process did not serve within {SERVING_WITHIN:?} after it was ready")]
    NotServing,
    #[error("the new process made no sense: {0}")]
    Line(#[from] io::Error),
    #[error("an operator's command or a cutover is under way; try again when it is done")]
    Busy,
}

/// The program on disk that is to be started.
///
/// The name it was called by, when that is a path: behind a link there may be a newer version by now.
/// Otherwise the file that runs, as it is called now. To be asked at the start: once the file is
/// replaced, the kernel calls it deleted.
pub fn program() -> PathBuf {
    let called = std::env::args_os().next().map(PathBuf::from);
    let is_path = |path: &PathBuf| path.components().nth(1).is_some() && path.is_file();
    match called.filter(is_path) {
        Some(path) => path,
        None => std::env::current_exe().unwrap_or_else(|_| Path::new("pilotfish").to_owned()),
    }
}

/// All it takes.
#[derive(Debug)]
pub struct Plan {
    pub program: PathBuf,
    pub offer: Offer,
    /// In the order of the offer.
    pub sockets: Vec<OwnedFd>,
}

/// An heir that accepts clients.
#[derive(Debug)]
pub struct Successor {
    line: Line,
    pub pid: u32,
    pub version: String,
}

impl Successor {
    /// Tells it that it is alone now.
    pub async fn over(&self) {
        // It serves, whether it hears this or not.
        let _ = say(&self.line, &FromElder::Over).await;
    }
}

/// Killed when this goes before it serves.
struct Start {
    child: Child,
    served: bool,
}

impl Drop for Start {
    fn drop(&mut self) {
        if !self.served {
            // It has ended, or it ends now; the runtime reaps it.
            let _ = self.child.start_kill();
        }
    }
}

/// Starts an heir and hands over to it. When this returns it accepts clients, and so does this process
/// still. Cancelled, or on an error, the heir is killed.
///
/// # Errors
/// When it could not be started, ended, or took too long.
pub async fn hand_over(plan: Plan) -> Result<Successor, TakeoverError> {
    let (line, theirs) = Line::pair()?;
    let mut start = start(plan.program, theirs)?;
    let pid = start.child.id().unwrap_or_default();
    let outcome = converse(&line, &plan.offer, &plan.sockets).await;
    let version = match outcome {
        Ok(version) => version,
        // The end of the line is the end of the child, which says more.
        Err(TakeoverError::Line(error)) => {
            let ended = timeout(REAP_WITHIN, start.child.wait()).await;
            return Err(match ended {
                Ok(Ok(status)) => TakeoverError::Ended(status),
                _ => TakeoverError::Line(error),
            });
        }
        Err(error) => return Err(error),
    };
    start.served = true;
    Ok(Successor { line, pid, version })
}

fn start(program: PathBuf, line: OwnedFd) -> Result<Start, TakeoverError> {
    let mut command = Command::new(&program);
    command
        .args(std::env::args_os().skip(1))
        .stdin(Stdio::from(line));
    command.env(VARIABLE, "1");
    // Those were for this process alone (sd_listen_fds(3), sd_watchdog_enabled(3)).
    for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
    let child = command.spawn();
    let child = child.map_err(|source| TakeoverError::Start { program, source })?;
    Ok(Start {
        child,
        served: false,
    })
}

/// The heir's version, once it serves.
async fn converse(
    line: &Line,
    offer: &Offer,
    sockets: &[OwnedFd],
) -> Result<String, TakeoverError> {
    let version = timeout(READY_WITHIN, async {
        say(line, offer).await?;
        line.send_descriptors(sockets).await?;
        match hear(line, MOST_WORD).await? {
            FromHeir::Ready { version } => Ok(version),
            word => Err(unexpected(word)),
        }
    });
    let version = version.await.map_err(|_| TakeoverError::NotReady)??;
    let serving = timeout(SERVING_WITHIN, async {
        say(line, &FromElder::Begin).await?;
        match hear(line, MOST_WORD).await? {
            FromHeir::Serving => Ok(()),
            word => Err(unexpected(word)),
        }
    });
    serving.await.map_err(|_| TakeoverError::NotServing)??;
    Ok(version)
}

fn unexpected(word: FromHeir) -> TakeoverError {
    match word {
        FromHeir::Sorry { why } => TakeoverError::Sorry(why.chars().take(500).collect()),
        word => TakeoverError::Line(io::Error::other(format!("{word:?} is not what comes now"))),
    }
}
