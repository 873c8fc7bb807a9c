//! A typed reader over TOML tables. Every key that is asked for is noted, so that what is left over
//! can be refused.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::shown;
use super::report::{Bad, Report, Spot};
use super::suggest::nearest;

/// A value and where it stands.
pub struct Item<'a> {
    pub spot: Spot,
    pub value: &'a DeValue<'a>,
}

/// A table that is being read; [`Table::finish`] refuses what nobody asked for.
pub struct Table<'a> {
    /// `None`: the text does not have the table, so all its keys have their defaults.
    entries: Option<&'a DeTable<'a>>,
    pub spot: Spot,
    /// The key without indices.
    plain: String,
    asked: Vec<&'static str>,
    report: &'a Report<'a>,
}

impl<'a> Table<'a> {
    pub fn root(entries: &'a DeTable<'a>, report: &'a Report<'a>) -> Self {
        let spot = Spot {
            key: String::new(),
            span: 0..0,
        };
        Self {
            entries: Some(entries),
            spot,
            plain: String::new(),
            asked: Vec::new(),
            report,
        }
    }

    /// The table that `item`, an element of the list `key`, is.
    pub fn element(&self, item: &Item<'a>, key: &str) -> Option<Self> {
        let Some(entries) = item.value.as_table() else {
            let help = format!(
                "write `[[{}]]` and its keys below",
                header(&self.plain, key)
            );
            self.report
                .error(&item.spot, Bad::kind(item.value, "a table", &help));
            return None;
        };
        Some(Self {
            entries: Some(entries),
            spot: item.spot.clone(),
            plain: format!("{}[]", join(&self.plain, key)),
            asked: Vec::new(),
            report: self.report,
        })
    }

    pub fn report(&self) -> &'a Report<'a> {
        self.report
    }

    /// Whether the text has this table.
    pub fn given(&self) -> bool {
        self.entries.is_some()
    }

    fn entry(&self, key: &str) -> Option<(&'a Spanned<Cow<'a, str>>, Item<'a>)> {
        let (name, value) = self.entries?.get_key_value(key)?;
        let item = Item {
            spot: Spot {
                key: join(&self.spot.key, key),
                span: value.span(),
            },
            value: value.get_ref(),
        };
        Some((name, item))
    }

    /// The value of `key`, as the text has it.
    pub fn item(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.asked.push(key);
        let found = self.entry(key).map(|(_, item)| item);
        self.report.note(join(&self.plain, key), found.is_some());
        found
    }

