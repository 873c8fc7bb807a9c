//! Record sets: what a name answers for one type. Never empty, checked once, compared without regard
//! to order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

pub use super::name::Name;

/// A set larger than this is not one that a cutover moves (and no answer makes us hold more).
pub const MAX_VALUES: usize = 100;
/// RFC 2181, section 8: a TTL has 31 bits.
pub const MAX_TTL: u32 = i32::MAX as u32;

/// Why a text is not a record set. The text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error(
        "`{0}` is not the name of a host: labels of letters, digits, `-` and `_`, at least two of them"
    )]
    Name(String),
    #[error("`{0}` is not a record type that is known here: A, AAAA, CNAME and TXT are")]
    Type(String),
    #[error("`{value}` is not a value for a record of type {rtype}")]
    Value { rtype: RecordType, value: String },
    #[error("a record set cannot be empty")]
    Empty,
    #[error("a record set has at most {MAX_VALUES} values, and one of type CNAME has one")]
    TooMany,
    #[error("{0} is not a TTL: at most {MAX_TTL} seconds")]
    Ttl(u64),
}

/// The types that a cutover moves, and TXT, in which it may leave word for others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordType {
    A,
    Aaaa,
    Cname,
    Txt,
}

impl RecordType {
    pub const ALL: [Self; 4] = [Self::A, Self::Aaaa, Self::Cname, Self::Txt];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Txt => "TXT",
        }
    }
}

impl FromStr for RecordType {
    type Err = RecordError;

    fn from_str(text: &str) -> Result<Self, RecordError> {
        let found = Self::ALL.into_iter().find(|t| t.as_str() == text);
        found.ok_or_else(|| RecordError::Type(text.chars().take(20).collect()))
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What names a record set: `shop.example.com A`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub name: Name,
    pub rtype: RecordType,
}

impl Key {
    pub fn new(name: Name, rtype: RecordType) -> Self {
        Self { name, rtype }
    }
}

impl FromStr for Key {
    type Err = RecordError;

    /// As the config writes it: name, space, type.
    fn from_str(text: &str) -> Result<Self, RecordError> {
        let (name, rtype) = text.trim().rsplit_once(' ').unwrap_or((text, ""));
        Ok(Self::new(name.trim_end().parse()?, rtype.parse()?))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.rtype)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The values of a set, in their parsed form: two spellings of one address are one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    A(BTreeSet<Ipv4Addr>),
    Aaaa(BTreeSet<Ipv6Addr>),
    Cname(Name),
    Txt(BTreeSet<Text>),
}

/// What a TXT record says, in one piece and in characters that no provider quotes or escapes in a way of
/// its own: letters, digits, space and `-_.,:;=+/@`, at most 255 of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(Box<str>);

impl FromStr for Text {
    type Err = ();

    /// With or without the quotes of a zone file around it.
    fn from_str(text: &str) -> Result<Self, ()> {
        let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
        let text = inner.unwrap_or(text);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b" -_.,:;=+/@".contains(&b);
        // RFC 1035, section 3.3.14: one string has its length in one byte.
        match (1..=255).contains(&text.len()) && text.bytes().all(plain) {
            true => Ok(Self(text.into())),
            false => Err(()),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Values {
    /// From texts as providers write them; a CNAME may end with a dot.
    ///
    /// # Errors
    /// When there is none, one is not of this type, or there are too many.
    pub fn parse<'a>(
        rtype: RecordType,
        texts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, RecordError> {
        let texts: BTreeSet<&str> = texts.into_iter().take(MAX_VALUES + 1).collect();
        let limit = match rtype {
            RecordType::Cname => 1,
            RecordType::A | RecordType::Aaaa | RecordType::Txt => MAX_VALUES,
        };
        let Some(first) = texts.first() else {
            return Err(RecordError::Empty);
        };
        if texts.len() > limit {
            return Err(RecordError::TooMany);
        }
        let bad = |value: &str| RecordError::Value {
            rtype,
            value: value.chars().take(80).collect(),
        };
        Ok(match rtype {
            RecordType::A => Self::A(each(&texts).map_err(bad)?),
            RecordType::Aaaa => Self::Aaaa(each(&texts).map_err(bad)?),
            RecordType::Txt => Self::Txt(each(&texts).map_err(bad)?),
            RecordType::Cname => Self::Cname(first.parse().map_err(|_| bad(first))?),
        })
    }

    pub fn rtype(&self) -> RecordType {
        match self {
            Self::A(_) => RecordType::A,
            Self::Aaaa(_) => RecordType::Aaaa,
            Self::Cname(_) => RecordType::Cname,
            Self::Txt(_) => RecordType::Txt,
        }
    }

    /// The values as text in a stable order; a CNAME without its final dot, a TXT without quotes.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::Txt(texts) => texts.iter().map(ToString::to_string).collect(),
            Self::A(addrs) => addrs.iter().map(ToString::to_string).collect(),
            Self::Aaaa(addrs) => addrs.iter().map(ToString::to_string).collect(),
            Self::Cname(name) => vec![name.to_string()],
        }
    }
}

/// One of [`Values::texts`] as a zone file has it: a CNAME with its final dot, a TXT in quotes.
pub fn zone_text(rtype: RecordType, text: &str) -> String {
    match rtype {
        RecordType::A | RecordType::Aaaa => text.to_owned(),
        RecordType::Cname => format!("{text}."),
        RecordType::Txt => format!("\"{text}\""),
    }
}

fn each<'a, T: FromStr + Ord>(texts: &BTreeSet<&'a str>) -> Result<BTreeSet<T>, &'a str> {
    texts
        .iter()
        .map(|text| text.parse().map_err(|_| *text))
        .collect()
}

