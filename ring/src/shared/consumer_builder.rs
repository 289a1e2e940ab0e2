//! How the consumers of a shared ring join.

use super::consumer::SharedConsumer;
use super::error::SharedError;
use super::layout::Event;
use super::member::{self, Joining};
use super::ring::SharedRing;
use crate::stage::Start;
use crate::wait::Wait;

/// How a consumer joins: [`SharedRing::consumer`].
pub struct ConsumerBuilder<'r, E: Event> {
    ring: &'r SharedRing<E>,
    how: Joining,
    wait: Wait,
}

impl<'r, E: Event> ConsumerBuilder<'r, E> {
    pub(crate) fn new(ring: &'r SharedRing<E>, name: String) -> Self {
        Self { ring, how: Joining { name, hold: false, start: Start::default() }, wait: Wait::default() }
    }

    /// Where it begins to read (default: [`Start::Earliest`]). A held consumer goes on at its position instead.
    pub fn start(mut self, start: Start) -> Self {
        self.how.start = start;
        self
    }

    /// Keeps the consumer's position when it is dropped or its process dies: producers wait for it, and the next
    /// consumer of its name goes on there. [`SharedRing::release`] gives it up.
    pub fn hold(mut self) -> Self {
        self.how.hold = true;
        self
    }

    /// Sets the wait strategy.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Joins.
    ///
    /// # Errors
    /// [`SharedError::NameTaken`], [`SharedError::OutOfRange`], [`SharedError::Full`]; [`SharedError::Busy`] if the
    /// process of another joining participant is stopped; [`SharedError::Ended`] if the ring is damaged.
    pub fn join(self) -> Result<SharedConsumer<E>, SharedError> {
        let (region, locks) = self.ring.open_own(false)?;
        let (member, next) = member::join(region, locks, &self.how)?;
        Ok(SharedConsumer::new(member, next, self.how.hold, self.wait))
    }
}
