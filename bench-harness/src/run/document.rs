//! `run.json`: a contract, described in docs/BENCHMARKS.md and schema/run.schema.json.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::latency::Percentiles;

/// The version of the contract.
pub const VERSION: u32 = 1;

/// What `run` found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunDocument {
    /// Version of this contract.
    pub version: u32,
    /// The scenario.
    pub scenario: String,
    /// The figures may be used.
    pub valid: bool,
    /// Why, or why not.
    pub reason: String,
    /// Messages a second that were asked for; null for as fast as possible.
    pub rate_asked: Option<f64>,
    /// Messages a second that were sent.
    pub rate_achieved: f64,
    /// `count`, `p50`, `p90`, `p99`, `p999`, `p9999`, `max`, in nanoseconds; null is n/a.
    #[serde(flatten)]
    pub latency: Percentiles,
    /// The same cores on the same day with no ring on them.
    pub hiccup: Percentiles,
    /// The machine.
    pub environment: Environment,
    /// The command that made it.
    pub command: String,
    /// How it was set up.
    #[serde(default)]
    pub setup: Setup,
    /// Messages dropped on a full ring.
    #[serde(default)]
    pub drops: u64,
    /// What the harness costs a message, in nanoseconds.
    #[serde(default)]
    pub harness_ns: f64,
    /// One entry a run.
    #[serde(default)]
    pub runs: Vec<OneRun>,
    /// The percentile plot: quantile and nanoseconds.
    #[serde(default)]
    pub plot: Vec<(f64, u64)>,
    /// The hiccups' percentile plot.
    #[serde(default)]
    pub hiccup_plot: Vec<(f64, u64)>,
    /// The worst of each slice of the first run: seconds and nanoseconds.
    #[serde(default)]
    pub timeline: Vec<(f64, u64)>,
    /// The hiccups' worst of each slice.
    #[serde(default)]
    pub hiccup_timeline: Vec<(f64, u64)>,
    /// With `--loop both`: the closed loop's result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Box<RunDocument>>,
}

/// How a run was set up.
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
    /// Slots.
    pub capacity: usize,
    /// Publishing threads.
    pub producers: usize,
    /// Consuming threads.
    pub consumers: usize,
    /// Messages published at once.
    pub batch: usize,
    /// How consumers wait.
    pub wait: String,
    /// What producers do on a full ring.
    pub full: String,
    /// Where threads ran.
    pub pin: String,
    /// Measured seconds of a run.
    pub seconds: f64,
    /// The stall put in on purpose, if any.
    pub stall: String,
}

/// The figures of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OneRun {
    /// Its latencies.
    #[serde(flatten)]
    pub latency: Percentiles,
    /// Its rate.
    pub rate_achieved: f64,
    /// It reached its rate and its values were right.
    pub valid: bool,
}

/// The points of a percentile plot: as far out as there are samples.
pub fn plot(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    let count = histogram.len();
    let mut points = Vec::new();
    if count == 0 {
        return points;
    }
    // Twenty points a decade of 1 / (1 - q), up to one sample behind.
    let decades = (count as f64).log10();
    for step in 0..=(decades * 20.0) as u32 {
        let quantile = 1.0 - 10f64.powf(-f64::from(step) / 20.0);
        points.push((quantile, histogram.value_at_quantile(quantile).max(1)));
    }
    points.push((1.0 - 1.0 / count as f64, histogram.max().max(1)));
    points
}

/// The points of a timeline over so many seconds. Slices without a message are left out.
pub fn timeline(slices: &[u64], seconds: f64) -> Vec<(f64, u64)> {
    let step = seconds / slices.len() as f64;
    slices
        .iter()
        .enumerate()
        .filter(|(_, worst)| **worst > 0)
        .map(|(index, worst)| ((index as f64 * step * 1e6).round() / 1e6, *worst))
        .collect()
}
