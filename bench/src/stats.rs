//! What many rounds say together.

use serde::Serialize;

/// The middle of many rounds, and how far it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// The median.
    pub(crate) median: f64,
    /// A quarter of the rounds gave less.
    pub(crate) lower_quartile: f64,
    /// A quarter of the rounds gave more.
    pub(crate) upper_quartile: f64,
    /// The 95% confidence interval of the median, by order statistics: it assumes nothing about how the noise is spread.
    pub(crate) interval: (f64, f64),
    /// How many rounds there were.
    pub(crate) rounds: usize,
}

impl Summary {
    /// Of no rounds all figures are NaN.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let rounds = sorted.len();
        // The number of rounds below the median is binomial, near enough to normal.
        let n = rounds as f64;
        let first = ((n - 1.96 * n.sqrt()) / 2.0).floor().max(0.0) as usize;
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Self {
            median: quantile(&sorted, 0.5),
            lower_quartile: quantile(&sorted, 0.25),
            upper_quartile: quantile(&sorted, 0.75),
            interval: (at(first), at(rounds.saturating_sub(first + 1))),
            rounds,
        }
    }

    /// Whether the median differs from `nothing` by more than `resolution`, with 95% confidence.
    pub(crate) fn differs_from(&self, nothing: f64, resolution: f64) -> bool {
        self.interval.0 > nothing + resolution || self.interval.1 < nothing - resolution
    }

    /// How far the median's interval reaches away from `nothing`: what a comparison of equals could not tell.
    pub(crate) fn reach(&self, nothing: f64) -> f64 {
        (self.interval.0 - nothing).abs().max((self.interval.1 - nothing).abs())
    }
}

/// The value below which a part of the sorted values lies, interpolated; NaN where there are none.
pub(crate) fn quantile(sorted: &[f64], part: f64) -> f64 {
    let position = part * sorted.len().saturating_sub(1) as f64;
    let (below, above) = (sorted.get(position.floor() as usize), sorted.get(position.ceil() as usize));
    match (below, above) {
        (Some(below), Some(above)) => below + (above - below) * position.fract(),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_its_interval_between_the_quartiles() {
        let summary = Summary::of((0..101).rev().map(f64::from));
        assert_eq!((summary.median, summary.lower_quartile, summary.upper_quartile), (50.0, 25.0, 75.0));
        assert_eq!((summary.interval, summary.rounds), ((40.0, 60.0), 101));
    }

    #[test]
    fn values_between_are_interpolated() {
        assert_eq!(quantile(&[1.0, 2.0], 0.5), 1.5);
        assert!(quantile(&[], 0.5).is_nan() && Summary::of([]).median.is_nan());
        assert_eq!(Summary::of([7.0]).interval, (7.0, 7.0));
    }

    #[test]
    fn equals_do_not_differ() {
        let noise = Summary::of((-50..=50).map(f64::from));
        assert!(!noise.differs_from(0.0, 0.0));
        let same = Summary::of([3.0; 30]);
        assert!(same.differs_from(0.0, 2.9) && !same.differs_from(0.0, 3.0));
        assert_eq!(noise.reach(0.0), 10.0);
    }
}