/// All records of one name and type, with their common TTL in seconds. Never empty: it cannot be made so.
#[derive(Clone, PartialEq, Eq)]
pub struct RrSet {
    name: Name,
    ttl: u32,
    values: Values,
}

impl RrSet {
    /// # Errors
    /// When there is no value, one is not of this type, there are too many, or the TTL is none.
    pub fn parse<'a>(
        key: &Key,
        ttl: u64,
        values: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, RecordError> {
        let values = Values::parse(key.rtype, values)?;
        Ok(Self {
            name: key.name.clone(),
            ttl: check_ttl(ttl)?,
            values,
        })
    }

    /// The same set with another TTL.
    ///
    /// # Errors
    /// When the TTL is none.
    pub fn with_ttl(&self, ttl: u64) -> Result<Self, RecordError> {
        Ok(Self {
            ttl: check_ttl(ttl)?,
            ..self.clone()
        })
    }

    pub fn key(&self) -> Key {
        Key::new(self.name.clone(), self.rtype())
    }

    pub fn name(&self) -> &Name {
        &self.name
    }

    pub fn rtype(&self) -> RecordType {
        self.values.rtype()
    }

    /// Seconds.
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The values as text; a CNAME without its final dot, a TXT without quotes.
    pub fn texts(&self) -> Vec<String> {
        self.values.texts()
    }

    /// The values as a zone file has them.
    pub fn zone_texts(&self) -> Vec<String> {
        let texts = self.texts().into_iter();
        texts.map(|text| zone_text(self.rtype(), &text)).collect()
    }
}

fn check_ttl(ttl: u64) -> Result<u32, RecordError> {
    let fits = u32::try_from(ttl).ok().filter(|ttl| *ttl <= MAX_TTL);
    fits.ok_or(RecordError::Ttl(ttl))
}

impl fmt::Display for RrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, ttl, rtype) = (&self.name, self.ttl, self.rtype());
        write!(f, "{name} {ttl} {rtype} {}", self.texts().join(" "))
    }
}

impl fmt::Debug for RrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Record sets by name and type. A key that is missing has no records.
pub type Records = BTreeMap<Key, RrSet>;

/// Collects sets into [`Records`].
pub fn records(sets: impl IntoIterator<Item = RrSet>) -> Records {
    sets.into_iter().map(|set| (set.key(), set)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    #[test]
    fn a_set_is_its_values_and_not_their_spelling() {
        let aaaa = key("shop.example.com AAAA");
        let one = RrSet::parse(&aaaa, 60, ["2001:db8::1", "2001:DB8:0::2"]).unwrap();
        let two = RrSet::parse(&aaaa, 60, ["2001:db8::2", "2001:db8:0:0::1"]).unwrap();
        assert_eq!(one, two);
        assert_eq!(
            one.to_string(),
            "shop.example.com 60 AAAA 2001:db8::1 2001:db8::2"
        );
        assert_ne!(one, one.with_ttl(30).unwrap());
        let cname = key("shop.example.com CNAME");
        let dotted = RrSet::parse(&cname, 60, ["LB.example.net."]).unwrap();
        assert_eq!(dotted.texts(), ["lb.example.net"]);
    }

    #[test]
    fn what_is_no_set_is_refused() {
        let a = key("shop.example.com A");
        let many: Vec<String> = (0..=MAX_VALUES)
            .map(|n| format!("10.0.{}.{}", n / 250, n % 250))
            .collect();
        for (values, ttl, said) in [
            (vec![], 60, "empty"),
            (vec!["2001:db8::1"], 60, "not a value"),
            (vec!["[remote_addr]"], 60, "not a value"),
            (vec!["192.0.2.1"], 1 << 31, "not a TTL"),
            (many.iter().map(String::as_str).collect(), 60, "at most"),
        ] {
            let error = RrSet::parse(&a, ttl, values).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let cname = key("shop.example.com CNAME");
        assert_eq!(
            RrSet::parse(&cname, 60, ["a.example", "b.example"]),
            Err(RecordError::TooMany)
        );
        let txt = key("_cutover.shop.example.com TXT");
        let quoted = RrSet::parse(&txt, 60, ["\"epoch=7; held by app-01\""]).unwrap();
        assert_eq!(quoted.texts(), ["epoch=7; held by app-01"]);
        assert_eq!(quoted.zone_texts(), ["\"epoch=7; held by app-01\""]);
        let long = "x".repeat(256);
        for bad in ["", "a\"b", "a\\b", "\"a\" \"b\"", "é", long.as_str()] {
            assert!(RrSet::parse(&txt, 60, [bad]).is_err(), "{bad}");
        }
        assert!("shop.example.com MX".parse::<Key>().is_err());
        assert!("shop.example.com".parse::<Key>().is_err());
    }
}
