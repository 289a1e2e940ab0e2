//! The state that a ring's producers, consumers and handles share.

use crate::bell::Bell;
use crate::buffer::Buffer;
use crate::closing::{Closing, Phase};
use crate::error::BuildError;
use crate::fault::{Fault, fault};
use crate::fence::{self, Fences};
use crate::gates::Gates;
use crate::kind::Kind;
use crate::memory::MemoryRequest;
use crate::ordering::{ADD_PRODUCER, DROP_PRODUCER, ONE_PRODUCER, READ_PRODUCERS};
use crate::sequence::later;
use crate::stage::StageState;
use crate::sync::{Arc, AtomicU64, Mutex, next_id};
use crossbeam_utils::CachePadded;

/// The state of a ring: its slots, positions, gating set and record of the end. Each producer, consumer and handle owns
/// a reference to it.
pub struct Core<E, K: Kind> {
    pub(crate) buffer: Buffer<E, K::Stamp>,
    pub(crate) positions: K::Positions,
    pub(crate) gates: Gates,
    /// Wakes the threads that wait for published events or for the ring's end (see [`crate::bell`]).
    pub(crate) bell: Arc<Bell>,
    /// Wakes the threads that wait only for the ring's end, or for its last stage to leave.
    pub(crate) end_bell: Bell,
    pub(crate) closing: Closing,
    /// The kind of fences that the producers and consumers of this ring use.
    pub(crate) fences: Fences,
    /// Count of the last published events that stay readable for a stage that joins.
    pub(crate) retain: u64,
    /// The ring's first sequence.
    pub(crate) first: u64,
    /// The stages of the ring, in the order in which they joined. The gating set changes only while this lock is held.
    pub(crate) members: Mutex<Vec<Arc<StageState>>>,
    producers: CachePadded<AtomicU64>,
    /// The ring's id, unique in this process.
    pub(crate) id: u64,
}

impl<E, K: Kind> Core<E, K> {
    pub(crate) fn new(
        capacity: usize,
        retain: usize,
        first: u64,
        make: impl FnMut() -> E + Send,
        request: MemoryRequest,
        bell: Bell,
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
        // Determined before the bells are created: otherwise a bell might rely on `membarrier` although the ring does
        // not.
        let fences = fence::kind_of_new_ring();
        Ok(Self {
            buffer: Buffer::new(capacity, make, stamp, request)?,
            positions: K::start(first),
            gates: Gates::new(),
            bell: Arc::new(bell),
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

    /// The distance from the lowest gate to a producer's limit, in sequences: the capacity. The fault adds one, so that
    /// a producer may overwrite an event that is being read.
    #[inline(always)]
    pub(crate) fn reach(&self) -> u64 {
        self.capacity() + u64::from(fault(Fault::RoomForOneMoreThanTheCapacity))
    }

    /// The floor, the gate that every ring has: the published position minus the count of retained events.
    pub(crate) fn floor(&self) -> u64 {
        K::published(self).wrapping_sub(self.retain)
    }

    /// The earliest kept sequence, given that the lowest gate is at `lowest`: the later of that gate and the ring's
    /// first sequence.
    pub(crate) fn earliest(&self, lowest: u64) -> u64 {
        later(lowest, self.first)
    }

    pub(crate) fn add_producer(&self) {
        self.producers.fetch_add(1, ADD_PRODUCER.get());
    }

    /// True if there is only one producer, the caller. Then all claims of dropped producers are visible to it.
    #[inline(always)]
    pub(crate) fn has_one_producer(&self) -> bool {
        let has_one = self.producers.load(READ_PRODUCERS.get()) == 1;
        if has_one {
            // Pairs with DROP_PRODUCER.
            ONE_PRODUCER.fence();
        }
        has_one
    }

    /// Counts one producer less. If it was the last one, the ring becomes finished.
    pub(crate) fn drop_producer(&self) {
        if self.producers.fetch_sub(1, DROP_PRODUCER.get()) == 1 {
            self.end(Phase::Finished, None);
        }
    }
}
