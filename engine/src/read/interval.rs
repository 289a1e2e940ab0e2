//! An interval that a selector waits for beside its readers.

use crate::base::alarm::Alarm;
use crate::base::clock::Clock;
use crate::base::ids::next_reader;
use crate::base::timer::Timer;
use crate::read::error::TimerError;
use crate::read::selector::Selectable;
use slipring_ring::Waiter;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The ends of equal periods, for which a [`Selector`](crate::subscriber::Selector) waits beside its readers, on the
/// engine's [clock](crate::clock). [`Engine::interval`](crate::Engine::interval) returns it.
///
/// The periods follow one another without a gap from the interval's creation on, so a late [`take`](Self::take) makes
/// no later period late. Periods that end while nobody takes them are counted, and bring no burst of selections. An
/// interval that nobody takes costs nothing after its first period.
///
/// ```
/// use slipring::{Engine, clock::ManualClock, subscriber::Selector};
/// use std::time::Duration;
///
/// let clock = ManualClock::new();
/// let engine = Engine::builder().clock(clock.clone()).build()?;
/// let quotes = engine.topic::<u64>("quotes").create()?;
/// let mut tape = quotes.subscribe("watch").poll()?;
/// let mut second = engine.interval(Duration::from_secs(1))?;
/// let mut selector = Selector::round_robin();
///
/// clock.advance(Duration::from_millis(3_500));
/// assert_eq!(selector.select(&mut [&mut tape, &mut second], Duration::MAX)?, Some(1));
/// assert_eq!(second.take(), 3, "three seconds have ended since the last call");
/// assert_eq!(selector.select(&mut [&mut tape, &mut second], Duration::ZERO)?, None);
/// clock.advance(Duration::from_millis(500));
/// assert_eq!(selector.select(&mut [&mut tape, &mut second], Duration::MAX)?, Some(1));
/// assert_eq!(second.take(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Interval {
    alarm: Alarm,
    /// The clock's time at the beginning of the first period.
    begun: Duration,
    period: Duration,
    /// Count of periods that [`take`](Self::take) has returned.
    taken: u64,
    /// The interval's [number](crate::base::ids::next_reader).
    number: usize,
}

impl fmt::Debug for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { period, taken, .. } = self;
        f.debug_struct("Interval").field("period", period).field("taken", taken).finish_non_exhaustive()
    }
}

impl Interval {
    pub(crate) fn new(timer: &Arc<Timer>, clock: &Arc<dyn Clock>, period: Duration) -> Result<Self, TimerError> {
        if period.is_zero() {
            return Err(TimerError::NoPeriod);
        }
        timer.start().map_err(TimerError::NoThread)?;
        let alarm = Alarm::new(Arc::clone(timer), Arc::clone(clock));
        let begun = clock.now();
        let mut interval = Self { alarm, begun, period, taken: 0, number: next_reader() };
        interval.await_next();
        Ok(interval)
    }

    /// The length of each period.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Count of periods that have ended since the last call, or since the creation before the first call; 0 if none
    /// has. The interval is selected again when the next period has ended.
    pub fn take(&mut self) -> u64 {
        if !self.alarm.has_passed() {
            return 0;
        }
        let lasted = self.alarm.clock().now().saturating_sub(self.begun);
        let ended = u64::try_from(lasted.as_nanos() / self.period.as_nanos()).unwrap_or(u64::MAX);
        let new = ended.saturating_sub(self.taken);
        self.taken = ended;
        self.await_next();
        new
    }

    /// Sets the alarm to the end of the period after those that were taken.
    fn await_next(&mut self) {
        let nanos = self.period.as_nanos().saturating_mul(u128::from(self.taken) + 1);
        let seconds = u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX);
        let due = self.begun.saturating_add(Duration::new(seconds, (nanos % 1_000_000_000) as u32));
        self.alarm.set(due);
    }
}

impl Selectable for Interval {
    fn is_ready(&mut self) -> bool {
        self.alarm.has_passed()
    }

    fn arm(&mut self, waiter: &Arc<Waiter>, token: usize) -> bool {
        self.alarm.arm(waiter, token)
    }

    fn may_rest(&self) -> bool {
        true
    }

    fn is_minded(&self) -> bool {
        false
    }

    fn identity(&self) -> usize {
        self.number
    }
}
