//! Quantities as people type them (`1M/s`, `20us`, `100k..50M:log`) and as tables show them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A text that is no quantity, with the form that is expected.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{given}` is not {wanted}")]
pub struct BadQuantity {
    given: String,
    wanted: &'static str,
}

fn bad(given: &str, wanted: &'static str) -> BadQuantity {
    BadQuantity { given: given.to_owned(), wanted }
}

/// Reads a number with an optional suffix: `k`, `M`, `G`, or `Ki`, `Mi`, `Gi`. `None` if the text is no number, or a
/// negative one.
fn scaled(text: &str) -> Option<f64> {
    let text = text.trim().replace('_', "");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1.0,
        "k" | "K" => 1e3,
        "M" | "m" => 1e6,
        "G" | "g" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let number: f64 = digits.parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number * factor)
}

/// Reads a count: `256`, `64k`, `1M`, `64Ki`.
pub fn count(text: &str) -> Result<u64, BadQuantity> {
    let number = scaled(text).ok_or_else(|| bad(text, "a count, such as 1024, 64Ki or 1M"))?;
    if number.fract() != 0.0 || number > 1e15 {
        return Err(bad(text, "a whole count"));
    }
    Ok(number as u64)
}

/// Reads a ring's capacity: a power of two. `64k` is 65,536 and `1M` is 1,048,576 here.
pub fn capacity(text: &str) -> Result<usize, BadQuantity> {
    const WANTED: &str = "a capacity: a power of two, such as 1024, 64Ki or 1Mi";
    let exact = count(text)? as usize;
    if exact.is_power_of_two() {
        return Ok(exact);
    }
    let binary = text.trim().trim_end_matches('i').to_owned() + "i";
    match count(&binary.replace('m', "M").replace('k', "K")) {
        Ok(size) if size.is_power_of_two() && text.ends_with(['k', 'K', 'm', 'M', 'G']) => Ok(size as usize),
        _ => Err(bad(text, WANTED)),
    }
}

/// Reads a length of time: `500ns`, `20us`, `5ms`, `1.5s`, `2m`.
pub fn duration(text: &str) -> Result<Duration, BadQuantity> {
    const WANTED: &str = "a length of time, such as 500ns, 20us, 5ms, 1.5s or 2m";
    let text = text.trim();
    let digits = text.trim_end_matches(|letter: char| letter.is_alphabetic());
    let nanos = match &text[digits.len()..] {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" | "" => 1e9,
        "m" | "min" => 60e9,
        _ => return Err(bad(text, WANTED)),
    };
    let number: f64 = digits.parse().map_err(|_| bad(text, WANTED))?;
    if !number.is_finite() || number < 0.0 || number * nanos > 1e18 {
        return Err(bad(text, WANTED));
    }
    Ok(Duration::from_nanos((number * nanos) as u64))
}

/// Rates that a schedule can have, in events a second: the gaps, and their sums over a run, fit into the clock's ticks.
const RATES: std::ops::RangeInclusive<f64> = 1e-3..=1e12;

/// The rate of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Rate {
    /// Events for each second.
    PerSecond(f64),
    /// As fast as the ring accepts them.
    Max,
}

impl FromStr for Rate {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let number = text.strip_suffix("/s").unwrap_or(text);
        match scaled(number) {
            Some(rate) if RATES.contains(&rate) => Ok(Self::PerSecond(rate)),
            _ => Err(bad(text, "a rate, such as 100k/s, 1M/s or max; 0.001/s to 1000G/s")),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerSecond(rate) => formatter.write_str(&per_second(*rate)),
            Self::Max => formatter.write_str("max"),
        }
    }
}

/// The values of a sweep: `100k..50M:log`, `1k..10k:5`, or a list such as `1k,2k,5k`.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps(pub Vec<f64>);

