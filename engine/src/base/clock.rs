//! Timestamps, the clock that an engine reads time from, and a clock for tests that only the program moves.

use crate::base::threads::blaming;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment of wall-clock time: nanoseconds since 1970-01-01 00:00 UTC.
///
/// ```
/// use slipring::clock::Timestamp;
/// assert_eq!(Timestamp::from_millis(1_500).as_nanos(), 1_500_000_000);
/// assert!(Timestamp::from_millis(1) < Timestamp::from_millis(2));
/// let an_hour_ago = Timestamp::from(std::time::SystemTime::now()).minus(std::time::Duration::from_secs(3600));
/// # assert!(an_hour_ago > Timestamp::from_millis(1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `nanos` nanoseconds after 1970-01-01 00:00 UTC.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The moment `millis` milliseconds after 1970-01-01 00:00 UTC; capped at the greatest timestamp, in the year 2554.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Returns the nanoseconds since 1970-01-01 00:00 UTC.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the whole milliseconds since 1970-01-01 00:00 UTC.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This moment plus `later`; capped at the greatest timestamp.
    pub const fn plus(self, later: Duration) -> Self {
        let nanos = later.as_nanos();
        Self(if nanos > u64::MAX as u128 { u64::MAX } else { self.0.saturating_add(nanos as u64) })
    }

    /// This moment minus `earlier`; 1970-01-01 00:00 UTC if the result would be before that.
    pub const fn minus(self, earlier: Duration) -> Self {
        let nanos = earlier.as_nanos();
        Self(if nanos > u64::MAX as u128 { 0 } else { self.0.saturating_sub(nanos as u64) })
    }
}

impl From<SystemTime> for Timestamp {
    /// A time before 1970 becomes 1970-01-01 00:00 UTC, and a time after the year 2554 the greatest timestamp.
    fn from(time: SystemTime) -> Self {
        Self(0).plus(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09} s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// A source of time for an engine: a time that never goes back, and the wall-clock time. An engine uses a
/// [`SystemClock`], unless [`EngineBuilder::clock`](crate::EngineBuilder::clock) sets another one, such as a
/// [`ManualClock`].
pub trait Clock: Send + Sync + 'static {
    /// The time since a fixed moment that the clock chooses. It never decreases.
    fn now(&self) -> Duration;

    /// A cheaper [`now`](Self::now), whose value may be some milliseconds late. A group's member calls this method at
    /// every poll, so a clock that wraps another one should forward it; the default implementation calls
    /// [`now`](Self::now).
    fn coarse(&self) -> Duration {
        self.now()
    }

    /// The wall-clock time, which may jump in both directions. `docs/GUARANTEES.md` says what depends on it.
    fn wall(&self) -> Timestamp;

    /// For a clock that moves only when a program moves it: registers `tick`, so that [`Tick::tick`] is called at each
    /// move, and returns true. The caller then needs no thread of its own to wait for a time. A clock that runs by
    /// itself returns false and never calls `tick`.
    fn watch(&self, tick: Weak<dyn Tick>) -> bool {
        let _ = tick;
        false
    }
}

/// A callback for the moves of a clock that only a program moves: see [`Clock::watch`].
pub trait Tick: Send + Sync {
    /// Called after each move of the clock, on the thread that has moved it.
    fn tick(&self);
}

/// The default clock of an engine: the operating system's monotonic clock, and its wall clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
    coarse_start: Duration,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now(), coarse_start: coarse() }
    }
}

/// The kernel's monotonic time as of its last timer tick, a few milliseconds old at most; zero on systems without such
/// a clock.
fn coarse() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let at = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
        Duration::new(at.tv_sec.unsigned_abs(), at.tv_nsec.unsigned_abs() as u32)
    }
    #[cfg(not(target_os = "linux"))]
    Duration::ZERO
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    #[inline]
    fn coarse(&self) -> Duration {
        if cfg!(target_os = "linux") { coarse().saturating_sub(self.coarse_start) } else { self.now() }
    }

    fn wall(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

/// A clock for tests, which moves only when the program moves it. Cloning gives another handle of this clock.
///
/// When [`advance`](Self::advance) returns, every task of the engine's timer that is due has run, unless such a task
/// has called it.
///
/// ```
/// use slipring::{Engine, clock::{Clock, ManualClock, Timestamp}};
/// use std::time::Duration;
///
/// let clock = ManualClock::new();
/// let engine = Engine::builder().clock(clock.clone()).build()?;
/// clock.advance(Duration::from_secs(3));
/// assert_eq!(clock.now(), Duration::from_secs(3));
/// # Ok::<(), slipring::EngineError>(())
/// ```
#[derive(Clone, Default)]
pub struct ManualClock {
    state: Arc<ClockState>,
}

#[derive(Default)]
struct ClockState {
    /// The time since the clock was created, and the wall-clock time.
    at: Mutex<(Duration, Timestamp)>,
    ticks: Mutex<Vec<Weak<dyn Tick>>>,
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManualClock at {:?}, {}", self.now(), self.wall())
    }
}

