//! Schedules: the intended time of each message. Latency counts from that time, so that the delay of a late producer is in the
//! figures.

use std::path::PathBuf;
use std::str::FromStr;

use crate::clock::Clock;
use crate::quantity::{self, Rate, nanos};

/// The pattern of arrivals.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrival {
    /// At equal gaps.
    Fixed,
    /// At random times with exponentially distributed gaps; the rate is the mean.
    Poisson,
    /// Each producer sends `count` messages at once, again after each `every` nanoseconds. The rate is not used.
    Burst {
        /// Messages of a burst.
        count: u64,
        /// Nanoseconds from one burst to the next.
        every: u64,
    },
    /// The times of a file: on each line nanoseconds since the start, ascending. After the last time they start again.
    /// The rate is not used.
    Trace(PathBuf),
}

/// An arrival pattern that can't be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("`{0}` is not an arrival pattern: fixed, poisson, burst:100@10ms or trace:FILE")]
pub struct BadArrival(String);

impl FromStr for Arrival {
    type Err = BadArrival;

    fn from_str(text: &str) -> Result<Self, BadArrival> {
        let wrong = || BadArrival(text.to_owned());
        match text.split_once(':') {
            None if text == "fixed" => Ok(Self::Fixed),
            None if text == "poisson" => Ok(Self::Poisson),
            Some(("burst", rest)) => {
                let (count, every) = rest.split_once('@').ok_or_else(wrong)?;
                let count = quantity::count(count).map_err(|_| wrong())?;
                let every = quantity::duration(every).map_err(|_| wrong())?.as_nanos() as u64;
                if count == 0 || every == 0 {
                    return Err(wrong());
                }
                Ok(Self::Burst { count, every })
            }
            Some(("trace", path)) if !path.is_empty() => Ok(Self::Trace(path.into())),
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Arrival {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed => formatter.write_str("fixed"),
            Self::Poisson => formatter.write_str("poisson"),
            Self::Burst { count, every } => write!(formatter, "burst:{count}@{}", nanos(*every)),
            Self::Trace(path) => write!(formatter, "trace:{}", path.display()),
        }
    }
}

/// Why a trace is refused.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file can't be read.
    #[error("{0}: {1}")]
    File(String, std::io::Error),
    /// A line is no number, is less than the line before it, or is larger than 10^18 nanoseconds.
    #[error("{path}, line {line}: `{text}`; wanted nanoseconds since the start, ascending, one a line")]
    Line {
        /// The file.
        path: String,
        /// The number of the line, from 1 on.
        line: usize,
        /// The text of the line.
        text: String,
    },
    /// The file has no times: each line is empty or a comment.
    #[error("{0} holds no times")]
    Empty(String),
}

/// One producer's intended times, in ticks after the start.
#[derive(Clone, Debug)]
pub struct Schedule {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Max,
    Fixed {
        period: f64,
    },
    Poisson {
        mean: f64,
        random: fastrand::Rng,
        at: f64,
    },
    Burst {
        count: u64,
        every: f64,
    },
    /// The times of all producers together, of which this one has each `producers`-th, from its own `place` on.
    Trace {
        times: std::sync::Arc<[u64]>,
        place: u64,
        producers: u64,
        span: u64,
    },
}

impl Schedule {
    /// The schedules of `producers`, which share the rate. The times of a trace and of its repetitions go to the
    /// producers in turn; each producer sends all bursts.
    ///
    /// # Errors
    ///
    /// [`TraceError`] if the trace can't be read.
    pub fn for_producers(
        arrival: &Arrival,
        rate: Rate,
        producers: usize,
        clock: &Clock,
    ) -> Result<Vec<Self>, TraceError> {
        let share = producers as f64;
        let period = |rate: f64| clock.ticks(1e9) / rate * share;
        let (trace, span): (std::sync::Arc<[u64]>, _) = match arrival {
            Arrival::Trace(path) => {
                let times = read_trace(path)?;
                let ticks = |nanos: u64| clock.ticks(nanos as f64) as u64;
                (times.iter().map(|nanos| ticks(*nanos)).collect(), ticks(*times.last().unwrap_or(&1)) + 1)
            }
            _ => (std::sync::Arc::new([]), 1),
        };
        Ok((0..producers)
            .map(|producer| {
                let kind = match (arrival, rate) {
                    (Arrival::Trace(_), _) => {
                        let (place, producers) = (producer as u64, producers as u64);
                        Kind::Trace { times: std::sync::Arc::clone(&trace), place, producers, span }
                    }
                    (Arrival::Burst { count, every }, _) => {
                        Kind::Burst { count: *count, every: clock.ticks(*every as f64) }
                    }
                    (_, Rate::Max) => Kind::Max,
                    (Arrival::Fixed, Rate::PerSecond(rate)) => Kind::Fixed { period: period(rate) },
                    (Arrival::Poisson, Rate::PerSecond(rate)) => Kind::Poisson {
                        mean: period(rate),
                        random: fastrand::Rng::with_seed(7 + producer as u64),
                        at: 0.0,
                    },
                };
                Self { kind }
            })
            .collect())
    }

