//! Capped, jittered waits between tries. Pure: the caller brings the randomness.

use std::time::Duration;

/// Doubles from `first` to `cap`, then stays there.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    tries: u32,
}

impl Backoff {
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self {
            first,
            cap,
            tries: 0,
        }
    }

    /// The next wait: between half and all of the step, by `chance` in 0..1, so that a fleet that
    /// lost the same server does not come back at the same moment.
    pub fn next(&mut self, chance: f64) -> Duration {
        let step = self
            .first
            .saturating_mul(2_u32.saturating_pow(self.tries))
            .min(self.cap);
        self.tries = self.tries.saturating_add(1).min(31);
        step.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_cap_and_starts_over() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(10), ms(100));
        let steps: Vec<_> = (0..6).map(|_| backoff.next(1.0)).collect();
        assert_eq!(steps, [10, 20, 40, 80, 100, 100].map(ms));
        backoff.reset();
        assert_eq!(backoff.next(0.0), ms(5));
        for _ in 0..100 {
            assert!(backoff.next(0.5) <= ms(100));
        }
    }
}
