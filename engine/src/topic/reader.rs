//! Readers of all partitions of a topic, and joining them to partitions that are added.

use crate::base::kind::Producers;
use crate::topic::error::SubscribeError;
use crate::topic::partition::Partition;
use slipring_ring::Consumer;
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

/// What a reader has made for a new partition before it takes it, such as a handler.
pub(crate) type Preparation = Box<dyn Any>;

/// A reader, and what it has made for each new partition.
pub(super) type Prepared<E, K> = (Arc<dyn TopicReader<E, K>>, Vec<Preparation>);

/// A reader of all partitions of a topic, also of those that are added later.
pub(crate) trait TopicReader<E, K: Producers>: Send + Sync {
    /// Joins a partition that nobody publishes into yet. Dropping the returned consumer leaves it again.
    fn join(&self, partition: &Arc<Partition<E, K>>) -> Result<Consumer<E, K>, SubscribeError>;

    /// Makes what the reader needs for the partition of this number, which is about to be made. This runs the user's code,
    /// so no lock is held.
    fn prepare(&self, partition: u32) -> Result<Preparation, SubscribeError> {
        let _ = partition;
        Ok(Box::new(()))
    }

    /// Takes the partition: all readers have joined it. The returned function wakes the reader, and is called when no lock
    /// is held.
    fn take(
        self: Arc<Self>,
        partition: &Arc<Partition<E, K>>,
        consumer: Consumer<E, K>,
        prepared: Preparation,
    ) -> Box<dyn FnOnce()>;

    /// Waits until the reader's threads, if they are not the topic's, have read the closed topic to its end. False if
    /// `deadline` comes first.
    fn drain(&self, deadline: Instant) -> bool {
        let _ = deadline;
        true
    }
}
