//! The latencies of a round's messages or trips.

use hdrhistogram::Histogram;

use super::link::{NoFigure, Round};
use crate::quantity::nanos;
use crate::{latency, statistics};

/// The largest latency that a histogram can hold, in nanoseconds: a minute. A larger one is recorded as this.
pub const LARGEST: u64 = 60_000_000_000;

/// An empty histogram of nanoseconds up to a minute, with three digits.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LARGEST, 3)
        .unwrap_or_else(|error| unreachable!("one nanosecond to a minute with three digits is a legal range: {error}"))
}

/// The warning that `worst` nanoseconds, the largest of the values that `what` names, are more than a histogram can
/// hold; `None` if they are not.
pub fn beyond(what: &str, worst: u64) -> Option<String> {
    let (worst_text, largest) = (nanos(worst), nanos(LARGEST));
    (worst > LARGEST)
        .then(|| format!("a {what} of {worst_text} counts as {largest}, where the histogram ends: so may others"))
}

/// The latencies of one thread.
pub struct Latencies {
    histogram: Histogram<u64>,
    /// The largest latency, in nanoseconds.
    worst: u64,
    /// The mean latency of each group of trips, in nanoseconds.
    pub means: Vec<f64>,
}

impl Latencies {
    /// None yet.
    pub fn new() -> Self {
        Self { histogram: new_histogram(), worst: 0, means: Vec::new() }
    }

    /// Counts a latency, in nanoseconds.
    #[inline(always)]
    pub fn record(&mut self, latency: u64) {
        self.histogram.saturating_record(latency);
        self.worst = self.worst.max(latency);
    }

    /// The round's figure, unless a latency was larger than the histogram can hold.
    /// # Errors
    ///
    /// [`NoFigure::Wrong`], if one was.
    pub fn figure(self) -> Result<Round, NoFigure> {
        match beyond("latency", self.worst) {
            Some(clipped) => Err(NoFigure::Wrong(clipped)),
            None => {
                let means = Some(&self.means).filter(|means| latency::enough(means.len() as u64, 0.5));
                let mean = means.and_then(|means| statistics::median(means));
                Ok(Round::Latency { single: Box::new(self.histogram), mean })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A histogram holds a latency of a minute. It would record a longer one as a minute, so that one gives no figure.
    #[test]
    fn a_latency_beyond_the_histogram_gives_no_figure() {
        let of = |largest| {
            let mut latencies = Latencies::new();
            [90, largest, 7].into_iter().for_each(|nanos| latencies.record(nanos));
            latencies.figure()
        };
        assert!(of(LARGEST).is_ok());
        let Err(NoFigure::Wrong(told)) = of(90_000_000_000) else { panic!() };
        assert!(told.contains("a latency of 90") && told.contains("where the histogram ends"), "{told}");
    }

    #[test]
    fn the_mean_of_groups_needs_as_many_as_a_median_does() {
        let of = |count: u64| {
            let mut latencies = Latencies::new();
            latencies.record(7);
            latencies.means.extend((0..count).map(|mean| mean as f64));
            let Ok(Round::Latency { mean, .. }) = latencies.figure() else { panic!() };
            mean
        };
        assert_eq!((of(20), of(201)), (None, Some(100.0)));
    }
}
