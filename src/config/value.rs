//! Single values: what a text, number or list element has to look like.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::shown;
use super::report::Bad;
use super::suggest::nearest;
use super::table::Item;
use crate::addr::Addr;

pub const HOUR: Duration = Duration::from_secs(3600);

pub fn text(item: &Item) -> Result<String, Bad> {
    match item.value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(Bad::kind(
            item.value,
            "a text",
            "write it in quotes: \"...\"",
        )),
    }
}

/// A text in which empty means "not set".
pub fn optional_text(item: &Item) -> Result<Option<String>, Bad> {
    Ok(Some(text(item)?).filter(|text| !text.is_empty()))
}

/// A text for people and labels: not empty, one line.
pub fn label(item: &Item) -> Result<String, Bad> {
    let text = text(item)?;
    if text.is_empty() || text.len() > 253 || text.chars().any(char::is_control) {
        let help = "1 to 253 bytes without control characters";
        return Err(Bad::new(
            format!("`{}` cannot be a name", shown(&text)),
            help,
        ));
    }
    Ok(text)
}

/// A name that stands in URLs, on command lines and in metric labels.
pub fn service_name(item: &Item) -> Result<String, Bad> {
    let text = text(item)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let starts = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    if !starts || text.len() > 63 || !text.bytes().all(fits) {
        let help = "1 to 63 letters, digits, `-`, `_` or `.`, and a letter or digit first";
        return Err(Bad::new(
            format!("`{}` cannot be a service's name", shown(&text)),
            help,
        ));
    }
    Ok(text)
}

pub fn boolean(item: &Item) -> Result<bool, Bad> {
    let wrong = || {
        Bad::kind(
            item.value,
            "true or false",
            "write it without quotes: true or false",
        )
    };
    item.value.as_bool().ok_or_else(wrong)
}

/// A whole number in `range`.
pub fn count(range: RangeInclusive<u32>) -> impl Fn(&Item) -> Result<usize, Bad> {
    move |item| {
        let help = format!("a whole number from {} to {}", range.start(), range.end());
        let Some(integer) = item.value.as_integer() else {
            return Err(Bad::kind(item.value, "a number", &help));
        };
        match u32::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => Ok(number as usize),
            _ => Err(Bad::new(
                format!("{} is out of range", shown(integer.as_str())),
                help,
            )),
        }
    }
}

/// A duration in `range`.
pub fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Item) -> Result<Duration, Bad> {
    move |item| {
        let value = any_duration(item)?;
        if range.contains(&value) {
            return Ok(value);
        }
        let help = format!("from {} to {}", spell(*range.start()), spell(*range.end()));
        Err(Bad::new(format!("{} is out of range", spell(value)), help))
    }
}

fn any_duration(item: &Item) -> Result<Duration, Bad> {
    let Some(text) = item.value.as_str() else {
        let help = match item.value.as_integer() {
            Some(n) if n.as_str().len() < 10 => format!("write \"{0}s\" or \"{0}ms\"", n.as_str()),
            _ => "write \"250ms\", \"10s\", \"5m\" or \"2h\"".to_owned(),
        };
        return Err(Bad::kind(item.value, "a duration", &help));
    };
    if let Some(value) = parse_duration(text) {
        return Ok(value);
    }
    let help = match tidied(text) {
        Some(right) => format!("write \"{right}\""),
        None => "a number and its unit: \"250ms\", \"10s\", \"5m\" or \"2h\"".to_owned(),
    };
    Err(Bad::new(
        format!("`{}` is not a duration", shown(text)),
        help,
    ))
}

/// A number of bytes: `"64kB"`, `"16MB"`, `"1GB"`, in powers of 1024 as PostgreSQL counts them.
pub fn size(item: &Item) -> Result<u64, Bad> {
    let help = "a number and its unit: \"64kB\", \"16MB\" or \"1GB\"";
    let Some(text) = item.value.as_str() else {
        return Err(Bad::kind(item.value, "a size", help));
    };
    parse_size(text).ok_or_else(|| Bad::new(format!("`{}` is not a size", shown(text)), help))
}

