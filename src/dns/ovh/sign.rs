//! How a request to OVHcloud is signed, and what a consumer key may do.

use data_encoding::HEXLOWER;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde::Deserialize;

use crate::secret::Secret;

/// What the signature of one request is made of.
pub struct Signing<'a> {
    pub application_secret: &'a Secret,
    pub consumer_key: &'a Secret,
    pub method: &'a str,
    /// With the query, as it goes out.
    pub url: &'a str,
    pub body: &'a [u8],
    /// Unix seconds on OVH's clock.
    pub timestamp: i64,
}

impl Signing<'_> {
    /// `$1$` and the SHA-1 of everything with `+` in between (ovh/go-ovh).
    pub fn signature(&self) -> String {
        let mut text = Vec::new();
        let time = self.timestamp.to_string();
        let parts: [&[u8]; 6] = [
            self.application_secret.expose().as_bytes(),
            self.consumer_key.expose().as_bytes(),
            self.method.as_bytes(),
            self.url.as_bytes(),
            self.body,
            time.as_bytes(),
        ];
        for (n, part) in parts.into_iter().enumerate() {
            if n > 0 {
                text.push(b'+');
            }
            text.extend_from_slice(part);
        }
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &text);
        format!("$1${}", HEXLOWER.encode(hash.as_ref()))
    }
}

/// `GET /auth/currentCredential`.
#[derive(Debug, Deserialize)]
pub struct Credential {
    pub status: String,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    method: String,
    path: String,
}

impl Credential {
    /// Whether a rule allows this. A path's `*` stands for anything, slashes too.
    pub fn allows(&self, method: &str, path: &str) -> bool {
        let allows = |rule: &Rule| rule.method == method && matches(&rule.path, path);
        self.rules.iter().any(allows)
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = path.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of ovh/go-ovh's own tests.
    #[test]
    fn the_known_answers_are_given() {
        let application_secret = &Secret::new("9ufkBmLaTQ9nz5yMUlg79taH0GNnzDjk".to_owned());
        let consumer_key = &Secret::new("5mBuy6SUQcRw2ZUxg0cG68BoDKpED4KY".to_owned());
        let auth = "https://eu.api.ovh.com/1.0/auth";
        for (method, url, body, known) in [
            (
                "GET",
                auth,
                "",
                "$1$e9556054b6309771395efa467c22e627407461ad",
            ),
            (
                "DELETE",
                auth,
                "",
                "$1$a1eecd00b3b02b6cf5708b84b9ff42059a950d85",
            ),
            (
                "POST",
                auth,
                r#"{"a":"b","c":"d"}"#,
                "$1$ec2fb5c7a81f64723c77d2e5b609ae6f58a84fc1",
            ),
            (
                "GET",
                "https://eu.api.ovh.com/v1/call",
                "",
                "$1$e6e7906d385eb28adcbfbe6b66c1528a42d741ad",
            ),
        ] {
            let signing = Signing {
                application_secret,
                consumer_key,
                method,
                url,
                body: body.as_bytes(),
                timestamp: 1_457_018_875,
            };
            assert_eq!(signing.signature(), known, "{method} {url}");
        }
    }

    #[test]
    fn rules_are_matched_as_a_whole() {
        for (pattern, path, yes) in [
            (
                "/domain/zone/example.com/*",
                "/domain/zone/example.com/refresh",
                true,
            ),
            (
                "/domain/zone/example.com/record/*",
                "/domain/zone/example.com/refresh",
                false,
            ),
            (
                "/domain/zone/example.com/refresh",
                "/domain/zone/example.com/refresh",
                true,
            ),
            (
                "/domain/zone/example.com",
                "/domain/zone/example.com/refresh",
                false,
            ),
            (
                "/domain/*/refresh",
                "/domain/zone/example.com/refresh",
                true,
            ),
            ("/domain/*/x/*", "/domain/zone/example.com/refresh", false),
            ("/*", "/domain/zone/example.com/refresh", true),
            ("*", "/x", true),
        ] {
            assert_eq!(matches(pattern, path), yes, "{pattern} {path}");
        }
    }
}
