//! The files of HdrHistogram's tools: `.hgrm` percentile distributions and `.hlog` interval logs.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

/// Lines for each halving of the part above a percentile.
const TICKS_PER_HALF: u32 = 5;

/// The text of a percentile distribution, with values in microseconds.
pub fn hgrm(histogram: &Histogram<u64>) -> String {
    const UNIT: f64 = 1e3;
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut seen = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        seen += step.count_since_last_iteration();
        let (value, quantile) = (step.value_iterated_to() as f64 / UNIT, step.quantile_iterated_to());
        let _ = write!(text, "{value:12.3} {quantile:2.12} {seen:10}");
        if quantile < 1.0 {
            let _ = write!(text, " {:14.2}", 1.0 / (1.0 - quantile));
        }
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = {:12}]\n#[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.mean() / UNIT,
        histogram.stdev() / UNIT,
        histogram.max() as f64 / UNIT,
        histogram.len(),
        histogram.buckets(),
        // HdrHistogram's count for three significant digits: the smallest power of two that is at least 2,000.
        2_048
    );
    text
}

/// The text of an interval log of successive histograms, the first of which begins at `began`; maxima are in milliseconds.
///
/// # Errors
///
/// The error of the log's writer, in words.
pub fn hlog(
    intervals: &[&Histogram<u64>],
    length: Duration,
    began: SystemTime,
    comment: &str,
) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    {
        let mut writer = IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment(comment)
            .with_start_time(began)
            .with_base_time(began)
            .with_max_value_divisor(1e6)
            .begin_log_with(&mut bytes, &mut serializer)
            .map_err(|error| error.to_string())?;
        for (index, interval) in intervals.iter().enumerate() {
            writer
                .write_histogram(*interval, length * index as u32, length, None)
                .map_err(|error| format!("{error:?}"))?;
        }
    }
    String::from_utf8(bytes).map_err(|error| error.to_string())
}
