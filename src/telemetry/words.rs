//! Durations and sizes as people write them.

use std::time::Duration;

/// The two largest units: `42s`, `3m12s`, `5h07m`, `12d03h`.
pub fn short(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// `1.2 MB`: three digits and a unit.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    // Tenths of the unit, so that no float is needed.
    let (mut tenths, mut unit) = (bytes / 100, 0);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// How long `since` (RFC 3339) is ago at `now`; zero when it lies ahead, `None` when it is no time.
pub fn age(since: &str, now: jiff::Timestamp) -> Option<Duration> {
    let since: jiff::Timestamp = since.parse().ok()?;
    Some(now.duration_since(since).try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes() {
        for (s, text) in [
            (0, "0s"),
            (59, "59s"),
            (192, "3m12s"),
            (3600, "1h00m"),
            (86_399, "23h59m"),
            (86_400 * 12 + 3 * 3600, "12d03h"),
        ] {
            assert_eq!(short(Duration::from_secs(s)), text);
        }
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (1_234_567, "1.2 MB"),
            (u64::MAX, "18446744.0 TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn ages() {
        let now: jiff::Timestamp = "2026-01-02T15:04:05Z".parse().unwrap();
        let age = |since| age(since, now).map(|age| age.as_secs());
        assert_eq!(age("2026-01-02T15:04:00.500Z"), Some(4));
        assert_eq!(age("2027-01-02T15:04:00Z"), Some(0));
        assert_eq!(age("soon"), None);
    }
}
