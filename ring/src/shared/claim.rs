//! The claims of a shared ring's producers, as their users hold them.

use super::claims;
use super::error::Ended;
use super::layout::Event;
use super::producer::SharedProducer;
use crate::sequence::{Sequence, Sequences};
use crate::stamps::SKIPPED;

/// Slots that a producer fills and commits together. Dropped without a commit, it publishes nothing: the only producer
/// claims the same sequences next, and those of one of several producers are skipped.
pub struct SharedClaim<'p, E: Event> {
    pub(crate) producer: &'p mut SharedProducer<E>,
    pub(crate) first: u64,
    pub(crate) len: u64,
}

impl<E: Event> SharedClaim<'_, E> {
    #[inline]
    pub(crate) fn event(&mut self, sequence: u64) -> &mut E {
        // SAFETY: the pointer is that of a slot, and the slot is claimed: it lies below the limit, so every consumer has
        // passed it, and no consumer reads it before the claim is published.
        unsafe { &mut *self.producer.member.region.event_mut(sequence) }
    }

    /// The claimed events, in the order of their sequences. Each has the value that its slot had one capacity before.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Sequence, &mut E)> {
        let region = &self.producer.member.region;
        (self.first..self.first + self.len).map(|sequence| {
            // SAFETY: as in `event`. A claim is not longer than the ring, so the slots of its sequences differ.
            (Sequence(sequence), unsafe { &mut *region.event_mut(sequence) })
        })
    }

    /// Gives up all but the first `len` events, which can be committed then. A longer claim than this is left as it is.
    pub(crate) fn truncate(&mut self, len: u64) {
        if len == 0 || len >= self.len {
            return;
        }
        if self.producer.is_unfinished() {
            // The announcement still has the whole length: an heir skips all of it.
            claims::stamp_behind(&self.producer.member.region, self.first + len, self.len - len, SKIPPED);
        }
        self.len = len;
    }

    /// Publishes the events.
    ///
    /// # Errors
    /// The ring ended before; consumers may have read the events or not.
    #[inline]
    pub fn commit(self) -> Result<Sequences, Ended> {
        self.producer.publish_to(self.first, self.first + self.len)?;
        Ok(Sequences { first: Sequence(self.first), len: self.len as usize })
    }
}

impl<E: Event> Drop for SharedClaim<'_, E> {
    #[inline]
    fn drop(&mut self) {
        if self.producer.is_unfinished() {
            self.producer.give_up();
        }
    }
}
