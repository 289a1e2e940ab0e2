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
/// further code), `Clone` and `Default`. A worker gets a clone, and a dead letter carries the bytes that `Persist`
/// writes. `Clone` and `Persist` run under the queue's lock. If one of them panics or calls a queue, the queue fails
/// with an error that says so, and the event stays unread.
pub trait Job: Send + Sync + Sized + 'static {
    /// Copies the event out of its slot.
    #[doc(hidden)]
    fn aside(&self) -> Result<Self, Panic>;

    /// The size in bytes of such a copy.
    #[doc(hidden)]
    fn weight(&self) -> usize;

    /// How much longer the event must wait before its first lease, at time `now`.
    #[doc(hidden)]
    fn waits(&self, now: Timestamp) -> Duration;

    /// Decodes the event's bytes in the journal. `None` if they are not an event of this type.
    #[doc(hidden)]
    fn of_bytes(bytes: &[u8]) -> Option<Self>;

    /// Encodes the event as a dead letter, and passes the record to `send`.
    #[doc(hidden)]
    fn to_dead_letter<R>(&self, origin: &DeadLetterOrigin<'_>, send: impl FnOnce(&Record<'_>) -> R) -> R;

    /// Decodes the event of a dead letter. `None` if its bytes are not an event of this type.
    #[doc(hidden)]
    fn of_dead_letter(message: Message) -> Option<Self>;

    /// The largest size in bytes of a dead letter's event, if the topic's largest message is `max_message` bytes.
    #[doc(hidden)]
    fn largest(max_message: usize) -> usize;
}

/// The limit in bytes for events of variable size. Larger ones do not fit into the topic for dead letters.
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
