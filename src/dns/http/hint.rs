//! What an answer says about trying again: the part that only decides.

use std::time::Duration;

use jiff::Timestamp;

/// How long the provider asks us to wait, by the first of these that it sends:
/// `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3), `Ratelimit: "name";r=0;t=30`
/// (draft-ietf-httpapi-ratelimit-headers, Cloudflare), `RateLimit-Reset` and `X-RateLimit-Reset` as Unix
/// time (DigitalOcean, Linode). `header` looks one up.
pub fn wait_hint<'a>(header: impl Fn(&str) -> Option<&'a str>, now: Timestamp) -> Option<Duration> {
    if let Some(after) = header("retry-after") {
        let after = after.trim();
        let seconds = after.parse().ok().map(Duration::from_secs);
        return seconds.or_else(|| until(http_date(after)?, now));
    }
    if let Some(limits) = header("ratelimit") {
        let reset = limits
            .split(';')
            .find_map(|part| part.trim().strip_prefix("t="));
        if let Some(seconds) = reset.and_then(|t| t.parse().ok()) {
            return Some(Duration::from_secs(seconds));
        }
    }
    let reset = header("ratelimit-reset").or_else(|| header("x-ratelimit-reset"))?;
    until(
        Timestamp::from_second(reset.trim().parse().ok()?).ok()?,
        now,
    )
}

fn http_date(text: &str) -> Option<Timestamp> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    parser.parse_timestamp(text).ok()
}

fn until(then: Timestamp, now: Timestamp) -> Option<Duration> {
    let wait = then.duration_since(now);
    Some(Duration::try_from(wait).unwrap_or_default())
}

/// Pauses within a budget, each twice as long as the one before unless somebody asks for another.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    left: Duration,
    next: Duration,
}

impl Pauses {
    pub fn new(budget: Duration) -> Self {
        Self {
            left: budget,
            next: Duration::from_millis(250),
        }
    }

    /// The next pause; `None` when it would be more than what is left.
    pub fn next(&mut self, hint: Option<Duration>) -> Option<Duration> {
        // A hint of nothing must not become a loop without pause.
        let pause = hint.map_or(self.next, |hint| hint.max(self.next));
        self.left = self.left.checked_sub(pause)?;
        self.next = self.next.saturating_mul(2);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_is_understood() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        for (name, value, seconds) in [
            ("retry-after", "7", Some(7)),
            ("retry-after", "Tue, 14 Nov 2023 22:13:50 GMT", Some(30)),
            ("retry-after", "Tue, 14 Nov 2023 22:13:00 GMT", Some(0)),
            ("retry-after", "soon", None),
            ("ratelimit", "\"default\";r=0;t=12", Some(12)),
            ("ratelimit-reset", "1700000060", Some(60)),
            ("x-ratelimit-reset", "1700000005", Some(5)),
            ("x-ratelimit-reset", "99999999999999999", None),
            ("date", "7", None),
        ] {
            let found = wait_hint(|asked| (asked == name).then_some(value), now);
            assert_eq!(found.map(|wait| wait.as_secs()), seconds, "{name}: {value}");
        }
    }

    #[test]
    fn pauses_grow_and_end() {
        let mut pauses = Pauses::new(Duration::from_secs(2));
        let first: Vec<_> = std::iter::from_fn(|| pauses.next(None)).collect();
        assert_eq!(first.len(), 3, "{first:?}");
        assert!(pauses.next(Some(Duration::from_secs(3600))).is_none());
        let mut pauses = Pauses::new(Duration::from_secs(2));
        assert!(pauses.next(Some(Duration::ZERO)).unwrap() > Duration::ZERO);
        assert_eq!(
            pauses.next(Some(Duration::from_secs(1))),
            Some(Duration::from_secs(1))
        );
        assert_eq!(pauses.next(Some(Duration::from_secs(1))), None);
    }
}
