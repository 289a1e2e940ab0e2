//! The clock of the measurements: the processor's time-stamp counter where its rate is constant, otherwise the system's
//! monotonic clock. It measures intervals only.

use std::time::{Duration, Instant};

/// A counter that is cheap to read and has equal values on all cores.
#[derive(Clone, Debug)]
pub struct Clock {
    source: quanta::Clock,
    /// Ticks for each nanosecond.
    ticks_per_nano: f64,
    nanos_per_tick: f64,
}

impl Clock {
    /// A calibrated clock.
    pub fn new() -> Self {
        let source = quanta::Clock::new();
        // quanta converts ticks to whole nanoseconds: over a long span the rounding does not matter.
        const SPAN: u64 = 1 << 40;
        let nanos = source.delta_as_nanos(0, SPAN).max(1);
        let ticks_per_nano = SPAN as f64 / nanos as f64;
        Self { source, ticks_per_nano, nanos_per_tick: 1.0 / ticks_per_nano }
    }

    /// The counter now, in ticks.
    #[inline(always)]
    pub fn now(&self) -> u64 {
        self.source.raw()
    }

    /// Ticks as nanoseconds.
    #[inline(always)]
    pub fn nanos(&self, ticks: u64) -> u64 {
        (ticks as f64 * self.nanos_per_tick) as u64
    }

    /// Nanoseconds as ticks.
    pub fn ticks(&self, nanos: f64) -> f64 {
        nanos * self.ticks_per_nano
    }

    /// A length of time in ticks.
    pub fn span(&self, span: Duration) -> u64 {
        self.ticks(span.as_nanos() as f64) as u64
    }

    /// The time that one reading takes, in nanoseconds: the median over batches.
    pub fn reading_cost(&self) -> f64 {
        const READINGS: u32 = 20_000;
        let mut costs: Vec<f64> = (0..15)
            .map(|_| {
                let begun = Instant::now();
                let mut last = 0;
                for _ in 0..READINGS {
                    last = std::hint::black_box(self.now());
                }
                std::hint::black_box(last);
                begun.elapsed().as_nanos() as f64 / f64::from(READINGS)
            })
            .collect();
        costs.sort_by(f64::total_cmp);
        costs[costs.len() / 2]
    }

    /// The smallest step between two readings that differ, in nanoseconds.
    pub fn resolution(&self) -> f64 {
        let mut smallest = u64::MAX;
        for _ in 0..10_000 {
            let first = self.now();
            let mut second = self.now();
            while second <= first {
                second = self.now();
            }
            smallest = smallest.min(second - first);
        }
        smallest as f64 * self.nanos_per_tick
    }
}

/// The time that one `Instant::now()` takes, in nanoseconds.
pub fn instant_cost() -> f64 {
    const READINGS: u32 = 20_000;
    let begun = Instant::now();
    for _ in 0..READINGS {
        std::hint::black_box(Instant::now());
    }
    begun.elapsed().as_nanos() as f64 / f64::from(READINGS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_nanos_agree_with_the_system_clock() {
        let clock = Clock::new();
        let (begun, start) = (Instant::now(), clock.now());
        while begun.elapsed() < Duration::from_millis(20) {}
        let measured = clock.nanos(clock.now() - start) as f64;
        let truth = begun.elapsed().as_nanos() as f64;
        assert!((measured / truth - 1.0).abs() < 0.05, "{measured} against {truth}");
        assert!((clock.ticks(1e9) / clock.span(Duration::from_secs(1)) as f64 - 1.0).abs() < 1e-6);
    }
}
