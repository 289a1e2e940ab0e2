//! `peers.json`: a contract, described in docs/BENCHMARKS.md and schema/peers.schema.json.

use serde::{Deserialize, Serialize};

use super::contender::Family;
use crate::environment::Environment;
use crate::statistics::{self, Interval};

/// The version of the contract.
pub const VERSION: u32 = 1;

/// What `peers` found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeersDocument {
    /// Version of this contract.
    pub version: u32,
    /// The machine.
    pub environment: Environment,
    /// The command that made it.
    pub command: String,
    /// One row a contender, mode, capacity and payload.
    pub rows: Vec<Row>,
    /// The figure of each round of each row, in the order of `rows`.
    #[serde(default)]
    pub samples: Vec<Vec<f64>>,
    /// Our figure against each other contender's, over paired rounds.
    #[serde(default)]
    pub ratios: Vec<Ratio>,
    /// Contenders without a figure, and why.
    #[serde(default)]
    pub not_applicable: Vec<NotApplicable>,
    /// Rounds that were thrown away because what arrived was wrong.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Where the threads ran and how they waited, one line a scenario.
    #[serde(default)]
    pub setup: Vec<String>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The scenario.
    pub scenario: String,
    /// The contender.
    pub contender: String,
    /// It is this project's.
    pub ours: bool,
    /// `one-by-one` or `batch`.
    pub mode: String,
    /// Messages published at once.
    pub batch: usize,
    /// Slots.
    pub capacity: usize,
    /// Bytes a message.
    pub payload: usize,
    /// Publishing threads.
    pub producers: usize,
    /// Consuming threads.
    pub consumers: usize,
    /// `M/s`: million messages a second, more is better. `ns p50`, `ns p99`: less is better.
    pub unit: String,
    /// The middle of the rounds.
    pub median: f64,
    /// The lowest round.
    pub min: f64,
    /// The highest round.
    pub max: f64,
    /// How many rounds.
    pub rounds: usize,
    /// Every round's values were verified and right.
    pub valid: bool,
}

/// Our figure against another's in the same rounds: above 1, ours is better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The scenario.
    pub scenario: String,
    /// `one-by-one` or `batch`.
    pub mode: String,
    /// Slots.
    pub capacity: usize,
    /// Bytes a message.
    pub payload: usize,
    /// The unit of the rows compared.
    pub unit: String,
    /// Our contender.
    pub ours: String,
    /// The other.
    pub against: String,
    /// The other is the floor, not a rival.
    pub floor: bool,
    /// The median of the rounds' ratios.
    pub ratio: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// A contender that has no figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotApplicable {
    /// The scenario.
    pub scenario: String,
    /// The contender.
    pub contender: String,
    /// `one-by-one` or `batch`.
    pub mode: String,
    /// Why its semantics differ.
    pub reason: String,
}

/// A ratio whose interval is wider than this part of it says little.
const WIDE: f64 = 0.25;

impl Ratio {
    /// The width of the interval, as a part of the ratio.
    fn breadth(&self) -> f64 {
        (self.high - self.low) / self.ratio
    }
}

impl Row {
    /// More is better.
    pub fn more_is_better(&self) -> bool {
        self.unit == "M/s"
    }

    /// The contender is the floor.
    pub fn is_floor(&self) -> bool {
        is_floor(&self.contender)
    }

    /// Same table cell but for the contender.
    pub fn same_cell(&self, other: &Self) -> bool {
        (&self.scenario, &self.mode, self.batch, self.capacity, self.payload, &self.unit)
            == (&other.scenario, &other.mode, other.batch, other.capacity, other.payload, &other.unit)
    }
}

/// Floor rows are known by their names, so that a stored document can be drawn again.
pub fn is_floor(contender: &str) -> bool {
    contender.starts_with("bare-")
}

impl PeersDocument {
    /// Every row is valid.
    pub fn valid(&self) -> bool {
        self.faults.is_empty() && self.rows.iter().all(|row| row.valid)
    }

    /// What to know about our ratios against rivals that say little: their intervals are wider than [`WIDE`] of the figure.
    pub fn warning(&self) -> Option<String> {
        let rivals = || self.ratios.iter().filter(|ratio| !ratio.floor);
        let wide = || rivals().filter(|ratio| ratio.breadth() > WIDE);
        let widest = wide().max_by(|one, other| one.breadth().total_cmp(&other.breadth()))?;
        Some(format!(
            "{} of {} ratios against rivals have a 95 % interval wider than {:.0} %; the widest: {} against {} at {}, {:.2}x in \
             {:.2}..{:.2}. Values were right, figures are loose: take more or longer rounds, or a quieter machine (doctor)",
            wide().count(),
            rivals().count(),
            WIDE * 100.0,
            widest.ours,
            widest.against,
            widest.capacity,
            widest.ratio,
            widest.low,
            widest.high
        ))
    }

    /// Adds a row from its rounds.
    pub fn push(&mut self, mut row: Row, samples: Vec<f64>) {
        let Some(spread) = statistics::spread(&samples) else { return };
        (row.median, row.min, row.max) = (spread.median, spread.min, spread.max);
        row.rounds = samples.len();
        self.rows.push(row);
        self.samples.push(samples);
    }

    /// Fills `ratios` from the rows: ours against every other in the same cell.
    pub fn compare(&mut self) {
        self.ratios.clear();
        for (index, ours) in self.rows.iter().enumerate().filter(|(_, row)| row.ours) {
            for (other, against) in self.rows.iter().enumerate().filter(|(_, row)| !row.ours) {
                if !ours.same_cell(against) {
                    continue;
                }
                let (mine, theirs) = (&self.samples[index], &self.samples[other]);
                let interval = if ours.more_is_better() {
                    statistics::paired_ratio(mine, theirs)
                } else {
                    statistics::paired_ratio(theirs, mine)
                };
                let Some(Interval { median, low, high }) = interval else { continue };
                self.ratios.push(Ratio {
                    scenario: ours.scenario.clone(),
                    mode: ours.mode.clone(),
                    capacity: ours.capacity,
                    payload: ours.payload,
                    unit: ours.unit.clone(),
                    ours: ours.contender.clone(),
                    against: against.contender.clone(),
                    floor: against.is_floor(),
                    ratio: median,
                    low,
                    high,
                });
            }
        }
    }
}

impl Family {
    /// It is this project's.
    pub fn is_ours(self) -> bool {
        self == Self::Ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(against: &str, low: f64, high: f64) -> Ratio {
        Ratio {
            scenario: "spsc".to_owned(),
            mode: "one-by-one".to_owned(),
            capacity: 256,
            payload: 8,
            unit: "M/s".to_owned(),
            ours: "slipring".to_owned(),
            against: against.to_owned(),
            floor: is_floor(against),
            ratio: 2.0,
            low,
            high,
        }
    }

    #[test]
    fn wide_intervals_are_named() {
        let ratios = vec![ratio("std", 1.9, 2.1), ratio("bare-ring", 1.0, 9.0)];
        let mut document = PeersDocument { ratios, ..PeersDocument::default() };
        assert_eq!(document.warning(), None);
        document.ratios.extend([ratio("kanal", 1.7, 2.3), ratio("flume", 1.0, 4.0)]);
        let warning = document.warning().unwrap();
        assert!(warning.contains("2 of 3") && warning.contains("against flume"), "{warning}");
    }
}
