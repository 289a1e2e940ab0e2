//! Wait strategies: what a consumer does while it finds no event, and a producer while it finds no room.
//!
//! The wait loop calls a strategy after each empty *look*, that is, each check that found neither event nor room. The
//! strategy passes some time, and its result says whether the loop looks again or sleeps until another thread moves a
//! position. The loop, in [`crate::waiting`], never names a strategy.

use crate::panics::blaming;
use crate::sync;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The decision of a wait strategy after an empty look (a check that found neither event nor room).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Look again.
    Look,
    /// Sleep until another thread moves the position for which this one waits. The ring looks once more before it
    /// sleeps.
    Sleep,
}

/// A custom wait strategy.
///
/// ```
/// use slipring_ring::{Idle, Wait, WaitStrategy};
/// struct Patient;
/// impl WaitStrategy for Patient {
///     fn idle(&self, looks: u32) -> Idle {
///         if looks < 50 { std::thread::yield_now(); Idle::Look } else { Idle::Sleep }
///     }
/// }
/// let wait = Wait::custom(Patient);
/// ```
pub trait WaitStrategy: Send + Sync + 'static {
    /// Passes some time after `looks` (1 or more) consecutive empty looks, and returns what to do next. A look is a
    /// check for events or room. A thread that waits for many rings calls this once after it has checked all of them,
    /// and counts that as one look.
    fn idle(&self, looks: u32) -> Idle;
}

/// A wait strategy for a consumer without events, or for a producer without room.
///
/// | strategy | latency | cost while idle | use |
/// |---|---|---|---|
/// | [`busy_spin`](Wait::busy_spin) | lowest | a whole core | a core that runs nothing else |
/// | [`spin`](Wait::spin) | lowest | a whole core, less power | a core shared with a sibling hyper-thread |
/// | [`spin_yield`](Wait::spin_yield) | low | a whole core, which other threads may take | more threads than cores |
/// | [`backoff`](Wait::backoff) | low, then rising | less, the longer it waits; then nothing | varying event rates |
/// | [`spin_then_park`](Wait::spin_then_park) | low, or a wake-up | nothing | the default |
/// | [`nap`](Wait::nap) | up to a nap | little | producers that must not enter the kernel |
///
/// ```
/// use slipring_ring::Wait;
/// let wait: Wait = "spin-then-park".parse()?;
/// assert_eq!(wait, Wait::spin_then_park());
/// assert_eq!(Wait::spin_yield().spins(10).to_string(), "spin-yield");
/// # Ok::<(), slipring_ring::UnknownWait>(())
/// ```
#[derive(Clone)]
pub struct Wait {
    strategy: Strategy,
    spins: u32,
    yields: u32,
    pause: u32,
}

#[derive(Clone)]
enum Strategy {
    BusySpin,
    Spin,
    SpinYield,
    Backoff,
    SpinThenPark,
    Nap(Duration),
    Custom(Arc<dyn WaitStrategy>),
}

