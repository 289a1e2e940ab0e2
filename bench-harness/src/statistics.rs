//! Medians, ratios and their bootstrap intervals.

/// The median, the smallest and the largest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle value.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// The spread of `values`; `None` if there are none.
pub fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(Spread { median: median_of_sorted(&sorted)?, min: sorted[0], max: *sorted.last()? })
}

fn median_of_sorted(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The median; `None` if there are no values.
pub fn median(values: &[f64]) -> Option<f64> {
    spread(values).map(|spread| spread.median)
}

/// The geometric mean; `None` if there are no values, or if one is not positive.
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() || values.iter().any(|value| *value <= 0.0) {
        return None;
    }
    Some((values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp())
}

/// A figure with the interval that holds 95 % of its bootstrap samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The figure over all values.
    pub median: f64,
    /// 2.5 % of the samples are below.
    pub low: f64,
    /// 2.5 % of the samples are above.
    pub high: f64,
}

const SAMPLES: usize = 2_000;

/// The median of `one[i] / other[i]` and its interval; `None` without a pair. Pairs with `other[i]` of 0 are left out.
/// Rounds are resampled as pairs, because both values of a round were measured right after each other.
pub fn paired_ratio(one: &[f64], other: &[f64]) -> Option<Interval> {
    let ratios: Vec<f64> = one.iter().zip(other).filter(|(_, other)| **other > 0.0).map(|(a, b)| a / b).collect();
    bootstrap(&ratios, |sample| median(sample).unwrap_or(f64::NAN))
}

/// The interval of `statistic` over resampled `values`; `None` if there are no values.
pub fn bootstrap(values: &[f64], statistic: impl Fn(&[f64]) -> f64) -> Option<Interval> {
    if values.is_empty() {
        return None;
    }
    let mut random = fastrand::Rng::with_seed(0x5EED);
    let mut sample = vec![0.0; values.len()];
    let mut results: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            for slot in &mut sample {
                *slot = values[random.usize(..values.len())];
            }
            statistic(&sample)
        })
        .collect();
    results.sort_by(f64::total_cmp);
    Some(Interval {
        median: statistic(values),
        low: results[SAMPLES * 25 / 1000],
        high: results[SAMPLES - 1 - SAMPLES * 25 / 1000],
    })
}

/// The interval of `median(new) / median(base)`, where rounds are not paired; `None` if either has no values.
pub fn unpaired_ratio(base: &[f64], new: &[f64]) -> Option<Interval> {
    let whole = median(new)? / median(base)?;
    let mut random = fastrand::Rng::with_seed(0x5EED);
    let mut draw = |values: &[f64]| {
        let sample: Vec<f64> = values.iter().map(|_| values[random.usize(..values.len())]).collect();
        median(&sample).unwrap_or(f64::NAN)
    };
    let mut results: Vec<f64> = (0..SAMPLES).map(|_| draw(new) / draw(base)).collect();
    results.sort_by(f64::total_cmp);
    Some(Interval {
        median: whole,
        low: results[SAMPLES * 25 / 1000],
        high: results[SAMPLES - 1 - SAMPLES * 25 / 1000],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middle_of_odd_and_even() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn interval_holds_the_truth_and_is_the_same_each_time() {
        let one: Vec<f64> = (0..9).map(|round| 200.0 + f64::from(round)).collect();
        let other: Vec<f64> = (0..9).map(|round| 100.0 + f64::from(round % 3)).collect();
        let interval = paired_ratio(&one, &other).unwrap();
        assert!(interval.low <= interval.median && interval.median <= interval.high);
        assert!(interval.low > 1.9 && interval.high < 2.1, "{interval:?}");
        assert_eq!(paired_ratio(&one, &other), Some(interval));
    }

    #[test]
    fn geometric_mean_of_doubling_and_halving_is_one() {
        assert!((geometric_mean(&[2.0, 0.5]).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(geometric_mean(&[]), None);
    }
}
