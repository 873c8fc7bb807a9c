//! Addresses as the config, the sentinels and the operators write them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a socket is: `host:port`, `[v6]:port` or `unix:/path`.
///
/// Two addresses are the same endpoint exactly when they compare equal, so host names are kept in
/// lower case and IP addresses in their parsed form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Addr {
    Ip(SocketAddr),
    Name { host: Box<str>, port: u16 },
    Unix(Box<Path>),
}

/// Why a text is not an address. The text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    #[error("the port is missing: write it as `{0}:6379`")]
    NoPort(String),
    #[error("`{0}` is not a port: a number from 1 to 65535 is")]
    BadPort(String),
    #[error("an IPv6 address with a port is written `[{0}]:6379`")]
    BareV6(String),
    #[error("`{0}` is not a host name or an IP address")]
    BadHost(String),
    #[error("a Unix socket is written `unix:/an/absolute/path`")]
    BadPath,
    #[error("a Unix socket's path has at most 107 bytes")]
    LongPath,
}

/// What `sun_path` holds on Linux, without its final NUL (unix(7)).
const MAX_UNIX_PATH: usize = 107;

impl Addr {
    /// From a host part and a port that came apart, as Sentinel sends them.
    ///
    /// # Errors
    /// When the host is neither a name nor an IP address.
    pub fn from_parts(host: &str, port: u16) -> Result<Self, AddrError> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Self::Ip(SocketAddr::new(ip, port)));
        }
        if !is_host_name(host) {
            return Err(AddrError::BadHost(host.chars().take(80).collect()));
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase().into();
        Ok(Self::Name { host, port })
    }

    /// The host name that has to be resolved before a connect, if there is one.
    pub fn host_name(&self) -> Option<&str> {
        match self {
            Self::Name { host, .. } => Some(host),
            Self::Ip(_) | Self::Unix(_) => None,
        }
    }
}

fn is_host_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // All digits and dots is a mistyped IPv4 address, not a name.
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    host.len() <= 253 && !numeric && host.split('.').all(label_ok)
}

fn parse_port(text: &str) -> Result<u16, AddrError> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(AddrError::BadPort(text.to_owned())),
    }
}

fn parse_unix(path: &str) -> Result<Addr, AddrError> {
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err(AddrError::BadPath);
    }
    if path.len() > MAX_UNIX_PATH {
        return Err(AddrError::LongPath);
    }
    Ok(Addr::Unix(PathBuf::from(path).into_boxed_path()))
}

impl FromStr for Addr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return parse_unix(path);
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest
                .split_once("]:")
                .ok_or_else(|| AddrError::NoPort(text.to_owned()))?;
            let ip: std::net::Ipv6Addr = host
                .parse()
                .map_err(|_| AddrError::BadHost(host.to_owned()))?;
            return Ok(Self::Ip(SocketAddr::new(ip.into(), parse_port(port)?)));
        }
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| AddrError::NoPort(text.to_owned()))?;
        if host.contains(':') {
            return Err(AddrError::BareV6(host.to_owned()));
        }
        Self::from_parts(host, parse_port(port)?)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> serde::Deserialize<'de> for Addr {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for Addr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_printed() {
        for (text, printed) in [
            ("127.0.0.1:6379", "127.0.0.1:6379"),
            ("[::1]:6379", "[::1]:6379"),
            ("Redis-1.example.COM.:6379", "redis-1.example.com:6379"),
            ("redis_1:1", "redis_1:1"),
            ("unix:/run/redis.sock", "unix:/run/redis.sock"),
        ] {
            assert_eq!(text.parse::<Addr>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let long = format!("unix:/{}", "x".repeat(107));
        for (text, said) in [
            ("127.0.0.1", "port is missing"),
            ("127.0.0.1:0", "not a port"),
            ("127.0.0.1:+80", "not a port"),
            ("127.0.0.1:70000", "not a port"),
            ("::1:6379", "is written `[::1]:6379`"),
            ("[::1]6379", "port is missing"),
            ("[localhost]:1", "not a host name"),
            ("256.1.1.1:80", "not a host name"),
            ("-bad-:80", "not a host name"),
            (":80", "not a host name"),
            ("unix:relative", "absolute"),
            ("unix:/dir/", "absolute"),
            (long.as_str(), "107 bytes"),
        ] {
            let error = text.parse::<Addr>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
