//! What can be asked over the admin socket. A verb is one variant here; the compiler asks for the rest.

use std::time::Duration;

use hyper::Method;
use serde::{Deserialize, Serialize};

use super::region::Region;
use crate::addr::Addr;
use crate::handover::{Ask, Old};

/// One request. Both sides use this: the client makes method, path and body of it, the server reads
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Everything there is to see.
    Status,
    /// One service of it.
    Service(String),
    /// Live sessions, of all services or of one.
    Sessions(Option<String>),
    /// What happened.
    Events(Window),
    /// Hold a service's clients.
    Pause(String),
    Resume(String),
    /// Overrule the monitor.
    Pin(String, Addr),
    Unpin(String),
    /// Have the database move its primary.
    Failover(String, Ask),
    /// Leave the load balancer.
    Drain,
    Undrain,
    /// Follow the config's file.
    Reload,
    /// The config that runs, without secrets.
    Config,
    /// The regional cutover.
    Region(Region),
}

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Go on as they happen, until the client has had enough.
    pub follow: bool,
    /// Only those of the last so many seconds.
    pub since: Option<u64>,
}

/// What `pin` says in its body.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinBody {
    address: Addr,
}

/// What `failover` may say in its body; all of it may be left out.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FailoverBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Addr>,
    /// `30s`
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    dry_run: bool,
    /// `gone`: it is dead or fenced. Otherwise it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    old_primary: Option<OldPrimary>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OldPrimary {
    Serves,
    Gone,
}

impl FailoverBody {
    fn of(ask: &Ask) -> Self {
        Self {
            to: ask.to.clone(),
            timeout: Some(format!("{}ms", ask.timeout.as_millis())),
            dry_run: ask.dry_run,
            old_primary: (ask.old == Old::Gone).then_some(OldPrimary::Gone),
        }
    }

    fn read(body: &[u8]) -> Result<Ask, Unknown> {
        let help = "the body may be {\"to\": \"HOST:PORT\", \"timeout\": \"30s\", \"dry_run\": true, \
                    \"old_primary\": \"gone\"}";
        let wrong = |why: String| Unknown::Content(format!("{help}: {why}"));
        let body = match body.is_empty() {
            true => Self::default(),
            false => serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?,
        };
        let timeout = match &body.timeout {
            Some(text) => patience(text).map_err(wrong)?,
            None => Ask::default().timeout,
        };
        Ok(Ask {
            to: body.to,
            timeout,
            dry_run: body.dry_run,
            old: match body.old_primary {
                Some(OldPrimary::Gone) => Old::Gone,
                Some(OldPrimary::Serves) | None => Old::Serves,
            },
        })
    }
}

/// How long a failover may take: `500ms`, `30s`, `2m`; from a second to an hour.
///
/// # Errors
/// When it is no such time.
pub fn patience(text: &str) -> Result<Duration, String> {
    let wrong = || "a time from 1s to 60m, like 30s".to_owned();
    let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit);
    let unit: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = number.checked_mul(unit).ok_or_else(wrong)?;
    match millis {
        1000..=3_600_000 => Ok(Duration::from_millis(millis)),
        _ => Err(wrong()),
    }
}

/// For connect, question and answer of what is done at once.
const SOON: Duration = Duration::from_secs(10);
/// A failover may use up its time, and then put things back.
const PUT_BACK: Duration = Duration::from_secs(120);

/// Why a request is no command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    Path,
    /// The path takes this only.
    Method {
        allow: &'static str,
    },
    /// What it says besides its path makes no sense; the text is for whoever sent it.
    Content(String),
}

/// A request, as far as it matters.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub body: &'a [u8],
}

impl Command {
    pub fn method(&self) -> Method {
        match self {
            Self::Status | Self::Service(_) | Self::Sessions(_) | Self::Events(_) => Method::GET,
            Self::Config => Method::GET,
            Self::Pause(_) | Self::Resume(_) | Self::Pin(..) | Self::Unpin(_) => Method::POST,
            Self::Failover(..) | Self::Drain | Self::Undrain | Self::Reload => Method::POST,
            Self::Region(region) => region.method(),
        }
    }

    /// How long whoever asks waits for the whole answer.
    pub fn patience(&self) -> Duration {
        match self {
            Self::Failover(_, ask) => ask.timeout + PUT_BACK,
            _ => SOON,
        }
    }

