//! Text that is HTML, made so that nothing else can get into it: what is fixed stands in the program,
//! and what comes from anywhere else is escaped.

/// A piece of a page. There is no way to make one of somebody's text without escaping it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Html(String);

impl Html {
    /// What the program itself says.
    pub fn fixed(markup: &'static str) -> Self {
        Self(markup.to_owned())
    }

    /// Somebody's text: fit for the content of an element, and for an attribute in double quotes.
    pub fn text(text: &str) -> Self {
        let mut safe = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '&' => safe.push_str("&amp;"),
                '<' => safe.push_str("&lt;"),
                '>' => safe.push_str("&gt;"),
                '"' => safe.push_str("&quot;"),
                '\'' => safe.push_str("&#39;"),
                c if misleads(c) => safe.push('\u{fffd}'),
                c => safe.push(c),
            }
        }
        Self(safe)
    }

    /// A number.
    pub fn number(number: impl Into<i128>) -> Self {
        Self(number.into().to_string())
    }

    /// All of them, one after the other.
    pub fn all(pieces: impl IntoIterator<Item = Self>) -> Self {
        let mut whole = Self::default();
        for piece in pieces {
            whole.0.push_str(&piece.0);
        }
        whole
    }

    /// `template` with a piece in each `{{place}}`. A place without a piece stays empty.
    pub fn fill(template: &'static str, pieces: &[(&str, Self)]) -> Self {
        let mut out = String::with_capacity(template.len() * 2);
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((place, after)) = after.split_once("}}") else {
                break;
            };
            out.push_str(before);
            let piece = pieces.iter().find(|(name, _)| *name == place);
            debug_assert!(piece.is_some(), "nothing fills {place}");
            out.push_str(piece.map_or("", |(_, piece)| &piece.0));
            rest = after;
        }
        out.push_str(rest);
        Self(out)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[cfg(test)]
    pub fn into_string(self) -> String {
        self.0
    }
}

/// Control characters, and those that turn the order of what follows around.
fn misleads(c: char) -> bool {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn somebodys_text_stays_text() {
        let evil = "<script>alert('1')</script>\" onload=\"x\" &lt; \u{202e}\0\n";
        let safe = Html::text(evil).into_string();
        assert!(
            !safe.contains(['<', '>', '"', '\'', '\0', '\n', '\u{202e}']),
            "{safe}"
        );
        assert!(
            safe.starts_with("&lt;script&gt;") && safe.contains("&amp;lt;"),
            "{safe}"
        );
    }

    #[test]
    fn places_are_filled_once() {
        let pieces = [("a", Html::text("{{b}}")), ("b", Html::number(7_u8))];
        let filled = Html::fill("<p>{{a}}, {{b}}</p>{{a}} {{", &pieces);
        assert_eq!(filled.as_str(), "<p>{{b}}, 7</p>{{b}} {{");
    }

    proptest! {
        #[test]
        fn no_text_gets_out_of_an_attribute(text in any::<String>()) {
            let safe = Html::text(&text).into_string();
            prop_assert!(!safe.contains(['<', '>', '"', '\'']));
            prop_assert!(!safe.chars().any(char::is_control));
        }
    }
}
