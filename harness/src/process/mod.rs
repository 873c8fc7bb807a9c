//! Child processes that never outlive us: servers, the sidecar, HAProxy.
//!
//! A [`Server`] is killed and reaped by its pid when dropped, frozen or not. Should we die without dropping it, the kernel
//! kills it: children are started through `setpriv --pdeathsig KILL`. That signal is sent when the *thread* that
//! started the child ends, so one thread that lives as long as the process starts them all.

mod orphan;
pub(crate) mod spawn;
pub mod usage;

pub use orphan::Orphan;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

use crate::{scratch, wait};

/// Which Debian package a program comes from.
const PACKAGES: &[(&str, &str)] = &[
    ("redis-server", "redis-server redis-sentinel"),
    ("redis-benchmark", "redis-tools"),
    ("redis-cli", "redis-tools"),
    ("haproxy", "haproxy"),
    ("chromium", "chromium"),
    ("promtool", "prometheus"),
    ("mariadbd", "mariadb-server galera-4 rsync socat"),
    ("mariadb-install-db", "mariadb-server"),
    ("mariadb", "mariadb-client"),
    ("php", "php-cli php-redis php-nrk-predis"),
    ("named", "bind9"),
    ("knotd", "knot"),
    ("pdns_server", "pdns-server pdns-backend-sqlite3"),
    ("sqlite3", "sqlite3"),
    ("unbound", "unbound"),
    ("etcd", "etcd-server"),
    ("setpriv", "util-linux"),
    ("postgres", "postgresql"),
    ("initdb", "postgresql"),
    ("pg_basebackup", "postgresql"),
    ("psql", "postgresql-client"),
    ("pgbench", "postgresql"),
    ("pgbouncer", "pgbouncer"),
];

/// Where a program is; the error says which package has it.
pub fn find_program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers in /usr/sbin, which is not in every user's PATH.
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    if let Some(found) = places.map(|dir| dir.join(name)).find(|file| file.is_file()) {
        return Ok(found);
    }
    match PACKAGES.iter().find(|(program, _)| *program == name) {
        Some((_, package)) => bail!("{name} is not installed: apt-get install {package}"),
        None => bail!("{name} is not installed"),
    }
}

/// What to start, and where its output goes.
pub struct Launch {
    name: String,
    program: PathBuf,
    command: Command,
    log: PathBuf,
}

impl Launch {
    /// `name` is for messages; `log` gets stdout and stderr, after what is in it already.
    pub fn new(name: impl Into<String>, program: &Path, log: &Path) -> Result<Self> {
        let mut command = Command::new(find_program("setpriv")?);
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        Ok(Self {
            name: name.into(),
            program: program.to_owned(),
            command,
            log: log.to_owned(),
        })
    }

    /// For arguments, environment and working directory of the program.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    pub fn start(mut self) -> Result<Server> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("opening the log {}", self.log.display()))?;
        let err = out
            .try_clone()
            .context("duplicating the log's descriptor")?;
        self.command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = spawn::spawn(self.command)
            .with_context(|| format!("starting {} ({})", self.name, self.program.display()))?;
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("a child without a pid")?;
        scratch::remember_child(pid);
        Ok(Server {
            name: self.name,
            pid,
            child: Mutex::new(child),
            log: self.log,
        })
    }
}

/// A running child of ours.
pub struct Server {
    name: String,
    pid: Pid,
    child: Mutex<Child>,
    log: PathBuf,
}

impl Server {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    pub fn log(&self) -> Result<String> {
        let bytes =
            std::fs::read(&self.log).with_context(|| format!("reading {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The last lines of the log, for error messages.
    pub fn log_tail(&self) -> String {
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n  ");
        format!("last lines of {}:\n  {tail}", self.name)
    }

    pub fn is_running(&self) -> bool {
        matches!(self.lock().try_wait(), Ok(None))
    }

    /// An error with the log's tail when the process has ended.
    pub fn check_running(&self) -> Result<()> {
        match self
            .lock()
            .try_wait()
            .with_context(|| format!("asking for the state of {}", self.name))?
        {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended by itself ({status}); {}",
                self.name,
                self.log_tail()
            ),
        }
    }

    /// SIGKILL, and reaped.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.lock();
        // Does nothing once reaped, so a pid that was given to somebody else is safe.
        child
            .kill()
            .with_context(|| format!("killing {}", self.name))?;
        child
            .wait()
            .with_context(|| format!("reaping {}", self.name))?;
        Ok(())
    }

    /// SIGSTOP: alive, connected, silent.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM, then waits.
    pub fn terminate(&self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(timeout)
    }

    pub fn wait(&self, timeout: Duration) -> Result<ExitStatus> {
        wait::until(&format!("{} to end", self.name), timeout, || {
            Ok(self.lock().try_wait()?)
        })
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut child = self.lock();
        if let Some(status) = child.try_wait()? {
            bail!(
                "{} cannot be signalled, it ended ({status}); {}",
                self.name,
                self.log_tail()
            );
        }
        kill_process(self.pid, signal)
            .with_context(|| format!("sending {signal:?} to {}", self.name))
    }

    /// CPU time used so far, user and system, without children.
    pub fn cpu(&self) -> Result<Duration> {
        usage::cpu(self.pid())
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> Result<u64> {
        usage::rss(self.pid())
    }

    /// Open descriptors.
    pub fn fds(&self) -> Result<usize> {
        usage::fds(self.pid())
    }

    pub fn threads(&self) -> Result<usize> {
        usage::threads(self.pid())
    }

    fn lock(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.lock();
        // SIGKILL ends a frozen process too.
        let _ = child.kill();
        let _ = child.wait();
        scratch::forget_child(self.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(dir: &scratch::Dir) -> Server {
        let mut launch =
            Launch::new("sleeper", &find_program("sleep").unwrap(), &dir.join("log")).unwrap();
        launch.command().arg("1000");
        launch.start().unwrap()
    }

    #[test]
    fn outlives_the_thread_that_started_it_but_not_its_owner() {
        let dir = scratch::Dir::new().unwrap();
        let server = std::thread::scope(|scope| scope.spawn(|| sleeper(&dir)).join().unwrap());
        let pid = server.pid();
        assert!(server.is_running());
        server.freeze().unwrap();
        drop(server);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn an_ended_server_is_reported_with_its_log() {
        let dir = scratch::Dir::new().unwrap();
        let mut launch =
            Launch::new("shell", &find_program("sh").unwrap(), &dir.join("log")).unwrap();
        launch.command().args(["-c", "echo why it ended; exit 3"]);
        let server = launch.start().unwrap();
        assert_eq!(server.wait(Duration::from_secs(5)).unwrap().code(), Some(3));
        let error = server.check_running().unwrap_err().to_string();
        assert!(error.contains("why it ended"), "{error}");
        assert!(server.thaw().is_err());
    }

    #[test]
    fn a_missing_program_names_its_package() {
        assert!(find_program("pilotfish-no-such-program").is_err());
        assert!(
            PACKAGES
                .iter()
                .any(|(program, _)| *program == "redis-server")
        );
    }
}
