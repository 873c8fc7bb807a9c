//! Runs an operator's command: without a shell, in a process group of its own that ends with it, with
//! an environment that holds nothing of ours, and with bounded output.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::{Clock, Moment};

/// What is kept of the output: the last bytes, where the reason of a failure stands.
const TAIL: usize = 4096;
/// After SIGTERM, before SIGKILL.
const GRACE: Duration = Duration::from_secs(1);
/// Read at once before others get their turn.
const GULP: usize = 64 * 1024;
/// Between two of them: a command that floods us waits, and not the control thread.
const BREATH: Duration = Duration::from_millis(2);
/// What is passed on of our own environment.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];

/// A program with its arguments, and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The program, looked for in `PATH`, and its arguments. No shell reads them.
    pub argv: Vec<String>,
    pub timeout: Duration,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Exited(i32),
    /// By a signal that was not ours.
    Signalled(i32),
    /// It took too long, and was ended with everything that it started.
    TimedOut,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signalled(signal) => write!(f, "ended by signal {signal}"),
            Self::TimedOut => f.write_str("did not end in time"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub status: Status,
    /// The end of what it wrote, both streams in their order; at most 4 KiB, and printable.
    pub output_tail: String,
    pub took: Duration,
}

impl Outcome {
    pub fn success(&self) -> bool {
        self.status == Status::Exited(0)
    }
}

/// Why a command did not run.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("the command is empty")]
    Empty,
    #[error("cannot start `{program}`: {source}")]
    Start { program: String, source: io::Error },
    #[error("lost sight of `{program}`: {source}")]
    Lost { program: String, source: io::Error },
}

/// Runs `command` to its end or to its timeout. Its standard input is empty; its environment is
/// `PATH`, `HOME` and `LANG` of ours and what is in `env`, so that no secret of ours is in it.
///
/// It is the leader of a process group. When it has ended, what it left behind in that group is
/// killed; at the timeout the group gets SIGTERM, and SIGKILL a second later. Dropping the future
/// kills the group at once. A process that has left the group (`setsid`) is on its own.
///
/// # Errors
/// When it cannot be started or watched. That it failed is an [`Outcome`].
pub async fn run(
    command: &Command,
    env: &BTreeMap<String, String>,
) -> Result<Outcome, CommandError> {
    let program = command.argv.first().ok_or(CommandError::Empty)?;
    let start = |source| CommandError::Start {
        program: program.clone(),
        source,
    };
    let clock = Clock::start();
    // Before the start, so that no end is missed.
    let mut ends = signal(SignalKind::child()).map_err(start)?;
    let (running, mut output) = begin(&command.argv, env).map_err(start)?;
    let ended = watch(&running, &mut ends, &mut output, command.timeout).await;
    running.group.signal(Signal::KILL);
    output.rest();
    let status = match ended {
        Ok(Ended::ByItself) => running.reap().await,
        Ok(Ended::ByUs) => Ok(Status::TimedOut),
        Err(error) => Err(error),
    };
    let status = status.map_err(|source| CommandError::Lost {
        program: program.clone(),
        source,
    })?;
    Ok(Outcome {
        status,
        output_tail: output.text(),
        took: clock.now().since(Moment::default()),
    })
}

/// Dropping it kills the group. The leader is not reaped before that, so that its number cannot be
/// another group's by then.
struct Running {
    // First, for the order of dropping.
    group: Group,
    child: Child,
}

struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            // Nobody is left in it: that is what is wanted.
            let _ = rustix::process::kill_process_group(leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

enum Ended {
    ByItself,
    ByUs,
}

fn begin(argv: &[String], env: &BTreeMap<String, String>) -> io::Result<(Running, Output)> {
    let (reader, writer) = io::pipe()?;
    let output = Output::new(reader.into())?;
    let inherited = INHERITED.iter().filter_map(|name| {
        let value = std::env::var_os(name)?;
        Some((*name, value))
    });
    let mut builder = tokio::process::Command::new(&argv[0]);
    builder
        .args(&argv[1..])
        .env_clear()
        .envs(inherited)
        .envs(env)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .kill_on_drop(true);
    let child = builder.spawn()?;
    let leader = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let group = Group(leader);
    Ok((Running { group, child }, output))
}

/// Until the leader has ended, by itself or at the limit. It is not reaped.
async fn watch(
    running: &Running,
    ends: &mut tokio::signal::unix::Signal,
    output: &mut Output,
    timeout: Duration,
) -> io::Result<Ended> {
    let limit = tokio::time::sleep(timeout);
    tokio::pin!(limit);
    let mut warned = false;
    loop {
        if running.has_ended()? {
            return Ok(if warned { Ended::ByUs } else { Ended::ByItself });
        }
        tokio::select! {
            _ = ends.recv() => {}
            () = output.gulp(), if output.open => {}
            () = &mut limit => {
                if warned {
                    // SIGKILL follows. What does not even heed that is stuck in the kernel.
                    return Ok(Ended::ByUs);
                }
                warned = true;
                running.group.signal(Signal::TERM);
                limit.as_mut().reset(tokio::time::Instant::now() + GRACE);
            }
        }
    }
}

impl Running {
    fn has_ended(&self) -> io::Result<bool> {
        let Some(leader) = self.group.0 else {
            return Ok(true);
        };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(rustix::process::waitid(WaitId::Pid(leader), options)?.is_some())
    }

    async fn reap(mut self) -> io::Result<Status> {
        // From here on the number may be anybody's.
        self.group.0 = None;
        let status = self.child.wait().await?;
        Ok(match status.code() {
            Some(code) => Status::Exited(code),
            None => Status::Signalled(status.signal().unwrap_or_default()),
        })
    }
}

/// What the command writes, of which the end is kept.
struct Output {
    pipe: AsyncFd<OwnedFd>,
    tail: VecDeque<u8>,
    /// Somebody may still write.
    open: bool,
}

impl Output {
    fn new(pipe: OwnedFd) -> io::Result<Self> {
        // Of our end alone: the command finds its own as usual.
        rustix::io::ioctl_fionbio(&pipe, true)?;
        // What replaces it is an unsafe function; a pipe of our own keeps every promise it asks for.
        #[allow(deprecated)]
        let pipe = AsyncFd::with_interest(pipe, Interest::READABLE)?;
        Ok(Self {
            pipe,
            tail: VecDeque::with_capacity(TAIL),
            open: true,
        })
    }

    /// Reads what is there, once there is something. Cancel safe.
    async fn gulp(&mut self) {
        let Self { pipe, tail, .. } = self;
        match pipe.readable().await {
            Ok(mut ready) => {
                let (taken, then) = read(ready.get_inner(), tail);
                self.open = then != Then::Closed;
                match then {
                    // Only of an empty pipe it is news when something comes.
                    Then::Empty => ready.clear_ready(),
                    Then::More | Then::Closed => ready.retain_ready(),
                }
                if taken >= GULP {
                    tokio::time::sleep(BREATH).await;
                }
            }
            Err(_) => self.open = false,
        }
    }

    /// Reads what is there, up to [`GULP`], without waiting.
    fn rest(&mut self) {
        read(self.pipe.get_ref(), &mut self.tail);
    }

    fn text(mut self) -> String {
        let bytes = self.tail.make_contiguous();
        // It may begin in the middle of a character.
        let start = bytes.iter().take(3).take_while(|b| **b & 0xC0 == 0x80);
        let text = String::from_utf8_lossy(&bytes[start.count()..]);
        let printable = |c: char| match c {
            '\n' | '\t' => c,
            c if c.is_control() => ' ',
            c => c,
        };
        text.trim_end().chars().map(printable).collect()
    }
}

#[derive(PartialEq, Eq)]
enum Then {
    Empty,
    More,
    Closed,
}

fn read(pipe: &OwnedFd, tail: &mut VecDeque<u8>) -> (usize, Then) {
    let mut buffer = [0; 8192];
    let mut total = 0;
    while total < GULP {
        match rustix::io::read(pipe, &mut buffer) {
            Ok(0) => return (total, Then::Closed),
            Ok(count) => {
                total += count;
                keep(tail, &buffer[..count]);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return (total, Then::Empty),
            Err(_) => return (total, Then::Closed),
        }
    }
    (total, Then::More)
}

fn keep(tail: &mut VecDeque<u8>, bytes: &[u8]) {
    let bytes = &bytes[bytes.len().saturating_sub(TAIL)..];
    let over = (tail.len() + bytes.len()).saturating_sub(TAIL);
    tail.drain(..over);
    tail.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Duration) -> Command {
        Command {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            timeout,
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    async fn ran(script: &str) -> Outcome {
        run(&shell(script, LONG), &BTreeMap::new()).await.unwrap()
    }

    /// Until nobody holds the write end of a named pipe any more: they are all gone.
    async fn all_gone(fifo: std::path::PathBuf) {
        let read = tokio::task::spawn_blocking(move || std::fs::read(fifo));
        let read = tokio::time::timeout(LONG, read).await;
        read.expect("somebody is left").unwrap().unwrap();
    }

    /// A named pipe, and a script whose process and grandchild hold it open for ever.
    fn clingers(folder: &tempfile::TempDir, first: &str) -> (std::path::PathBuf, String) {
        let fifo = folder.path().join("held");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        let path = fifo.display();
        let script = format!(
            "{first} exec 3>{path}; echo ready; (sh -c \"{first} sleep 1000 & wait\") & sleep 1000"
        );
        (fifo, script)
    }

    #[tokio::test]
    async fn how_it_ended_is_told() {
        let fine = ran("echo out; echo err >&2; echo out again").await;
        assert!(fine.success());
        assert_eq!(fine.output_tail, "out\nerr\nout again");
        let failed = ran("printf 'no\\033[31m'; exit 3").await;
        assert_eq!(failed.status, Status::Exited(3));
        assert_eq!(failed.output_tail, "no [31m");
        assert_eq!(ran("kill -9 $$").await.status, Status::Signalled(9));
        let none = Command {
            argv: vec!["/nonexistent/tool".to_owned()],
            timeout: LONG,
        };
        let error = run(&none, &BTreeMap::new()).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/tool"), "{error}");
    }

    #[tokio::test]
    async fn it_gets_what_it_is_given_and_nothing_else() {
        let env = BTreeMap::from([("PILOTFISH_REGION".to_owned(), "rbx".to_owned())]);
        let command = shell("cat; env", LONG);
        let outcome = run(&command, &env).await.unwrap();
        let text = outcome.output_tail;
        let names = text.lines().filter_map(|line| line.split_once('='));
        let names: Vec<&str> = names.map(|(name, _)| name).collect();
        assert!(names.contains(&"PILOTFISH_REGION"), "{text}");
        // What a shell sets by itself is fine.
        let fine = |name: &&str| ["PWD", "OLDPWD", "SHLVL", "_", "PILOTFISH_REGION"].contains(name);
        let others: Vec<_> = names.iter().filter(|n| !fine(n)).collect();
        assert!(
            others.iter().all(|name| INHERITED.contains(name)),
            "{others:?}"
        );
    }

    #[tokio::test]
    async fn a_hanging_command_is_gone_with_its_grandchildren() {
        for first in ["", "trap '' TERM;"] {
            let folder = tempfile::tempdir().unwrap();
            let (fifo, script) = clingers(&folder, first);
            let gone = all_gone(fifo);
            let command = shell(&script, Duration::from_millis(300));
            let env = BTreeMap::new();
            let (outcome, ()) = tokio::join!(run(&command, &env), gone);
            assert_eq!(outcome.unwrap().status, Status::TimedOut);
        }
    }

    #[tokio::test]
    async fn dropping_kills_it_all() {
        let folder = tempfile::tempdir().unwrap();
        let (fifo, script) = clingers(&folder, "");
        let command = shell(&script, LONG);
        let env = BTreeMap::new();
        let mut running = Box::pin(run(&command, &env));
        // The fifo opens when the command has opened it, and the read ends when all are gone.
        let opened = tokio::task::spawn_blocking(move || std::fs::File::open(fifo));
        let file = tokio::select! {
            file = opened => file.unwrap().unwrap(),
            _ = &mut running => panic!("it ended"),
        };
        drop(running);
        let rest = tokio::task::spawn_blocking(move || io::read_to_string(file));
        let rest = tokio::time::timeout(LONG, rest).await;
        assert_eq!(rest.expect("somebody is left").unwrap().unwrap(), "");
    }

    #[tokio::test]
    async fn what_it_leaves_behind_is_killed_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("held");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        let script = format!("exec 3>{}; sleep 1000 & echo done", fifo.display());
        let gone = all_gone(fifo);
        let (outcome, ()) = tokio::join!(ran(&script), gone);
        assert!(outcome.success());
        assert_eq!(outcome.output_tail, "done");
    }

    #[tokio::test]
    async fn a_flood_is_bounded_and_ends_with_its_end() {
        let outcome = ran("head -c 20000000 /dev/zero | tr '\\0' x; echo; echo the end").await;
        assert!(outcome.success());
        assert!(outcome.output_tail.len() <= TAIL);
        assert!(outcome.output_tail.ends_with("x\nthe end"));
        // For ever, while the runtime stays alive: the timeout is served by the same thread.
        let outcome = run(&shell("yes", Duration::from_millis(300)), &BTreeMap::new()).await;
        let outcome = outcome.unwrap();
        assert_eq!(outcome.status, Status::TimedOut);
        assert!(outcome.output_tail.ends_with("y\ny"));
    }

    #[tokio::test]
    async fn a_tail_is_text() {
        let (reader, _writer) = io::pipe().unwrap();
        let mut output = Output::new(reader.into()).unwrap();
        keep(
            &mut output.tail,
            &"é".repeat(TAIL).as_bytes()[..2 * TAIL - 1],
        );
        let text = output.text();
        assert!(
            text.trim_end_matches('\u{fffd}').chars().all(|c| c == 'é'),
            "{text}"
        );
        assert!(text.len() >= TAIL - 4);
    }
}
