//! Stamps: for the event in each slot, its producer's number and its sequence.

use std::sync::atomic::{AtomicU64, Ordering};

/// The producer of an event, by the number of its name, and the event's sequence.
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
    /// The offset of the stamped event, plus 1; 0 before the first stamp. After the ring has wrapped, a slot may hold a
    /// new event without a stamp and still the stamp of an older event. That stamp has another offset, so it is
    /// ignored.
    of: AtomicU64,
    producer: AtomicU64,
    sequence: AtomicU64,
}

impl ProducerStamps {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { slots: (0..capacity).map(|_| StampSlot::default()).collect() }
    }

    fn slot(&self, offset: u64) -> &StampSlot {
        // The capacity is a power of two, so the mask selects the slot.
        &self.slots[offset as usize & (self.slots.len() - 1)]
    }

    /// Sets the stamp of a claimed slot. The stores are relaxed: the publish that follows releases them to readers.
    pub(crate) fn set(&self, offset: u64, stamp: ProducerStamp) {
        let slot = self.slot(offset);
        slot.producer.store(stamp.producer, Ordering::Relaxed);
        slot.sequence.store(stamp.sequence, Ordering::Relaxed);
        slot.of.store(offset + 1, Ordering::Relaxed);
    }

    /// The stamp of the event at `offset`; `None` if it has none. The caller's gating position must be at or before
    /// `offset`, so that no producer overwrites the slot.
    pub(crate) fn get(&self, offset: u64) -> Option<ProducerStamp> {
        let slot = self.slot(offset);
        (slot.of.load(Ordering::Relaxed) == offset + 1).then(|| ProducerStamp {
            producer: slot.producer.load(Ordering::Relaxed),
            sequence: slot.sequence.load(Ordering::Relaxed),
        })
    }
}