fn parse_size(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let unit: u64 = match unit {
        "B" => 1,
        "kB" | "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// `250ms`, `1.5s`, `5m`, `2h`.
fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let unit_nanos: u64 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || part.is_empty() || part.len() > 6 {
        return None;
    }
    let scale = 10_u64.pow(u32::try_from(part.len()).ok()?);
    let nanos = whole.parse::<u64>().ok()?.checked_mul(unit_nanos)?;
    let rest = unit_nanos / scale * part.parse::<u64>().ok()?;
    Some(Duration::from_nanos(nanos.checked_add(rest)?))
}

/// What somebody probably meant who wrote `10 seconds` or `10`.
fn tidied(text: &str) -> Option<String> {
    let text: String = text
        .trim()
        .to_ascii_lowercase()
        .split_whitespace()
        .collect();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "ms" | "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => "ms",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hrs" | "hour" | "hours" => "h",
        _ => return None,
    };
    let right = format!("{number}{unit}");
    parse_duration(&right).map(|_| right)
}

/// The shortest way to write a duration that comes from a config.
fn spell(value: Duration) -> String {
    let nanos = value.as_nanos();
    for (unit, size) in [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
    ] {
        if nanos.is_multiple_of(size) {
            let unit = if nanos == 0 { "s" } else { unit };
            return format!("{}{unit}", nanos / size);
        }
    }
    format!("{}ms", value.as_secs_f64() * 1000.0)
}

/// Permission bits, as `chmod` takes them.
pub fn mode(item: &Item) -> Result<u32, Bad> {
    let help = "octal digits in quotes, as chmod takes them: \"0600\"";
    let Some(text) = item.value.as_str() else {
        return Err(Bad::kind(item.value, "a text", help));
    };
    let digits = matches!(text.len(), 3 | 4) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if digits && mode <= 0o777 => Ok(mode),
        _ => Err(Bad::new(format!("`{}` is no file mode", shown(text)), help)),
    }
}

/// One of a few words.
pub fn one_of<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Item) -> Result<T, Bad> {
    move |item| {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let list = names.join(", ");
        let Some(text) = item.value.as_str() else {
            return Err(Bad::kind(item.value, "a text", &format!("one of: {list}")));
        };
        if let Some((_, value)) = words.iter().find(|(name, _)| *name == text) {
            return Ok(*value);
        }
        let help = match nearest(text, &names) {
            Some(near) => format!("did you mean \"{near}\"? One of: {list}"),
            None => format!("one of: {list}"),
        };
        Err(Bad::new(
            format!("`{}` is none of the known words", shown(text)),
            help,
        ))
    }
}

/// An address to connect to.
pub fn address(item: &Item) -> Result<Addr, Bad> {
    let help = "write \"host:port\", \"[v6]:port\" or \"unix:/path\"";
    let Some(text) = item.value.as_str() else {
        return Err(Bad::kind(item.value, "an address", help));
    };
    parse_address(text)
}

pub fn parse_address(text: &str) -> Result<Addr, Bad> {
    let wrong = || format!("`{}` is not an address", shown(text));
    // An address has at most a host name and a port; what is longer is not repeated to the user.
    if text.len() > 300 {
        return Err(Bad::new(
            wrong(),
            "write \"host:port\", \"[v6]:port\" or \"unix:/path\"",
        ));
    }
    text.parse()
        .map_err(|e: crate::addr::AddrError| Bad::new(wrong(), shown_help(&e.to_string())))
}

