//! Deferred partitions: those of a topic that the engine creates for itself and that may never get an event.
//!
//! A queue creates a topic for its dead letters, and most queues never have a dead letter. So when this topic is
//! created, it gets its name, its entry in the journal's catalogue and its first offsets, but no rings. The rings are
//! made for the first dead letter, or when a program calls [`Engine::get`](crate::Engine::get).
//!
//! Invariants:
//! - A producer, and a handle that a user holds, exist only after the partitions were made. Before that, the topic can
//!   be listed, described, closed and deleted, and a hidden subscriber of the queue can join it; that subscriber's name
//!   is then taken.
//! - The steps that may wait for the journal, or that the journal may refuse, are done when the topic is created: the
//!   catalogue's entry and the reservation of the first offsets. Making the partitions needs only memory and writes
//!   nothing. So any thread may do it, also the committer's, and a crash before or after it leaves the same journal.
//! - The partitions are made once, under the lock of `deferred`, by the function that also adds partitions to other
//!   topics: the readers that have joined the topic are in the rings before a producer can publish.
//! - A topic that has ended makes no partitions: its end is set and checked under the lock of the topic's readers.
//! - If the partitions cannot be made, nothing has changed, and the next call tries again.
//!
//! Order of locks: a queue's state, `deferred`, the topic's readers.

use super::TopicCore;
use crate::base::held;
use crate::base::kind::Producers;
use crate::log::committer::STAGE;
use crate::topic::error::TopicError;
use crate::topic::metrics::PartitionMetrics;
use crate::topic::partition::DeferredPartition;
use std::sync::atomic::Ordering;

impl<E: Send + Sync + 'static, K: Producers> TopicCore<E, K> {
    /// Plans the topic's first partitions, and reserves their first offsets if the topic is durable, but does not make
    /// them. Called while the topic is created.
    pub(super) fn defer(&self, partitions: usize) -> Result<(), TopicError> {
        let starts = self.starts(0..partitions)?;
        *held::lock(&self.deferred) = Some(starts);
        Ok(())
    }

    /// Makes the deferred partitions. Does nothing if the topic has its partitions.
    ///
    /// # Errors
    /// There is no memory for the partitions, or the topic has ended.
    pub(crate) fn make_deferred(&self) -> Result<(), TopicError> {
        if self.count.load(Ordering::Acquire) > 0 {
            return Ok(());
        }
        let mut deferred = held::lock(&self.deferred);
        let Some(starts) = &*deferred else { return Ok(()) };
        #[cfg(test)]
        tests::refuse(&self.name)?;
        self.make(0, starts)?;
        *deferred = None;
        Ok(())
    }
}

impl<E, K: Producers> TopicCore<E, K> {
    /// The partitions that are not made yet; empty if the topic has its partitions.
    pub(super) fn deferred_partitions(&self) -> Vec<DeferredPartition> {
        if self.count.load(Ordering::Acquire) > 0 {
            return Vec::new();
        }
        let deferred = held::lock(&self.deferred);
        let Some(starts) = &*deferred else { return Vec::new() };
        let consumers: Vec<_> = self.readers().all().iter().map(|reader| reader.name().to_owned()).collect();
        let partition = |(index, first): (usize, &u64)| DeferredPartition {
            partition: index as u32,
            first: *first,
            consumers: consumers.clone(),
        };
        starts.iter().enumerate().map(partition).collect()
    }

    /// The metrics of the partitions that are not made yet.
    pub(super) fn deferred_metrics(&self) -> Vec<PartitionMetrics> {
        let capacity = self.settings.capacity as u64;
        let metrics = |DeferredPartition { partition, first, consumers }| {
            let journal = self.durable.iter().map(|_| STAGE.to_owned());
            PartitionMetrics::deferred(partition, capacity, first, journal.chain(consumers).collect())
        };
        self.deferred_partitions().into_iter().map(metrics).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
