//! What a run found: the table for people, the JSON for programs, and whether it is sound.

use std::fmt::{self, Display};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::order::{Price, Touch, Volume};
use super::stages::{DEPTH_LEVELS, SIGNAL_WINDOW, Watch};

/// A percentile means little with fewer samples than this behind it.
const SAMPLES_BEHIND: f64 = 100.0;

/// Latencies in nanoseconds.
pub type Latency = Histogram<u64>;

/// A histogram to fill: three digits, from a nanosecond to an hour; what is longer counts as an hour.
pub fn latency() -> Latency {
    const HOUR: u64 = 3_600_000_000_000;
    Histogram::new_with_bounds(1, HOUR, 3).expect("bounds and digits are legal")
}

/// One consumer's line.
#[derive(Debug)]
pub struct Consumer {
    pub name: &'static str,
    pub topic: &'static str,
    pub watch: Watch,
    /// Messages that it had not consumed when the run ended.
    pub left: u64,
    /// The largest lag that was seen while the run went on, from samples.
    pub largest_lag: u64,
    /// How often a producer had to wait because of it.
    pub stalls: u64,
}

/// What a known feed must give.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub name: &'static str,
    pub fingerprint: u64,
    pub events: u64,
    pub batches: u64,
    pub state_hash: u64,
}

/// All that a run found.
#[derive(Debug)]
pub struct Report {
    pub known: Option<Known>,
    pub events: u64,
    pub snapshot: u64,
    pub unpriced: u64,
    pub empty: u64,
    pub unknown_ids: u64,
    pub evicted: u64,
    pub batches: u64,
    pub crossed: u64,
    pub quotes: u64,
    /// Batches in which the depth stage and the book stage differ.
    pub disagreed: u64,
    /// Events that a stage saw before the book stage had finished them.
    pub overtaken: u64,
    pub consumers: Vec<Consumer>,
    pub last_two_sided: Option<(u64, Touch)>,
    pub resting: u64,
    pub near: [u64; 2],
    pub most_levels: usize,
    pub imbalance_ppm: [i64; 3],
    pub state_hash: u64,
    pub elapsed: Duration,
    /// From the publish (or the intended time) until the last stage of `orders` had it.
    pub to_last_stage: Latency,
    /// The same until the tape had the quote.
    pub to_tape: Latency,
}

#[derive(Serialize)]
struct Json {
    events: u64,
    lost: u64,
    duplicated: u64,
    crossed: u64,
    batches: u64,
    state_hash: String,
    rate: u64,
    p50: Option<u64>,
    p90: Option<u64>,
    p99: Option<u64>,
    p999: Option<u64>,
    max: Option<u64>,
}

impl Report {
    pub fn lost(&self) -> u64 {
        self.consumers.iter().map(|one| one.watch.lost).sum()
    }

    pub fn duplicated(&self) -> u64 {
        self.consumers.iter().map(|one| one.watch.duplicated).sum()
    }

    fn rate(&self) -> u64 {
        (self.events as f64 / self.elapsed.as_secs_f64().max(1e-9)) as u64
    }

    /// What does not hold that must. Empty for a sound run.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                failures.push(what);
            }
        };
        for Consumer { name, watch, left, .. } in &self.consumers {
            let Watch { lost, duplicated, .. } = watch;
            must(*lost == 0, format!("{name} lost {lost} messages"));
            must(*duplicated == 0, format!("{name} received {duplicated} messages twice or late"));
            must(*left == 0, format!("{name} left {left} messages unread"));
        }
        let Report { disagreed, overtaken, crossed, .. } = self;
        must(*overtaken == 0, format!("{overtaken} events reached a stage before the book stage had finished them"));
        must(*disagreed == 0, format!("depth and book disagree in {disagreed} batches"));
        if let Some(known) = &self.known {
            let name = known.name;
            must(*crossed == 0, format!("the book is crossed in {crossed} batches; {name} has none"));
            must(self.events == known.events, format!("{} events; {name} has {}", self.events, known.events));
            must(self.batches == known.batches, format!("{} batches; {name} has {}", self.batches, known.batches));
            must(
                self.state_hash == known.state_hash,
                format!("state hash {:016x}; {name} gives {:016x}", self.state_hash, known.state_hash),
            );
        }
        failures
    }

    /// The figures as one JSON object. Times are in nanoseconds, the rate in events a second; `null`
    /// stands where too few samples are behind a figure.
    pub fn json(&self) -> String {
        let latency = &self.to_last_stage;
        let json = Json {
            events: self.events,
            lost: self.lost(),
            duplicated: self.duplicated(),
            crossed: self.crossed,
            batches: self.batches,
            state_hash: format!("{:016x}", self.state_hash),
            rate: self.rate(),
            p50: percentile(latency, 0.5),
            p90: percentile(latency, 0.9),
            p99: percentile(latency, 0.99),
            p999: percentile(latency, 0.999),
            max: largest(latency),
        };
        serde_json::to_string_pretty(&json).expect("plain numbers and a string") + "\n"
    }
}

/// The value that a share of the samples don't exceed, when enough samples lie beyond it.
fn percentile(latency: &Latency, share: f64) -> Option<u64> {
    // Rounded: 0.1 % of 100,000 is not exactly 100 in binary.
    let behind = (latency.len() as f64 * (1.0 - share) * 1e6).round() / 1e6;
    (behind >= SAMPLES_BEHIND).then(|| latency.value_at_quantile(share))
}

fn largest(latency: &Latency) -> Option<u64> {
    (!latency.is_empty()).then(|| latency.max())
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts(f)?;
        self.latencies(f)?;
        self.lines(f)?;
        self.market(f)
    }
}

