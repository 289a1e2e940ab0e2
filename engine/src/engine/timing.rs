//! Deadlines and intervals on the engine's clock, for which selectors wait.

use super::Engine;
use crate::read::deadline::Deadline;
use crate::read::error::TimerError;
use crate::read::interval::Interval;
use std::time::Duration;

impl Engine {
    /// A deadline on the engine's clock for which a [`Selector`](crate::subscriber::Selector) waits beside its readers.
    /// It is not [set](Deadline::set) yet.
    ///
    /// # Errors
    /// [`TimerError::NoThread`]: the engine's timer, which may not have run yet, could not be started.
    pub fn deadline(&self) -> Result<Deadline, TimerError> {
        Deadline::new(&self.shared.host.timer, &self.shared.host.clock)
    }

    /// An interval on the engine's clock for which a [`Selector`](crate::subscriber::Selector) waits beside its
    /// readers. Its first period begins now.
    ///
    /// # Errors
    /// The period is zero, or the engine's timer could not be started.
    pub fn interval(&self, period: Duration) -> Result<Interval, TimerError> {
        Interval::new(&self.shared.host.timer, &self.shared.host.clock, period)
    }
}