impl FromStr for Steps {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        const WANTED: &str = "steps, such as 100k..50M:log, 100k..50M:log12, 1M..5M:5 or 1M,2M,5M";
        let wrong = || bad(text, WANTED);
        let clean = text.replace("/s", "");
        let Some((low, rest)) = clean.split_once("..") else {
            let values: Option<Vec<f64>> = clean.split(',').map(scaled).collect();
            return match values {
                Some(values) if values.iter().all(|value| RATES.contains(value)) => Ok(Self(values)),
                _ => Err(wrong()),
            };
        };
        let (high, how) = rest.split_once(':').unwrap_or((rest, "log"));
        let low = scaled(low).filter(|low| RATES.contains(low)).ok_or_else(wrong)?;
        let high = scaled(high).filter(|high| *high >= low && RATES.contains(high)).ok_or_else(wrong)?;
        let spread = |points: usize, at: &dyn Fn(f64) -> f64| {
            Self((0..points).map(|step| at(step as f64 / (points.max(2) - 1) as f64)).collect())
        };
        match how.strip_prefix("log") {
            Some(points) => {
                // By default three points for each decade: 1, 2.15, 4.64, 10.
                let decades = (high / low).log10();
                let points = match points {
                    "" => (decades * 3.0).ceil() as usize + 1,
                    given => given.parse().map_err(|_| wrong())?,
                };
                if points == 0 || points > 200 {
                    return Err(wrong());
                }
                Ok(spread(points, &|part| low * (high / low).powf(part)))
            }
            None => {
                let points: usize = how.parse().map_err(|_| wrong())?;
                if points == 0 || points > 200 {
                    return Err(wrong());
                }
                Ok(spread(points, &|part| low + (high - low) * part))
            }
        }
    }
}

impl Steps {
    /// The steps as capacities: the power of two nearest to each, without equal neighbours.
    pub fn capacities(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = self.0.iter().map(|value| 1usize << value.log2().round() as u32).collect();
        sizes.dedup();
        sizes
    }
}

/// A rate as text, such as `1.25M/s`.
pub fn per_second(rate: f64) -> String {
    let (value, unit) = match rate {
        rate if rate >= 1e9 => (rate / 1e9, "G/s"),
        rate if rate >= 1e6 => (rate / 1e6, "M/s"),
        rate if rate >= 1e3 => (rate / 1e3, "k/s"),
        rate => (rate, "/s"),
    };
    let mut text = format!("{value:.2}");
    while text.ends_with('0') {
        text.pop();
    }
    format!("{}{unit}", text.trim_end_matches('.'))
}

/// Nanoseconds as text, such as `437 ns`, `20.1 us`, `5.02 ms` or `1.20 s`.
pub fn nanos(value: u64) -> String {
    let float = value as f64;
    match value {
        0..1_000 => format!("{value} ns"),
        1_000..1_000_000 => format!("{} us", three(float / 1e3)),
        1_000_000..1_000_000_000 => format!("{} ms", three(float / 1e6)),
        _ => format!("{} s", three(float / 1e9)),
    }
}

/// A number with about three significant digits: no decimal from 100 on, one from 10 on, two below.
pub fn three(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A number with its digits in groups, such as `12,345,678`.
pub fn grouped(value: u64) -> String {
    indicatif::HumanCount(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_type() {
        assert_eq!("1M/s".parse::<Rate>().unwrap(), Rate::PerSecond(1e6));
        assert_eq!("max".parse::<Rate>().unwrap(), Rate::Max);
        assert!("fast".parse::<Rate>().is_err());
        assert!("0/s".parse::<Rate>().is_err());
        assert_eq!(duration("20us").unwrap(), Duration::from_micros(20));
        assert_eq!(duration("1.5s").unwrap(), Duration::from_millis(1500));
        assert!(duration("5 parsecs").is_err());
        assert_eq!(capacity("64Ki").unwrap(), 65_536);
        assert_eq!(capacity("64k").unwrap(), 65_536);
        assert_eq!(capacity("1M").unwrap(), 1 << 20);
        assert!(capacity("1000").is_err());
    }

    #[test]
    fn walks_steps() {
        let steps: Steps = "100k..10M:log".parse().unwrap();
        assert_eq!(steps.0.len(), 7);
        assert!((steps.0[6] - 10e6).abs() < 1.0);
        assert_eq!("1k,2k".parse::<Steps>().unwrap().0, vec![1e3, 2e3]);
        let sizes = "256..1M:log".parse::<Steps>().unwrap().capacities();
        assert!(sizes.iter().all(|size| size.is_power_of_two()));
        assert_eq!((sizes[0], *sizes.last().unwrap()), (256, 1 << 20));
        assert!("9..1".parse::<Steps>().is_err());
    }

    #[test]
    fn shows_short_figures() {
        assert_eq!(per_second(1e6), "1M/s");
        assert_eq!(per_second(1_250_000.0), "1.25M/s");
        assert_eq!(nanos(437), "437 ns");
        assert_eq!(nanos(20_100), "20.1 us");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
