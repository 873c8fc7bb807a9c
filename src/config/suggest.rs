//! "Did you mean": the known word that a mistyped one is nearest to.

/// Longer words are not mistyped ones, and would take long to compare.
const LONGEST: usize = 40;

/// The word of `known` that `word` was probably meant to be.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > LONGEST {
        return None;
    }
    let folded = word.to_ascii_lowercase().replace('-', "_");
    let near = known.iter().map(|k| (distance(&folded, k), *k));
    let (distance, best) = near.min_by_key(|(distance, _)| *distance)?;
    (distance <= (best.len() / 3).max(1)).then_some(best)
}

/// Edits between two words, two swapped neighbours being one edit (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_or_none() {
        let known = ["listen", "hold_timeout", "max_held", "name", "kind"];
        for (word, meant) in [
            ("lisen", Some("listen")),
            ("listne", Some("listen")),
            ("hold-timeout", Some("hold_timeout")),
            ("Max_Held", Some("max_held")),
            ("nmae", Some("name")),
            ("weight", None),
            ("", None),
            (&"x".repeat(1000), None),
        ] {
            assert_eq!(nearest(word, &known), meant, "{word}");
        }
    }
}
