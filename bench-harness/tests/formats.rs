//! Tests that the files for HdrHistogram's tools have their published grammar and can be read.

mod common;

use base64::Engine;
use common::{Scratch, bench};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

fn run() -> (Scratch, serde_json::Value) {
    // Tests run at the same time: each has a directory by its thread.
    let thread = format!("{:?}", std::thread::current().id());
    let scratch = Scratch::new(&format!("formats-{}", thread.replace(['(', ')'], "")));
    bench(&[
        "run",
        "spsc",
        "--rate",
        "50k/s",
        "--duration",
        "100ms",
        "--runs",
        "2",
        "--out",
        scratch.text(),
        "--format",
        "json,hgrm,hlog",
    ]);
    let document = scratch.json("run.json");
    (scratch, document)
}

/// The grammar: a head, an empty line, ascending lines of `value percentile count 1/(1-percentile)`, where the line of 100 %
/// has no last column, then three lines of legend.
#[test]
fn hgrm_keeps_its_grammar() {
    let (scratch, document) = run();
    let text = scratch.read("run.hgrm");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("       Value     Percentile TotalCount 1/(1-Percentile)"));
    assert_eq!(lines.next(), Some(""));
    let (mut before, mut ended) = ((0.0, 0.0, 0u64), false);
    let mut legend = Vec::new();
    for line in lines {
        if line.starts_with('#') {
            legend.push(line);
            continue;
        }
        assert!(legend.is_empty() && !ended, "a step after the end: {line}");
        let fields: Vec<&str> = line.split_whitespace().collect();
        let value: f64 = fields[0].parse().unwrap();
        let percentile: f64 = fields[1].parse().unwrap();
        let count: u64 = fields[2].parse().unwrap();
        assert_eq!(fields[1].len(), "0.123456789012".len(), "{line}");
        assert!(value >= before.0 && percentile >= before.1 && count >= before.2, "{line}");
        match fields.get(3) {
            Some(inverse) => {
                let inverse: f64 = inverse.parse().unwrap();
                assert!((inverse - 1.0 / (1.0 - percentile)).abs() <= 0.01 + inverse * 1e-6, "{line}");
            }
            None => ended = true,
        }
        before = (value, percentile, count);
    }
    assert!(ended, "no step at 100 %");
    assert_eq!(before.2, document["count"].as_u64().unwrap());
    // Microseconds with three digits after the point.
    assert_eq!((before.0 * 1e3).round() as u64, document["max"].as_u64().unwrap());
    let heads: Vec<&str> = legend.iter().map(|line| &line[..10]).collect();
    assert_eq!(heads, ["#[Mean    ", "#[Max     ", "#[Buckets "]);
    assert!(legend[1].contains(&format!("Total count    = {:12}]", document["count"].as_u64().unwrap())));
}

#[test]
fn hlog_is_read_back_to_the_last_message() {
    let (scratch, document) = run();
    let text = scratch.read("run.hlog");
    assert!(text.starts_with("#[Histogram log format version 1.3]\n"));
    assert!(text.contains("#[StartTime: ") && text.contains("#[BaseTime: "));
    let mut all = Histogram::<u64>::new(3).unwrap();
    let (mut intervals, mut last) = (0, std::time::Duration::ZERO);
    for entry in IntervalLogIterator::new(text.as_bytes()) {
        let LogEntry::Interval(interval) = entry.unwrap() else { continue };
        assert!(interval.start_timestamp() >= last);
        last = interval.start_timestamp();
        let bytes = base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram()).unwrap();
        let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert!((interval.max() * 1e6 - histogram.max() as f64).abs() <= 1_000.0);
        all.add(&histogram).unwrap();
        intervals += 1;
    }
    assert_eq!(intervals, 8, "two runs of four intervals");
    assert_eq!(all.len(), document["count"].as_u64().unwrap());
    assert_eq!(all.max(), document["max"].as_u64().unwrap());
}
