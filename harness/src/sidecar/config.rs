//! Writes a `proxy.toml`.
//!
//! Keys that scenarios have in common have a field; for all others there are lines of TOML, so that a new key of the
//! daemon needs no change here.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::mariadb::PROBE;
use crate::ports;
use crate::redis::{MASTER_NAME, RedisCluster};
use crate::resp::Auth;

/// The sections of a service.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: String,
    pub protocol: String,
    /// First the one [`super::Sidecar`] hands to clients over TCP.
    pub tcp: Vec<SocketAddr>,
    /// The name of a Unix socket in the sidecar's directory.
    pub unix: Option<String>,
    /// Lines of `[[service]]`, such as `hold_timeout = "5s"`.
    pub lines: Vec<String>,
    /// Lines of `[service.discovery]`.
    pub discovery: Vec<String>,
    /// Whole sections to follow, such as `[service.tls]` with its lines.
    pub sections: Vec<String>,
    /// Written to files of mode 0600 and named by `KEY = "PATH"` lines in `[service.discovery]`.
    secrets: Vec<(String, String)>,
}

impl Service {
    /// A service on a free TCP port and a Unix socket.
    pub fn new(name: &str, protocol: &str) -> Result<Self> {
        Ok(Self {
            name: name.into(),
            protocol: protocol.into(),
            tcp: vec![ports::free()?],
            unix: Some(format!("{name}.sock")),
            lines: Vec::new(),
            discovery: Vec::new(),
            sections: Vec::new(),
            secrets: Vec::new(),
        })
    }

    /// Redis through the sentinels of `cluster`, with its passwords, but without TLS.
    pub fn sentinel(name: &str, cluster: &RedisCluster) -> Result<Self> {
        let service = Self::new(name, "redis")?
            .discover("kind", "sentinel")
            .discover("master", MASTER_NAME)
            .discover_all("sentinels", &cluster.sentinel_addrs());
        let options = cluster.options();
        Ok(service
            .login("", options.auth.as_ref())
            .login("sentinel_", options.sentinel_auth.as_ref()))
    }

    /// MySQL or MariaDB servers, asked as [`crate::mariadb::PROBE`]; `kind` is `galera` or `mysql`.
    pub fn mysql(name: &str, kind: &str, nodes: &[SocketAddr]) -> Result<Self> {
        let mut service = Self::new(name, "mysql")?
            .discover("kind", kind)
            .discover_all("nodes", nodes)
            .discover("user", PROBE.user);
        let secret = ("password_file".into(), PROBE.password.into());
        service.secrets.push(secret);
        Ok(service)
    }

    /// PostgreSQL on `nodes`, probed as the superuser of [`crate::postgres`].
    pub fn postgres(name: &str, nodes: &[SocketAddr]) -> Result<Self> {
        Ok(Self::new(name, "postgres")?
            .discover("kind", "postgres")
            .discover_all("nodes", nodes)
            .discover("user", "postgres"))
    }

