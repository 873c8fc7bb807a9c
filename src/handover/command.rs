//! `[service.failover] command`: the operator's own way to move a primary (Patroni, repmgr, a script).
//!
//! It gets the facts in its environment and no shell, in a process group of its own that ends with it when
//! its time is up. What it says is kept, as far as the end of it goes. Whether it did anything is not for
//! it to say: the switch comes through the monitor, as with our own ways.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::judge::choose;
use super::{
    Act, BoxFuture, Case, Ended, Handover, Old, Phase, Reason, Refused, Restore, Restored, Script,
    Step, scripted,
};
use crate::addr::Addr;

/// Of its output, the end.
const KEPT: usize = 2048;
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// For output that is still in a pipe when the command has ended; somebody it started may hold that open.
const DRAIN: Duration = Duration::from_millis(200);
/// What it may know of our own environment.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// As the config says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCommand {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// `None`: nine tenths of what is left of the failover's own time.
    pub timeout: Option<Duration>,
    /// It heeds `PILOTFISH_DRY_RUN=1`, and is started for dry runs too.
    pub dry_run: bool,
}

impl Handover for OwnCommand {
    fn prepare<'a>(&'a self, case: &'a Case) -> BoxFuture<'a, Result<Box<dyn Act>, Refused>> {
        Box::pin(async move {
            // Without a wish it chooses itself: it may know servers that we do not.
            let target = match &case.ask.to {
                Some(to) if !case.known.nodes.iter().any(|n| n.address == *to) => {
                    return Err(choose(&case.ask, &case.known).err().unwrap_or_else(|| {
                        Refused::new(Reason::UnknownTarget, format!("{to} is not known"))
                    }));
                }
                to => to.clone(),
            };
            let script = CommandScript {
                own: self.clone(),
                case: case.clone(),
                target,
            };
            if case.ask.dry_run && self.dry_run {
                let ran = script.run(true).await;
                ran.map_err(|why| Refused::new(Reason::Unable, why))?;
            }
            Ok(scripted(script))
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommandStep {
    Run,
}

impl Step for CommandStep {
    fn name(self) -> &'static str {
        match self {
            Self::Run => "command",
        }
    }

    fn phase(self) -> Phase {
        Phase::Held
    }

    fn restore(self) -> Restore {
        Restore::OnFailure
    }
}

struct CommandScript {
    own: OwnCommand,
    case: Case,
    target: Option<Addr>,
}

impl Script for CommandScript {
    type Step = CommandStep;

    fn target(&self) -> Option<Addr> {
        self.target.clone()
    }

    fn steps(&self) -> Vec<CommandStep> {
        vec![CommandStep::Run]
    }

    fn would(&self, _: CommandStep) -> String {
        format!("run {}", self.own.argv.join(" "))
    }

    async fn take(&mut self, _: CommandStep) -> Result<String, String> {
        self.run(false).await
    }

    async fn put_back(&mut self, _: CommandStep, _: Ended) -> Restored {
        Restored::Left("what the command changed is for the command to undo".to_owned())
    }
}

impl CommandScript {
    /// The facts.
    fn environment(&self, dry_run: bool) -> Vec<(&'static str, String)> {
        let case = &self.case;
        let named = |addr: Option<&Addr>| addr.map_or_else(String::new, Addr::to_string);
        let replicas: Vec<String> = case.known.replicas.iter().map(Addr::to_string).collect();
        let old = match case.ask.old {
            Old::Serves => "serves",
            Old::Gone => "gone",
        };
        vec![
            ("PILOTFISH_SERVICE", case.service.to_string()),
            ("PILOTFISH_PRIMARY", named(case.known.primary.as_ref())),
            ("PILOTFISH_OLD_PRIMARY", old.to_owned()),
            ("PILOTFISH_TO", named(self.target.as_ref())),
            ("PILOTFISH_REPLICAS", replicas.join(" ")),
            ("PILOTFISH_TIMEOUT", self.limit().as_secs().to_string()),
            ("PILOTFISH_DRY_RUN", u8::from(dry_run).to_string()),
        ]
    }

    fn limit(&self) -> Duration {
        let left = self.case.left() * 9 / 10;
        self.own.timeout.map_or(left, |own| own.min(left))
    }

    /// Runs it to its end, or to the end of its time. Dropping kills its process group.
    async fn run(&self, dry_run: bool) -> Result<String, String> {
        let Some((program, args)) = self.own.argv.split_first() else {
            return Err("the command is empty".to_owned());
        };
        let limit = self.limit();
        let mut command = Command::new(program);
        command.args(args).env_clear();
        let inherited = INHERITED.iter();
        command.envs(inherited.filter_map(|key| Some((key, std::env::var_os(key)?))));
        command.envs(self.environment(dry_run));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let child = command.spawn();
        let mut child = child.map_err(|error| format!("cannot start {program}: {error}"))?;
        let mut group = Group::of(&child);
        let mut tail = Tail::default();
        let ended = timeout(limit, listen(&mut child, &mut tail)).await;
        let (status, late) = match ended {
            Ok(status) => (status, false),
            Err(_) => {
                group.signal(Signal::TERM);
                let ended = timeout(GRACE, listen(&mut child, &mut tail)).await;
                (ended.unwrap_or(None), true)
            }
        };
        if status.is_some() {
            group.disarm();
        }
        drop(group);
        let said = tail.text();
        let said = match said.is_empty() {
            true => String::new(),
            false => format!(", and said: {said}"),
        };
        match status {
            _ if late => Err(format!("ended after {} s{said}", limit.as_secs_f64())),
            Some(status) if status.success() => Ok(format!("it ended well{said}")),
            Some(status) => Err(format!("it ended with {}{said}", spelled(status))),
            None => Err(format!("it could not be waited for{said}")),
        }
    }
}

fn spelled(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => "a signal".to_owned(),
    }
}

/// Reads what it says until it ends. Cancel safe.
async fn listen(child: &mut Child, tail: &mut Tail) -> Option<ExitStatus> {
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let mut status = None;
    let (mut from_out, mut from_err) = ([0; 1024], [0; 1024]);
    loop {
        if status.is_some() && out.is_none() && err.is_none() {
            return status;
        }
        tokio::select! {
            read = some(&mut out, &mut from_out) => match read {
                0 => out = None,
                n => tail.add(&from_out[..n]),
            },
            read = some(&mut err, &mut from_err) => match read {
                0 => err = None,
                n => tail.add(&from_err[..n]),
            },
            ended = child.wait(), if status.is_none() => match ended {
                Ok(ended) => status = Some(ended),
                Err(_) => return None,
            },
            () = sleep(DRAIN), if status.is_some() => return status,
        }
    }
}

/// The next bytes of a pipe; none at its end. Never, when there is no pipe.
async fn some(pipe: &mut Option<impl AsyncRead + Unpin>, into: &mut [u8]) -> usize {
    match pipe {
        Some(pipe) => pipe.read(into).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

/// The command's process group, which ends with this.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // Its leader has not been waited for, so the number is still its own.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Its leader has been waited for, and the number may be somebody else's.
    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// The end of what was said.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let cut = self.0.len().saturating_sub(KEPT);
        self.0.drain(..cut);
    }

    /// On one line, without control characters.
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let lines = text.lines().map(|line| {
            let plain = |c: char| if c.is_control() { ' ' } else { c };
            line.trim().chars().map(plain).collect::<String>()
        });
        let lines: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
        lines.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::handover::{Ask, Known};
    use crate::net::dial::Dialer;
    use crate::net::resolve::Resolver;
    use crate::net::tls::Connector;

    fn script(argv: &[&str], limit: Duration) -> CommandScript {
        let clock = Clock::start();
        let argv = argv.iter().map(|&arg| arg.to_owned()).collect();
        CommandScript {
            own: OwnCommand {
                argv,
                timeout: Some(limit),
                dry_run: false,
            },
            case: Case {
                service: "cache".into(),
                ask: Ask::default(),
                known: Known {
                    primary: "10.0.0.1:6379".parse().ok(),
                    replicas: vec!["10.0.0.2:6379".parse().unwrap()],
                    nodes: Vec::new(),
                },
                clock,
                deadline: clock.now() + Duration::from_secs(60),
                dialer: Dialer {
                    resolver: Resolver::from_system(),
                    tls: Connector::PLAIN,
                    keepalive: Duration::from_secs(30),
                },
            },
            target: None,
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn it_has_the_facts_and_nothing_else() {
        let said = script(&["env"], LONG).run(false).await.unwrap();
        for fact in [
            "PILOTFISH_SERVICE=cache",
            "PILOTFISH_PRIMARY=10.0.0.1:6379",
            "PILOTFISH_TO=;",
            "PILOTFISH_REPLICAS=10.0.0.2:6379",
            "PILOTFISH_TIMEOUT=20",
            "PILOTFISH_DRY_RUN=0",
        ] {
            assert!(format!("{said};").contains(fact), "{fact}: {said}");
        }
        assert!(!said.contains("CARGO"), "{said}");
    }

    #[tokio::test]
    async fn how_it_ends_is_told_with_its_last_words() {
        let sh = |text| ["sh", "-c", text];
        let failed = script(&sh("echo out; echo err >&2; exit 7"), LONG);
        let failed = failed.run(false).await.unwrap_err();
        assert!(failed.starts_with("it ended with exit code 7"), "{failed}");
        assert!(failed.contains("out") && failed.contains("err"), "{failed}");
        let missing = script(&["/nonexistent/command"], LONG).run(false).await;
        assert!(missing.unwrap_err().contains("cannot start"));
        let chatty = script(&sh("yes word | head -c 10000000; echo end"), LONG);
        let chatty = chatty.run(false).await.unwrap();
        assert!(chatty.ends_with("end") && chatty.len() < 2 * KEPT + 100);
        // Somebody it started holds its output open.
        let leaving = script(&sh("sleep 600 & echo gone; kill -0 $!; echo $!"), LONG);
        let said = leaving.run(false).await.unwrap();
        let pid: i32 = said.rsplit(' ').next().unwrap().parse().unwrap();
        let pid = Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn its_whole_group_ends_with_its_time() {
        let text = "sleep 600 & echo $!; trap '' TERM; wait";
        let late = script(&["sh", "-c", text], Duration::from_millis(300));
        let said = late.run(false).await.unwrap_err();
        assert!(said.starts_with("ended after 0.3 s"), "{said}");
        let pid: i32 = said.rsplit(' ').next().unwrap().parse().unwrap();
        let status = std::path::PathBuf::from(format!("/proc/{pid}/stat"));
        for _ in 0..500 {
            let state = std::fs::read_to_string(&status).unwrap_or_default();
            // Gone, or a zombie that nobody waits for.
            if state.is_empty() || state.contains(") Z ") {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{pid} is still there");
    }
}
