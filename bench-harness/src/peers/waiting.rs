//! The class of waiting, the same for every contender of a table.

use clap::ValueEnum;
use crossbeam_utils::Backoff;
use serde::{Deserialize, Serialize};

/// How threads wait, for a ring that is full or empty.
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
    /// Spin while every thread has a core of its own, else yield.
    pub fn fitting(threads: usize, cores: usize) -> Self {
        if threads <= cores { Self::Spin } else { Self::Yield }
    }

    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Spin => "spin with PAUSE",
            Self::Yield => "spin a little, then yield",
            Self::Native => "each contender's own blocking",
        }
    }
}

/// One thread's waiting in a contender's inner loop.
pub trait Waiting: Send + 'static {
    /// The contender's blocking calls are to be used, if it has any.
    const NATIVE: bool;
    /// The same by value.
    const CLASS: WaitClass;
    /// A fresh wait.
    fn begin() -> Self;
    /// Nothing to do yet.
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

/// The contender's own blocking; where it has none, spin a little, then yield.
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

/// The back-off of a consumer on an almost empty ring: after a short batch that came soon after
/// the last one it pauses, longer each time, so that the producer keeps its cache line for a
/// while. After a long wait it does not pause at all.
#[derive(Clone, Debug, Default)]
pub struct ShortBatchPause {
    pause: u32,
    empty_looks: u32,
}

const LONGEST_PAUSE: u32 = 63;
const SOON: u32 = 64;

impl ShortBatchPause {
    /// The batch length from which on there is no pause.
    pub fn target(capacity: usize) -> usize {
        (capacity / 4).clamp(1, 256)
    }

    /// The ring was empty.
    #[inline(always)]
    pub fn empty(&mut self) {
        self.empty_looks += 1;
    }

    /// A batch of `length` was handled.
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
