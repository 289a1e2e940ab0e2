//! One partition of a topic: its ring, and the times and stamps of its slots.

use crate::base::clock::Timestamp;
use crate::base::kind::Producers;
use crate::log::producers::ProducerStamps;
use crate::topic::error::SubscribeError;
use crate::topic::promises::Promises;
use crate::topic::settings::TopicSettings;
use slipring_ring::{BuildError, Consumer, Ring, Sequence, Sequences, Stage};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

pub(crate) struct Partition<E, K: Producers> {
    pub(crate) index: u32,
    capacity: usize,
    pub(crate) ring: Ring<E, K>,
    /// The ring's first producer. Of a topic with any number of producers, each gets a clone, and this one keeps the
    /// ring open. Of a topic with a single producer, the user borrows this one, and this is `None` meanwhile.
    spare: Mutex<Option<slipring_ring::Producer<E, K>>>,
    /// The publishing time of the event in each slot; `None` unless the topic has `timestamps()`.
    pub(crate) times: Option<PublishTimes>,
    /// The idempotent producer and sequence of the event in each slot. Unset until a durable topic has an idempotent
    /// producer.
    stamps: OnceLock<ProducerStamps>,
    /// The claims whose events the journal was given.
    pub(crate) promises: Promises,
}

/// A partition that is not made yet: see [`deferred`](crate::topic::deferred).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeferredPartition {
    pub(crate) partition: u32,
    /// The offset of its first event.
    pub(crate) first: u64,
    /// The names of the topic's readers, which join it when it is made.
    pub(crate) consumers: Vec<String>,
}

impl<E: Send + Sync + 'static, K: Producers> Partition<E, K> {
    pub(crate) fn new(
        index: u32,
        settings: &TopicSettings,
        first: u64,
        make: impl FnMut() -> E + Send + 'static,
    ) -> Result<Self, BuildError> {
        let TopicSettings { capacity, retain, timestamps, never_wake, .. } = *settings;
        let mut builder = K::builder(capacity, make);
        builder.retain(retain).start_at(Sequence(first)).never_wake(never_wake);
        let (first, ring) = builder.build()?;
        let times = timestamps.then(|| PublishTimes::new(capacity)).transpose()?;
        Ok(Self {
            index,
            capacity,
            ring,
            spare: Mutex::new(Some(first)),
            times,
            stamps: OnceLock::new(),
            promises: Promises::default(),
        })
    }
}

impl<E, K: Producers> Partition<E, K> {
    fn spare(&self) -> MutexGuard<'_, Option<slipring_ring::Producer<E, K>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stamps of the slots: the idempotent producer and sequence of each event. Allocated at the first call.
    pub(crate) fn stamps(&self) -> &ProducerStamps {
        self.stamps.get_or_init(|| ProducerStamps::new(self.capacity))
    }

    /// The stamps of the slots; `None` if they are not allocated, so that no event has one. A producer allocates them
    /// before it publishes its first stamped event, so a reader of that event sees them.
    pub(crate) fn stamps_if_any(&self) -> Option<&ProducerStamps> {
        self.stamps.get()
    }

    /// The first offset at or after `from` whose event was published at `at` or later; the next offset to be published
    /// if there is none. The caller's gating position must be at or before `from`, so that no event is overwritten
    /// meanwhile. A binary search, for which the times must grow with the offsets. Where a producer read the clock
    /// before another one but claimed after it, they do not, and the result may be off by these events.
    pub(crate) fn first_since(&self, at: Timestamp, from: u64) -> u64 {
        let mut low = from;
        let mut high = self.ring.positions().published.0.max(from);
        while let Some(times) = self.times.as_ref().filter(|_| low < high) {
            let middle = low + (high - low) / 2;
            if times.get(middle) < at { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Closes the ring and cuts its uncommitted claims, except promised ones. True if there are promised ones.
    pub(super) fn cut_unpromised(&self) -> bool {
        self.promises.cut_others(|promised| drop(self.ring.cut_except(promised)))
    }

    /// The promised claims that are not published: the journal may have their events.
    pub(super) fn unsettled(&self) -> Vec<Sequences> {
        let mut claims = self.promises.claims();
        let (published, cut) = (self.ring.positions().published, self.ring.report().cut);
        claims.retain(|claim| {
            let is_in = |cut: &Sequences| (0..cut.len as u64).contains(&claim.first.0.wrapping_sub(cut.first.0));
            claim.first.0 >= published.0 || cut.iter().any(is_in)
        });
        claims
    }

    /// Joins a consumer's stage to the ring. `topic` is the topic's name, for the error.
    pub(crate) fn join(&self, topic: &str, stage: Stage) -> Result<Consumer<E, K>, SubscribeError> {
        self.ring.join(stage).map_err(|cause| SubscribeError::new(topic, self.index, cause))
    }

    /// Returns a producer of the ring. `None` if the topic has a single producer and it is lent already.
    pub(crate) fn lend(&self) -> Option<slipring_ring::Producer<E, K>> {
        K::take(&mut self.spare())
    }

    /// Takes a producer back that was lent. A single producer is kept for the next loan; a clone is dropped.
    pub(crate) fn give_back(&self, producer: slipring_ring::Producer<E, K>) {
        if K::SINGLE {
            *self.spare() = Some(producer);
        }
    }
}

/// The publishing time of the event in each slot, in nanoseconds since 1970.
pub(crate) struct PublishTimes {
    nanos: Box<[AtomicU64]>,
}

impl PublishTimes {
    fn new(capacity: usize) -> Result<Self, BuildError> {
        let mut nanos = Vec::new();
        nanos.try_reserve_exact(capacity).map_err(|_| BuildError::Memory { bytes: capacity.saturating_mul(8) })?;
        nanos.extend((0..capacity).map(|_| AtomicU64::new(0)));
        Ok(Self { nanos: nanos.into_boxed_slice() })
    }

    fn slot(&self, offset: u64) -> &AtomicU64 {
        // The capacity is a power of two, so the mask selects the slot.
        &self.nanos[offset as usize & (self.nanos.len() - 1)]
    }

    /// Sets the publishing time of a claimed slot. The store is relaxed: the publish that follows releases it to
    /// readers.
    #[inline]
    pub(crate) fn set(&self, offset: u64, at: Timestamp) {
        self.slot(offset).store(at.as_nanos(), Ordering::Relaxed);
    }

    /// The publishing time of the event at `offset`. The caller's gating position must be at or before `offset`;
    /// otherwise the time may be that of a later event in the slot.
    #[inline]
    pub(crate) fn get(&self, offset: u64) -> Timestamp {
        Timestamp::from_nanos(self.slot(offset).load(Ordering::Relaxed))
    }
}
