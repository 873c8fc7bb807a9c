//! What one reading of a config finds. Every mistake is noted and none ends the reading, so that one
//! run reports them all.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::de::DeValue;

use super::error::{ConfigError, Warning};
use super::load::Outside;

/// More would help nobody, and a hostile file could ask for millions.
const MOST_ERRORS: usize = 100;

/// What one reading of a config found.
pub struct Report<'o> {
    pub outside: &'o dyn Outside,
    errors: RefCell<Vec<ConfigError>>,
    warnings: RefCell<Vec<Warning>>,
    /// Keys asked for, without indices, and whether the text has them.
    keys: RefCell<BTreeMap<String, bool>>,
    text: &'o str,
    /// Where lines with syntax errors begin. What else seems wrong there follows from those, and
    /// what is missing may stand there.
    torn: RefCell<BTreeSet<usize>>,
}

/// A place in the config that something can be said about.
#[derive(Clone, Debug)]
pub struct Spot {
    pub key: String,
    pub span: Range<usize>,
}

/// Why a value is not right, and what would be.
#[derive(Debug)]
pub struct Bad {
    pub message: String,
    pub help: String,
}

impl Bad {
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
        }
    }

    pub fn kind(value: &DeValue, wanted: &str, help: &str) -> Self {
        let (a, found) = match value.type_str() {
            found @ ("integer" | "array") => ("an", found),
            found => ("a", found),
        };
        Self::new(format!("{wanted} is wanted here, not {a} {found}"), help)
    }
}

impl<'o> Report<'o> {
    pub fn new(text: &'o str, outside: &'o dyn Outside) -> Self {
        Self {
            outside,
            errors: RefCell::default(),
            warnings: RefCell::default(),
            keys: RefCell::default(),
            text,
            torn: RefCell::default(),
        }
    }

    pub fn error(&self, spot: &Spot, bad: Bad) {
        if !self.torn.borrow().is_empty() && self.torn.borrow().contains(&self.line(&spot.span)) {
            return;
        }
        self.push(spot, bad);
    }

    fn push(&self, spot: &Spot, bad: Bad) {
        let mut errors = self.errors.borrow_mut();
        if errors.len() > MOST_ERRORS {
            return;
        }
        if errors.len() == MOST_ERRORS {
            errors.push(ConfigError {
                key: String::new(),
                message: format!("more than {MOST_ERRORS} mistakes: the others are not shown"),
                help: "correct these first".to_owned(),
                span: usize::MAX..usize::MAX,
            });
            return;
        }
        errors.push(ConfigError {
            key: spot.key.clone(),
            message: bad.message,
            help: bad.help,
            span: spot.span.clone(),
        });
    }

    /// Nothing that is noted from now on would be reported.
    pub fn is_full(&self) -> bool {
        self.errors.borrow().len() > MOST_ERRORS
    }

    /// Something has to be there and is not.
    pub fn missing(&self, spot: &Spot, bad: Bad) {
        if self.torn.borrow().is_empty() {
            self.error(spot, bad);
        }
    }

    /// Where the line begins that `span` begins in.
    fn line(&self, span: &Range<usize>) -> usize {
        self.text
            .get(..span.start)
            .and_then(|before| before.rfind('\n'))
            .map_or(0, |at| at + 1)
    }

    pub fn syntax(&self, span: Range<usize>, message: &str) {
        if !self.torn.borrow_mut().insert(self.line(&span)) {
            return;
        }
        let help = "the file has to be TOML: https://toml.io/en/v1.0.0";
        self.push(
            &Spot {
                key: String::new(),
                span,
            },
            Bad::new(format!("syntax: {message}"), help),
        );
    }

    pub fn warn(&self, spot: &Spot, message: impl Into<String>, help: impl Into<String>) {
        let mut warnings = self.warnings.borrow_mut();
        if warnings.len() < MOST_ERRORS {
            warnings.push(Warning {
                key: spot.key.clone(),
                message: message.into(),
                help: help.into(),
                span: spot.span.clone(),
            });
        }
    }

    /// `key`, without indices, was asked for.
    pub fn note(&self, key: String, given: bool) {
        *self.keys.borrow_mut().entry(key).or_default() |= given;
    }

    pub fn knows(&self, key: &str) -> bool {
        self.keys.borrow().contains_key(key)
    }

    pub fn keys(&self) -> BTreeMap<String, bool> {
        self.keys.borrow().clone()
    }

    /// Errors and warnings, in the order of the text.
    pub fn finish(self) -> (Vec<ConfigError>, Vec<Warning>) {
        let mut errors = self.errors.into_inner();
        let mut warnings = self.warnings.into_inner();
        errors.sort_by_key(|e| e.span.start);
        warnings.sort_by_key(|w| w.span.start);
        (errors, warnings)
    }
}
