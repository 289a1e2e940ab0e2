//! What a topic carries: events of any type, messages of bytes, records as they are sent, and how events become bytes.

pub(crate) mod codec;
pub(crate) mod dead_letter;
pub(crate) mod message;
pub(crate) mod record;

/// What stands in a topic's slots: a type of your own, written in place, or a [`Message`](crate::Message).
///
/// Every type that has a [`Default`] is an event: its slots are filled with that when the topic is created. For a type
/// that has none there is [`create_with`](crate::TopicBuilder::create_with).
pub trait Event: Send + Sync + Sized + 'static {
    /// What makes the events of one partition of `capacity` slots. `max_message` is what
    /// [`TopicBuilder::max_message`](crate::TopicBuilder::max_message) said.
    /// None if the system does not give the memory for them.
    #[doc(hidden)]
    fn slots(capacity: usize, max_message: usize) -> Option<Box<dyn FnMut() -> Self + Send>>;

    /// The bytes that one slot needs beside itself; none where events have no size of their own.
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
