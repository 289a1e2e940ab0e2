//! The contents of a topic: events of any type, messages, records to send, the encoding of events, and the
//! layout of plain data.

pub(crate) mod codec;
pub(crate) mod dead_letter;
pub(crate) mod keep;
pub(crate) mod layout;
pub(crate) mod message;
pub mod plain;
pub(crate) mod record;
pub(crate) mod upgrade;

/// The type in a topic's slots: a type of your own, written in place, or a [`Message`](crate::Message).
///
/// Every type with a [`Default`] is an event; the slots hold the default value when the topic is created. For a type
/// without one use [`create_with`](crate::TopicBuilder::create_with).
pub trait Event: Send + Sync + Sized + 'static {
    /// Returns the constructor of the events of one partition of `capacity` slots; `None` if the system refuses the
    /// memory. `max_message` is the topic's [`TopicBuilder::max_message`](crate::TopicBuilder::max_message), in bytes.
    #[doc(hidden)]
    fn slots(capacity: usize, max_message: usize) -> Option<Box<dyn FnMut() -> Self + Send>>;

    /// Bytes that each slot needs in addition to the event itself; `None` if the event type has no such bytes.
    #[doc(hidden)]
    fn cell(max_message: usize) -> Option<usize>;
}

impl<E: Default + Send + Sync + 'static> Event for E {
    fn slots(_: usize, _: usize) -> Option<Box<dyn FnMut() -> Self + Send>> {
        Some(Box::new(E::default))
    }

    fn cell(_: usize) -> Option<usize> {
        None
    }
}