impl Wait {
    /// The names of the strategies that [`FromStr`] accepts.
    pub const NAMES: [&'static str; 6] = ["busy-spin", "spin", "spin-yield", "backoff", "spin-then-park", "nap"];

    const fn new(strategy: Strategy) -> Self {
        Self { strategy, spins: 2_000, yields: 20, pause: 63 }
    }

    /// Spins: looks (checks for events or room) again at once.
    pub const fn busy_spin() -> Self {
        Self::new(Strategy::BusySpin)
    }

    /// Spins: looks (checks for events or room) again after one spin hint.
    pub const fn spin() -> Self {
        Self::new(Strategy::Spin)
    }

    /// Looks [`spins`](Self::spins) times (default: 40) for events or room, with a spin hint before each look. Then
    /// yields to other threads before each look.
    pub const fn spin_yield() -> Self {
        let mut wait = Self::new(Strategy::SpinYield);
        wait.spins = 40;
        wait
    }

    /// Looks for events or room 7 times after spin hints, whose count doubles from 2 to 128, then after yields
    /// ([`yields`](Self::yields) times, default: 20), then sleeps.
    pub const fn backoff() -> Self {
        Self::new(Strategy::Backoff)
    }

    /// Looks [`spins`](Self::spins) times for events or room, with a spin hint before each look (default: 2,000, about
    /// 80 microseconds), then yields [`yields`](Self::yields) times (default: 20), then sleeps. So events that come
    /// 100,000 times a second at random rarely find the consumer asleep.
    pub const fn spin_then_park() -> Self {
        Self::new(Strategy::SpinThenPark)
    }

    /// Looks [`spins`](Self::spins) times (default: 100) for events or room, with a spin hint before each look, then sleeps for
    /// `nap` before each look. A thread that waits like this is never woken: no publish makes a system call for it. An event,
    /// the end of the ring and a deadline are seen up to a nap late. By name: naps of 200 microseconds.
    ///
    /// ```
    /// use slipring_ring::Wait;
    /// use std::time::Duration;
    /// let wait = Wait::nap(Duration::from_micros(200));
    /// assert_eq!("nap".parse(), Ok(wait));
    /// ```
    pub const fn nap(nap: Duration) -> Self {
        let mut wait = Self::new(Strategy::Nap(nap));
        wait.spins = 100;
        wait
    }

    /// A custom strategy.
    pub fn custom(strategy: impl WaitStrategy) -> Self {
        Self::new(Strategy::Custom(Arc::new(strategy)))
    }

    /// Sets the count of looks (checks for events or room) with spin hints before the strategy yields or sleeps. A look
    /// takes 20 to 150 nanoseconds. Sleeping and being woken costs some microseconds on both sides, so spin at least
    /// that long, unless an idle core matters more. A thread that waits for many rings makes this many looks at all of
    /// them together. For [`backoff`](Self::backoff) the count has no effect, except that 0 replaces its 7 looks with
    /// spin hints by looks with a yield.
    pub const fn spins(mut self, spins: u32) -> Self {
        self.spins = spins;
        self
    }

    /// Sets the count of looks (checks for events or room) with a yield before each, after the spins and before the
    /// strategy sleeps.
    pub const fn yields(mut self, yields: u32) -> Self {
        self.yields = yields;
        self
    }

    /// Sets the longest pause, in spin hints (default: 63; 0: no pauses). A consumer pauses between short batches that
    /// follow one another closely, while that makes its batches longer: the pause keeps the consumer from taking the
    /// producer's cache line at each publish. It adds latency only above about 5 million events a second, at most this
    /// many hints. A poll that does not wait makes no pause, and a poll of many rings makes at most one. A multi
    /// producer pauses after a claim that collided with another producer's, so that the two do not take the line from
    /// each other each time.
    pub const fn pause(mut self, hints: u32) -> Self {
        self.pause = hints;
        self
    }

    /// The longest pause in spin hints: see [`pause`](Self::pause).
    pub const fn longest_pause(&self) -> u32 {
        self.pause
    }

    /// True if the strategy executes spin hints between looks, so that a few more hints do no harm.
    pub(crate) const fn hints(&self) -> bool {
        match self.strategy {
            Strategy::Spin | Strategy::SpinYield | Strategy::SpinThenPark | Strategy::Nap(_) => true,
            Strategy::BusySpin | Strategy::Backoff | Strategy::Custom(_) => false,
        }
    }

    /// True for the strategies that never sleep or nap, and so keep a core busy while they wait; false for a custom strategy.
    pub const fn occupies_a_core(&self) -> bool {
        match self.strategy {
            Strategy::BusySpin | Strategy::Spin | Strategy::SpinYield => true,
            Strategy::Backoff | Strategy::SpinThenPark | Strategy::Nap(_) | Strategy::Custom(_) => false,
        }
    }

    /// True for the strategies that neither sleep nor yield: while such a thread waits, another thread on its core runs
    /// only when the scheduler interrupts the first. False for a custom strategy.
    pub const fn never_yields(&self) -> bool {
        match self.strategy {
            Strategy::BusySpin | Strategy::Spin => true,
            Strategy::SpinYield
            | Strategy::Backoff
            | Strategy::SpinThenPark
            | Strategy::Nap(_)
            | Strategy::Custom(_) => false,
        }
    }

    /// Waits as the strategy says after `looks` (1 or more) checks in a row have found nothing, and returns what to do
    /// next. The wait loop calls this.
    #[inline]
    pub fn idle(&self, looks: u32) -> Idle {
        match &self.strategy {
            Strategy::BusySpin => {
                // A spin hint lets the model checker or the scheduler switch threads.
                if cfg!(any(loom, shuttle)) {
                    sync::spin_loop();
                }
            }
            Strategy::Spin => sync::spin_loop(),
            Strategy::SpinYield if looks <= self.spins => sync::spin_loop(),
            Strategy::SpinYield => sync::thread::yield_now(),
            Strategy::Backoff if looks <= 7 && self.spins > 0 => {
                (0..1u32 << looks).for_each(|_| sync::spin_loop());
            }
            Strategy::Backoff if looks.saturating_sub(7) <= self.yields => sync::thread::yield_now(),
            Strategy::SpinThenPark if looks <= self.spins => sync::spin_loop(),
            Strategy::SpinThenPark if looks - self.spins <= self.yields => sync::thread::yield_now(),
            Strategy::Nap(_) if looks <= self.spins => sync::spin_loop(),
            Strategy::Nap(nap) => sync::sleep(*nap),
            Strategy::Backoff | Strategy::SpinThenPark => return Idle::Sleep,
            Strategy::Custom(strategy) => return blaming("the waiting strategy", || strategy.idle(looks)),
        }
        Idle::Look
    }

    const fn name(&self) -> &'static str {
        match self.strategy {
            Strategy::BusySpin => "busy-spin",
            Strategy::Spin => "spin",
            Strategy::SpinYield => "spin-yield",
            Strategy::Backoff => "backoff",
            Strategy::SpinThenPark => "spin-then-park",
            Strategy::Nap(_) => "nap",
            Strategy::Custom(_) => "custom",
        }
    }
}

