//! One installed data directory per process run, which every server gets a copy of.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{Context, Result, bail};

use super::DATABASE;
use crate::process::find_program;
use crate::scratch;
use crate::sql::Login;

/// An account that every server has, from any host.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    pub user: &'static str,
    pub password: &'static str,
}

/// The harness itself: only from this host.
pub const ROOT: Account = Account {
    user: "root",
    password: "",
};
/// The application. May do anything in [`DATABASE`].
pub const SHOP: Account = Account {
    user: "shop",
    password: "shop-s3cret",
};
/// The same for load that goes past the sidecar, to tell its sessions apart. As little above `read_only` as [`SHOP`].
pub const RIVAL: Account = Account {
    user: "rival",
    password: "rival-s3cret",
};
/// What the sidecar's probes log in as. May ask for the state of replication.
pub const PROBE: Account = Account {
    user: "pilotfish",
    password: "probe-s3cret",
};

/// What HAProxy's `mysql-check` logs in as: it can only without a password.
pub const CHECK: Account = Account {
    user: "haproxy_check",
    password: "",
};

impl Account {
    pub fn login(&self) -> Login {
        Login::new(self.user, self.password)
    }
}

/// The installed directory and the homes of servers. Removed with the last server.
pub(super) struct Base {
    dir: scratch::Dir,
    homes: AtomicUsize,
}

static SHARED: Mutex<Weak<Base>> = Mutex::new(Weak::new());

impl Base {
    pub(super) fn shared() -> Result<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(base) = shared.upgrade() {
            return Ok(base);
        }
        let base = Arc::new(Self::install()?);
        *shared = Arc::downgrade(&base);
        Ok(base)
    }

    fn install() -> Result<Self> {
        let dir = scratch::Dir::new()?;
        let accounts = dir.join("accounts.sql");
        fs::write(&accounts, accounts_sql()).context("writing accounts.sql")?;
        // What the servers run as has to get in.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))
            .context("opening the directory")?;
        let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let output = Command::new(find_program("mariadb-install-db")?)
            .arg("--no-defaults")
            .args(owner()?.map(|_| "--user=root"))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
            .args(["--innodb-log-file-size=16M", "--skip-name-resolve"])
            .arg(option("extra-file", &accounts))
            .arg(option("datadir", &dir.join("base")))
            .stdin(Stdio::null())
            .output()
            .context("running mariadb-install-db")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout);
            bail!("mariadb-install-db failed ({}): {said}", output.status);
        }
        Ok(Self {
            dir,
            homes: AtomicUsize::new(0),
        })
    }

    /// A directory for one server, with a copy of the installed data in `data`.
    pub(super) fn home(&self, name: &str) -> Result<PathBuf> {
        let number = self.homes.fetch_add(1, Ordering::Relaxed);
        let home = self.dir.join(&format!("{name}.{number}"));
        fs::create_dir(&home).with_context(|| format!("making {}", home.display()))?;
        copy(&self.dir.join("base"), &home.join("data"))
            .with_context(|| format!("copying the data directory to {}", home.display()))?;
        Ok(home)
    }
}

/// Who the servers run as. Started by root, it must be somebody else: mariadbd insists on being told, and the rsync of
/// a joining node gives up root's rights and then cannot write.
pub(super) fn owner() -> Result<Option<Owner>> {
    if !rustix::process::getuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
    let fields = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&OWNER))
        .with_context(|| format!("there is no user {OWNER}: apt-get install mariadb-server"))?;
    let [_, _, user, group, ..] = fields[..] else {
        bail!("an odd line in /etc/passwd");
    };
    Ok(Some(Owner {
        user: user.parse().context("a user id")?,
        group: group.parse().context("a group id")?,
    }))
}

/// Debian's name for it.
pub(super) const OWNER: &str = "mysql";

#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    /// Gives it a directory with all that is in it.
    pub(super) fn take(self, path: &Path) -> std::io::Result<()> {
        if path.is_dir() {
            for entry in fs::read_dir(path)? {
                self.take(&entry?.path())?;
            }
        }
        lchown(path, Some(self.user), Some(self.group))
    }
}

fn accounts_sql() -> String {
    let account = |it: Account, privileges: &str| {
        format!(
            "CREATE USER '{0}'@'%' IDENTIFIED BY '{1}';\nGRANT {privileges} TO '{0}'@'%';\n",
            it.user, it.password
        )
    };
    format!(
        "FLUSH PRIVILEGES;\nCREATE DATABASE {DATABASE};\n{}{}{}{}",
        account(SHOP, &format!("ALL ON {DATABASE}.*")),
        account(RIVAL, &format!("ALL ON {DATABASE}.*")),
        account(PROBE, "REPLICATION CLIENT, REPLICA MONITOR ON *.*"),
        account(CHECK, "USAGE ON *.*"),
    )
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
