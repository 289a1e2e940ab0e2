//! A deadline that a selector waits for beside its readers.

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

/// A moment for which a [`Selector`](crate::subscriber::Selector) waits beside its readers, on the engine's
/// [clock](crate::clock). [`Engine::deadline`](crate::Engine::deadline) returns it.
///
/// Once the moment has come the selector selects the deadline in its turn, again and again, until it is
/// [set](Self::set) to another moment or [cleared](Self::clear). It keeps working after the engine's shutdown.
///
/// ```
/// use slipring::{Engine, clock::ManualClock, subscriber::Selector};
/// use std::time::Duration;
///
/// let clock = ManualClock::new();
/// let engine = Engine::builder().clock(clock.clone()).build()?;
/// let quotes = engine.topic::<u64>("quotes").create()?;
/// let (mut tape, mut silence) = (quotes.subscribe("watch").poll()?, engine.deadline()?);
/// let mut selector = Selector::round_robin();
///
/// quotes.producer().create()?.publish(|quote| *quote = 42)?;
/// silence.set(Duration::from_secs(5));
/// let found = selector.select(&mut [&mut tape, &mut silence], Duration::MAX)?;
/// assert_eq!(found, Some(0), "a quote came first");
/// tape.poll(Duration::ZERO)?.unwrap().into_iter().for_each(|(quote, _)| assert_eq!(*quote, 42));
///
/// silence.set(Duration::from_secs(5));                            // from now on
/// clock.advance(Duration::from_secs(5));
/// let found = selector.select(&mut [&mut tape, &mut silence], Duration::MAX)?;
/// assert_eq!(found, Some(1), "no quote for five seconds");
/// silence.clear();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Deadline {
    alarm: Alarm,
    /// The deadline's [number](crate::base::ids::next_reader).
    number: usize,
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadline").field("has_passed", &self.has_passed()).finish_non_exhaustive()
    }
}

impl Deadline {
    pub(crate) fn new(timer: &Arc<Timer>, clock: &Arc<dyn Clock>) -> Result<Self, TimerError> {
        timer.start().map_err(TimerError::NoThread)?;
        Ok(Self { alarm: Alarm::new(Arc::clone(timer), Arc::clone(clock)), number: next_reader() })
    }

    /// Sets the deadline to the time `after` from now on, in the place of an earlier one. With zero it has passed at
    /// once. A time beyond the clock's range never comes.
    pub fn set(&mut self, after: Duration) {
        let due = self.alarm.clock().now().saturating_add(after);
        self.alarm.set(due);
    }

    /// Takes the deadline back. Nothing is selected until it is set again, as before it is set for the first time.
    pub fn clear(&mut self) {
        self.alarm.clear();
    }

    /// True if the deadline is set and has passed.
    pub fn has_passed(&self) -> bool {
        self.alarm.has_passed()
    }
}

impl Selectable for Deadline {
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
