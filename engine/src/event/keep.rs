//! Copies of events that outlive their slots.

use crate::event::message::Message;

/// An event that can be copied out of its slot, as a [conflating subscriber](crate::subscriber::ConflatedSubscriber) or
/// a [table](crate::table) does. It is implemented for every type with `Clone`, and for [`Message`](crate::Message), which has no `Clone`.
pub trait Keep: Sized {
    /// Returns a copy of the event.
    fn keep_copy(&self) -> Self;

    /// Replaces the copy `kept` by a copy of this event. May reuse the memory of `kept`.
    fn keep_in(&self, kept: &mut Self);
}

impl<E: Clone> Keep for E {
    fn keep_copy(&self) -> Self {
        self.clone()
    }

    #[inline]
    fn keep_in(&self, kept: &mut Self) {
        kept.clone_from(self);
    }
}

impl Keep for Message {
    fn keep_copy(&self) -> Self {
        self.copy()
    }

    fn keep_in(&self, kept: &mut Self) {
        self.copy_to(kept);
    }
}