impl ManualClock {
    /// Creates a clock whose time is zero and whose wall-clock time is 1970-01-01 00:00 UTC.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a clock whose time is zero and whose wall-clock time is `wall`.
    pub fn at(wall: Timestamp) -> Self {
        let clock = Self::new();
        clock.times().1 = wall;
        clock
    }

    fn times(&self) -> std::sync::MutexGuard<'_, (Duration, Timestamp)> {
        self.state.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves both the time and the wall-clock time forward by `by`, then runs the tasks that are due, on the calling
    /// thread.
    pub fn advance(&self, by: Duration) {
        {
            let mut at = self.times();
            at.0 = at.0.saturating_add(by);
            at.1 = at.1.plus(by);
        }
        self.tick();
    }

    /// Sets only the wall-clock time, as when a computer's clock is corrected. Then runs the tasks that are due.
    pub fn set_wall(&self, wall: Timestamp) {
        self.times().1 = wall;
        self.tick();
    }

    fn tick(&self) {
        let ticks: Vec<_> = {
            let mut ticks = self.state.ticks.lock().unwrap_or_else(PoisonError::into_inner);
            ticks.retain(|tick| tick.strong_count() > 0);
            ticks.iter().filter_map(Weak::upgrade).collect()
        };
        ticks.iter().for_each(|tick| tick.tick());
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        self.times().0
    }

    fn wall(&self) -> Timestamp {
        self.times().1
    }

    fn watch(&self, tick: Weak<dyn Tick>) -> bool {
        self.state.ticks.lock().unwrap_or_else(PoisonError::into_inner).push(tick);
        true
    }
}

/// A user's clock. If one of its methods panics, the panic's message names the clock.
pub(crate) struct UserClock(pub(crate) Arc<dyn Clock>);

const CLOCK: &str = "the clock";

impl Clock for UserClock {
    fn now(&self) -> Duration {
        blaming(CLOCK, || self.0.now())
    }

    fn coarse(&self) -> Duration {
        blaming(CLOCK, || self.0.coarse())
    }

    fn wall(&self) -> Timestamp {
        blaming(CLOCK, || self.0.wall())
    }

    fn watch(&self, tick: Weak<dyn Tick>) -> bool {
        blaming(CLOCK, || self.0.watch(tick))
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Duration {
        (**self).now()
    }

    fn coarse(&self) -> Duration {
        (**self).coarse()
    }

    fn wall(&self) -> Timestamp {
        (**self).wall()
    }

    fn watch(&self, tick: Weak<dyn Tick>) -> bool {
        (**self).watch(tick)
    }
}

impl<C: Clock + ?Sized> Clock for Box<C> {
    fn now(&self) -> Duration {
        (**self).now()
    }

    fn coarse(&self) -> Duration {
        (**self).coarse()
    }

    fn wall(&self) -> Timestamp {
        (**self).wall()
    }

    fn watch(&self, tick: Weak<dyn Tick>) -> bool {
        (**self).watch(tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Cheap;

    impl Clock for Cheap {
        fn now(&self) -> Duration {
            panic!("the dear clock was read");
        }
        fn coarse(&self) -> Duration {
            Duration::from_secs(7)
        }
        fn wall(&self) -> Timestamp {
            Timestamp::from_nanos(9)
        }
        fn watch(&self, _: Weak<dyn Tick>) -> bool {
            true
        }
    }

    #[test]
    fn a_clock_behind_a_pointer_is_that_clock() {
        let clocks: [Box<dyn Clock>; 3] = [
            Box::new(Arc::new(Cheap)),
            Box::new(Box::new(Cheap)),
            Box::new(Arc::new(Arc::new(Cheap) as Arc<dyn Clock>)),
        ];
        for clock in clocks {
            assert_eq!((clock.coarse(), clock.wall()), (Duration::from_secs(7), Timestamp::from_nanos(9)));
            let nobody: Weak<Nobody> = Weak::new();
            assert!(clock.watch(nobody));
        }
    }

    struct Nobody;

    impl Tick for Nobody {
        fn tick(&self) {}
    }
}
