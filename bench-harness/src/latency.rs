//! Percentiles of latency histograms, and how many samples each needs.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The least number of samples at or above a percentile; with fewer it is n/a.
pub const SAMPLES_BEHIND: u64 = 100;

/// True if `count` samples are enough for the value at `quantile`.
pub fn enough(count: u64, quantile: f64) -> bool {
    // Rounded: 1 - 0.9999 is not exact, and 1,000,000 samples have 100 behind p99.99.
    (count as f64 * (1.0 - quantile)).round() as u64 >= SAMPLES_BEHIND
}

/// Percentiles in nanoseconds. `None` is n/a: too few samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Count of the samples.
    pub count: u64,
    /// Median.
    pub p50: Option<u64>,
    /// 90 %.
    pub p90: Option<u64>,
    /// 99 %.
    pub p99: Option<u64>,
    /// 99.9 %.
    pub p999: Option<u64>,
    /// 99.99 %.
    pub p9999: Option<u64>,
    /// The largest sample.
    pub max: Option<u64>,
}

/// The quantiles of a table, with their names on the command line.
pub const NAMES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

impl Percentiles {
    /// The percentiles of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let count = histogram.len();
        let at = |quantile: f64| enough(count, quantile).then(|| histogram.value_at_quantile(quantile));
        Self {
            count,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: (count > 0).then(|| histogram.max()),
        }
    }

    /// The value by its name in `--assert`; outer `None` if there is no such name.
    pub fn by_name(&self, name: &str) -> Option<Option<u64>> {
        Some(match name {
            "p50" => self.p50,
            "p90" => self.p90,
            "p99" => self.p99,
            "p99.9" | "p999" => self.p999,
            "p99.99" | "p9999" => self.p9999,
            "max" => self.max,
            _ => return None,
        })
    }

    /// All values in the order of a table.
    pub fn values(&self) -> [Option<u64>; 6] {
        [self.p50, self.p90, self.p99, self.p999, self.p9999, self.max]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_nothing_with_fewer_than_a_hundred_samples_behind() {
        assert!(enough(200, 0.5) && !enough(198, 0.5));
        assert!(enough(10_000, 0.99) && !enough(9_900, 0.99));
        assert!(enough(1_000_000, 0.9999));
        let mut histogram = crate::peers::latencies::new_histogram();
        for value in 1..=1_000 {
            histogram.saturating_record(value);
        }
        let said = Percentiles::of(&histogram);
        assert!(said.p50.is_some() && said.p90.is_some());
        assert_eq!((said.p99, said.p999, said.p9999), (None, None, None));
        assert_eq!((said.count, said.max), (1_000, Some(1_000)));
    }
}
