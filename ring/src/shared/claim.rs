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

    /// As [`commit`](Self::commit), and leaves `note` with the published position: the place in the producer's own input,
    /// for example. A successor finds it by [`SharedProducer::note`], whenever its predecessor was killed: the note of the last
    /// claim that was published, and never that of one that was not. In a ring for several producers no note is kept.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use slipring_ring::shared::SharedRing;
    /// # let name = format!("doc-note-{}", std::process::id());
    /// # let name = &*name;
    /// let ring = SharedRing::<u64>::open_or_create(name, 8)?;
    /// let mut out = ring.producer()?;
    /// let mut claim = out.claim(1)?;
    /// claim.iter_mut().for_each(|(_, value)| *value = 7);
    /// claim.commit_noted(4_711)?;                             // for example the offset behind what was read
    /// drop(out);
    /// assert_eq!(ring.producer()?.note(), Some(4_711));
    /// SharedRing::<u64>::remove(name)?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As `commit`.
    pub fn commit_noted(self, note: u64) -> Result<Sequences, Ended> {
        let region = &self.producer.member.region;
        if !region.is_multi {
            region.control().state.0.notes.put(self.first, self.first + self.len, note);
        }
        self.commit()
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