/// The table's parts.
impl Report {
    fn counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: u64, more: String| {
            let line = format!("{name:<12}{:>12}  {more}", grouped(value));
            writeln!(f, "{}", line.trim_end())
        };
        let (snapshot, unpriced, empty) = (grouped(self.snapshot), grouped(self.unpriced), grouped(self.empty));
        row(
            "events",
            self.events,
            format!("{snapshot} of the snapshot, {unpriced} without price, {empty} without volume"),
        )?;
        row("lost", self.lost(), String::new())?;
        row("duplicated", self.duplicated(), String::new())?;
        row("batches", self.batches, "of one millisecond each, after the opening snapshot".into())?;
        row("crossed", self.crossed, format!("after {} stale orders of the snapshot were evicted", self.evicted))?;
        row("unknown ids", self.unknown_ids, "changed or deleted, but never created".into())?;
        row("rate", self.rate(), format!("events a second, {:.3} s in all", self.elapsed.as_secs_f64()))
    }

    fn latencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<16}{:>10}{:>10}{:>10}{:>10}{:>10}", "latency", "p50", "p90", "p99", "p99.9", "max")?;
        for (name, latency) in [("to last stage", &self.to_last_stage), ("to tape", &self.to_tape)] {
            write!(f, "{name:<16}")?;
            for share in [0.5, 0.9, 0.99, 0.999] {
                write!(f, "{:>10}", time(percentile(latency, share)))?;
            }
            writeln!(f, "{:>10}", time(largest(latency)))?;
        }
        Ok(())
    }

    fn lines(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |cells: [&str; 8]| {
            let [name, topic, numbers @ ..] = cells;
            write!(f, "{name:<10}{topic:<8}")?;
            for (number, width) in numbers.iter().zip([10, 8, 12, 12, 12, 10]) {
                write!(f, "{number:>width$}")?;
            }
            writeln!(f)
        };
        row(["\nconsumer", " topic", "received", "lost", "duplicated", "largest lag", "lag at end", "stalls"])?;
        for Consumer { name, topic, watch, left, largest_lag, stalls } in &self.consumers {
            let numbers = [watch.seen, watch.lost, watch.duplicated, *largest_lag, *left, *stalls].map(grouped);
            let [seen, lost, duplicated, largest_lag, left, stalls] = numbers.each_ref().map(String::as_str);
            row([name, topic, seen, lost, duplicated, largest_lag, left, stalls])?;
        }
        Ok(())
    }

    fn market(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        let mut row = |name: &str, value: String| writeln!(f, "{name:<20}{value}");
        row(
            "best bid and offer",
            self.last_two_sided.map_or("never both".into(), |(time_ms, touch)| {
                let Touch { bid, ask } = touch;
                let (bid, ask) =
                    [bid, ask].map(|best| format!("{} at {}", Volume(best.volume), Price(best.price))).into();
                format!("{bid} bid, {ask} offered, at {}", clock(time_ms))
            }),
        )?;
        let (bid, ask) = self.near.map(|volume| Volume(volume).to_string()).into();
        row("depth", format!("{bid} bid, {ask} offered then in the best {DEPTH_LEVELS} levels"))?;
        let [last, low, high] = self.imbalance_ppm.map(|ppm| ppm as f64 / 10_000.0);
        row(
            "imbalance",
            format!("{last:+.2} % over the last {SIGNAL_WINDOW} batches; {low:+.2} % to {high:+.2} % in the run"),
        )?;
        let (quotes, resting, levels) = (grouped(self.quotes), grouped(self.resting), grouped(self.most_levels as u64));
        row("book", format!("{quotes} quotes, {levels} price levels at the most, {resting} orders left at the end"))?;
        row("state hash", format!("{:016x}", self.state_hash))
    }
}

/// The time of day, in UTC.
fn clock(time_ms: u64) -> String {
    let (ms, seconds) = (time_ms % 1_000, time_ms / 1_000);
    let (hour, minute) = (seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{hour:02}:{minute:02}:{:02}.{ms:03} UTC", seconds % 60)
}

fn time(nanos: Option<u64>) -> String {
    match nanos {
        None => "n/a".into(),
        Some(nanos) if nanos < 10_000 => format!("{nanos} ns"),
        Some(nanos) if nanos < 10_000_000 => format!("{:.1} us", nanos as f64 / 1e3),
        Some(nanos) => format!("{:.1} ms", nanos as f64 / 1e6),
    }
}

/// Groups digits by three: 314,057.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_needs_a_hundred_samples_behind_it() {
        let mut samples = latency();
        assert_eq!((percentile(&samples, 0.5), largest(&samples)), (None, None));
        samples.record_n(7, 999).unwrap();
        assert_eq!(percentile(&samples, 0.5), Some(7));
        assert_eq!(percentile(&samples, 0.9), None);
        samples.record(8).unwrap();
        assert_eq!(percentile(&samples, 0.9), Some(7));
        assert_eq!(largest(&samples), Some(8));
        samples.saturating_record(u64::MAX);
        assert!(largest(&samples).is_some_and(|hour| hour > 3_500_000_000_000));
        samples.record_n(7, 99_000).unwrap();
        assert_eq!(percentile(&samples, 0.999), Some(7));
    }

    #[test]
    fn numbers_and_times_are_readable() {
        assert_eq!([0, 999, 1_000, 314_057].map(grouped), ["0", "999", "1,000", "314,057"]);
        assert_eq!(clock(1_777_691_180_412), "03:06:20.412 UTC");
        assert_eq!(time(None), "n/a");
        assert_eq!(time(Some(9_999)), "9999 ns");
        assert_eq!(time(Some(12_345)), "12.3 us");
        assert_eq!(time(Some(12_345_678)), "12.3 ms");
    }
}
