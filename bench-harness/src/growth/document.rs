//! The result of `growth`, one line for each scenario.

use serde::{Deserialize, Serialize};

use super::row::{Row, Verdict};
use crate::environment::Environment;

/// The result of `growth`, as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GrowthDocument {
    /// Version of this contract.
    pub version: u32,
    /// The machine.
    pub environment: Environment,
    /// The command line of the measurement.
    pub command: String,
    /// A line for each scenario.
    pub rows: Vec<Line>,
}

/// A scenario and its costs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The name on the command line.
    pub row: String,
    /// The cost that is counted, in words.
    pub cost: String,
    /// The things that there are n of, in words.
    pub of: String,
    /// `count`, `bytes`, `ns` of processor time, or `times`.
    pub unit: String,
    /// The costs, by size.
    pub points: Vec<Point>,
    /// The slope of log cost over log n; `null` for a row with a limit, or with fewer than two sizes.
    pub exponent: Option<f64>,
    /// The exponent of the target bound over the same sizes; `null` if that is a limit, or with fewer than two sizes.
    pub allowed: Option<f64>,
    /// The bound that the row should keep.
    pub target: String,
    /// The bound that the row is known to keep today; `null` if that is the target.
    pub today: Option<String>,
    /// How the costs compare with both bounds.
    pub verdict: Verdict,
    /// What was measured before the first improvement; empty if that is not known.
    pub before: String,
}

/// The cost at one size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    /// The size.
    pub n: u64,
    /// The cost, in the row's unit.
    pub cost: f64,
    /// The cost as the table shows it.
    pub shown: String,
}

impl Line {
    /// The line of a row that has these costs, as (n, cost).
    pub fn new(row: &Row, points: &[(f64, f64)]) -> Self {
        let sizes: Vec<f64> = points.iter().map(|(n, _)| *n).collect();
        let point = |(n, cost): &(f64, f64)| Point { n: *n as u64, cost: *cost, shown: row.unit.show(*cost) };
        Self {
            row: row.name.to_owned(),
            cost: row.cost.to_owned(),
            of: row.of.to_owned(),
            unit: row.unit.name().to_owned(),
            points: points.iter().map(point).collect(),
            exponent: row.exponent(points),
            allowed: row.target.exponent(&sizes),
            target: row.show(row.target),
            today: row.today.map(|today| row.show(today)),
            verdict: row.judge(points),
            before: row.before.to_owned(),
        }
    }
}

impl Line {
    /// The costs, the exponent and the verdict in a few words.
    pub fn summary(&self) -> String {
        let costs = self.points.iter().map(|point| point.shown.as_str()).collect::<Vec<_>>().join(", ");
        let exponent = self.exponent.map_or_else(String::new, |exponent| format!(", exponent {exponent:.2}"));
        format!("{costs}{exponent}, bound {}: {}", self.target, self.verdict.word())
    }
}

impl GrowthDocument {
    /// The rows whose verdict is [`Worse`](Verdict::Worse).
    pub fn worse(&self) -> impl Iterator<Item = &Line> {
        self.rows.iter().filter(|line| line.verdict == Verdict::Worse)
    }

    /// The verdict on all rows in one line.
    pub fn verdict_line(&self) -> String {
        let count = |verdict| self.rows.iter().filter(|line| line.verdict == verdict).count();
        let worse: Vec<&str> = self.worse().map(|line| line.row.as_str()).collect();
        let known = count(Verdict::Known);
        match worse.as_slice() {
            [] => format!("{} rows met their bounds, {known} are known to be worse", count(Verdict::Met)),
            names => format!("worse than their rows say: {}", names.join(", ")),
        }
    }
}
