//! `peers.json`: a contract, described in docs/BENCHMARKS.md and schema/peers.schema.json.

use serde::{Deserialize, Serialize};

use super::contender::Family;
use super::regime::Line;
use crate::environment::Environment;
use crate::statistics::{self, Interval};

/// The version of the contract.
pub const VERSION: u32 = 1;

/// The result of `peers`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeersDocument {
    /// Version of this contract.
    pub version: u32,
    /// The machine.
    pub environment: Environment,
    /// The command line of the measurement.
    pub command: String,
    /// A row for each scenario, contender, mode, capacity, payload and unit.
    pub rows: Vec<Row>,
    /// The figure of each round of each row, in the order of `rows`.
    #[serde(default)]
    pub samples: Vec<Vec<f64>>,
    /// The bare line beside the rounds of each cell.
    #[serde(default)]
    pub lines: Vec<Line>,
    /// The ratios of our figures to the other contenders', over paired rounds in which the cores stayed where they are.
    #[serde(default)]
    pub ratios: Vec<Ratio>,
    /// The contenders that cannot do the work of a scenario.
    #[serde(default)]
    pub not_applicable: Vec<NotApplicable>,
    /// The rounds that were discarded because messages arrived wrong or a thread could not start, in words.
    #[serde(default)]
    pub faults: Vec<String>,
    /// The cores and the waiting of the threads, a line for each scenario.
    #[serde(default)]
    pub setup: Vec<String>,
}

/// A figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The scenario.
    pub scenario: String,
    /// The contender.
    pub contender: String,
    /// True if the contender is of this project.
    pub ours: bool,
    /// `one-by-one` or `batch`.
    pub mode: String,
    /// Messages of a batch; 1 is one by one.
    pub batch: usize,
    /// Slots.
    pub capacity: usize,
    /// Bytes a message.
    pub payload: usize,
    /// Count of the publishing threads.
    pub producers: usize,
    /// Count of the consuming threads.
    pub consumers: usize,
    /// `M/s`: million messages a second, where more is better. `ns p50`, `ns p99`, `ns p99.9`: nanoseconds, where less is better.
    pub unit: String,
    /// The median of the rounds.
    pub median: f64,
    /// The lowest round.
    pub min: f64,
    /// The highest round.
    pub max: f64,
    /// Count of the rounds.
    pub rounds: usize,
    /// True if the values of all rounds were right.
    pub valid: bool,
}

/// The ratio of our figure to another contender's over the rounds that both have; above 1, ours is better.
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
    /// The other contender.
    pub against: String,
    /// True if the other contender is the floor, not a rival.
    pub floor: bool,
    /// The median of the ratios of the rounds.
    pub ratio: f64,
    /// The lower end of the 95 % interval.
    pub low: f64,
    /// The upper end of the 95 % interval.
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
    /// Why the contender cannot do this work.
    pub reason: String,
}

/// An interval is wide if it is wider than this part of its ratio.
const WIDE: f64 = 0.25;

impl Ratio {
    /// The width of the interval, divided by the ratio.
    fn breadth(&self) -> f64 {
        (self.high - self.low) / self.ratio
    }
}

impl Row {
    /// True if more is better.
    pub fn more_is_better(&self) -> bool {
        self.unit == "M/s"
    }

    /// True if the contender is the floor.
    pub fn is_floor(&self) -> bool {
        is_floor(&self.contender)
    }

    /// True if the contender is a rival.
    pub fn is_rival(&self) -> bool {
        !self.ours && is_rival(&self.contender)
    }

    /// True if `line` was measured beside this row's rounds.
    pub fn is_of(&self, line: &Line) -> bool {
        self.is_of_table(line) && self.capacity == line.capacity
    }

    /// As [`is_of`](Self::is_of), for any capacity.
    pub fn is_of_table(&self, line: &Line) -> bool {
        (&self.scenario, self.batch, self.payload) == (&line.scenario, line.batch, line.payload)
    }

    /// True if both rows differ only in contender and figures.
    pub fn same_cell(&self, other: &Self) -> bool {
        (&self.scenario, &self.mode, self.batch, self.capacity, self.payload, &self.unit)
            == (&other.scenario, &other.mode, other.batch, other.capacity, other.payload, &other.unit)
    }
}

/// True if a contender of this name is the floor. A stored document has only names.
pub fn is_floor(contender: &str) -> bool {
    contender.starts_with("bare-")
}

/// True if a contender of this name, which is not ours in its table, is a rival: neither the floor nor our rings between
/// threads of one process, which stand beside those between processes.
pub fn is_rival(contender: &str) -> bool {
    !is_floor(contender) && !contender.starts_with("threads-")
}

impl PeersDocument {
    /// True if every row is valid and no round was discarded.
    pub fn valid(&self) -> bool {
        self.faults.is_empty() && self.rows.iter().all(|row| row.valid)
    }

    /// The warning that counts the ratios against rivals with intervals wider than [`WIDE`], and names the widest;
    /// `None` if there are none.
    pub fn warning(&self) -> Option<String> {
        let rivals = || self.ratios.iter().filter(|ratio| is_rival(&ratio.against));
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

    /// Adds a row with the figures of its rounds; nothing if there are no figures.
    pub fn push(&mut self, mut row: Row, samples: Vec<f64>) {
        let Some(spread) = statistics::spread(&samples) else { return };
        (row.median, row.min, row.max) = (spread.median, spread.min, spread.max);
        row.rounds = samples.len();
        self.rows.push(row);
        self.samples.push(samples);
    }

    /// Sets `ratios`: ours by every other contender's in the same cell.
    pub fn compare(&mut self) {
        self.ratios.clear();
        for (index, ours) in self.rows.iter().enumerate().filter(|(_, row)| row.ours) {
            for (other, against) in self.rows.iter().enumerate().filter(|(_, row)| !row.ours) {
                if !ours.same_cell(against) {
                    continue;
                }
                let line = self.lines.iter().find(|line| ours.is_of(line));
                let steady =
                    |samples: &[f64]| line.map_or_else(|| samples.to_vec(), |line| line.of_one_regime(samples));
                let (mine, theirs) = (&steady(&self.samples[index]), &steady(&self.samples[other]));
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
    /// True if the contender is of this project.
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

    /// By their width relative to the ratio, which is 2 here.
    #[test]
    fn wide_intervals_are_named() {
        let ratios = vec![ratio("std", 1.8, 2.2), ratio("bare-ring", 1.0, 9.0)];
        let mut document = PeersDocument { ratios, ..PeersDocument::default() };
        assert_eq!(document.warning(), None);
        document.ratios.extend([ratio("kanal", 1.7, 2.3), ratio("flume", 1.0, 4.0)]);
        let warning = document.warning().unwrap();
        assert!(warning.contains("2 of 3") && warning.contains("against flume"), "{warning}");
    }
}
