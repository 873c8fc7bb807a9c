//! Real PostgreSQL servers: one alone ([`PgServer`]), or a primary with streaming standbys ([`PgCluster`]).
//!
//! As root they run as the user `postgres`, since the server refuses to be root. Nothing is synced to disk.

mod client;
mod cluster;
mod pgbouncer;
mod writer;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub use client::{Pg, PgError, message, startup};
pub use cluster::{Options, PgCluster};
pub use pgbouncer::PgBouncer;
pub use writer::{Mode, RowWriter, TABLE, missing, rows_of};

use crate::process::{Launch, Server, find_program};
use crate::resp::Target;
use crate::{ports, scratch, wait};

/// How long a server may take to start or to be promoted, and a question to be answered.
const START: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(10);

/// A program of the newest installed version. Debian keeps servers out of everybody's PATH.
pub fn program(name: &str) -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql");
    let mut found: Vec<(u32, PathBuf)> = versions
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|dir| {
            let version = dir.file_name().to_str()?.parse().ok()?;
            let program = dir.path().join("bin").join(name);
            program.is_file().then_some((version, program))
        })
        .collect();
    found.sort();
    match found.pop() {
        Some((_, program)) => Ok(program),
        None => find_program(name),
    }
}

/// How a server is set up besides what all of them need.
#[derive(Clone, Debug, Default)]
pub struct PgConf {
    /// Lines of `postgresql.conf`.
    pub lines: Vec<String>,
    /// Lines of `pg_hba.conf`, before those that let everybody in.
    pub hba: Vec<String>,
    /// Put beside the data directory, readable by the server only, under these names: `../NAME` in
    /// `postgresql.conf`.
    pub files: Vec<(String, PathBuf)>,
}

/// Whether we are root and have to become somebody else for a server.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

const SETPRIV: [&str; 5] = [
    "--reuid=postgres",
    "--regid=postgres",
    "--init-groups",
    // Changing the user forgets the signal that was asked for before.
    "--pdeathsig",
    "KILL",
];

/// Gives a directory to the user that servers run as.
fn hand_over(path: &Path) -> Result<()> {
    if is_root() {
        let id = |option: &str| -> Result<u32> {
            let out = Command::new("id").args([option, "postgres"]).output()?;
            let text = String::from_utf8_lossy(&out.stdout).trim().to_owned();
            text.parse()
                .context("there is no user postgres: apt-get install postgresql")
        };
        chown(path, Some(id("-u")?), Some(id("-g")?))
            .with_context(|| format!("giving {} to postgres", path.display()))?;
    }
    Ok(())
}

/// A directory that servers can use, in one that they can pass.
fn home(dir: &scratch::Dir, name: &str) -> Result<PathBuf> {
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let home = dir.join(name);
    fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700))?;
    hand_over(&home)?;
    Ok(home)
}

