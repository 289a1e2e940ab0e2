//! The types of events that a queue can lease.

use crate::base::clock::Timestamp;
use crate::base::held;
use crate::base::threads::{Panic, blaming};
use crate::event::codec::Persist;
use crate::event::message::Message;
use crate::event::record::Record;
use crate::read::dead_letters::DeadLetterOrigin;
use std::time::Duration;

/// An event type that a queue can lease: [`Message`], and every type that is [`Persist`] (as plain data is without
/// further code), `Clone` and `Default`. A worker gets a clone of the event, and a dead letter has the bytes that
/// `Persist` writes. `Clone` and `Persist` run under the queue's lock. If one of them panics or calls a queue, the
/// queue fails with an error that says so, and the event stays unread.
pub trait Job: Send + Sync + Sized + 'static {
    /// Copies the event out of its slot into the queue's side store. An error if the copying panics.
    #[doc(hidden)]
    fn aside(&self) -> Result<Self, Panic>;

    /// The size in bytes with which the copy that [`aside`](Self::aside) makes counts in the side store. For a
    /// [`Persist`] type this is its `size_of`, without memory that it refers to.
    #[doc(hidden)]
    fn weight(&self) -> usize;

    /// How much longer, at time `now`, the event must wait before its first lease; zero if it was sent without a delay.
    #[doc(hidden)]
    fn waits(&self, now: Timestamp) -> Duration;

    /// Decodes the event from its bytes in the journal. `None` if they are not an event of this type.
    #[doc(hidden)]
    fn of_bytes(bytes: &[u8]) -> Option<Self>;

    /// Encodes the event as a dead letter, and passes the record to `send`.
    #[doc(hidden)]
    fn to_dead_letter<R>(&self, origin: &DeadLetterOrigin<'_>, send: impl FnOnce(&Record<'_>) -> R) -> R;

    /// Decodes the event from a dead letter. `None` if its bytes are not an event of this type.
    #[doc(hidden)]
    fn of_dead_letter(message: Message) -> Option<Self>;

    /// The greatest size in bytes that an event of this type can have as a dead letter. `max_message` is the topic's
    /// largest message.
    #[doc(hidden)]
    fn largest(max_message: usize) -> usize;
}

/// The greatest size in bytes, as a dead letter, of an event type of variable size. A larger event does not fit into a
/// topic for dead letters that the queue has created, so its message stays in the queue as dying.
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
