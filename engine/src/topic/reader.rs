//! Consumers that read all partitions of a topic, and how they join partitions that are added.

use crate::base::kind::Producers;
use crate::topic::error::SubscribeError;
use crate::topic::partition::Partition;
use slipring_ring::Consumer;
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

/// An item that a reader has prepared for one new partition, such as a handler.
pub(crate) type Preparation = Box<dyn Any>;

/// A reader, and what it has prepared for each new partition, in the order of the partitions.
pub(super) type Prepared<E, K> = (Arc<dyn TopicReader<E, K>>, Vec<Preparation>);

/// A consumer that reads all partitions of a topic, including partitions that are added later.
pub(crate) trait TopicReader<E, K: Producers>: Send + Sync {
    /// The name of the reader's stage in each partition's ring.
    fn name(&self) -> &str;

    /// Joins a new partition, into which no producer publishes yet. If the returned consumer is dropped, it leaves the
    /// partition again.
    fn join(&self, partition: &Arc<Partition<E, K>>) -> Result<Consumer<E, K>, SubscribeError>;

    /// Prepares what the reader needs for the new partition `partition`, before it joins. This may run user code, so
    /// the caller holds no lock. Default: nothing.
    fn prepare(&self, partition: u32) -> Result<Preparation, SubscribeError> {
        let _ = partition;
        Ok(Box::new(()))
    }

    /// Makes the new partition, which the reader has joined, a part of the reader. Returns the function that wakes the
    /// reader, to be called when the caller holds no lock.
    fn take(
        self: Arc<Self>,
        partition: &Arc<Partition<E, K>>,
        consumer: Consumer<E, K>,
        prepared: Preparation,
    ) -> Box<dyn FnOnce()>;

    /// The partitions that the reader reads from the journal, without a stage in the ring, or has not read to the end when
    /// the topic was halted or failed, each with the next offset; for the topic's report. Default: none.
    fn positions_in_journal(&self) -> Vec<(u32, u64)> {
        Vec::new()
    }

    /// Waits until the reader's own threads have read the closed topic to its end. Returns false if `deadline` passes
    /// first; true at once if the reader has no threads of its own (the default).
    fn drain(&self, deadline: Instant) -> bool {
        let _ = deadline;
        true
    }
}
