//! The sizes of a shared ring.

/// The sizes of a new ring, and whether several producers may join it: [`SharedRing::create`](super::SharedRing::create).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub(crate) capacity: usize,
    pub(crate) retain: usize,
    pub(crate) is_multi: bool,
}

impl Size {
    /// `capacity` slots, a power of two, for one producer.
    pub const fn slots(capacity: usize) -> Self {
        Self { capacity, retain: 0, is_multi: false }
    }

    /// A ring for several producers, which join by [`SharedRing::multi_producer`](super::SharedRing::multi_producer). Each
    /// slot has a stamp of 8 bytes besides its event.
    pub const fn multi_producer(mut self) -> Self {
        self.is_multi = true;
        self
    }

    /// Keeps the last `events` events, fewer than the capacity, for consumers that join later (default: 0). Producers
    /// have so many slots less.
    pub const fn retain(mut self, events: usize) -> Self {
        self.retain = events;
        self
    }
}

impl From<usize> for Size {
    fn from(capacity: usize) -> Self {
        Self::slots(capacity)
    }
}
