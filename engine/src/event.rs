//! What a topic carries.

/// What stands in a topic's slots: a type of your own, written in place, or a [`Message`](crate::Message).
///
/// Every type that has a [`Default`] is an event: its slots are filled with that when the topic is created. For a type
/// that has none there is [`create_with`](crate::TopicBuilder::create_with).
pub trait Event: Send + Sync + Sized + 'static {
    /// What makes the events of one partition of `capacity` slots. `max_message` is what
    /// [`TopicBuilder::max_message`](crate::TopicBuilder::max_message) said.
    #[doc(hidden)]
    fn slots(capacity: usize, max_message: usize) -> Box<dyn FnMut() -> Self>;

    /// The bytes that one slot needs beside itself.
    #[doc(hidden)]
    fn cell(max_message: usize) -> usize;
}

impl<E: Default + Send + Sync + 'static> Event for E {
    fn slots(_: usize, _: usize) -> Box<dyn FnMut() -> Self> {
        Box::new(E::default)
    }

    fn cell(_: usize) -> usize {
        0
    }
}
