//! A row of the table: what is counted, over which sizes, and how it may grow.

use serde::{Deserialize, Serialize};

use super::bound::{Bound, exponent};
use crate::failure::Failure;
use crate::quantity::{grouped, nanos, three};

/// The unit of a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Calls, wake-ups, files.
    Count,
    /// Bytes.
    Bytes,
    /// Nanoseconds of processor time.
    Nanos,
    /// A ratio of two processor times.
    Times,
}

impl Unit {
    /// The name in CSV and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Nanos => "ns",
            Self::Times => "times",
        }
    }

    /// Costs below this count as this: they are too small to be measured.
    fn floor(self) -> f64 {
        match self {
            Self::Count | Self::Bytes => 1.0,
            Self::Nanos => 20.0,
            Self::Times => 0.01,
        }
    }

    /// How much an exponent may be above its bound: processor time depends on caches and on the other work of the machine.
    fn slack(self) -> f64 {
        match self {
            Self::Count => 0.15,
            Self::Bytes => 0.25,
            Self::Nanos | Self::Times => 0.4,
        }
    }

    /// A cost as the table shows it.
    pub fn show(self, cost: f64) -> String {
        match self {
            Self::Count => three(cost),
            Self::Bytes if cost < 1e4 => format!("{} B", three(cost)),
            Self::Bytes => format!("{} KiB", grouped((cost / 1024.0) as u64)),
            Self::Nanos => nanos(cost as u64),
            Self::Times => format!("{} x", three(cost)),
        }
    }
}

/// One scenario that grows.
#[derive(Clone, Copy)]
pub struct Row {
    /// The name on the command line.
    pub name: &'static str,
    /// The cost that is counted, in words.
    pub cost: &'static str,
    /// The things that there are n of, in words.
    pub of: &'static str,
    /// The unit of the cost.
    pub unit: Unit,
    /// The sizes n that are measured with `--quick`.
    pub quick: &'static [usize],
    /// The sizes n that are measured without `--quick`.
    pub full: &'static [usize],
    /// The bound that the row should keep.
    pub target: Bound,
    /// The bound that the row keeps today; `None` if that is the target.
    pub today: Option<Bound>,
    /// What was measured before the first improvement; empty if that is not known.
    pub before: &'static str,
    /// Sets the scenario up with n things and returns its cost.
    pub measure: fn(usize) -> Result<f64, Failure>,
}

/// How the costs of a row compare with its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Within its target.
    Met,
    /// Worse than its target, but within its bound of [today](Row::today).
    Known,
    /// Worse than its target, and than its bound of today if it has one.
    Worse,
}

impl Verdict {
    /// The word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Known => "known",
            Self::Worse => "WORSE",
        }
    }
}

impl Row {
    /// The exponent of these costs; `None` for a row with a limit, or with fewer than two sizes.
    pub fn exponent(&self, points: &[(f64, f64)]) -> Option<f64> {
        if matches!(self.target, Bound::AtMost(_)) { None } else { exponent(points, self.unit.floor()) }
    }

    /// The verdict on these costs, as (n, cost).
    pub fn judge(&self, points: &[(f64, f64)]) -> Verdict {
        let holds = |bound: Bound| bound.allows(points, self.unit.floor(), self.unit.slack());
        if holds(self.target) {
            Verdict::Met
        } else if self.today.is_some_and(holds) {
            Verdict::Known
        } else {
            Verdict::Worse
        }
    }

    /// A bound as the table shows it.
    pub fn show(&self, bound: Bound) -> String {
        match bound {
            Bound::Constant => "1".to_owned(),
            Bound::Log => "log n".to_owned(),
            Bound::Linear => "n".to_owned(),
            Bound::LinearLog => "n log n".to_owned(),
            Bound::AtMost(most) => format!("<= {}", self.unit.show(most)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(target: Bound, today: Option<Bound>, unit: Unit) -> Row {
        Row {
            name: "test",
            cost: "a test",
            of: "things",
            unit,
            quick: &[16, 64],
            full: &[16, 64],
            target,
            today,
            before: "",
            measure: |n| Ok(n as f64),
        }
    }

    const FLAT: [(f64, f64); 3] = [(16.0, 500.0), (64.0, 450.0), (256.0, 700.0)];
    const LINEAR: [(f64, f64); 3] = [(16.0, 500.0), (64.0, 2_000.0), (256.0, 8_000.0)];
    const SQUARE: [(f64, f64); 3] = [(16.0, 500.0), (64.0, 8_000.0), (256.0, 128_000.0)];

    #[test]
    fn a_row_is_met_known_or_worse() {
        let known = row(Bound::Constant, Some(Bound::Linear), Unit::Nanos);
        assert_eq!(known.judge(&FLAT), Verdict::Met);
        assert_eq!(known.judge(&LINEAR), Verdict::Known);
        assert_eq!(known.judge(&SQUARE), Verdict::Worse);
        let strict = row(Bound::Constant, None, Unit::Nanos);
        assert_eq!(strict.judge(&LINEAR), Verdict::Worse);
    }

    #[test]
    fn counts_have_less_slack_than_times() {
        let grows = [(16.0, 100.0), (64.0, 140.0), (256.0, 196.0)];
        assert_eq!(row(Bound::Constant, None, Unit::Count).judge(&grows), Verdict::Worse);
        assert_eq!(row(Bound::Constant, None, Unit::Nanos).judge(&grows), Verdict::Met);
    }

    #[test]
    fn what_is_too_small_to_measure_does_not_grow() {
        let tiny = [(16.0, 0.0), (64.0, 0.2), (256.0, 0.9)];
        assert_eq!(row(Bound::Constant, None, Unit::Count).judge(&tiny), Verdict::Met);
    }

    #[test]
    fn a_row_that_was_cut_short_is_worse() {
        assert_eq!(row(Bound::Linear, None, Unit::Nanos).judge(&FLAT[..1]), Verdict::Worse);
        let limit = row(Bound::AtMost(2.0), Some(Bound::AtMost(4.0)), Unit::Times);
        assert_eq!(limit.judge(&[(1.0, 1.5)]), Verdict::Met);
        assert_eq!(limit.judge(&[(1.0, 3.0)]), Verdict::Known);
        assert_eq!(limit.judge(&[(1.0, 5.0)]), Verdict::Worse);
        assert_eq!(limit.exponent(&FLAT), None);
    }
}
