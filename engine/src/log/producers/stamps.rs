//! Stamps: which producer published the event in a slot, and with which sequence.

use std::sync::atomic::{AtomicU64, Ordering};

/// Which producer published an event, by its number, and with which sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerStamp {
    pub(crate) producer: u64,
    pub(crate) sequence: u64,
}

/// The stamps of the events in a ring's slots, one for each slot.
pub(crate) struct ProducerStamps {
    slots: Box<[StampSlot]>,
}

#[derive(Default)]
struct StampSlot {
    /// The offset of the stamped event, plus 1; 0 before the first. After the ring wraps, an event without a stamp may find the
    /// stamp of an older event in its slot: that one has another offset and is ignored.
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

    /// Sets the stamp of a claimed slot. The publish that follows releases it.
    pub(crate) fn set(&self, offset: u64, stamp: ProducerStamp) {
        let slot = self.slot(offset);
        slot.producer.store(stamp.producer, Ordering::Relaxed);
        slot.sequence.store(stamp.sequence, Ordering::Relaxed);
        slot.of.store(offset + 1, Ordering::Relaxed);
    }

    /// The stamp of an event that the caller's gate keeps; none if it has none.
    pub(crate) fn get(&self, offset: u64) -> Option<ProducerStamp> {
        let slot = self.slot(offset);
        (slot.of.load(Ordering::Relaxed) == offset + 1).then(|| ProducerStamp {
            producer: slot.producer.load(Ordering::Relaxed),
            sequence: slot.sequence.load(Ordering::Relaxed),
        })
    }
}
