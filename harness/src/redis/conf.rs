//! Configuration files of `redis-server` and its sentinel mode, as fast as they will go.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{MASTER_NAME, Options};
use crate::certs::Certs;
use crate::resp::Auth;

/// Certificate files, the same for all servers.
#[derive(Clone, Debug)]
pub struct Tls {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Clients must show a certificate too.
    pub client_certs: bool,
}

impl From<&Certs> for Tls {
    fn from(certs: &Certs) -> Self {
        let (ca, cert, key) = (certs.ca.clone(), certs.cert.clone(), certs.key.clone());
        Self {
            ca,
            cert,
            key,
            client_certs: false,
        }
    }
}

impl Tls {
    fn lines(&self, port: u16) -> String {
        format!(
            "tls-port {port}\ntls-ca-cert-file {}\ntls-cert-file {}\ntls-key-file {}\ntls-auth-clients {}\n\
             tls-replication yes\n",
            self.ca.display(),
            self.cert.display(),
            self.key.display(),
            if self.client_certs { "yes" } else { "no" },
        )
    }
}

/// One Redis server.
#[derive(Clone, Debug, Default)]
pub struct RedisConf {
    pub auth: Option<Auth>,
    pub tls: Option<Tls>,
    pub replica_of: Option<SocketAddr>,
    /// Further lines of `redis.conf`.
    pub extra: Vec<String>,
}

impl RedisConf {
    pub(super) fn render(&self, control: SocketAddr, addr: SocketAddr, home: &Path) -> String {
        let mut text = common(control, home);
        text.push_str("save \"\"\nappendonly no\nrepl-diskless-sync no\n");
        if let Some(tls) = &self.tls {
            text.push_str(&tls.lines(addr.port()));
        }
        if let Some(auth) = &self.auth {
            text.push_str(&auth_lines(auth));
            let _ = writeln!(text, "masterauth {}", auth.password);
            if let Some(user) = &auth.user {
                let _ = writeln!(text, "masteruser {user}");
            }
        }
        if let Some(master) = self.replica_of {
            let _ = writeln!(text, "replicaof {} {}", master.ip(), master.port());
        }
        text + &joined(&self.extra)
    }
}

/// `at` is the plaintext and the public address of the sentinel itself.
pub(super) fn sentinel(
    options: &Options,
    at: (SocketAddr, SocketAddr),
    home: &Path,
    monitor: SocketAddr,
) -> String {
    let (control, addr) = at;
    let mut text = common(control, home);
    if let Some(tls) = &options.tls {
        text.push_str(&tls.lines(addr.port()));
    }
    if let Some(auth) = &options.sentinel_auth {
        text.push_str(&auth_lines(auth));
        let _ = writeln!(text, "sentinel sentinel-pass {}", auth.password);
        if let Some(user) = &auth.user {
            let _ = writeln!(text, "sentinel sentinel-user {user}");
        }
    }
    let quorum = options.sentinels / 2 + 1;
    let _ = writeln!(
        text,
        "sentinel monitor {MASTER_NAME} {} {} {quorum}",
        monitor.ip(),
        monitor.port()
    );
    let mut set = |key: &str, value: &str| {
        let _ = writeln!(text, "sentinel {key} {MASTER_NAME} {value}");
    };
    set(
        "down-after-milliseconds",
        &options.down_after.as_millis().to_string(),
    );
    set(
        "failover-timeout",
        &options.failover_timeout.as_millis().to_string(),
    );
    set("parallel-syncs", "2");
    if let Some(auth) = &options.auth {
        if let Some(user) = &auth.user {
            set("auth-user", user);
        }
        set("auth-pass", &auth.password);
    }
    text + &joined(&options.extra_sentinel)
}

/// `home` must differ between servers; a sentinel's file must be writable, for it writes its own state there.
fn common(control: SocketAddr, home: &Path) -> String {
    format!(
        "port {}\nbind {}\nprotected-mode no\ndaemonize no\nlogfile \"\"\ndir {}\n",
        control.port(),
        control.ip(),
        home.display()
    )
}

fn auth_lines(auth: &Auth) -> String {
    match &auth.user {
        // Only the named user may do anything, so that a client that forgets the name is found out.
        Some(user) => format!(
            "user default off\nuser {user} on >{} ~* &* +@all\n",
            auth.password
        ),
        None => format!("requirepass {}\n", auth.password),
    }
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}
