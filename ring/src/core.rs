//! The state that a ring's producers, consumers and handles share.

use crate::bell::Bell;
use crate::buffer::Buffer;
use crate::closing::{Closing, Phase};
use crate::error::BuildError;
use crate::fault::{Fault, fault};
use crate::fence::{self, Fences};
use crate::gates::Gates;
use crate::kind::Kind;
use crate::memory::Wishes;
use crate::ordering::{ADD_PRODUCER, DROP_PRODUCER, ONE_PRODUCER, READ_PRODUCERS};
use crate::sequence::later;
use crate::stage::StageState;
use crate::sync::{Arc, AtomicU64, Mutex, next_id};
use crossbeam_utils::CachePadded;

/// The slots, the positions, the gating set and the record of the end. Each producer, consumer and handle holds it.
pub struct Core<E, K: Kind> {
    pub(crate) buffer: Buffer<E, K::Stamp>,
    pub(crate) positions: K::Positions,
    pub(crate) gates: Gates,
    /// Rung when something is published.
    pub(crate) bell: Arc<Bell>,
    /// Rung by the end alone.
    pub(crate) end_bell: Bell,
    pub(crate) closing: Closing,
    /// Which fences the producers and consumers of this ring use.
    pub(crate) fences: Fences,
    /// The number of last events that stay readable for a stage that joins.
    pub(crate) retain: u64,
    /// Where the ring began.
    pub(crate) first: u64,
    /// The stages of the ring. Its lock makes changes of the gating set one at a time.
    pub(crate) members: Mutex<Vec<Arc<StageState>>>,
    producers: CachePadded<AtomicU64>,
    /// A number that no other ring of this process has.
    pub(crate) id: u64,
}

impl<E, K: Kind> Core<E, K> {
    pub(crate) fn new(
        capacity: usize,
        retain: usize,
        first: u64,
        make: impl FnMut() -> E + Send,
        wishes: Wishes,
    ) -> Result<Self, BuildError>
    where
        E: Send,
    {
        let largest = Buffer::<E, K::Stamp>::LARGEST;
        if !capacity.is_power_of_two() || capacity > largest {
            return Err(BuildError::Capacity { asked: capacity, largest });
        }
        if retain >= capacity {
            return Err(BuildError::Retain { asked: retain, capacity });
        }
        let stamp = |index| K::first_stamp(index as u64, first, capacity as u64);
        // Before the bells are made: none of them may count on what the ring itself does not.
        let fences = fence::kind_of_new_ring();
        Ok(Self {
            buffer: Buffer::new(capacity, make, stamp, wishes)?,
            positions: K::start(first),
            gates: Gates::new(),
            bell: Arc::new(Bell::new()),
            end_bell: Bell::new(),
            closing: Closing::new(),
            fences,
            retain: retain as u64,
            first,
            members: Mutex::new(Vec::new()),
            producers: CachePadded::new(AtomicU64::new(0)),
            id: next_id(),
        })
    }

    #[inline(always)]
    pub(crate) fn capacity(&self) -> u64 {
        self.buffer.capacity()
    }

    /// One more than the capacity lets a producer write under a reader's eyes: a fault for the models.
    #[inline(always)]
    pub(crate) fn reach(&self) -> u64 {
        self.capacity() + u64::from(fault(Fault::RoomForOneMoreThanTheCapacity))
    }

    /// The permanent gate: what is published, less what is retained.
    pub(crate) fn floor(&self) -> u64 {
        K::published(self).wrapping_sub(self.retain)
    }

    /// The earliest event that is kept when the lowest gate stands at `lowest`.
    pub(crate) fn earliest(&self, lowest: u64) -> u64 {
        later(lowest, self.first)
    }

    pub(crate) fn add_producer(&self) {
        self.producers.fetch_add(1, ADD_PRODUCER.get());
    }

    /// True if there is only one producer. The caller, which is that one, then knows all that the others have claimed.
    #[inline(always)]
    pub(crate) fn has_one_producer(&self) -> bool {
        let has_one = self.producers.load(READ_PRODUCERS.get()) == 1;
        if has_one {
            ONE_PRODUCER.fence();
        }
        has_one
    }

    /// The last producer to go finishes the ring.
    pub(crate) fn drop_producer(&self) {
        if self.producers.fetch_sub(1, DROP_PRODUCER.get()) == 1 {
            self.end(Phase::Finished, None);
        }
    }
}