impl Default for Wait {
    fn default() -> Self {
        Self::spin_then_park()
    }
}

impl PartialEq for Wait {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.strategy, &other.strategy) {
            (Strategy::Custom(a), Strategy::Custom(b)) => Arc::ptr_eq(a, b),
            (Strategy::Nap(a), Strategy::Nap(b)) => a == b,
            _ => self.name() == other.name(),
        };
        same && (self.spins, self.yields, self.pause) == (other.spins, other.yields, other.pause)
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} (spins {}, yields {}, pause {})", self.spins, self.yields, self.pause)
    }
}

/// The error of a text that is not the name of a wait strategy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no waiting strategy is called {asked:?}; take one of {}", Wait::NAMES.join(", "))]
pub struct UnknownWait {
    /// The given name.
    pub asked: String,
}

impl FromStr for Wait {
    type Err = UnknownWait;

    fn from_str(name: &str) -> Result<Self, UnknownWait> {
        match name {
            "busy-spin" => Ok(Self::busy_spin()),
            "spin" => Ok(Self::spin()),
            "spin-yield" => Ok(Self::spin_yield()),
            "backoff" => Ok(Self::backoff()),
            "spin-then-park" => Ok(Self::spin_then_park()),
            "nap" => Ok(Self::nap(Duration::from_micros(200))),
            _ => Err(UnknownWait { asked: name.to_owned() }),
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_to_the_strategy_that_prints_it() {
        for name in Wait::NAMES {
            assert_eq!(name.parse::<Wait>().unwrap().to_string(), name);
        }
        let refused = "sleepy".parse::<Wait>().unwrap_err().to_string();
        assert!(refused.contains("sleepy") && refused.contains("spin-yield"), "{refused}");
    }

    #[test]
    fn only_strategies_that_park_sleep() {
        let sleeps = |wait: Wait| (1..=u32::from(u16::MAX)).any(|looks| wait.idle(looks) == Idle::Sleep);
        assert!(sleeps(Wait::spin_then_park().spins(2).yields(1)));
        assert!(sleeps(Wait::backoff().yields(1)));
        assert!(!sleeps(Wait::busy_spin()));
        assert!((1..500).all(|looks| Wait::nap(Duration::ZERO).idle(looks) == Idle::Look));
        assert!(!sleeps(Wait::spin()));
        assert_eq!(Wait::spin_then_park().spins(0).yields(0).idle(1), Idle::Sleep);
        assert_eq!(Wait::spin_then_park().spins(0).yields(0).idle(u32::MAX), Idle::Sleep);
    }
}
