//! Medians and ranges of a handful of figures.

use std::fmt;

/// The middle, the smallest and the largest of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` of nothing, or when one is not a number.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        if sorted.iter().any(|figure| figure.is_nan()) {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[half - 1], sorted[half]),
            _ => sorted[half],
        };
        Some(Self { median, min, max })
    }

    /// Of the quotients of figures that belong together. Rounds are measured one after the other, so what disturbs one
    /// round disturbs both figures in it, and cancels out.
    pub fn of_ratios(over: &[f64], under: &[f64]) -> Option<Self> {
        Self::of(over.iter().zip(under).map(|(over, under)| over / under))
    }
}

/// `median (min–max)` with the precision that was asked for, or three digits.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or_else(|| digits(self.median));
        write!(
            f,
            "{:.digits$} ({:.digits$}–{:.digits$})",
            self.median, self.min, self.max
        )
    }
}

fn digits(figure: f64) -> usize {
    match figure.abs() {
        small if small < 10.0 => 2,
        middle if middle < 100.0 => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_odd_and_even_counts() {
        for (figures, median) in [
            (vec![3.0], 3.0),
            (vec![9.0, 1.0, 2.0], 2.0),
            (vec![4.0, 1.0, 2.0, 9.0], 3.0),
        ] {
            assert_eq!(Spread::of(figures).unwrap().median, median);
        }
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([1.0, f64::NAN]), None);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The second round was disturbed: twice the time for both.
        let ratio = Spread::of_ratios(&[9.0, 18.0], &[10.0, 20.0]).unwrap();
        assert_eq!((ratio.min, ratio.max), (0.9, 0.9));
    }

    #[test]
    fn prints_as_many_digits_as_mean_something() {
        let spread = |median| Spread {
            median,
            min: 1.0,
            max: 200.0,
        };
        assert_eq!(spread(12.345).to_string(), "12.3 (1.0–200.0)");
        assert_eq!(spread(123.45).to_string(), "123 (1–200)");
        assert_eq!(format!("{:.2}", spread(123.45)), "123.45 (1.00–200.00)");
    }
}
