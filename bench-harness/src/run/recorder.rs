//! The latencies that a consumer records: histograms by interval, and the largest of each slice of time. All memory is
//! allocated and touched before the clock starts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::Clock;
use crate::peers::latencies::{beyond, new_histogram};

/// Count of the timeline's slices.
pub const SLICES: usize = 180;

/// Records the latencies of one thread.
pub struct Recorder {
    clock: Clock,
    from: u64,
    slice: u64,
    slice_end: u64,
    slice_index: usize,
    interval: u64,
    interval_end: u64,
    interval_index: usize,
    record: Record,
    live: Option<Arc<Live>>,
}

/// The recorded latencies.
#[derive(Clone)]
pub struct Record {
    /// A histogram of nanoseconds for each interval.
    pub intervals: Vec<Histogram<u64>>,
    /// The largest latency of each slice, in nanoseconds; 0 for a slice without a message.
    pub slices: Vec<u64>,
}

impl Record {
    /// An empty record.
    pub fn new(intervals: usize) -> Self {
        Self { intervals: vec![new_histogram(); intervals], slices: vec![0; SLICES] }
    }

    /// Adds another record of the same time.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.intervals.iter_mut().zip(&other.intervals) {
            // This cannot fail: both histograms have the same bounds.
            let _ = mine.add(theirs);
        }
        for (mine, theirs) in self.slices.iter_mut().zip(&other.slices) {
            *mine = (*mine).max(*theirs);
        }
    }

    /// The warning that the largest of the values, which `what` names, is larger than a histogram can hold; `None` if
    /// it is not.
    pub fn clipped(&self, what: &str) -> Option<String> {
        beyond(what, self.slices.iter().copied().max().unwrap_or(0))
    }

    /// All intervals together.
    pub fn total(&self) -> Histogram<u64> {
        let mut total = new_histogram();
        for interval in &self.intervals {
            let _ = total.add(interval);
        }
        total
    }
}

/// Count of the intervals of a run of this length: four a second, at least 4 and at most 60.
pub fn intervals(duration: Duration) -> usize {
    (duration.as_millis() / 250).clamp(4, 60) as usize
}

impl Recorder {
    /// A recorder for messages with intended times from tick `from` on; earlier ones are not recorded. It adds each
    /// latency to `live`, too, if there is one.
    pub fn new(clock: &Clock, from: u64, duration: Duration, live: Option<Arc<Live>>) -> Self {
        let ticks = clock.span(duration).max(1);
        let count = intervals(duration);
        let (slice, interval) = (ticks / SLICES as u64 + 1, ticks / count as u64 + 1);
        let mut record = Record::new(count);
        // Touches each histogram's pages, since a later page fault would be measured as a latency.
        for histogram in &mut record.intervals {
            for value in (0..34).map(|bit| 1u64 << bit) {
                histogram.saturating_record(value);
            }
            histogram.reset();
        }
        Self {
            clock: clock.clone(),
            from,
            slice,
            slice_end: from + slice,
            slice_index: 0,
            interval,
            interval_end: from + interval,
            interval_index: 0,
            record,
            live,
        }
    }

    /// Records a message with this intended time that was read at `now`, both in ticks.
    #[inline(always)]
    pub fn record(&mut self, intended: u64, now: u64) {
        if intended < self.from {
            return;
        }
        let latency = self.clock.nanos(now.saturating_sub(intended)).max(1);
        // Slices are by intended time, so that a stall appears at the times of the messages that it delayed.
        if intended >= self.slice_end || intended >= self.interval_end {
            self.turn_over(intended);
        }
        self.record.intervals[self.interval_index].saturating_record(latency);
        let worst = &mut self.record.slices[self.slice_index];
        *worst = latency.max(*worst);
        if let Some(live) = &self.live {
            live.record(latency);
        }
    }

    #[cold]
    fn turn_over(&mut self, intended: u64) {
        while intended >= self.slice_end {
            self.slice_end += self.slice;
            self.slice_index = (self.slice_index + 1).min(SLICES - 1);
        }
        while intended >= self.interval_end {
            self.interval_end += self.interval;
            self.interval_index = (self.interval_index + 1).min(self.record.intervals.len() - 1);
        }
    }

    /// The recorded latencies.
    pub fn finish(self) -> Record {
        self.record
    }
}

/// A coarse histogram that one thread writes while another reads it. It has eight buckets for each doubling, so that a
/// figure is too large by at most an eighth.
pub struct Live {
    buckets: Vec<AtomicU64>,
}

const FINE: u32 = 3;

impl Live {
    /// An empty histogram.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { buckets: (0..64 << FINE).map(|_| AtomicU64::new(0)).collect() })
    }

    /// Adds a latency. There is only one writer, so a load and a store are enough, without a locked instruction.
    #[inline(always)]
    fn record(&self, nanos: u64) {
        let bucket = &self.buckets[Self::index(nanos)];
        bucket.store(bucket.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn index(nanos: u64) -> usize {
        let log = 63 - nanos.max(8).leading_zeros();
        let fine = (nanos.max(8) >> (log - FINE)) & ((1 << FINE) - 1);
        ((u64::from(log) << FINE) | fine) as usize
    }

    /// The present count of each bucket.
    pub fn snapshot(&self) -> Vec<u64> {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect()
    }

    /// The value at a quantile of these counts, in nanoseconds; 0 if all counts are 0.
    pub fn quantile(counts: &[u64], quantile: f64) -> u64 {
        let total: u64 = counts.iter().sum();
        let wanted = (total as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        for (index, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                let (log, fine) = (index as u64 >> FINE, index as u64 & ((1 << FINE) - 1));
                return ((1 << FINE) + fine + 1) << log.saturating_sub(u64::from(FINE));
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_figure_is_near_the_truth() {
        let live = Live::new();
        (1..=10_000u64).for_each(|value| live.record(value));
        for (quantile, truth) in [(0.5, 5_000.0), (0.99, 9_900.0)] {
            let said = Live::quantile(&live.snapshot(), quantile) as f64;
            assert!((said / truth - 1.0).abs() < 0.13, "{said} for {truth}");
        }
    }

    /// A latency of an hour is recorded as a minute, the most that a histogram holds. `Record::clipped` reports it.
    #[test]
    fn what_is_longer_than_a_histogram_tells_is_marked() {
        let clock = Clock::new();
        let hour = clock.span(Duration::from_secs(3600));
        let mut recorder = Recorder::new(&clock, 1_000, Duration::from_millis(100), None);
        recorder.record(1_000, 2_000);
        let mut longer = Recorder::new(&clock, 1_000, Duration::from_millis(100), None);
        longer.record(1_000, 1_000 + hour);
        assert_eq!(recorder.finish().clipped("latency"), None);
        let record = longer.finish();
        let told = record.clipped("latency").unwrap();
        assert!(told.contains("a latency of 36") && record.total().max() < 61_000_000_000, "{told}");
    }

    #[test]
    fn warm_up_is_not_recorded_and_slices_follow_intended_times() {
        let clock = Clock::new();
        let duration = Duration::from_millis(100);
        let span = clock.span(duration);
        let mut recorder = Recorder::new(&clock, 1_000, duration, None);
        recorder.record(999, 5_000);
        recorder.record(1_000, 1_500);
        recorder.record(1_000 + span / 2, 1_000 + span / 2 + 9_000);
        let record = recorder.finish();
        assert_eq!(record.total().len(), 2);
        let filled: Vec<usize> = (0..SLICES).filter(|at| record.slices[*at] > 0).collect();
        assert_eq!(filled[0], 0);
        assert!((85..=95).contains(&filled[1]), "{filled:?}");
    }
}
