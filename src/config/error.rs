//! What is wrong with a config, or dubious, and where.

use std::fmt;
use std::ops::Range;

/// A reason to refuse the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// `service[0].discovery.sentinels[1]`; empty where it is about the file as a whole.
    pub key: String,
    pub message: String,
    /// What would be right.
    pub help: String,
    /// Bytes of the text it is about.
    pub span: Range<usize>,
}

/// Valid, but perhaps not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub key: String,
    pub message: String,
    pub help: String,
    /// Bytes of the text it is about.
    pub span: Range<usize>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_line(f, &self.key, &self.message, &self.help)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_line(f, &self.key, &self.message, &self.help)
    }
}

fn write_line(f: &mut fmt::Formatter<'_>, key: &str, message: &str, help: &str) -> fmt::Result {
    if !key.is_empty() {
        write!(f, "{key}: ")?;
    }
    f.write_str(message)?;
    if !help.is_empty() {
        write!(f, " ({help})")?;
    }
    Ok(())
}

/// Line and column, both from 1, of a byte of `text`. Columns count characters; what lies behind
/// the end is at the end.
pub fn locate(text: &str, offset: usize) -> (usize, usize) {
    let mut line = 1;
    let mut column = 1;
    for (_, c) in text.char_indices().take_while(|(at, _)| *at < offset) {
        if c == '\n' {
            line += 1;
            column = 1;
        } else {
            column += 1;
        }
    }
    (line, column)
}

/// A piece of the user's text fit for a message: one line, not long, no control characters.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let mut out: String = text
        .chars()
        .take(MOST)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(MOST).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (offset, place) in [
            (0, (1, 1)),
            (1, (1, 2)),
            (3, (1, 3)),
            (4, (2, 1)),
            (99, (2, 2)),
        ] {
            assert_eq!(locate("aé\nb", offset), place, "byte {offset}");
        }
    }

    #[test]
    fn shown_text_is_short_and_harmless() {
        assert_eq!(shown("a\x1b[31m"), "a\\u{1b}[31m");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), 61);
    }
}