    /// The intended time of message `number`, in ticks after the start; `None` if it is sent at once. Call it once for
    /// each number, in ascending order.
    #[inline(always)]
    pub fn intended(&mut self, number: u64) -> Option<u64> {
        match &mut self.kind {
            Kind::Max => None,
            Kind::Fixed { period } => Some((number as f64 * *period) as u64),
            Kind::Poisson { mean, random, at } => {
                *at += -(1.0 - random.f64()).ln() * *mean;
                Some(*at as u64)
            }
            Kind::Burst { count, every } => Some(((number / *count) as f64 * *every) as u64),
            Kind::Trace { times, place, producers, span } => {
                let (of_all, each) = (number * *producers + *place, times.len().max(1) as u64);
                Some(times.get((of_all % each) as usize).copied().unwrap_or(0) + of_all / each * *span)
            }
        }
    }
}

/// The largest time of a trace, in nanoseconds: 31 years, so that the trace can be repeated and its times still fit into the
/// clock's ticks.
const LONGEST: u64 = 1_000_000_000_000_000_000;

fn read_trace(path: &std::path::Path) -> Result<Vec<u64>, TraceError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| TraceError::File(name.clone(), error))?;
    let mut times: Vec<u64> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.parse() {
            Ok(time @ ..=LONGEST) if times.last().is_none_or(|last| *last <= time) => times.push(time),
            _ => {
                return Err(TraceError::Line { path: name, line: index + 1, text: line.to_owned() });
            }
        }
    }
    if times.is_empty() { Err(TraceError::Empty(name)) } else { Ok(times) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(arrival: &str, rate: f64) -> Schedule {
        let clock = Clock::new();
        let rate = Rate::PerSecond(rate);
        Schedule::for_producers(&arrival.parse().unwrap(), rate, 1, &clock).unwrap().remove(0)
    }

    #[test]
    fn fixed_is_even_and_poisson_keeps_its_mean() {
        let clock = Clock::new();
        let second = clock.ticks(1e9);
        let mut fixed = one("fixed", 1e6);
        let tenth = fixed.intended(100_000).unwrap() as f64;
        assert!((tenth / second - 0.1).abs() < 1e-4);
        let mut poisson = one("poisson", 1e6);
        let last = (0..100_000).map(|number| poisson.intended(number).unwrap()).max().unwrap();
        assert!((last as f64 / second - 0.1).abs() < 0.002, "{}", last as f64 / second);
    }

    #[test]
    fn bursts_come_together() {
        let mut burst = one("burst:10@1ms", 1.0);
        assert_eq!(burst.intended(0), burst.intended(9));
        assert!(burst.intended(10) > burst.intended(9));
        assert!("burst:0@1ms".parse::<Arrival>().is_err());
        assert!("sometimes".parse::<Arrival>().is_err());
    }

    #[test]
    fn traces_repeat_and_refuse_to_go_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        std::fs::write(&path, "# ns\n0\n1000\n5000\n").unwrap();
        let mut trace = one(&format!("trace:{}", path.display()), 1.0);
        let times: Vec<u64> = (0..6).map(|number| trace.intended(number).unwrap()).collect();
        assert!(times.is_sorted(), "{times:?}");
        // A producer beyond the lines sent a message at time 0, and one in each round, that are in no trace.
        for producers in [2, 3, 5] {
            let arrival = format!("trace:{}", path.display()).parse().unwrap();
            let mut each = Schedule::for_producers(&arrival, Rate::Max, producers, &Clock::new()).unwrap();
            let mut shared: Vec<u64> = each
                .iter_mut()
                .flat_map(|schedule| (0..6).map(|number| schedule.intended(number).unwrap()).collect::<Vec<_>>())
                .collect();
            shared.sort_unstable();
            assert_eq!(shared[..6], times, "{producers} producers");
        }
        std::fs::write(&path, "5\n4\n").unwrap();
        let wrong = format!("trace:{}", path.display()).parse().unwrap();
        let refused = Schedule::for_producers(&wrong, Rate::Max, 1, &Clock::new());
        assert!(matches!(refused, Err(TraceError::Line { line: 2, .. })));
    }
}
