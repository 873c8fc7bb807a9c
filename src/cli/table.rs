//! Text in columns, at most [`WIDTH`] wide. What is printed came over a socket from others who heard
//! it from others: control characters are taken out.

/// Of a line, in characters.
pub const WIDTH: usize = 100;

/// Its head, and how wide it may become.
#[derive(Clone, Copy, Debug)]
pub struct Column(pub &'static str, pub usize);

/// A table with two blanks between its columns; what is too long for one is cut. The last column may
/// have the rest of the line.
pub fn text<const N: usize>(indent: &str, columns: &[Column; N], rows: &[[String; N]]) -> String {
    let heads = columns.map(|column| column.0.to_owned());
    let lines: Vec<&[String; N]> = std::iter::once(&heads).chain(rows).collect();
    let mut left = WIDTH - indent.len();
    let mut text: Vec<String> = vec![String::new(); lines.len()];
    for (at, Column(_, most)) in columns.iter().enumerate() {
        let last = at + 1 == N;
        let most = if last { left } else { left.min(*most) };
        let cells: Vec<String> = lines.iter().map(|l| shortened(&l[at], most)).collect();
        let width = cells.iter().map(|cell| cell.chars().count()).max();
        let width = width.unwrap_or(0);
        for (line, cell) in text.iter_mut().zip(cells) {
            *line += &format!("{cell:width$}  ");
        }
        left = left.saturating_sub(width + 2);
    }
    let line = |line: &String| format!("{indent}{}\n", line.trim_end());
    text.iter().map(line).collect()
}

fn shortened(text: &str, most: usize) -> String {
    let text = clean(text);
    if text.chars().count() <= most {
        return text;
    }
    let kept = text.chars().take(most.saturating_sub(1));
    kept.chain(['…']).collect()
}

/// `text` without control characters.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// `text` in lines that fit; all but the first are set in.
pub fn wrapped(indent: &str, text: &str) -> String {
    let mut lines = String::new();
    let mut line = indent.to_owned();
    let mut empty = true;
    for word in clean(text).split_whitespace() {
        let room = WIDTH.saturating_sub(line.chars().count() + usize::from(!empty));
        if !empty && word.chars().count() > room {
            lines += &line;
            lines.push('\n');
            line = format!("{indent}  ");
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        let room = WIDTH.saturating_sub(line.chars().count());
        line += &shortened(word, room.max(1));
        empty = false;
    }
    lines + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let columns = [Column("A", 5), Column("BB", 0)];
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        let table = text(" ", &columns, &[row("x", "yé"), row("too long", "1\n2")]);
        assert_eq!(table, " A      BB\n x      yé\n too …  1 2\n");
        let table = text(" ", &columns, &[row("x", &"y".repeat(200))]);
        let longest = table.lines().map(|line| line.chars().count()).max();
        assert_eq!(longest, Some(WIDTH));
    }

    #[test]
    fn long_lines_are_wrapped_between_words() {
        let word = "x".repeat(40);
        let text = wrapped("  ", &format!("{word} {word} {word} {}", "y".repeat(120)));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], format!("  {word} {word}"));
        assert_eq!(lines[1], format!("    {word}"));
        assert_eq!(lines[2].chars().count(), 100);
        assert_eq!(lines.len(), 3);
    }
}
