//! What `growth` found.

use serde::{Deserialize, Serialize};

use super::row::{Row, Verdict};
use crate::environment::Environment;

/// What `growth` found, as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GrowthDocument {
    /// Version of this contract.
    pub version: u32,
    /// The machine.
    pub environment: Environment,
    /// The command that made it.
    pub command: String,
    /// A line for each scenario.
    pub rows: Vec<Line>,
}

/// A scenario and its costs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The name on the command line.
    pub row: String,
    /// What is counted.
    pub cost: String,
    /// What there are n of.
    pub of: String,
    /// `count`, `bytes`, `ns` of processor time, or `times`.
    pub unit: String,
    /// The costs, by size.
    pub points: Vec<Point>,
    /// The slope of log cost over log n; `null` for a row with a limit.
    pub exponent: Option<f64>,
    /// The exponent of the bound over these sizes; `null` for a row with a limit.
    pub allowed: Option<f64>,
    /// What the row is meant to hold.
    pub target: String,
    /// What is known to hold today, if that is worse.
    pub today: Option<String>,
    /// What became of it.
    pub verdict: Verdict,
    /// What was measured before anything was mended; empty if that is not known.
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
    /// The rows that are worse than they say.
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
