//! What can be asked over the admin socket. A verb is one variant here; the compiler asks for the rest.

use hyper::Method;

/// One request. Both sides use this: the client makes method and path of it, the server reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Everything there is to see.
    Status,
    /// One service of it.
    Service(String),
}

/// Why a request is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    Path,
    /// The path takes these only.
    Method {
        allow: &'static str,
    },
}

impl Command {
    pub fn method(&self) -> Method {
        match self {
            Self::Status | Self::Service(_) => Method::GET,
        }
    }

    pub fn path(&self) -> String {
        match self {
            Self::Status => "/v1/status".to_owned(),
            Self::Service(name) => format!("/v1/services/{}", escaped(name)),
        }
    }

    /// Reads what [`Command::method`] and [`Command::path`] write.
    ///
    /// # Errors
    /// When nothing answers to this path, or not to this method.
    pub fn parse(method: &Method, path: &str) -> Result<Self, Unknown> {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let command = match segments[..] {
            ["v1", "status"] => Self::Status,
            ["v1", "services", name] if !name.is_empty() => Self::Service(name.to_owned()),
            _ => return Err(Unknown::Path),
        };
        if command.method() != *method {
            return Err(Unknown::Method { allow: "GET" });
        }
        Ok(command)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_reads_what_the_client_writes() {
        for command in [Command::Status, Command::Service("cache-1.eu_a".into())] {
            assert_eq!(
                Command::parse(&command.method(), &command.path()),
                Ok(command)
            );
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
            "/V1/status",
            "*",
        ] {
            assert_eq!(
                Command::parse(&Method::GET, path),
                Err(Unknown::Path),
                "{path}"
            );
        }
        let allow = Err(Unknown::Method { allow: "GET" });
        assert_eq!(Command::parse(&Method::POST, "/v1/status"), allow);
        assert_eq!(Command::parse(&Method::DELETE, "/v1/services/a"), allow);
        assert_eq!(escaped("a b/é"), "a%20b%2F%C3%A9");
    }
}
