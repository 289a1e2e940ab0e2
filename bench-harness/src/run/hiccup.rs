//! Hiccups: how late a thread that only waits for the times of a schedule meets them, without any ring. They are the
//! delay that the machine itself adds, and so the floor of the latencies of a run on the same cores.

use std::time::Duration;

use super::recorder::{Record, Recorder};
use crate::clock::Clock;
use crate::peers::latencies::new_histogram;
use crate::peers::link::StartLine;

/// Intended times for each second.
const RATE: f64 = 1e6;

/// Plays a schedule of a million times a second on each of `cores` at once, and records how late each time was met. If
/// `cores` is empty, one thread without a pin plays it.
pub fn measure(cores: &[usize], duration: Duration, clock: &Clock) -> Record {
    let places: Vec<Option<usize>> =
        if cores.is_empty() { vec![None] } else { cores.iter().copied().map(Some).collect() };
    let line = StartLine::new(places.len());
    let threads: Vec<_> = places
        .into_iter()
        .map(|core| {
            let (line, clock) = (std::sync::Arc::clone(&line), clock.clone());
            std::thread::spawn(move || {
                line.take_place(core);
                let start = clock.now() + clock.span(Duration::from_millis(1));
                let end = start + clock.span(duration);
                let mut recorder = Recorder::new(&clock, start, duration, None);
                let period = clock.ticks(1e9) / RATE;
                let mut number = 0u64;
                loop {
                    let intended = start + (number as f64 * period) as u64;
                    number += 1;
                    if intended >= end {
                        break;
                    }
                    let mut now = clock.now();
                    while now < intended {
                        now = clock.now();
                    }
                    recorder.record(intended, now);
                }
                recorder.finish()
            })
        })
        .collect();
    let mut all = Record::new(super::recorder::intervals(duration));
    for thread in threads {
        if let Ok(record) = thread.join() {
            all.merge(&record);
        }
    }
    all
}

/// The harness's own time for each message on the consuming side, in nanoseconds: it reads the clock and records.
pub fn own_cost(clock: &Clock) -> f64 {
    const MESSAGES: u64 = 200_000;
    let mut histogram = new_histogram();
    let begun = std::time::Instant::now();
    for _ in 0..MESSAGES {
        let before = clock.now();
        histogram.saturating_record(clock.nanos(before & 0xFFFF).max(1));
    }
    let cost = begun.elapsed().as_nanos() as f64 / MESSAGES as f64;
    std::hint::black_box(histogram.len());
    (cost * 10.0).round() / 10.0
}
