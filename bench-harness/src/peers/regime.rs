//! The regime of a round: how far apart the two cores are while it runs. On a virtual machine the host moves them nearer and
//! farther, by which every figure changes; so each round has the bare line's round trip before it and after it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::contender::line;
use super::link::{Round, Work};
use super::waiting::WaitClass;
use crate::pin::PinPlan;
use crate::scenario::Scenario;
use crate::statistics;

/// The round trips over a bare line of one measurement: as many as a mean of groups needs, some 20 milliseconds.
const TRIPS: u64 = 40_000;

/// Two round trips are of one regime if neither is longer than the other by more than this factor.
const ONE_REGIME: f64 = 1.3;

/// The bare line beside the rounds of a cell: of one scenario, mode, batch, capacity and payload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The scenario.
    pub scenario: String,
    /// Messages of a batch; 1 is one by one.
    pub batch: usize,
    /// Slots.
    pub capacity: usize,
    /// Bytes a message.
    pub payload: usize,
    /// The p50 of a number's round trip in two cache lines, in nanoseconds: before the first round, and after each.
    pub nanos: Vec<f64>,
}

/// The bare line's round trip between the cores of the first producer and the first consumer now, in nanoseconds; `None` if
/// they share a core, or it could not be measured.
pub fn bare_line(pins: &PinPlan) -> Option<f64> {
    if pins.producer(0).is_some() && pins.producer(0) == pins.consumer(0) {
        return None;
    }
    let (waiting, pins, silence) = (WaitClass::Spin, pins.clone(), Duration::ZERO);
    let work =
        Work { capacity: 1, producers: 1, consumers: 1, each: TRIPS, batch: 1, words: 1, waiting, pins, silence };
    match line(Scenario::PingPong, &work) {
        Ok(Round::Latency { single, mean }) => mean.or_else(|| Some(single.value_at_quantile(0.5) as f64)),
        _ => None,
    }
}

impl Line {
    fn median(&self) -> f64 {
        statistics::spread(&self.nanos).map_or(f64::NAN, |spread| spread.median)
    }

    /// For each round, true if the cores stayed where they are in most rounds.
    pub fn steady(&self) -> Vec<bool> {
        let near = |one: f64, other: f64| one <= other * ONE_REGIME && other <= one * ONE_REGIME;
        let median = self.median();
        self.nanos.windows(2).map(|around| around.iter().all(|nanos| near(*nanos, median))).collect()
    }

    /// What a reader must know of the rounds' regimes, in a line.
    pub fn told(&self) -> String {
        let steady = self.steady();
        let (count, of) = (steady.iter().filter(|steady| **steady).count(), steady.len());
        let ends = statistics::spread(&self.nanos).map_or((f64::NAN, f64::NAN), |spread| (spread.min, spread.max));
        let mut told = format!("{}: bare line {:.0} ns [{:.0}..{:.0}]", self.capacity, self.median(), ends.0, ends.1);
        if count < of {
            let used = if count < FEWEST { "too few to compare: all are" } else { "they are" };
            told += &format!(", the cores stayed in {count} of {of} rounds, {used} compared");
        }
        told
    }

    /// The figures of those rounds in which the cores stayed; all of them if those are fewer than [`FEWEST`].
    pub fn of_one_regime(&self, samples: &[f64]) -> Vec<f64> {
        let steady = self.steady();
        let kept = steady.iter().filter(|steady| **steady).count();
        if steady.len() != samples.len() || kept < FEWEST {
            return samples.to_vec();
        }
        samples.iter().zip(steady).filter(|(_, steady)| *steady).map(|(sample, _)| *sample).collect()
    }
}

/// Fewer rounds than these are no regime.
const FEWEST: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_in_which_the_cores_moved_are_left_out_and_told() {
        let line = |nanos: &[f64]| Line { capacity: 256, nanos: nanos.to_vec(), ..Line::default() };
        let moved = line(&[50.0, 52.0, 140.0, 141.0, 49.0, 50.0, 51.0]);
        assert_eq!(moved.steady(), [true, false, false, false, true, true]);
        assert_eq!(moved.of_one_regime(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), [1.0, 5.0, 6.0]);
        assert_eq!(moved.of_one_regime(&[1.0, 2.0]), [1.0, 2.0], "a contender that has not all rounds");
        assert!(moved.told().contains("stayed in 3 of 6 rounds, they are compared"), "{}", moved.told());
        let all = line(&[50.0, 140.0, 50.0, 140.0]);
        assert_eq!(all.of_one_regime(&[1.0, 2.0, 3.0]), [1.0, 2.0, 3.0]);
        assert!(all.told().contains("all are compared"), "{}", all.told());
        assert_eq!(line(&[50.0, 55.0, 55.0]).told(), "256: bare line 55 ns [50..55]");
    }
}