    /// Path and query.
    pub fn path(&self) -> String {
        let service = |name: &str, verb: &str| format!("/v1/services/{}{verb}", escaped(name));
        match self {
            Self::Status => "/v1/status".to_owned(),
            Self::Service(name) => service(name, ""),
            Self::Sessions(None) => "/v1/sessions".to_owned(),
            Self::Sessions(Some(name)) => format!("/v1/sessions?service={}", escaped(name)),
            Self::Events(window) => format!("/v1/events{}", window.query()),
            Self::Pause(name) => service(name, "/pause"),
            Self::Resume(name) => service(name, "/resume"),
            Self::Pin(name, _) => service(name, "/pin"),
            Self::Unpin(name) => service(name, "/unpin"),
            Self::Failover(name, _) => service(name, "/failover"),
            Self::Drain => "/v1/drain".to_owned(),
            Self::Undrain => "/v1/undrain".to_owned(),
            Self::Reload => "/v1/reload".to_owned(),
            Self::Config => "/v1/config".to_owned(),
            Self::Region(region) => region.path().to_owned(),
        }
    }

    /// JSON; empty where there is nothing to say.
    pub fn body(&self) -> Vec<u8> {
        match self {
            Self::Pin(_, address) => {
                let address = address.clone();
                // An address is a string, and that can always be written.
                serde_json::to_vec(&PinBody { address }).unwrap_or_default()
            }
            Self::Region(region) => region.body(),
            // Texts, numbers and words, and those too.
            Self::Failover(_, ask) => {
                serde_json::to_vec(&FailoverBody::of(ask)).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// Reads what [`Command::method`], [`Command::path`] and [`Command::body`] write.
    ///
    /// # Errors
    /// When nothing answers to this path, not to this method, or it makes no sense.
    pub fn parse(asked: &Asked<'_>) -> Result<Self, Unknown> {
        let segments: Vec<&str> = asked.path.split('/').skip(1).collect();
        let named = |name: &str| unescaped(name).ok_or(Unknown::Path);
        let command = match segments[..] {
            ["v1", "status"] => Self::Status,
            ["v1", "sessions"] => Self::Sessions(value(asked.query, "service")?),
            ["v1", "events"] => Self::Events(Window::parse(asked.query)?),
            ["v1", "drain"] => Self::Drain,
            ["v1", "undrain"] => Self::Undrain,
            ["v1", "reload"] => Self::Reload,
            ["v1", "config"] => Self::Config,
            ["v1", "services", name] if !name.is_empty() => Self::Service(named(name)?),
            ["v1", "services", name, "pause"] => Self::Pause(named(name)?),
            ["v1", "services", name, "resume"] => Self::Resume(named(name)?),
            ["v1", "services", name, "unpin"] => Self::Unpin(named(name)?),
            ["v1", "services", name, "pin"] => {
                only(asked.method, &Method::POST)?;
                let body: Result<PinBody, _> = serde_json::from_slice(asked.body);
                let help = "the body must be {\"address\": \"HOST:PORT\"}";
                let body = body.map_err(|e| Unknown::Content(format!("{help}: {e}")))?;
                Self::Pin(named(name)?, body.address)
            }
            ["v1", "region", verb] => Self::Region(Region::parse(verb, asked)?),
            ["v1", "services", name, "failover"] => {
                only(asked.method, &Method::POST)?;
                Self::Failover(named(name)?, FailoverBody::read(asked.body)?)
            }
            _ => return Err(Unknown::Path),
        };
        only(asked.method, &command.method())?;
        Ok(command)
    }
}

pub(super) fn only(method: &Method, allowed: &Method) -> Result<(), Unknown> {
    let allow = if allowed == Method::GET {
        "GET"
    } else {
        "POST"
    };
    match method == allowed {
        true => Ok(()),
        false => Err(Unknown::Method { allow }),
    }
}

impl Window {
    fn query(&self) -> String {
        let follow = self.follow.then(|| "follow=true".to_owned());
        let since = self.since.map(|since| format!("since={since}s"));
        let parts: Vec<String> = follow.into_iter().chain(since).collect();
        match parts.is_empty() {
            true => String::new(),
            false => format!("?{}", parts.join("&")),
        }
    }

    fn parse(query: Option<&str>) -> Result<Self, Unknown> {
        let follow = match value(query, "follow")?.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Unknown::Content("follow is true or false".to_owned())),
        };
        let since = match value(query, "since")? {
            None => None,
            Some(text) => Some(ago(&text).ok_or_else(|| {
                Unknown::Content("since is a time like 30s, 10m, 2h or 1d".to_owned())
            })?),
        };
        Ok(Self { follow, since })
    }
}

/// `10m` -> 600.
pub fn ago(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// The value of `key` in a query.
fn value(query: Option<&str>, key: &str) -> Result<Option<String>, Unknown> {
    let pairs = query.unwrap_or_default().split('&');
    let found = pairs
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| *name == key);
    match found {
        None => Ok(None),
        Some((_, value)) => match unescaped(value) {
            Some(value) => Ok(Some(value)),
            None => Err(Unknown::Content(format!("{key} is no text"))),
        },
    }
}

/// Names of services need no escaping; what somebody mistyped must still be a path.
fn escaped(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    let escape = |b: u8| match plain(b) {
        true => char::from(b).to_string(),
        false => format!("%{b:02X}"),
    };
    name.bytes().map(escape).collect()
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(command: &Command) -> Result<Command, Unknown> {
        let (path, body) = (command.path(), command.body());
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path.as_str(), None),
        };
        let method = &command.method();
        Command::parse(&Asked {
            method,
            path,
            query,
            body: &body,
        })
    }

    fn ask(method: &Method, path: &str) -> Result<Command, Unknown> {
        Command::parse(&Asked {
            method,
            path,
            query: None,
            body: b"",
        })
    }

    #[test]
    fn the_server_reads_what_the_client_writes() {
        let name = || "cache-1.eu_a".to_owned();
        for command in [
            Command::Status,
            Command::Service(name()),
            Command::Service("a b/é".into()),
            Command::Sessions(None),
            Command::Sessions(Some(name())),
            Command::Events(Window::default()),
            Command::Events(Window {
                follow: true,
                since: Some(600),
            }),
            Command::Pause(name()),
            Command::Resume(name()),
            Command::Pin(name(), "10.0.0.1:6379".parse().unwrap()),
            Command::Unpin(name()),
            Command::Failover(name(), Ask::default()),
            Command::Failover(
                name(),
                Ask {
                    to: "10.0.0.1:6379".parse().ok(),
                    timeout: Duration::from_millis(1500),
                    dry_run: true,
                    old: Old::Gone,
                },
            ),
            Command::Drain,
            Command::Undrain,
            Command::Reload,
            Command::Config,
            Command::Region(Region::Status),
        ] {
            assert_eq!(parsed(&command), Ok(command));
        }
    }

    #[test]
    fn what_is_no_command() {
        for path in [
            "",
            "/",
            "/v1",
            "/v1/",
            "/v1/services",
            "/v1/services/",
            "/v1/status/",
            "//v1/status",
            "/v1/services/a/b",
            "/v1/services/%zz",
            "/V1/status",
            "*",
        ] {
            assert_eq!(ask(&Method::GET, path), Err(Unknown::Path), "{path}");
        }
        let get = Err(Unknown::Method { allow: "GET" });
        assert_eq!(ask(&Method::POST, "/v1/status"), get);
        assert_eq!(ask(&Method::DELETE, "/v1/services/a"), get);
        let post = Err(Unknown::Method { allow: "POST" });
        assert_eq!(ask(&Method::GET, "/v1/drain"), post);
        assert_eq!(ask(&Method::GET, "/v1/services/a/pin"), post);
        let nothing = ask(&Method::POST, "/v1/services/a/pin");
        assert!(matches!(nothing, Err(Unknown::Content(_))), "{nothing:?}");
    }

    #[test]
    fn a_failover_may_be_asked_for_in_few_words() {
        let read = FailoverBody::read;
        assert_eq!(read(b""), Ok(Ask::default()));
        assert_eq!(read(b"{}"), Ok(Ask::default()));
        let minute = read(br#"{"timeout": "1m", "old_primary": "serves"}"#).unwrap();
        assert_eq!(minute.timeout, Duration::from_secs(60));
        for wrong in [
            &br#"{"too": "a:1"}"#[..],
            br#"{"to": "a"}"#,
            br#"{"timeout": 30}"#,
            br#"{"timeout": "30"}"#,
            br#"{"timeout": "999ms"}"#,
            br#"{"timeout": "61m"}"#,
            br#"{"timeout": "99999999999999999999s"}"#,
            br#"{"old_primary": "dead"}"#,
        ] {
            let told = read(wrong);
            assert!(matches!(told, Err(Unknown::Content(_))), "{told:?}");
        }
    }

    #[test]
    fn times_ago() {
        for (text, seconds) in [
            ("30s", Some(30)),
            ("10m", Some(600)),
            ("2h", Some(7200)),
            ("1d", Some(86400)),
            ("", None),
            ("10", None),
            ("m", None),
            ("-1m", None),
            ("99999999999999999999d", None),
            ("9999999999999999999d", None),
            ("10é", None),
        ] {
            assert_eq!(ago(text), seconds, "{text}");
        }
    }
}
