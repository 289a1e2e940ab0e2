//! Names and numbers of topics and partitions.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Greatest length of the name of a topic, group, queue or idempotent producer, in bytes.
pub const MAX_NAME: usize = 249;

/// Greatest number of partitions of a topic.
pub const MAX_PARTITIONS: usize = 1024;

/// A topic's number, unique in this process and not stored in the journal. A [`Receipt`](crate::Receipt) holds this
/// number instead of the topic's name, because receipts are copied often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(u32);

impl TopicId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Returns a number that no other reader of this process has or had.
pub(crate) fn next_reader() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A topic's name and the number of one of its partitions.
///
/// ```
/// use slipring::topic::TopicPartition;
/// assert_eq!(TopicPartition::new("orders", 3).to_string(), "orders/3");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: u32,
}

impl TopicPartition {
    /// Returns the name of partition `partition` of the topic `topic`. The topic need not exist.
    pub fn new(topic: impl Into<Arc<str>>, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}
