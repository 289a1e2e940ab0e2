//! Readers of all partitions of a topic, and how they join partitions that are added.

use crate::base::kind::Producers;
use crate::topic::error::SubscribeError;
use crate::topic::partition::Partition;
use slipring_ring::Consumer;
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

/// What a reader has prepared for one new partition, such as a handler.
pub(crate) type Preparation = Box<dyn Any>;

/// A reader, and its preparations for the new partitions, in their order.
pub(super) type Prepared<E, K> = (Arc<dyn TopicReader<E, K>>, Vec<Preparation>);

/// A reader of all partitions of a topic, including partitions that are added later.
pub(crate) trait TopicReader<E, K: Producers>: Send + Sync {
    /// Joins a new partition, into which no producer publishes yet. Dropping the returned consumer leaves the
    /// partition.
    fn join(&self, partition: &Arc<Partition<E, K>>) -> Result<Consumer<E, K>, SubscribeError>;

    /// Prepares what the reader needs for the new partition of this number. This may run the user's code, so the caller
    /// holds no lock.
    fn prepare(&self, partition: u32) -> Result<Preparation, SubscribeError> {
        let _ = partition;
        Ok(Box::new(()))
    }

    /// Adds the partition to the reader, after all readers have joined it. The returned function wakes the reader; the
    /// caller calls it when it holds no lock.
    fn take(
        self: Arc<Self>,
        partition: &Arc<Partition<E, K>>,
        consumer: Consumer<E, K>,
        prepared: Preparation,
    ) -> Box<dyn FnOnce()>;

    /// Waits until the reader's own threads have read the closed topic to its end. Returns false if `deadline` comes
    /// first, and true at once if the reader has no threads of its own.
    fn drain(&self, deadline: Instant) -> bool {
        let _ = deadline;
        true
    }
}
