//! `my.cnf`, as fast as it will go and still durable when the process is killed.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::base::{OWNER, owner};
use crate::certs::Certs;

/// One server.
#[derive(Clone, Debug, Default)]
pub struct MariaConf {
    /// Further lines of `[mariadbd]`.
    pub extra: Vec<String>,
    /// Authority, certificate, key.
    tls: Option<[PathBuf; 3]>,
}

impl MariaConf {
    /// With further lines of `[mariadbd]`.
    pub fn with(extra: &[&str]) -> Self {
        Self {
            extra: extra.iter().map(ToString::to_string).collect(),
            tls: None,
        }
    }

    /// The server offers TLS; plaintext stays allowed.
    pub fn tls(mut self, certs: &Certs) -> Self {
        self.tls = Some([certs.ca.clone(), certs.cert.clone(), certs.key.clone()]);
        self
    }

    /// For asynchronous replication: binary log and GTIDs.
    pub fn replicating(mut self, server_id: u32) -> Self {
        self.extra.push(format!("server_id = {server_id}"));
        self.extra.push("log_bin = binlog".into());
        self.extra.push("log_slave_updates = ON".into());
        self.extra.push("binlog_format = ROW".into());
        self
    }

    /// Writes `my.cnf`, and beside it what it names.
    pub(super) fn write(&self, home: &Path, addr: SocketAddr) -> Result<PathBuf> {
        let mut text = self.render(home, addr)?;
        for (key, file) in ["ssl-ca", "ssl-cert", "ssl-key"]
            .iter()
            .zip(self.tls.iter().flatten())
        {
            // The original may be where only its owner gets in.
            let copy = home.join(format!("{key}.pem"));
            fs::copy(file, &copy).with_context(|| format!("copying {}", file.display()))?;
            let _ = writeln!(text, "{key} = {}", copy.display());
        }
        let file = home.join("my.cnf");
        fs::write(&file, text).context("writing my.cnf")?;
        Ok(file)
    }

    fn render(&self, home: &Path, addr: SocketAddr) -> Result<String> {
        let at = |name: &str| home.join(name).display().to_string();
        let user = owner()?.map_or_else(String::new, |_| format!("user = {OWNER}\n"));
        let mut text = format!(
            "[mariadbd]\n{user}datadir = {}\nsocket = {}\npid-file = {}\nbind-address = {}\nport = {}\n",
            at("data"),
            at("s"),
            at("pid"),
            addr.ip(),
            addr.port(),
        );
        text.push_str(
            "skip-name-resolve\nlog-warnings = 1\nmax_connections = 500\nperformance_schema = OFF\n\
             innodb_log_file_size = 16M\ninnodb_buffer_pool_size = 64M\ninnodb_doublewrite = OFF\n\
             innodb_flush_log_at_trx_commit = 2\nsync_binlog = 0\n",
        );
        for line in &self.extra {
            let _ = writeln!(text, "{line}");
        }
        Ok(text)
    }
}