fn shown_help(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// An address to listen on. Names could change their meaning between two starts.
pub fn listener(item: &Item) -> Result<Addr, Bad> {
    match address(item)? {
        Addr::Name { host, port } => {
            let help = match &*host {
                "localhost" => format!("write \"127.0.0.1:{port}\""),
                _ => {
                    format!("write the address instead of `{host}`, or \"0.0.0.0:{port}\" for all")
                }
            };
            Err(Bad::new(
                "a listener needs an IP address or a Unix socket, not a name",
                help,
            ))
        }
        addr => Ok(addr),
    }
}

/// The name under which clients of PostgreSQL look for a socket in a directory (libpq's `host=/dir`).
const POSTGRES_SOCKET: &str = ".s.PGSQL.5432";

/// [`listener`] for PostgreSQL: a directory stands for the socket in it.
pub fn postgres_listener(item: &Item, is_directory: impl Fn(&Path) -> bool) -> Result<Addr, Bad> {
    let text = item.value.as_str().unwrap_or_default();
    let directory = text
        .strip_prefix("unix:")
        .filter(|path| path.ends_with('/') || is_directory(Path::new(path)));
    match directory {
        Some(path) => {
            let path = path.trim_end_matches('/');
            parse_address(&format!("unix:{path}/{POSTGRES_SOCKET}"))
        }
        None => listener(item),
    }
}

/// An address for HTTP.
pub fn http_listener(item: &Item) -> Result<SocketAddr, Bad> {
    match listener(item)? {
        Addr::Ip(addr) => Ok(addr),
        _ => Err(Bad::new(
            "health is served over TCP",
            "write \"127.0.0.1:8600\"",
        )),
    }
}

/// An absolute path.
pub fn path(item: &Item) -> Result<PathBuf, Bad> {
    let text = text(item)?;
    if !text.starts_with('/') || text.contains('\0') {
        let help = "write an absolute path: it must not depend on where the process was started";
        return Err(Bad::new(
            format!("`{}` is not an absolute path", shown(&text)),
            help,
        ));
    }
    Ok(PathBuf::from(text))
}

/// A path in which empty means "not set".
pub fn optional_path(item: &Item) -> Result<Option<PathBuf>, Bad> {
    if item.value.as_str() == Some("") {
        Ok(None)
    } else {
        path(item).map(Some)
    }
}

/// The path of a Unix socket.
pub fn socket_path(item: &Item) -> Result<PathBuf, Bad> {
    let text = text(item)?;
    match format!("unix:{text}").parse() {
        Ok(Addr::Unix(path)) => Ok(path.into_path_buf()),
        _ => {
            let help = "an absolute path of at most 107 bytes, without `unix:`";
            Err(Bad::new(
                format!("`{}` cannot be a socket's path", shown(&text)),
                help,
            ))
        }
    }
}

/// A name that a certificate can carry.
pub fn server_name(item: &Item) -> Result<Option<String>, Bad> {
    let Some(text) = optional_text(item)? else {
        return Ok(None);
    };
    match rustls::pki_types::ServerName::try_from(text.as_str()) {
        Ok(_) => Ok(Some(text)),
        Err(_) => {
            let help = "the name or the IP address in the server's certificate, without a port";
            Err(Bad::new(
                format!("`{}` is not a server's name", shown(&text)),
                help,
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("250ms", Some(250)),
            ("0s", Some(0)),
            ("1.5s", Some(1500)),
            ("0.25s", Some(250)),
            ("5m", Some(300_000)),
            ("2h", Some(7_200_000)),
            ("10", None),
            ("10 s", None),
            ("-1s", None),
            (".5s", None),
            ("1.s", None),
            ("1.2.3s", None),
            ("1e3s", None),
            ("", None),
            ("s", None),
            ("99999999999999999999h", None),
            ("9999999999h", None),
            ("１s", None),
        ] {
            assert_eq!(
                parse_duration(text),
                millis.map(Duration::from_millis),
                "{text}"
            );
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("16MB", Some(16 << 20)),
            ("64kB", Some(64 << 10)),
            ("1GB", Some(1 << 30)),
            ("0B", Some(0)),
            ("16", None),
            ("16 MB", None),
            ("MB", None),
            ("", None),
            ("1.5MB", None),
            ("-1MB", None),
            ("99999999999999999999GB", None),
            ("99999999999GB", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    #[test]
    fn durations_meant() {
        for (text, right) in [
            ("10", Some("10s")),
            ("10 seconds", Some("10s")),
            ("5 Min", Some("5m")),
            ("250 msec", Some("250ms")),
            ("soon", None),
            ("10 days", None),
        ] {
            assert_eq!(tidied(text).as_deref(), right, "{text}");
        }
    }

    #[test]
    fn durations_are_spelt_as_people_write_them() {
        for text in ["0s", "250ms", "10s", "90s", "5m", "2h"] {
            assert_eq!(spell(parse_duration(text).unwrap()), text);
        }
    }
}
