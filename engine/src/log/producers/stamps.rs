//! The stamps of the events in a ring's slots: which producer published each, with which sequence.

use std::sync::atomic::{AtomicU64, Ordering};

/// Whose event it is, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerStamp {
    pub(crate) producer: u64,
    pub(crate) sequence: u64,
}

/// The stamps of the events in a ring's slots.
pub(crate) struct ProducerStamps {
    slots: Box<[StampSlot]>,
}

#[derive(Default)]
struct StampSlot {
    /// The offset that it is of, and one more: what is left of an earlier lap says nothing.
    of: AtomicU64,
    producer: AtomicU64,
    sequence: AtomicU64,
}

impl ProducerStamps {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { slots: (0..capacity).map(|_| StampSlot::default()).collect() }
    }

    fn slot(&self, offset: u64) -> &StampSlot {
        // The capacity is a power of two.
        &self.slots[offset as usize & (self.slots.len() - 1)]
    }

    /// Between claim and publish, which releases it.
    pub(crate) fn set(&self, offset: u64, stamp: ProducerStamp) {
        let slot = self.slot(offset);
        slot.producer.store(stamp.producer, Ordering::Relaxed);
        slot.sequence.store(stamp.sequence, Ordering::Relaxed);
        slot.of.store(offset + 1, Ordering::Relaxed);
    }

    /// Of an event that the caller's gate keeps.
    pub(crate) fn get(&self, offset: u64) -> Option<ProducerStamp> {
        let slot = self.slot(offset);
        (slot.of.load(Ordering::Relaxed) == offset + 1).then(|| ProducerStamp {
            producer: slot.producer.load(Ordering::Relaxed),
            sequence: slot.sequence.load(Ordering::Relaxed),
        })
    }
}
