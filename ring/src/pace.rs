//! The pace of waiting: how many spin hints (`PAUSE` on x86, `ISB` on Arm) fill a time, on the processor at hand.
//!
//! A thread that waits for the next event looks again after some spin hints, because reading a clock costs as much as a
//! look. What a hint takes differs tenfold between processors: 4 ns on some, 40 on others. So every wait is stated in
//! nanoseconds, and this file turns it into hints.
//!
//! | what | time | how it is fixed by hand |
//! |---|---|---|
//! | a spin hint | measured, once a process | |
//! | from one look of a consumer to the next | [`LOOK_EVERY`] | a strategy without hints: [`Wait::busy_spin`], [`Wait::custom`] |
//! | spinning before a yield or a sleep | 80 microseconds | [`Wait::spin_for`] |
//! | the longest pause between short batches | 720 nanoseconds | [`Wait::pause`] |
//!
//! *Measured*: the time of [`HINTS`] hints, five times, of which the least counts, at the first wait of the process: some
//! 20 microseconds. Other work on the core can only lengthen a measurement. *Learned* by each consumer, while it runs: how
//! long a pause makes its batches longer ([`Waiting::learn`](crate::waiting::Waiting::learn)).
//!
//! The times are those that won on more than one processor: `docs/decisions/`, 29.

use crate::wait::Wait;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The time from one look of a consumer to the next, in nanoseconds, at least one hint. A consumer that looks more often
/// takes the line of the published position from a producer that is about to write it.
const LOOK_EVERY: u64 = 35;

/// A batch follows the last one closely if it comes within this many nanoseconds of looks. Only then does the consumer
/// pause.
const CLOSELY: u64 = 840;

/// A pause of this many nanoseconds or more is useless if it brings a consumer fewer than three events: then the producer is
/// slower than the consumer even without being disturbed by looks.
const USELESS: u64 = 180;

/// The hints of one measurement.
const HINTS: u32 = 200;

/// What a spin hint takes, in picoseconds.
static HINT: OnceLock<u32> = OnceLock::new();

/// What a spin hint takes on this processor. Measured at the first call of the process, or the first wait before it.
///
/// ```
/// let hint = slipring_ring::spin_hint_cost();
/// assert!(!hint.is_zero());
/// ```
pub fn spin_hint_cost() -> Duration {
    Duration::from_nanos(u64::from(picoseconds()).div_ceil(1_000))
}

/// What a spin hint takes, in picoseconds; at least 1.
#[inline]
pub(crate) fn picoseconds() -> u32 {
    *HINT.get_or_init(measure)
}

#[cold]
fn measure() -> u32 {
    // A model checker has no clock, and a hint of its own that takes no time. A long one keeps its schedules short.
    if cfg!(any(loom, shuttle, miri)) {
        return 40_000;
    }
    let once = |_| {
        let begun = Instant::now();
        (0..HINTS).for_each(|_| std::hint::spin_loop());
        begun.elapsed().as_nanos() as u64 * 1_000 / u64::from(HINTS)
    };
    // A hint that takes no time at all, or a clock that stands, must not become a division by zero.
    (0..5).map(once).min().unwrap_or(0).clamp(100, 1_000_000) as u32
}

/// The hints that fill `nanoseconds`, to the nearest one.
pub(crate) fn hints(nanoseconds: u64) -> u32 {
    let hint = u64::from(picoseconds());
    let hints = (nanoseconds.saturating_mul(1_000).saturating_add(hint / 2)) / hint;
    hints.min(u64::from(u32::MAX)) as u32
}

/// Executes the spin hints of the longest pause. Not where schedules are explored, in which another thread may run anyway.
pub(crate) fn pause_longest(wait: &Wait) {
    if cfg!(not(any(loom, shuttle))) {
        (0..hints(wait.longest_pause().as_nanos() as u64)).for_each(|_| std::hint::spin_loop());
    }
}

/// The pace of one consumer or producer, in spin hints and looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Hints from one look of a consumer to the next; at least 1.
    pub(crate) apart: u32,
    /// Hints of the longest pause; 0 for none.
    pub(crate) longest: u32,
    /// Empty looks after which a batch does not follow the last one closely.
    pub(crate) closely: u32,
    /// Hints from which on a pause that brings too little is useless.
    pub(crate) useless: u32,
}

impl Pace {
    pub(crate) fn of(wait: &Wait) -> Self {
        let explored = cfg!(any(loom, shuttle));
        let apart = if explored { 1 } else { hints(LOOK_EVERY).max(1) };
        Self {
            apart,
            longest: hints(wait.longest_pause().as_nanos() as u64),
            closely: if explored { 24 } else { (hints(CLOSELY) / apart).max(1) },
            useless: hints(USELESS).max(1),
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn times_become_hints_by_what_a_hint_takes() {
        let hint = u64::from(picoseconds());
        assert_eq!(picoseconds(), picoseconds());
        assert_eq!((hints(0), hints(u64::MAX)), (0, (u64::MAX / hint).min(u64::from(u32::MAX)) as u32));
        let microsecond = u64::from(hints(1_000)) * hint;
        assert!(microsecond.abs_diff(1_000_000) <= hint / 2, "{microsecond} ps of {hint} each");
        let pace = Pace::of(&Wait::default().pause(Duration::ZERO));
        assert_eq!((pace.longest, pace.apart > 0, pace.useless > 0), (0, true, true));
    }
}
