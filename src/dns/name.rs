//! Names in the DNS.

use std::fmt;
use std::str::FromStr;

use super::record::RecordError;

/// A name in the DNS: absolute, in lower case, without the final dot. Wildcards are none: what they
/// answer cannot be asked for by their own name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

impl Name {
    /// Without the final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// With the final dot.
    pub fn absolute(&self) -> String {
        format!("{}.", self.0)
    }

    /// Whether the name is `zone` or below it.
    pub fn is_within(&self, zone: &Self) -> bool {
        self.relative_to(zone).is_some()
    }

    /// The part before `zone`: empty for the zone itself, `None` outside of it.
    pub fn relative_to(&self, zone: &Self) -> Option<&str> {
        let before = self.0.strip_suffix(&*zone.0)?;
        if before.is_empty() {
            return Some("");
        }
        before.strip_suffix('.')
    }

    /// The name without its first label, while that leaves at least one label.
    pub fn parent(&self) -> Option<&str> {
        self.0.split_once('.').map(|(_, parent)| parent)
    }
}

impl FromStr for Name {
    type Err = RecordError;

    fn from_str(text: &str) -> Result<Self, RecordError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let label_ok = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        // 255 bytes on the wire are 253 written ones.
        if name.len() > 253 || numeric || !name.contains('.') || !name.split('.').all(label_ok) {
            return Err(RecordError::Name(text.chars().take(80).collect()));
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_know_their_zone() {
        let zone: Name = "Example.COM.".parse().unwrap();
        for (name, relative) in [
            ("example.com", Some("")),
            ("shop.example.com.", Some("shop")),
            ("a.b.example.com", Some("a.b")),
            ("myexample.com", None),
            ("example.org", None),
        ] {
            let name: Name = name.parse().unwrap();
            assert_eq!(name.relative_to(&zone), relative, "{name}");
        }
        for bad in [
            "",
            ".",
            "com",
            "a..b",
            "-a.b",
            "*.example.com",
            "10.0.0.1",
            "a b.c",
            "é.fr",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        assert!(format!("{}.com", "a".repeat(64)).parse::<Name>().is_err());
    }
}
