//! Which transactions a server has, by their global ids. Pure.
//!
//! Sources: "Global Transaction ID" in the MariaDB documentation (`domain-server-sequence`, the last one of
//! each domain), "GTID Format and Storage" in the MySQL reference manual (sets of intervals per source).

use std::collections::BTreeMap;

/// A set of transactions is text of the server's; only what can stand in one goes back into a statement.
pub fn is_gtid_set(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || ":-,_ \n\r".contains(c);
    text.chars().all(fine)
}

/// MariaDB: for each domain the last transaction. `None`: it is no position.
pub fn position(text: &str) -> Option<BTreeMap<u32, (u32, u64)>> {
    let mut position = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let mut numbers = part.split('-');
        let domain = numbers.next()?.parse().ok()?;
        let server = numbers.next()?.parse().ok()?;
        let sequence = numbers.next()?.parse().ok()?;
        if numbers.next().is_some() || position.insert(domain, (server, sequence)).is_some() {
            return None;
        }
    }
    Some(position)
}

/// MariaDB: whether a server at `have` has everything up to `want`. `None`: one of them is no position.
pub fn covers(have: &str, want: &str) -> Option<bool> {
    let (have, want) = (position(have)?, position(want)?);
    let reached = |(domain, (server, sequence)): (&u32, &(u32, u64))| {
        have.get(domain).is_some_and(|(last, reached)| {
            // The same number by another server is another history.
            reached > sequence || (reached == sequence && last == server)
        })
    };
    Some(want.iter().all(reached))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_of_mariadb() {
        for (have, want, expected) in [
            ("", "", Some(true)),
            ("0-1-5", "", Some(true)),
            ("", "0-1-5", Some(false)),
            ("0-1-5", "0-1-5", Some(true)),
            ("0-1-4", "0-1-5", Some(false)),
            ("0-2-6", "0-1-5", Some(true)),
            ("0-2-5", "0-1-5", Some(false)),
            ("0-1-5,1-2-9", "1-2-9, 0-1-5", Some(true)),
            ("0-1-5", "0-1-5,1-2-9", Some(false)),
            ("0-1-18446744073709551615", "0-1-5", Some(true)),
            ("0-1", "0-1-5", None),
            ("0-1-5", "0-1-5-7", None),
            ("0-1-5", "x", None),
            ("0-1-5,0-2-6", "0-1-5", None),
            ("0-1-99999999999999999999", "0-1-5", None),
        ] {
            assert_eq!(covers(have, want), expected, "{have} covers {want}");
        }
    }

    #[test]
    fn what_may_go_back_into_a_statement() {
        for set in [
            "",
            "3E11FA47-71CA-11E1-9E33-C80AA9429562:1-5:11-18,\n2174B383-5441-11E8-B90A-C80AA9429562:1",
            "2174B383-5441-11E8-B90A-C80AA9429562:tag_1:1-5",
            "0-1-5",
        ] {
            assert!(is_gtid_set(set), "{set}");
        }
        for text in ["'", "a\\", "1; DROP", "a)", "\u{e4}"] {
            assert!(!is_gtid_set(text), "{text}");
        }
    }
}
