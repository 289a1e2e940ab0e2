//! The constructor of the events in a topic's slots.

use std::fmt;

/// Given a slot count, returns the constructor of the events.
pub(crate) type SlotFactory<E> =
    Box<dyn Fn(usize) -> Result<Box<dyn FnMut() -> E + Send>, SlotFactoryError> + Send + Sync>;

/// Why the events' constructor is not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotFactoryError {
    /// The system could not allocate the events' memory.
    Memory,
    /// The user's factory of events is running and has asked for more partitions itself.
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
