//! `[service.failover] command`: the operator's own way to move a primary (Patroni, repmgr, a script).
//!
//! It gets the facts in its environment and no shell, in a process group of its own that ends with it when
//! its time is up. What it says is kept, as far as the end of it goes. Whether it did anything is not for
//! it to say: the switch comes through the monitor, as with our own ways.

use std::collections::BTreeMap;
use std::time::Duration;

use super::judge::choose;
use super::{
    Act, BoxFuture, Case, Ended, Handover, Old, Phase, Reason, Refused, Restore, Restored, Script,
    Step, scripted,
};
use crate::addr::Addr;
use crate::command::{Command, Status};

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
    fn environment(&self, dry_run: bool) -> BTreeMap<String, String> {
        let case = &self.case;
        let named = |addr: Option<&Addr>| addr.map_or_else(String::new, Addr::to_string);
        let replicas: Vec<String> = case.known.replicas.iter().map(Addr::to_string).collect();
        let old = match case.ask.old {
            Old::Serves => "serves",
            Old::Gone => "gone",
        };
        let facts = [
            ("PILOTFISH_SERVICE", case.service.to_string()),
            ("PILOTFISH_PRIMARY", named(case.known.primary.as_ref())),
            ("PILOTFISH_OLD_PRIMARY", old.to_owned()),
            ("PILOTFISH_TO", named(self.target.as_ref())),
            ("PILOTFISH_REPLICAS", replicas.join(" ")),
            ("PILOTFISH_TIMEOUT", self.limit().as_secs().to_string()),
            ("PILOTFISH_DRY_RUN", u8::from(dry_run).to_string()),
        ];
        let facts = facts.into_iter();
        facts.map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn limit(&self) -> Duration {
        let left = self.case.left() * 9 / 10;
        self.own.timeout.map_or(left, |own| own.min(left))
    }

    /// Runs it to its end, or to the end of its time. Dropping kills its process group.
    async fn run(&self, dry_run: bool) -> Result<String, String> {
        let command = Command {
            argv: self.own.argv.clone(),
            timeout: self.limit(),
        };
        let ended = crate::command::run(&command, &self.environment(dry_run)).await;
        let outcome = ended.map_err(|error| error.to_string())?;
        let said = on_one_line(&outcome.output_tail);
        let said = match said.is_empty() {
            true => String::new(),
            false => format!(", and said: {said}"),
        };
        match outcome.status {
            Status::Exited(0) => Ok(format!("it ended well{said}")),
            Status::TimedOut => {
                let limit = command.timeout.as_secs_f64();
                Err(format!("ended after {limit} s{said}"))
            }
            status => Err(format!("it failed, {status}{said}")),
        }
    }
}

/// For a step's line in an answer.
fn on_one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    lines.join("; ")
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
        let wanted = "it failed, exit status 7, and said: out; err";
        assert_eq!(failed, wanted);
        let missing = script(&["/nonexistent/command"], LONG).run(false).await;
        assert!(missing.unwrap_err().contains("cannot start"));
        let late = script(&sh("echo waiting; sleep 600"), Duration::from_millis(300));
        let said = late.run(false).await.unwrap_err();
        assert_eq!(said, "ended after 0.3 s, and said: waiting");
    }
}
