//! Blots passwords out of a config's text, so that lines of it can be printed.

/// `text` with every value of a key about passwords replaced by as many asterisks, so that
/// places in the text stay what they are. It works on any text, valid or not, and rather blots too
/// much than too little.
pub fn passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('=') {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        rest = after;
        if is_secret(before) {
            let (value, after) = rest.split_at(value_len(rest));
            out.extend(value.chars().flat_map(blot));
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// Whether the key right before the `=` that ends `before` holds a secret itself.
fn is_secret(before: &str) -> bool {
    let key = before
        .trim_end_matches('=')
        .trim_end()
        .trim_end_matches(['"', '\'']);
    let from = key.rfind(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-'));
    let key = from.map_or(key, |from| {
        key[from..].trim_start_matches(|c: char| !c.is_alphanumeric())
    });
    let key = key.to_ascii_lowercase();
    // Mistyped ones too: the message about an unknown key shows its line.
    let about = ["pas", "pwd", "secret", "token"]
        .iter()
        .any(|word| key.contains(word));
    // DNS keys: `key`, `api_key`, `consumer_key`.
    let about = about || key.ends_with("key") || key.starts_with("webhook");
    about && !key.ends_with("_file") && !key.ends_with("_env")
}

/// How many bytes belong to the value that `text` begins with: to the end of the line, or of the
/// text in triple quotes.
fn value_len(text: &str) -> usize {
    let start = text.len() - text.trim_start_matches([' ', '\t']).len();
    // A list, which may go on over many lines.
    if text[start..].starts_with('[') {
        let end = text.find(']').unwrap_or(text.len());
        return end + line_len(&text[end..]);
    }
    for quotes in ["\"\"\"", "'''"] {
        if let Some(inner) = text[start..].strip_prefix(quotes) {
            let end = inner
                .find(quotes)
                .map_or(inner.len(), |end| end + quotes.len());
            let end = start + quotes.len() + end;
            return end + line_len(&text[end..]);
        }
    }
    line_len(text)
}

fn line_len(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// As many bytes as `c` has, with line ends kept.
fn blot(c: char) -> impl Iterator<Item = char> {
    let (with, count) = if matches!(c, '\n' | '\r') {
        (c, 1)
    } else {
        ('*', c.len_utf8())
    };
    std::iter::repeat_n(with, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_blotted_and_nothing_moves() {
        for (text, masked) in [
            (
                "password = \"x\"\nname = \"y\"",
                "password =****\nname = \"y\"",
            ),
            ("sentinel_password=\"x\"", "sentinel_password=***"),
            ("password_file = \"/x\"", "password_file = \"/x\""),
            ("pasword = 'x'", "pasword =****"),
            ("a = { \"password\" = \"x\" }", "a = { \"password\" =******"),
            (
                "password = \"\"\"\nx\"\"\"\nb = 1",
                "password =****\n****\nb = 1",
            ),
            ("password = \"é", "password =****"),
            ("password = \"a=b\"\nc = 1", "password =******\nc = 1"),
            ("key = \"x\"", "key =****"),
            ("api_key=\"x\"", "api_key=***"),
            ("key_name = \"x\"", "key_name = \"x\""),
            ("key_file = \"x\"", "key_file = \"x\""),
            ("name = \"é\"", "name = \"é\""),
            (
                "webhook = [\n\"x\",\n]\na = 1",
                "webhook =**\n****\n*\na = 1",
            ),
            ("webhook = [\n\"x", "webhook =**\n**"),
        ] {
            assert_eq!(passwords(text), masked, "{text}");
            assert_eq!(passwords(text).len(), text.len(), "{text}");
        }
    }
}
