//! The traits through which topics use queues and groups. The layers above implement them.

use crate::base::ids::TopicId;
use crate::topic::metrics::QueueMetrics;
use crate::topic::report::QueueReport;
use std::any::Any;
use std::sync::Arc;

/// What a topic needs of a queue that reads it.
pub(crate) trait Attached: Send + Sync {
    fn name(&self) -> &str;
    fn metrics(&self) -> QueueMetrics;
    fn report(&self) -> QueueReport;
    /// Ends the queue. If the queue is in use and `forced` is false, the queue stays open and the error has the counts
    /// of its workers and of its leased messages.
    fn end(&self, forced: bool) -> Result<QueueReport, (usize, u64)>;
    /// True if the queue has workers, and the thread that was given a message last is not the calling one.
    fn is_read_elsewhere(&self) -> bool;
    /// Records the queue's last lease number in the engine, so that a later queue of this name gives higher numbers.
    /// Called when the queue's topic is deleted.
    fn note_numbers(&self);
    /// The keys under which the journal has the queue's state. They are deleted when the queue has ended.
    fn keys(&self) -> Vec<Vec<u8>>;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// Ends all queues of a topic that is being deleted. The journal gets no more of their changes.
pub(crate) fn end_all(queues: &[Arc<dyn Attached>]) {
    queues.iter().for_each(|queue| _ = queue.end(true));
}

/// All groups of an engine. The group layer implements it, and casts it back to its own type.
pub(crate) trait AttachedGroups: Any + Send + Sync {
    /// Removes the groups' state of a deleted topic.
    fn forget(&self, topic: TopicId);
}
