//! One line of the journal: sixteen hexadecimal digits, a blank, JSON.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::Entry;

/// What stands for the checksum of the line before the first.
pub const BEGINNING: &str = "0000000000000000";
const DIGITS: usize = BEGINNING.len();

fn sum(before: &str, json: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(json);
    let mut text = HEXLOWER.encode(&hash.finalize());
    text.truncate(DIGITS);
    text
}

/// The line and its checksum.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn write(entry: &Entry, before: &str) -> std::io::Result<(String, String)> {
    let json = serde_json::to_string(entry)?;
    let sum = sum(before, &json);
    Ok((format!("{sum} {json}\n"), sum))
}

/// What a whole line says, and its checksum.
///
/// # Errors
/// When it is not one that [`write`] has written after the one with the checksum `before`.
pub fn parse(line: &[u8], before: &str) -> Result<(Entry, String), String> {
    let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let (found, json) = text.split_once(' ').ok_or("it has no checksum")?;
    let right = sum(before, json);
    if found != right {
        return Err("its checksum is wrong, or a line before it is missing".to_owned());
    }
    let entry = serde_json::from_str(json).map_err(|error| error.to_string())?;
    Ok((entry, right))
}
