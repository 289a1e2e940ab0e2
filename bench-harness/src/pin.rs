//! Pinning by the core's real number, read back: what was not pinned is not measured.

use std::str::FromStr;

/// Why a thread does not run where it was asked to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PinError {
    /// The system refused the core.
    #[error("core {core} was refused; the cores this process may use are {allowed:?}: choose among them with --pin")]
    Refused {
        /// The core that was asked for.
        core: usize,
        /// The cores of this process.
        allowed: Vec<usize>,
    },
    /// The system took the request and runs the thread elsewhere.
    #[error("asked for core {core}, but the thread may run on {found:?}")]
    Elsewhere {
        /// The core that was asked for.
        core: usize,
        /// Where the thread may run by the system's own account.
        found: Vec<usize>,
    },
    /// A pin list that can't be read.
    #[error("`{0}` is not a pin list; write p=0,c=1 or p=0,p=2,c=1,c=3, or none")]
    Syntax(String),
}

/// The cores the calling thread may use now, by their real numbers.
///
/// Read it before any thread is pinned: afterwards it lists the pinned core only.
#[cfg(target_os = "linux")]
pub fn allowed() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect(),
        Err(_) => vec![0],
    }
}

/// The cores the calling thread may use now, by their real numbers.
#[cfg(not(target_os = "linux"))]
pub fn allowed() -> Vec<usize> {
    core_affinity::get_core_ids().map(|ids| ids.into_iter().map(|id| id.id).collect()).unwrap_or_else(|| vec![0])
}

/// Pins the calling thread to `core` and reads it back.
///
/// # Errors
///
/// [`PinError`] if the core was refused, or if the thread may still run elsewhere.
pub fn pin_to(core: usize) -> Result<(), PinError> {
    // Not checked against a list first: core_affinity's own list hides isolated cores.
    let before = allowed();
    if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        return Err(PinError::Refused { core, allowed: before });
    }
    if cfg!(target_os = "linux") {
        let found = allowed();
        if found != [core] {
            return Err(PinError::Elsewhere { core, found });
        }
    }
    Ok(())
}

/// Which core each producer and consumer runs on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PinPlan {
    producers: Vec<usize>,
    consumers: Vec<usize>,
    off: bool,
}

impl PinPlan {
    /// Producers from the front of `cores`, consumers behind them, starting over when they run out.
    pub fn spread(cores: &[usize], producers: usize) -> Self {
        let first_consumer = producers % cores.len().max(1);
        let rotated = cores[first_consumer..].iter().chain(&cores[..first_consumer]).copied();
        Self { producers: cores.to_vec(), consumers: rotated.collect(), off: false }
    }

    /// The core of producer `index`, or `None` where pinning is off.
    pub fn producer(&self, index: usize) -> Option<usize> {
        self.pick(&self.producers, index)
    }

    /// The core of consumer `index`.
    pub fn consumer(&self, index: usize) -> Option<usize> {
        self.pick(&self.consumers, index)
    }

    fn pick(&self, cores: &[usize], index: usize) -> Option<usize> {
        (!self.off && !cores.is_empty()).then(|| cores[index % cores.len()])
    }

    /// The different cores in use for so many producers and consumers.
    pub fn cores(&self, producers: usize, consumers: usize) -> Vec<usize> {
        let mut cores: Vec<usize> = (0..producers)
            .filter_map(|index| self.producer(index))
            .chain((0..consumers).filter_map(|index| self.consumer(index)))
            .collect();
        cores.sort_unstable();
        cores.dedup();
        cores
    }

    /// The plan in words, as `--pin` takes it.
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
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        if text == "none" {
            return Ok(Self { off: true, ..Self::default() });
        }
        let mut plan = Self::default();
        for part in text.split(',') {
            let wrong = || PinError::Syntax(text.to_owned());
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
    fn pins_and_reads_back() {
        // On a thread of its own: the pin stays with the thread.
        let outcome = std::thread::spawn(|| {
            let cores = allowed();
            let last = *cores.last().unwrap();
            pin_to(last).map(|()| allowed() == [last])
        });
        assert!(outcome.join().unwrap().unwrap());
    }

    #[test]
    fn refuses_a_core_that_is_not_there() {
        let outcome = std::thread::spawn(|| pin_to(1_000)).join().unwrap();
        assert!(matches!(outcome, Err(PinError::Refused { core: 1_000, .. })), "{outcome:?}");
    }

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
