//! How a cost may grow with n, the count of things, and how it did grow.

/// How the cost of a row may grow with n.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// The cost does not depend on n.
    Constant,
    /// The cost grows as log n.
    Log,
    /// The cost grows as n.
    Linear,
    /// The cost grows as n log n.
    LinearLog,
    /// The cost is at most this at every size, in the row's unit.
    AtMost(f64),
}

/// The exponent of the cost: the slope of the line of least squares through (ln n, ln cost). 0 is constant, 1 linear.
///
/// `None` with fewer than two different sizes. A cost below `floor` counts as `floor`, so that a cost of 0 has a logarithm.
pub fn exponent(points: &[(f64, f64)], floor: f64) -> Option<f64> {
    let logs: Vec<(f64, f64)> = points.iter().map(|(n, cost)| (n.ln(), cost.max(floor).ln())).collect();
    let count = logs.len() as f64;
    let (sum_x, sum_y) = logs.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let spread: f64 = logs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let together: f64 = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    (spread > 0.0).then(|| together / spread)
}

impl Bound {
    /// The exponent that this growth itself has over these sizes; `None` for [`AtMost`](Self::AtMost).
    pub fn exponent(self, sizes: &[f64]) -> Option<f64> {
        let cost: fn(f64) -> f64 = match self {
            Self::Constant => |_| 1.0,
            Self::Log => |n| n.max(2.0).ln(),
            Self::Linear => |n| n,
            Self::LinearLog => |n| n * n.max(2.0).ln(),
            Self::AtMost(_) => return None,
        };
        let points: Vec<(f64, f64)> = sizes.iter().map(|n| (*n, cost(*n))).collect();
        exponent(&points, f64::MIN_POSITIVE)
    }

    /// True if these costs, as (n, cost), keep this bound. [`AtMost`](Self::AtMost): there is a cost, and each is
    /// within the limit. Otherwise: there are two sizes, and the exponent is at most the bound's own plus `slack`.
    pub fn allows(self, points: &[(f64, f64)], floor: f64, slack: f64) -> bool {
        if let Self::AtMost(most) = self {
            return !points.is_empty() && points.iter().all(|(_, cost)| *cost <= most);
        }
        let sizes: Vec<f64> = points.iter().map(|(n, _)| *n).collect();
        match (exponent(points, floor), self.exponent(&sizes)) {
            (Some(found), Some(allowed)) => found <= allowed + slack,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Cost = fn(f64) -> f64;

    fn points(cost: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        [16.0, 64.0, 256.0, 1024.0].into_iter().map(|n| (n, cost(n))).collect()
    }

    #[test]
    fn the_slope_is_the_power() {
        for (power, factor) in [(0.0, 7.0), (0.5, 3.0), (1.0, 1e-3), (3.0, 40.0)] {
            let found = exponent(&points(|n| factor * n.powf(power)), 1e-9).unwrap();
            assert!((found - power).abs() < 1e-9, "{power}: {found}");
        }
        assert_eq!(exponent(&[(16.0, 1.0)], 1.0), None);
        assert_eq!(exponent(&[(16.0, 1.0), (16.0, 2.0)], 1.0), None);
        assert_eq!(exponent(&[], 1.0), None);
    }

    #[test]
    fn a_cost_of_nothing_does_not_grow() {
        assert_eq!(exponent(&points(|_| 0.0), 1.0), Some(0.0));
    }

    #[test]
    fn each_growth_is_within_its_own_bound_and_not_within_the_next_lower_one() {
        let square = points(|n| 0.1 * n * n);
        let grown: [(Bound, Cost); 3] =
            [(Bound::Constant, |_| 50.0), (Bound::Linear, |n| 3.0 * n), (Bound::LinearLog, |n| 3.0 * n * n.ln())];
        for (bound, cost) in grown {
            assert!(bound.allows(&points(cost), 1.0, 0.05), "{bound:?}");
            assert!(!bound.allows(&square, 1.0, 0.05), "{bound:?}");
        }
        for (below, above) in [(0, 1), (1, 2)] {
            assert!(!grown[below].0.allows(&points(grown[above].1), 1.0, 0.05), "{below} allows {above}");
        }
        assert!(Bound::Log.allows(&points(f64::ln), 0.1, 0.05));
        assert!(!Bound::Log.allows(&points(|n| n), 0.1, 0.35));
        // A cubic cost is not within n log n, even with a slack of 0.5.
        assert!(!Bound::LinearLog.allows(&points(|n| n.powi(3)), 1.0, 0.5));
    }

    #[test]
    fn a_limit_holds_at_every_size() {
        assert!(Bound::AtMost(2.0).allows(&[(1.0, 1.9)], 1.0, 0.0));
        assert!(!Bound::AtMost(2.0).allows(&[(1.0, 1.9), (4.0, 2.1)], 1.0, 0.0));
        assert!(!Bound::AtMost(2.0).allows(&[], 1.0, 0.0));
    }

    #[test]
    fn one_size_says_nothing_about_growth() {
        assert!(!Bound::Linear.allows(&[(16.0, 1.0)], 1.0, 0.35));
    }
}
