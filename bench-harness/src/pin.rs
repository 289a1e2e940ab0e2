//! The cores of a measurement's threads, as `--pin` names them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A pin list that can't be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is not a pin list; write p=0,c=1 or p=0,p=2,c=1,c=3, or none")]
pub struct BadPlan(String);

/// Which core each producer and consumer runs on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PinPlan {
    producers: Vec<usize>,
    consumers: Vec<usize>,
    off: bool,
}

impl PinPlan {
    /// The plan that the user gave, or [`spread`](Self::spread) without one. A given plan may also name isolated cores
    /// outside of the process's mask: from then on every core may be used.
    pub fn given_or_spread(given: Option<&Self>, cores: &[usize], producers: usize) -> Self {
        match given {
            Some(plan) => {
                slipring_ring::pin::use_every_core();
                plan.clone()
            }
            None => Self::spread(cores, producers),
        }
    }

    /// Producers take `cores` from the first on, consumers those after the `producers` first ones; both start over when
    /// cores run out.
    pub fn spread(cores: &[usize], producers: usize) -> Self {
        let first_consumer = producers % cores.len().max(1);
        let rotated = cores[first_consumer..].iter().chain(&cores[..first_consumer]).copied();
        Self { producers: cores.to_vec(), consumers: rotated.collect(), off: false }
    }

    /// The core of producer `index`; `None` if pinning is off or the plan names no core for producers.
    pub fn producer(&self, index: usize) -> Option<usize> {
        self.pick(&self.producers, index)
    }

    /// The core of consumer `index`; `None` if pinning is off or the plan names no core for consumers.
    pub fn consumer(&self, index: usize) -> Option<usize> {
        self.pick(&self.consumers, index)
    }

    fn pick(&self, cores: &[usize], index: usize) -> Option<usize> {
        (!self.off && !cores.is_empty()).then(|| cores[index % cores.len()])
    }

    /// The cores of this many producers and consumers, each once, in order.
    pub fn cores(&self, producers: usize, consumers: usize) -> Vec<usize> {
        let mut cores: Vec<usize> = (0..producers)
            .filter_map(|index| self.producer(index))
            .chain((0..consumers).filter_map(|index| self.consumer(index)))
            .collect();
        cores.sort_unstable();
        cores.dedup();
        cores
    }

    /// The plan for this many producers and consumers, as `--pin` takes it.
    pub fn describe(&self, producers: usize, consumers: usize) -> String {
        if self.off {
            return "none".to_owned();
        }
        let one = |letter: char, core: Option<usize>| core.map(|core| format!("{letter}={core}"));
        (0..producers)
            .filter_map(|index| one('p', self.producer(index)))
            .chain((0..consumers).filter_map(|index| one('c', self.consumer(index))))
            .collect::<Vec<_>>()
            .join(",")
    }
}

impl FromStr for PinPlan {
    type Err = BadPlan;

    fn from_str(text: &str) -> Result<Self, BadPlan> {
        if text == "none" {
            return Ok(Self { off: true, ..Self::default() });
        }
        let mut plan = Self::default();
        for part in text.split(',') {
            let wrong = || BadPlan(text.to_owned());
            let (role, core) = part.split_once('=').ok_or_else(wrong)?;
            let core = core.trim().parse().map_err(|_| wrong())?;
            match role.trim() {
                "p" => plan.producers.push(core),
                "c" => plan.consumers.push(core),
                _ => return Err(wrong()),
            }
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producer_and_consumer_get_different_cores() {
        let plan = PinPlan::spread(&[0, 1], 1);
        assert_eq!((plan.producer(0), plan.consumer(0)), (Some(0), Some(1)));
        assert_eq!(plan.consumer(1), Some(0));
        let written: PinPlan = "p=0,c=1".parse().unwrap();
        assert_eq!(written.describe(1, 1), "p=0,c=1");
        assert!("x=1".parse::<PinPlan>().is_err());
    }
}
