//! The classes of waiting. All contenders of a table have the same class.

use clap::ValueEnum;
use crossbeam_utils::Backoff;
use serde::{Deserialize, Serialize};

/// How threads wait on a full or empty ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitClass {
    /// Spin with the processor's hint (PAUSE)
    Spin,
    /// Spin a little, then yield to the system
    Yield,
    /// The contender's own blocking calls
    Native,
}

impl WaitClass {
    /// [`Spin`](Self::Spin) if each thread has its own core, else [`Yield`](Self::Yield).
    pub fn fitting(threads: usize, cores: usize) -> Self {
        if threads <= cores { Self::Spin } else { Self::Yield }
    }

    /// The class in words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Spin => "spin with PAUSE",
            Self::Yield => "spin a little, then yield",
            Self::Native => "each contender's own blocking",
        }
    }
}

/// The waiting of a thread in a contender's inner loop.
pub trait Waiting: Send + 'static {
    /// True if the contender's blocking calls are to be used, if it has such calls.
    const NATIVE: bool;
    /// The class as a value.
    const CLASS: WaitClass;
    /// Begins to wait.
    fn begin() -> Self;
    /// Called each time the thread finds nothing to do.
    fn idle(&mut self);
}

/// Spin with the processor's hint.
pub struct Spin;

impl Waiting for Spin {
    const NATIVE: bool = false;
    const CLASS: WaitClass = WaitClass::Spin;

    #[inline(always)]
    fn begin() -> Self {
        Self
    }

    #[inline(always)]
    fn idle(&mut self) {
        std::hint::spin_loop();
    }
}

/// Spin a little, then yield.
pub struct Yield(Backoff);

impl Waiting for Yield {
    const NATIVE: bool = false;
    const CLASS: WaitClass = WaitClass::Yield;

    #[inline(always)]
    fn begin() -> Self {
        Self(Backoff::new())
    }

    #[inline(always)]
    fn idle(&mut self) {
        self.0.snooze();
    }
}

/// The contender's own blocking calls; without such calls, spin a little, then yield.
pub struct Native(Backoff);

impl Waiting for Native {
    const NATIVE: bool = true;
    const CLASS: WaitClass = WaitClass::Native;

    #[inline(always)]
    fn begin() -> Self {
        Self(Backoff::new())
    }

    #[inline(always)]
    fn idle(&mut self) {
        self.0.snooze();
    }
}

/// The short-batch pause of a consumer on an almost empty ring. After a batch shorter than the [target](Self::target)
/// that came within 64 empty polls it spins, each time about twice as long, so that the producer keeps its cache line
/// meanwhile. A short batch that came later sets the pause back to 0.
#[derive(Clone, Debug, Default)]
pub struct ShortBatchPause {
    pause: u32,
    empty_looks: u32,
}

const LONGEST_PAUSE: u32 = 63;
const SOON: u32 = 64;

impl ShortBatchPause {
    /// The batch length from which on there is no pause, for a ring of `capacity` slots.
    pub fn target(capacity: usize) -> usize {
        (capacity / 4).clamp(1, 256)
    }

    /// Counts a poll that found the ring empty.
    #[inline(always)]
    pub fn empty(&mut self) {
        self.empty_looks += 1;
    }

    /// Pauses, if a batch of `length` events that was just read is shorter than `target` and came soon.
    #[inline(always)]
    pub fn handled(&mut self, length: usize, target: usize) {
        if length < target {
            if self.empty_looks < SOON {
                self.pause = (self.pause * 2 + 1).min(LONGEST_PAUSE);
                for _ in 0..self.pause {
                    std::hint::spin_loop();
                }
            } else {
                self.pause = 0;
            }
        }
        self.empty_looks = 0;
    }
}
