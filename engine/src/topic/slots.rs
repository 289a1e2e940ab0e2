//! The constructor of the events with which a topic's slots are filled when a partition is created.

use std::fmt;

/// Given a slot count, returns the constructor of that many events. An error if the events cannot be made now.
pub(crate) type SlotFactory<E> =
    Box<dyn Fn(usize) -> Result<Box<dyn FnMut() -> E + Send>, SlotFactoryError> + Send + Sync>;

/// Why the events of a new partition's slots cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotFactoryError {
    /// The operating system has no memory for the events.
    Memory,
    /// The user's factory of events is running already, and has itself called for more partitions.
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