    /// The value of `key`; `None` when it is not there, or not right, which is then noted.
    pub fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Item<'a>) -> Result<T, Bad>,
    ) -> Option<T> {
        let item = self.item(key)?;
        match parse(&item) {
            Ok(value) => Some(value),
            Err(bad) => {
                self.report.error(&item.spot, bad);
                None
            }
        }
    }

    /// As [`Table::read`], and it has to be there.
    pub fn need<T>(
        &mut self,
        key: &'static str,
        help: &str,
        parse: impl FnOnce(&Item<'a>) -> Result<T, Bad>,
    ) -> Option<T> {
        if self.entry(key).is_none() {
            self.missing(key, help);
        }
        self.read(key, parse)
    }

    /// Says that `key` has to be there.
    pub fn missing(&self, key: &str, help: &str) {
        let spot = Spot {
            key: join(&self.spot.key, key),
            span: self.spot.span.clone(),
        };
        self.report
            .missing(&spot, Bad::new(format!("`{key}` is missing"), help));
    }

    /// The elements of the list `key`; `None` when it is not there or no list.
    pub fn items(&mut self, key: &'static str, help: &str) -> Option<Vec<Item<'a>>> {
        let item = self.item(key)?;
        let Some(array) = item.value.as_array() else {
            self.report
                .error(&item.spot, Bad::kind(item.value, "a list", help));
            return None;
        };
        let element = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| Item {
            spot: Spot {
                key: format!("{}[{index}]", item.spot.key),
                span: value.span(),
            },
            value: value.get_ref(),
        };
        Some(array.iter().enumerate().map(element).collect())
    }

    /// As [`Table::items`], and it has to be there with at least one element.
    pub fn need_items(&mut self, key: &'static str, help: &str) -> Option<Vec<Item<'a>>> {
        match self.entry(key) {
            None => self.missing(key, help),
            Some((_, item)) if item.value.as_array().is_some_and(|array| array.is_empty()) => {
                self.report
                    .missing(&item.spot, Bad::new("the list is empty", help));
            }
            Some(_) => {}
        }
        self.items(key, help)
    }

    /// Those of `items` that are right, each with its place.
    pub fn each<T>(
        &self,
        items: Vec<Item<'a>>,
        parse: impl Fn(&Item<'a>) -> Result<T, Bad>,
    ) -> Vec<(T, Spot)> {
        let mut values = Vec::new();
        for item in items {
            match parse(&item) {
                Ok(value) => values.push((value, item.spot)),
                Err(bad) => self.report.error(&item.spot, bad),
            }
        }
        values
    }

    /// The table `key` of this one, which reads as empty when it is not there.
    pub fn section(&mut self, key: &'static str) -> Table<'a> {
        let item = self.item(key);
        let mut entries = None;
        let mut spot = Spot {
            key: join(&self.spot.key, key),
            span: self.spot.span.clone(),
        };
        if let Some(item) = item {
            entries = item.value.as_table();
            if entries.is_none() {
                let help = format!("write `[{}]` and its keys below", header(&self.plain, key));
                self.report
                    .error(&item.spot, Bad::kind(item.value, "a table", &help));
            }
            spot = item.spot;
        }
        Table {
            entries,
            spot,
            plain: join(&self.plain, key),
            asked: Vec::new(),
            report: self.report,
        }
    }

    /// All keys with their places and values, for a table whose keys are data.
    pub fn pairs(self) -> Vec<(&'a str, Spot, Item<'a>)> {
        let mut pairs = Vec::new();
        for (name, value) in self.entries.into_iter().flat_map(|entries| entries.iter()) {
            let text: &'a str = name.get_ref();
            let key = join(&self.spot.key, &format!("\"{}\"", shown(text)));
            let spot = Spot {
                key: key.clone(),
                span: name.span(),
            };
            let item = Item {
                spot: Spot {
                    key,
                    span: value.span(),
                },
                value: value.get_ref(),
            };
            pairs.push((text, spot, item));
        }
        pairs
    }

    /// Where the name of `key` stands, for what is wrong with its being there.
    pub fn name_spot(&self, key: &str) -> Option<Spot> {
        let (name, item) = self.entry(key)?;
        Some(Spot {
            key: item.spot.key,
            span: name.span(),
        })
    }

    /// Whether `key` is not there, or empty, which means the same where it may be empty.
    pub fn is_blank(&self, key: &str) -> bool {
        self.entry(key)
            .is_none_or(|(_, item)| item.value.as_str() == Some(""))
    }

    /// Refuses the keys that nobody asked for.
    pub fn finish(self) {
        for name in self.entries.into_iter().flat_map(|entries| entries.keys()) {
            let key: &str = name.get_ref();
            if self.asked.contains(&key) {
                continue;
            }
            if self.report.is_full() {
                return;
            }
            let mut known: Vec<&str> = self.asked.clone();
            known.retain(|k| self.report.knows(&join(&self.plain, k)));
            known.sort_unstable();
            known.dedup();
            let mut help = format!("known here: {}", known.join(", "));
            if let Some(near) = nearest(key, &known) {
                help = format!("did you mean `{near}`? {help}");
            }
            let spot = Spot {
                key: join(&self.spot.key, &shown(key)),
                span: name.span(),
            };
            self.report.error(
                &spot,
                Bad::new(format!("unknown key `{}`", shown(key)), help),
            );
        }
    }
}

fn join(table: &str, key: &str) -> String {
    if table.is_empty() {
        key.to_owned()
    } else {
        format!("{table}.{key}")
    }
}

/// `service[].discovery` is written `[service.discovery]`.
fn header(plain: &str, key: &str) -> String {
    join(&plain.replace("[]", ""), key)
}
