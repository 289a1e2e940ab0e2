//! Adding partitions to a topic: their slots and memory, and joining the topic's readers to them.

use super::reader::{Prepared, TopicReader};
use super::{SlotFactoryError, TopicCore};
use crate::base::closed::Closed;
use crate::base::ids::MAX_PARTITIONS;
use crate::base::kind::Producers;
use crate::topic::error::TopicError;
use crate::topic::partition::Partition;
use crate::topic::settings::TopicSettings;
use slipring_ring::BuildError;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

impl<E: Send + Sync + 'static, K: Producers> TopicCore<E, K> {
    /// Adds partitions until the topic has `total(present number)` of them. All readers have joined the new partitions
    /// before a producer can publish into them.
    pub(super) fn grow(&self, total: impl FnOnce(usize) -> usize) -> Result<(), TopicError> {
        let name = || self.name.clone();
        // A [`Turn`](crate::base::turn::Turn) lets one thread at a time add partitions. A lock must not be used here:
        // the factories of events and handlers are user code, which may call this function.
        self.may_wait().map_err(|cause| TopicError::Journal { name: name(), cause })?;
        let _growing = self.growing.take().ok_or_else(|| TopicError::Growing { name: name() })?;
        let begun = self.partitions().len();
        let total = total(begun);
        if let Some(reason) = self.closed() {
            return Err(TopicError::Closed { name: name(), reason });
        }
        let starts = self.starts(begun..total)?;
        self.make(begun, &starts)
    }

    /// Checks that the topic may have the new partitions `partitions`, by their count and memory, and reserves their
    /// first offsets in the journal if the topic is durable. Returns the first offset of each.
    pub(super) fn starts(&self, partitions: Range<usize>) -> Result<Vec<u64>, TopicError> {
        if !(1..=MAX_PARTITIONS).contains(&partitions.end) {
            return Err(TopicError::Partitions { name: self.name.clone(), asked: partitions.end });
        }
        self.check_memory(partitions.end)?;
        match &self.durable {
            Some(durable) => durable.begin(partitions.start as u32..partitions.end as u32),
            None => Ok(vec![0; partitions.len()]),
        }
    }

    /// Makes one partition for each offset in `starts`, at which it begins; `begun` is the number of the first one.
    /// Never waits for the journal. On an error the topic is as before.
    pub(super) fn make(&self, begun: usize, starts: &[u64]) -> Result<(), TopicError> {
        let name = || self.name.clone();
        let mut partitions = self.partitions().to_vec();
        let total = begun + starts.len();
        let mut sources = Vec::new();
        for (index, &first) in (begun..total).zip(starts) {
            let capacity = self.settings.capacity;
            let slots = (self.slots)(capacity).map_err(|refused| match refused {
                SlotFactoryError::Memory => {
                    let bytes = self.slot_bytes().saturating_mul(capacity as u64) as usize;
                    TopicError::Ring { name: name(), cause: BuildError::Memory { bytes } }
                }
                SlotFactoryError::Busy => TopicError::Growing { name: name() },
            })?;
            let partition = Partition::new(index as u32, &self.settings, first, slots);
            let partition = Arc::new(partition.map_err(|cause| TopicError::Ring { name: name(), cause })?);
            if let Some(durable) = &self.durable {
                let source = durable.join(&partition, first);
                sources.push(source.map_err(|cause| TopicError::Ring { name: name(), cause })?);
            }
            partitions.push(partition);
        }
        let refused = |cause| TopicError::Consumer { name: name(), cause: Box::new(cause) };
        let mut prepared: Vec<Prepared<E, K>> = Vec::new();
        let (readers, mut prepared) = loop {
            let readers = self.readers();
            let all = readers.all();
            // Readers that have joined since the last round must prepare too. Preparing runs user code, so the lock is
            // released meanwhile.
            let is_known =
                |reader: &Arc<dyn TopicReader<E, K>>| prepared.iter().any(|(known, _)| Arc::ptr_eq(known, reader));
            let strangers: Vec<_> = all.iter().filter(|reader| !is_known(reader)).cloned().collect();
            if strangers.is_empty() {
                prepared.retain(|(known, _)| all.iter().any(|reader| Arc::ptr_eq(known, reader)));
                break (readers, prepared);
            }
            drop(readers);
            for reader in strangers {
                let made: Result<Vec<_>, _> = (begun..total).map(|index| reader.prepare(index as u32)).collect();
                prepared.push((reader, made.map_err(refused)?));
            }
        };
        if self.has_ended() {
            return Err(TopicError::Closed { name: name(), reason: self.closed().unwrap_or(Closed::Closed) });
        }
        let mut joined = Vec::new();
        for (reader, made) in &mut prepared {
            for (partition, preparation) in partitions[begun..].iter().zip(made.drain(..)) {
                let consumer = reader.join(partition).map_err(refused)?;
                joined.push((Arc::clone(reader), Arc::clone(partition), consumer, preparation));
            }
        }
        for source in sources {
            if let Some(durable) = &self.durable {
                durable.take(source);
            }
        }
        *self.partitions.write().unwrap_or_else(PoisonError::into_inner) = partitions.into();
        let wakers: Vec<_> = joined
            .into_iter()
            .map(|(reader, partition, consumer, preparation)| reader.take(&partition, consumer, preparation))
            .collect();
        // A producer that sees the new count also sees the new list of partitions.
        self.count.store(total, Ordering::Release);
        drop(readers);
        // A woken reader may run at once and lock the readers, so they are woken after the lock is released.
        wakers.into_iter().for_each(|wake| wake());
        Ok(())
    }

    /// The size of one slot in bytes: the event, its message's bytes, the ring's 8 bytes for the slot if several
    /// producers are allowed, and the 8 bytes of the publishing time if the topic has timestamps.
    pub(crate) fn slot_bytes(&self) -> u64 {
        let stamp = if K::SINGLE { 0 } else { 8 };
        let event = (std::mem::size_of::<E>() + stamp).next_multiple_of(std::mem::align_of::<E>());
        (event + self.cell + if self.settings.timestamps { 8 } else { 0 }) as u64
    }

    /// The size in bytes of all slots of all partitions.
    pub(crate) fn memory(&self) -> u64 {
        let partitions = self.partitions();
        let beside = self.cell + if self.settings.timestamps { 8 } else { 0 };
        let slots = |partition: &Partition<E, K>| partition.ring.memory().bytes + beside * self.settings.capacity;
        partitions.iter().map(|partition| slots(partition) as u64).sum()
    }

    fn check_memory(&self, partitions: usize) -> Result<(), TopicError> {
        let TopicSettings { capacity, memory_limit, .. } = self.settings;
        let slot = self.slot_bytes();
        let asked = slot.saturating_mul(capacity as u64).saturating_mul(partitions as u64);
        // A capacity that is no power of two is refused later by the ring, with an error that says so.
        if capacity.is_power_of_two() && asked > memory_limit {
            let (name, limit) = (self.name.clone(), memory_limit);
            return Err(TopicError::Memory { name, asked, limit, partitions, capacity, slot });
        }
        Ok(())
    }
}