/// Runs a program of PostgreSQL's to its end, as the user that owns the servers' files.
fn run(name: &str, arguments: &[&str]) -> Result<String> {
    let program = program(name)?;
    let mut command = if is_root() {
        let mut command = Command::new(find_program("setpriv")?);
        command.args(SETPRIV).arg("--").arg(program);
        command
    } else {
        Command::new(program)
    };
    let output = command
        .args(arguments)
        .current_dir("/")
        .output()
        .with_context(|| format!("running {name}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        output.status.success(),
        "{name} {arguments:?}: {} {}",
        text(&output.stdout),
        text(&output.stderr)
    );
    Ok(text(&output.stdout))
}

/// One server, on a TCP port and a Unix socket in its directory. Its superuser is `postgres`, without a
/// password.
pub struct PgServer {
    pub addr: SocketAddr,
    name: String,
    home: PathBuf,
    log: PathBuf,
    server: Server,
    /// Only of a server that stands alone. Dropped last.
    _dir: Option<scratch::Dir>,
}

impl PgServer {
    /// A new cluster of its own, accepting when this returns.
    pub fn start(conf: &PgConf) -> Result<Self> {
        let dir = scratch::Dir::new()?;
        let mut server = Self::init_in(&dir, "pg", conf)?;
        server._dir = Some(dir);
        Ok(server)
    }

    fn init_in(dir: &scratch::Dir, name: &str, conf: &PgConf) -> Result<Self> {
        let home = home(dir, name)?;
        let data = home.join("data");
        let data = data.to_str().context("a path that is no text")?;
        run(
            "initdb",
            &[
                "-D",
                data,
                "-A",
                "trust",
                "-U",
                "postgres",
                "-N",
                "-E",
                "UTF8",
                "--locale=C",
            ],
        )?;
        let mut hba = conf.hba.join("\n");
        hba.push_str(
            "\nlocal all all trust\nhost all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n",
        );
        write(&home.join("data/pg_hba.conf"), &hba)?;
        write(&home.join("common.conf"), &common(conf))?;
        for (name, from) in &conf.files {
            let to = home.join(name);
            fs::copy(from, &to).with_context(|| format!("copying {}", from.display()))?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600))?;
            hand_over(&to)?;
        }
        Self::launch_new(dir, name, home)
    }

    /// A streaming standby of `primary`, accepting reads when this returns.
    fn standby_in(dir: &scratch::Dir, name: &str, primary: &Self) -> Result<Self> {
        let home = home(dir, name)?;
        let data = home.join("data");
        let data = data.to_str().context("a path that is no text")?;
        let from = format!(
            "host=127.0.0.1 port={} user=postgres application_name={name}",
            primary.addr.port()
        );
        run(
            "pg_basebackup",
            &[
                "-D", data, "-R", "-X", "stream", "-c", "fast", "-N", "-d", &from,
            ],
        )?;
        fs::copy(primary.home.join("common.conf"), home.join("common.conf"))?;
        Self::launch_new(dir, name, home)
    }

    fn launch_new(dir: &scratch::Dir, name: &str, home: PathBuf) -> Result<Self> {
        let addr = ports::free()?;
        let conf = format!(
            "include '{}'\nport = {}\nunix_socket_directories = '{}'\n",
            home.join("common.conf").display(),
            addr.port(),
            home.display()
        );
        write(&home.join("data/postgresql.conf"), &conf)?;
        let log = dir.join(&format!("{name}.log"));
        let server = launch(name, &home, &log)?;
        let server = Self {
            addr,
            name: name.into(),
            home,
            log,
            server,
            _dir: None,
        };
        server.wait_accepting()?;
        Ok(server)
    }

    fn wait_accepting(&self) -> Result<()> {
        let accepting = wait::until_true(&format!("{} to accept", self.name), START, || {
            self.server.check_running()?;
            Ok(self.query("SELECT 1")? == [["1"]])
        });
        accepting.map_err(|error| error.context(self.server.log_tail()))
    }

    /// The process of the postmaster, to freeze, thaw or measure. To end it use [`Self::kill`].
    pub fn server(&self) -> &Server {
        &self.server
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory of its Unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.home
    }

    pub fn target(&self) -> Target {
        self.addr.into()
    }

    /// A connection as the superuser.
    pub fn connect(&self) -> Result<Pg> {
        Pg::connect(&self.target(), ANSWER)
    }

    /// One statement on a connection of its own.
    pub fn query(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        self.connect()?.query(sql)
    }

    /// The one value that a statement gives.
    pub fn value(&self, sql: &str) -> Result<String> {
        let rows = self.query(sql)?;
        let value = rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next());
        value.with_context(|| format!("{sql} gave nothing"))
    }

    /// SIGKILL to all of its processes, as a machine that loses its power.
    pub fn kill(&self) -> Result<()> {
        let children = self.children();
        self.server.kill()?;
        for child in children {
            if let Some(pid) = rustix::process::Pid::from_raw(child) {
                let _ = rustix::process::kill_process(pid, crate::process::Signal::KILL);
            }
        }
        wait::until_true(&format!("{} to be gone", self.name), START, || {
            Ok(std::net::TcpStream::connect(self.addr).is_err())
        })
    }

    fn children(&self) -> Vec<i32> {
        let pid = self.server.pid();
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let list = list.unwrap_or_default();
        list.split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect()
    }

    /// SIGSTOP to the postmaster and all of its processes: the server is there and silent.
    pub fn freeze(&self) -> Result<()> {
        self.server.freeze()?;
        self.signal_children(crate::process::Signal::STOP);
        Ok(())
    }

    /// SIGCONT to all of them.
    pub fn thaw(&self) -> Result<()> {
        self.signal_children(crate::process::Signal::CONT);
        self.server.thaw()
    }

    fn signal_children(&self, signal: crate::process::Signal) {
        for child in self.children() {
            if let Some(pid) = rustix::process::Pid::from_raw(child) {
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }

    /// A fast shutdown: sessions are told 57P01.
    pub fn stop(&self) -> Result<()> {
        self.server.signal(crate::process::Signal::INT)?;
        self.server.wait(START)?;
        Ok(())
    }

    /// Starts it again as it was when it ended. Accepting when this returns.
    pub fn restart(&mut self) -> Result<()> {
        if self.server.is_running() {
            self.stop()?;
        }
        // A killed postmaster leaves its lock behind, and another process may have its id now.
        let _ = fs::remove_file(self.home.join("data/postmaster.pid"));
        self.server = launch(&self.name, &self.home, &self.log)?;
        self.wait_accepting()
    }

    /// Adds a line to the configuration, for the next start.
    pub fn set(&self, line: &str) -> Result<()> {
        let path = self.home.join("common.conf");
        let text = fs::read_to_string(&path).context("reading the configuration")?;
        write(&path, &format!("{text}{line}\n"))
    }

    /// A standby becomes the primary; it is when this returns.
    pub fn promote(&self) -> Result<()> {
        let promoted = self.value("SELECT pg_promote(true, 30)")?;
        ensure!(promoted == "t", "{} was not promoted", self.name);
        Ok(())
    }

    pub fn is_standby(&self) -> Result<bool> {
        Ok(self.value("SELECT pg_is_in_recovery()")? == "t")
    }

    /// The timeline of a primary.
    pub fn timeline(&self) -> Result<u64> {
        let file = self.value("SELECT pg_walfile_name(pg_current_wal_lsn())")?;
        let digits = file.get(..8).context("a short file name")?;
        Ok(u64::from_str_radix(digits, 16)?)
    }

    pub fn system_identifier(&self) -> Result<String> {
        self.value("SELECT system_identifier FROM pg_control_system()")
    }

    /// Waits until a standby has replayed what `primary` has written.
    pub fn wait_caught_up(&self, primary: &Self) -> Result<()> {
        let lsn = primary.value("SELECT pg_current_wal_lsn()")?;
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'");
        wait::until_true(&format!("{} to have {lsn}", self.name), START, || {
            Ok(self.value(&sql)? == "t")
        })
    }
}

impl Drop for PgServer {
    fn drop(&mut self) {
        // Its children would notice soon, and until then use files that are being removed.
        if self.server.is_running() {
            let _ = self.thaw();
            let _ = self.kill();
        }
    }
}

fn launch(name: &str, home: &Path, log: &Path) -> Result<Server> {
    let postgres = program("postgres")?;
    let mut launch = if is_root() {
        let mut launch = Launch::new(name, &find_program("setpriv")?, log)?;
        launch.command().args(SETPRIV).arg("--").arg(postgres);
        launch
    } else {
        Launch::new(name, &postgres, log)?
    };
    launch.command().arg("-D").arg(home.join("data"));
    launch.command().current_dir("/");
    launch.start()
}

fn common(conf: &PgConf) -> String {
    let lines = [
        "listen_addresses = '127.0.0.1'",
        "fsync = off",
        "wal_level = replica",
        "hot_standby = on",
        "wal_keep_size = '64MB'",
        "max_wal_senders = 10",
        "shared_buffers = '16MB'",
        "max_connections = 60",
        "autovacuum = off",
        "wal_receiver_status_interval = '1s'",
        "wal_retrieve_retry_interval = '200ms'",
        "logging_collector = off",
    ];
    let mut text = lines.join("\n");
    for line in &conf.lines {
        text.push('\n');
        text.push_str(line);
    }
    text.push('\n');
    text
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    // For the server to read, and for nobody else to write.
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    if path.parent().is_none() {
        bail!("a file without a directory");
    }
    hand_over(path)
}