    /// A line `key = "value"` of `[[service]]`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.lines.push(format!("{key} = {}", quoted(value)));
        self
    }

    /// A line of `[[service]]` as it stands, for numbers, booleans and lists.
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.into());
        self
    }

    /// A line `key = "value"` of `[service.discovery]`.
    pub fn discover(mut self, key: &str, value: &str) -> Self {
        self.discovery.push(format!("{key} = {}", quoted(value)));
        self
    }

    /// A list of addresses in `[service.discovery]`.
    pub fn discover_all(mut self, key: &str, addrs: &[SocketAddr]) -> Self {
        let list: Vec<String> = addrs.iter().map(|addr| quoted(&addr.to_string())).collect();
        self.discovery
            .push(format!("{key} = [{}]", list.join(", ")));
        self
    }

    pub fn section(mut self, text: &str) -> Self {
        self.sections.push(text.into());
        self
    }

    /// User name and password file, `prefix` before both keys.
    pub fn login(mut self, prefix: &str, auth: Option<&Auth>) -> Self {
        if let Some(auth) = auth {
            if let Some(user) = &auth.user {
                self = self.discover(&format!("{prefix}username"), user);
            }
            self.secrets
                .push((format!("{prefix}password_file"), auth.password.clone()));
        }
        self
    }

    fn render(&self, dir: &Path) -> Result<String> {
        let mut listen: Vec<String> = self.tcp.iter().map(ToString::to_string).collect();
        listen.extend(
            self.unix
                .iter()
                .map(|name| format!("unix:{}", dir.join(name).display())),
        );
        let listen: Vec<String> = listen.iter().map(|addr| quoted(addr)).collect();
        let mut text = format!(
            "\n[[service]]\nname = {}\nprotocol = {}\nlisten = [{}]\n{}\n[service.discovery]\n{}",
            quoted(&self.name),
            quoted(&self.protocol),
            listen.join(", "),
            lines(&self.lines),
            lines(&self.discovery),
        );
        for (key, secret) in &self.secrets {
            let file = dir.join(format!("{}-{key}", self.name));
            write_secret(&file, secret)?;
            let _ = writeln!(text, "{key} = {}", quoted(&file.display().to_string()));
        }
        for section in &self.sections {
            let _ = writeln!(text, "\n{section}");
        }
        Ok(text)
    }
}

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub http: SocketAddr,
    /// For the `[log]` section.
    pub level: String,
    /// Lines before the first section, such as `drain_timeout = "2s"`.
    pub lines: Vec<String>,
    /// Lines of `[http]` besides `listen`.
    pub http_lines: Vec<String>,
    /// Lines of `[admin]` besides `socket`.
    pub admin_lines: Vec<String>,
    pub services: Vec<Service>,
    /// Whole sections at the end.
    pub sections: Vec<String>,
}

impl Config {
    pub fn new() -> Result<Self> {
        Ok(Self {
            http: ports::free()?,
            level: "debug".into(),
            lines: Vec::new(),
            http_lines: Vec::new(),
            admin_lines: Vec::new(),
            services: Vec::new(),
            sections: Vec::new(),
        })
    }

    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// A line before the first section.
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.into());
        self
    }

    pub fn level(mut self, level: &str) -> Self {
        self.level = level.into();
        self
    }

    /// Secrets go to files in `dir`, sockets are named in it.
    pub fn render(&self, dir: &Path) -> Result<String> {
        let mut text = format!(
            "name = \"app-01\"\n{}\n[http]\nlisten = [{}]\n{}\n[admin]\nsocket = {}\n{}\n[log]\nlevel = {}\n\
             format = \"text\"\n",
            lines(&self.lines),
            quoted(&self.http.to_string()),
            lines(&self.http_lines),
            quoted(&admin_socket(dir).display().to_string()),
            lines(&self.admin_lines),
            quoted(&self.level),
        );
        for service in &self.services {
            text.push_str(&service.render(dir)?);
        }
        for section in &self.sections {
            let _ = writeln!(text, "\n{section}");
        }
        Ok(text)
    }
}

pub(super) fn admin_socket(dir: &Path) -> PathBuf {
    dir.join("admin.sock")
}

/// A TOML basic string.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn write_secret(path: &Path, secret: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(writeln!(file, "{secret}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_what_the_contract_shows() {
        let dir = crate::scratch::Dir::new().unwrap();
        let auth = Auth {
            user: Some("app".into()),
            password: "pw".into(),
        };
        let service = Service::new("cache", "redis")
            .unwrap()
            .set("hold_timeout", "5s")
            .line("max_held = 7")
            .discover("kind", "sentinel")
            .login("sentinel_", Some(&auth));
        let text = Config::new()
            .unwrap()
            .service(service)
            .line("workers = 1")
            .render(dir.path())
            .unwrap();
        let at = |part: &str| {
            text.find(part)
                .unwrap_or_else(|| panic!("no {part} in\n{text}"))
        };
        assert!(at("workers = 1") < at("[http]"));
        assert!(at("[http]") < at("[admin]") && at("[admin]") < at("[[service]]"));
        assert!(at("max_held = 7") < at("[service.discovery]"));
        assert!(at("[service.discovery]") < at("sentinel_password_file = "));
        assert_eq!(
            std::fs::read_to_string(dir.join("cache-sentinel_password_file")).unwrap(),
            "pw\n"
        );
    }
}
