//! Wait strategies: what a consumer does while it finds no event, and a producer while it finds no room.
//!
//! The wait loop calls a strategy after each empty *look*, that is, each check that found neither event nor room. The
//! strategy passes some time, and its result says whether the loop looks again or sleeps until another thread moves a
//! position. The loop, in [`crate::waiting`], never names a strategy.

use crate::pace;
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
/// let patient = Wait::spin_then_park().spin_for(std::time::Duration::from_millis(1));
/// assert_eq!(patient.to_string(), "spin-then-park");
/// # Ok::<(), slipring_ring::UnknownWait>(())
/// ```
#[derive(Clone)]
pub struct Wait {
    strategy: Strategy,
    /// Nanoseconds.
    spin: u64,
    yields: u32,
    /// Nanoseconds.
    pause: u64,
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
        Self { strategy, spin: 80_000, yields: 20, pause: 720 }
    }

    /// Spins: looks (checks for events or room) again at once.
    pub const fn busy_spin() -> Self {
        Self::new(Strategy::BusySpin)
    }

    /// Spins: looks (checks for events or room) again after a spin hint; a consumer after as many as take 35 nanoseconds.
    pub const fn spin() -> Self {
        Self::new(Strategy::Spin)
    }

    /// Looks for events or room as [`spin`](Self::spin) does for [`spin_for`](Self::spin_for) (default: 1.5 microseconds).
    /// Then yields to other threads before each look.
    pub const fn spin_yield() -> Self {
        let mut wait = Self::new(Strategy::SpinYield);
        wait.spin = 1_500;
        wait
    }

    /// Looks for events or room 7 times after spin hints, whose time doubles from 24 nanoseconds to 1.5 microseconds, then
    /// after yields ([`yields`](Self::yields) times, default: 20), then sleeps.
    pub const fn backoff() -> Self {
        Self::new(Strategy::Backoff)
    }

    /// Looks for events or room as [`spin`](Self::spin) does for [`spin_for`](Self::spin_for) (default: 80 microseconds), then
    /// yields [`yields`](Self::yields) times (default: 20), then sleeps. So events that come 100,000 times a second at random
    /// rarely find the consumer asleep.
    pub const fn spin_then_park() -> Self {
        Self::new(Strategy::SpinThenPark)
    }

    /// Looks for events or room as [`spin`](Self::spin) does for [`spin_for`](Self::spin_for) (default: 4 microseconds), then
    /// sleeps for `nap` before each look. A thread that waits like this is never woken: no publish makes a system call for it. An event,
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
        wait.spin = 4_000;
        wait
    }

    /// A custom strategy.
    pub fn custom(strategy: impl WaitStrategy) -> Self {
        Self::new(Strategy::Custom(Arc::new(strategy)))
    }

    /// Sets for how long the strategy looks for events or room with spin hints before it yields or sleeps; [`Duration::ZERO`]
    /// for not at all. The time is counted in hints, by what one takes on this processor ([`spin_hint_cost`]), so a look that
    /// itself takes long lengthens it: a thread that waits for many rings looks at all of them between two hints. Sleeping and
    /// being woken costs some microseconds on both sides, so spin at least that long, unless an idle core matters more. For
    /// [`backoff`](Self::backoff) the time has no effect, except that zero replaces its 7 looks with spin hints by looks with a
    /// yield.
    ///
    /// [`spin_hint_cost`]: crate::spin_hint_cost
    pub const fn spin_for(mut self, time: Duration) -> Self {
        self.spin = nanoseconds(time);
        self
    }

    /// Sets the count of looks (checks for events or room) with a yield before each, after the spins and before the
    /// strategy sleeps.
    pub const fn yields(mut self, yields: u32) -> Self {
        self.yields = yields;
        self
    }

    /// Sets the longest pause (default: 720 nanoseconds; [`Duration::ZERO`]: no pauses). A consumer pauses between short batches
    /// that follow one another closely, while that makes its batches longer: the pause keeps the consumer from taking the
    /// producer's cache line at each publish. It adds latency only above about 5 million events a second, at most this
    /// much. A poll that does not wait makes no pause, and a poll of many rings makes at most one. A multi producer pauses
    /// after a claim that collided with another producer's, so that the two do not take the line from each other each time.
    pub const fn pause(mut self, time: Duration) -> Self {
        self.pause = nanoseconds(time);
        self
    }

    /// The longest pause: see [`pause`](Self::pause).
    pub const fn longest_pause(&self) -> Duration {
        Duration::from_nanos(self.pause)
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
        self.idle_after(looks, looks)
    }

    /// As [`idle`](Self::idle), if `hints` spin hints were executed since the first look, those of this call included.
    #[inline(always)]
    pub(crate) fn idle_after(&self, looks: u32, hints: u32) -> Idle {
        match &self.strategy {
            Strategy::BusySpin => {
                // A spin hint lets the model checker or the scheduler switch threads.
                if cfg!(any(loom, shuttle)) {
                    sync::spin_loop();
                }
            }
            Strategy::Spin => sync::spin_loop(),
            Strategy::SpinYield if self.spins_on(hints) => sync::spin_loop(),
            Strategy::SpinYield => sync::thread::yield_now(),
            Strategy::Backoff if looks <= 7 && self.spin > 0 => {
                (0..pace::hints(12 << looks).max(1)).for_each(|_| sync::spin_loop());
            }
            Strategy::Backoff if looks.saturating_sub(7) <= self.yields => sync::thread::yield_now(),
            Strategy::SpinThenPark if self.spins_on(hints) => sync::spin_loop(),
            Strategy::SpinThenPark if self.yields_on(looks, hints) => sync::thread::yield_now(),
            Strategy::Nap(_) if self.spins_on(hints) => sync::spin_loop(),
            Strategy::Nap(nap) => sync::sleep(*nap),
            Strategy::Backoff | Strategy::SpinThenPark => return Idle::Sleep,
            Strategy::Custom(strategy) => return blaming("the waiting strategy", || strategy.idle(looks)),
        }
        Idle::Look
    }

    /// True while this many hints take no longer than the time to spin.
    #[inline]
    fn spins_on(&self, hints: u32) -> bool {
        u64::from(hints) * u64::from(pace::picoseconds()) <= self.spin.saturating_mul(1_000)
    }

    /// True for as many looks as there are yields, after those that spin.
    fn yields_on(&self, looks: u32, hints: u32) -> bool {
        let a_look = u64::from(hints / looks) * u64::from(pace::picoseconds());
        u64::from(looks).saturating_sub(self.spin.saturating_mul(1_000) / a_look) <= u64::from(self.yields)
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

const fn nanoseconds(time: Duration) -> u64 {
    let nanoseconds = time.as_nanos();
    if nanoseconds > u64::MAX as u128 { u64::MAX } else { nanoseconds as u64 }
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
        same && (self.spin, self.yields, self.pause) == (other.spin, other.yields, other.pause)
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} (spins {} ns, yields {}, pauses {} ns)", self.spin, self.yields, self.pause)
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
        let hints = |count| Duration::from_nanos(u64::from(pace::picoseconds()) * count / 1_000 + 1);
        assert!(sleeps(Wait::spin_then_park().spin_for(hints(2)).yields(1)));
        assert!(sleeps(Wait::backoff().yields(1)));
        assert!(!sleeps(Wait::busy_spin()));
        assert!((1..500).all(|looks| Wait::nap(Duration::ZERO).idle(looks) == Idle::Look));
        assert!(!sleeps(Wait::spin()));
        assert!(!sleeps(Wait::spin_then_park().spin_for(Duration::MAX)));
        let at_once = Wait::spin_then_park().spin_for(Duration::ZERO).yields(0);
        assert_eq!((at_once.idle(1), at_once.idle(u32::MAX)), (Idle::Sleep, Idle::Sleep));
    }

    /// A consumer's looks are further apart, and so fewer in the same time.
    #[test]
    fn a_wait_spins_for_its_time_however_far_looks_are_apart_then_yields_as_often_as_told() {
        let time = Duration::from_micros(5);
        let wait = Wait::spin_then_park().spin_for(time).yields(3);
        for apart in [1, 2, 7] {
            let looks = u64::from((1..).find(|looks| wait.idle_after(*looks, *looks * apart) == Idle::Sleep).unwrap());
            let spun = (looks - 1 - 3) * u64::from(apart) * u64::from(pace::picoseconds());
            let a_look = u64::from(apart) * u64::from(pace::picoseconds());
            assert!(spun <= 5_000_000 && spun + a_look > 5_000_000, "{looks} looks, {apart} hints apart: {spun} ps");
        }
    }
}
