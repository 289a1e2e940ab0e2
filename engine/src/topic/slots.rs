//! The constructor of the events that stand in the slots of a topic.

use std::fmt;

/// Given a slot count, returns the constructor of the events.
pub(crate) type SlotFactory<E> =
    Box<dyn Fn(usize) -> Result<Box<dyn FnMut() -> E + Send>, SlotFactoryError> + Send + Sync>;

/// Why there is no constructor of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotFactoryError {
    /// The system gives no memory.
    Memory,
    /// The user's factory has called what needs the factory.
    Busy,
}

impl fmt::Display for SlotFactoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "there is no memory for its events",
            Self::Busy => "it was called by the topic's own factory of events: call it when that has returned",
        })
    }
}
