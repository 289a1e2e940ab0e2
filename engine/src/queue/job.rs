//! The events that a queue can give out.

use crate::base::clock::Timestamp;
use crate::base::held;
use crate::base::threads::{Panic, blaming};
use crate::event::codec::Persist;
use crate::event::message::Message;
use crate::event::record::Record;
use crate::read::dead_letters::DeadLetterOrigin;
use std::time::Duration;

/// Events that a queue can hand out: [`Message`]s, and every type that is [`Persist`] (plain data is it without a word),
/// `Clone` and `Default`. A worker gets a copy, and a dead letter carries the bytes that `Persist` writes. Both run under the
/// queue's lock: one that panics, or that calls a queue, fails the queue with an error that says so. The event stays unread.
pub trait Job: Send + Sync + Sized + 'static {
    /// A copy of the event outside of any ring.
    #[doc(hidden)]
    fn aside(&self) -> Result<Self, Panic>;

    /// The bytes of such a copy.
    #[doc(hidden)]
    fn weight(&self) -> usize;

    /// How long it may not be given out yet, at `now`.
    #[doc(hidden)]
    fn waits(&self, now: Timestamp) -> Duration;

    /// Decodes what the journal has of it. None if it is no event.
    #[doc(hidden)]
    fn of_bytes(bytes: &[u8]) -> Option<Self>;

    /// Makes the record of a dead letter, and passes it to `send`.
    #[doc(hidden)]
    fn to_dead_letter<R>(&self, origin: &DeadLetterOrigin<'_>, send: impl FnOnce(&Record<'_>) -> R) -> R;

    /// The event of a dead letter.
    #[doc(hidden)]
    fn of_dead_letter(message: Message) -> Option<Self>;

    /// The most bytes that the message of a dead letter may have, if the topic's messages have up to `max_message`.
    #[doc(hidden)]
    fn largest(max_message: usize) -> usize;
}

/// The limit for events of any size: larger ones find no place among the dead letters.
const LARGEST: usize = 4096;

impl<E: Persist + Clone + Default> Job for E {
    fn aside(&self) -> Result<Self, Panic> {
        held::inside(|| blaming("the event's Clone", || self.clone()))
    }

    fn weight(&self) -> usize {
        size_of::<E>()
    }

    fn waits(&self, _: Timestamp) -> Duration {
        Duration::ZERO
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let mut event = E::default();
        event.read(bytes).ok().map(|()| event)
    }

    fn to_dead_letter<R>(&self, origin: &DeadLetterOrigin<'_>, send: impl FnOnce(&Record<'_>) -> R) -> R {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        origin.0.with_record(&Message::of(&Record::new(&bytes)), send)
    }

    fn of_dead_letter(message: Message) -> Option<Self> {
        Self::of_bytes(message.value())
    }

    fn largest(_: usize) -> usize {
        E::size().unwrap_or(LARGEST)
    }
}

impl Job for Message {
    fn aside(&self) -> Result<Self, Panic> {
        Ok(self.copy())
    }

    fn weight(&self) -> usize {
        self.size()
    }

    fn waits(&self, now: Timestamp) -> Duration {
        Message::waits(self, now)
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        Message::of_stored(bytes)
    }

    fn to_dead_letter<R>(&self, origin: &DeadLetterOrigin<'_>, send: impl FnOnce(&Record<'_>) -> R) -> R {
        origin.0.with_record(self, send)
    }

    fn of_dead_letter(message: Message) -> Option<Self> {
        Some(message)
    }

    fn largest(max_message: usize) -> usize {
        max_message
    }
}
