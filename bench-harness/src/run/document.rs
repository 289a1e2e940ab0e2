//! `run.json`: a contract, described in docs/BENCHMARKS.md and schema/run.schema.json.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::latency::Percentiles;

/// The version of the contract.
pub const VERSION: u32 = 1;

/// The result of `run`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunDocument {
    /// Version of this contract.
    pub version: u32,
    /// The scenario.
    pub scenario: String,
    /// True if the figures are usable.
    pub valid: bool,
    /// Why the figures are usable, or each reason why not.
    pub reason: String,
    /// The rate that was asked for, in messages a second; `null` if there was none: as fast as possible, bursts or a
    /// trace.
    pub rate_asked: Option<f64>,
    /// The rate that was reached, in messages a second.
    pub rate_achieved: f64,
    /// `count`, and in nanoseconds `p50`, `p90`, `p99`, `p999`, `p9999`, `max`; `null` if there are too few samples for
    /// it.
    #[serde(flatten)]
    pub latency: Percentiles,
    /// The hiccups: how late the same cores met a schedule without a ring, in nanoseconds.
    pub hiccup: Percentiles,
    /// The machine.
    pub environment: Environment,
    /// The command line of the measurement.
    pub command: String,
    /// The settings.
    #[serde(default)]
    pub setup: Setup,
    /// Count of the messages that were dropped because the ring was full.
    #[serde(default)]
    pub drops: u64,
    /// The harness's own time for each message on the consumer's side, in nanoseconds.
    #[serde(default)]
    pub harness_ns: f64,
    /// An entry for each run.
    #[serde(default)]
    pub runs: Vec<OneRun>,
    /// The points of the percentile plot: quantile (0 to 1) and nanoseconds.
    #[serde(default)]
    pub plot: Vec<(f64, u64)>,
    /// The points of the hiccups' percentile plot: quantile and nanoseconds.
    #[serde(default)]
    pub hiccup_plot: Vec<(f64, u64)>,
    /// The largest latency of each slice of time of the first run: seconds at the start of the slice, and nanoseconds.
    #[serde(default)]
    pub timeline: Vec<(f64, u64)>,
    /// The largest hiccup of each slice of time: seconds at the start of the slice, and nanoseconds.
    #[serde(default)]
    pub hiccup_timeline: Vec<(f64, u64)>,
    /// The result of the closed loop, with `--loop both`; otherwise left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Box<RunDocument>>,
}

/// The settings of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Setup {
    /// `open` or `closed`.
    #[serde(rename = "loop")]
    pub pace: String,
    /// The pattern of arrivals.
    pub arrival: String,
    /// Bytes a message.
    pub payload: u64,
    /// Slots of the ring.
    pub capacity: usize,
    /// Count of the publishing threads.
    pub producers: usize,
    /// Count of the consuming threads.
    pub consumers: usize,
    /// Messages of a batch.
    pub batch: usize,
    /// The wait strategy of the consumers.
    pub wait: String,
    /// `block` or `drop`: what producers do on a full ring.
    pub full: String,
    /// The cores of the threads, as `--pin` takes them.
    pub pin: String,
    /// The measured time of a run, in seconds.
    pub seconds: f64,
    /// The deliberate stall of a consumer, in words; empty for none.
    pub stall: String,
}

/// The figures of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OneRun {
    /// Its latencies.
    #[serde(flatten)]
    pub latency: Percentiles,
    /// The rate that it reached, in messages a second.
    pub rate_achieved: f64,
    /// True if it reached its rate, its values were right, and each latency fitted into the histogram.
    pub valid: bool,
}

/// The points of a percentile plot, as (quantile, nanoseconds), up to the quantile with one sample above it. Empty
/// without samples.
pub fn plot(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    let count = histogram.len();
    let mut points = Vec::new();
    if count == 0 {
        return points;
    }
    // Twenty points for each decade of 1 / (1 - q), until one sample is left.
    let decades = (count as f64).log10();
    for step in 0..=(decades * 20.0) as u32 {
        let quantile = 1.0 - 10f64.powf(-f64::from(step) / 20.0);
        points.push((quantile, histogram.value_at_quantile(quantile).max(1)));
    }
    points.push((1.0 - 1.0 / count as f64, histogram.max().max(1)));
    points
}

/// The points of a timeline over `seconds`, as (start of the slice in seconds, largest latency in nanoseconds). Slices
/// without a message have no point.
pub fn timeline(slices: &[u64], seconds: f64) -> Vec<(f64, u64)> {
    let step = seconds / slices.len() as f64;
    slices
        .iter()
        .enumerate()
        .filter(|(_, worst)| **worst > 0)
        .map(|(index, worst)| ((index as f64 * step * 1e6).round() / 1e6, *worst))
        .collect()
}
