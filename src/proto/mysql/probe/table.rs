//! Answers to SHOW: names and values as text.

use crate::proto::mysql::packet::{Fields, ServerError};

/// A result set, in the text protocol. NULL is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
}

/// What a server made of one question.
pub type Reply = Result<Table, ServerError>;

/// No question has more columns or rows in its answer.
pub const MOST: usize = 2048;

impl Table {
    /// The value next to `name`, in a table of names and values. Names are compared as SQL does.
    pub fn named(&self, name: &str) -> Option<&str> {
        let row = self.rows.iter().find(|row| {
            let first = row.first().and_then(Option::as_deref);
            first.is_some_and(|first| first.eq_ignore_ascii_case(name))
        })?;
        row.get(1)?.as_deref()
    }

    /// A row's value in the first of these columns that there is; the outer `None`: there is none.
    pub fn cell<'a>(&self, row: &'a [Option<String>], names: &[&str]) -> Option<Option<&'a str>> {
        let is = |column: &String| names.iter().any(|name| column.eq_ignore_ascii_case(name));
        let index = self.columns.iter().position(is)?;
        Some(row.get(index)?.as_deref())
    }
}

/// The name in a column definition (Protocol::ColumnDefinition41: the fifth text).
pub fn column(payload: &[u8]) -> Option<String> {
    let mut fields = Fields(payload);
    for _ in 0..4 {
        text(&mut fields)?;
    }
    text(&mut fields)?
}

/// A row of the text protocol.
pub fn row(payload: &[u8], columns: usize) -> Option<Vec<Option<String>>> {
    let mut fields = Fields(payload);
    let row = (0..columns)
        .map(|_| text(&mut fields))
        .collect::<Option<_>>();
    row.filter(|_| fields.0.is_empty())
}

/// Text with its length before it; the inner `None` is NULL.
fn text(fields: &mut Fields<'_>) -> Option<Option<String>> {
    if fields.0.first() == Some(&0xfb) {
        fields.take(1)?;
        return Some(None);
    }
    let length = usize::try_from(fields.lenenc()?).ok()?;
    let bytes = fields.take(length)?;
    Some(Some(String::from_utf8_lossy(bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns() {
        let payload = b"\x03def\x00\x00\x00\x05Value\x00\x0c";
        assert_eq!(column(payload).as_deref(), Some("Value"));
        assert_eq!(column(b"\x03def\x00\x00"), None);
        let two = row(b"\x02ON\xfb", 2).unwrap();
        assert_eq!(two, [Some("ON".to_owned()), None]);
        for broken in [
            &b"\x02ON"[..],
            b"\x02ON\xfb\x00",
            b"\x05ON\xfb",
            b"\xfe\x01",
            b"",
        ] {
            assert_eq!(row(broken, 2), None, "{broken:?}");
        }
    }

    #[test]
    fn values_by_name() {
        let some = |it: &str| Some(it.to_owned());
        let table = Table {
            columns: vec!["Variable_name".into(), "Value".into()],
            rows: vec![vec![some("wsrep_ready"), some("ON")], vec![some("x"), None]],
        };
        assert_eq!(table.named("WSREP_READY"), Some("ON"));
        assert_eq!((table.named("x"), table.named("y")), (None, None));
        assert_eq!(table.cell(&table.rows[1], &["other", "value"]), Some(None));
        assert_eq!(table.cell(&table.rows[1], &["other"]), None);
    }
}
