//! Queues and groups as topics see them. The layers above implement these traits.

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
    /// Ends the queue for everybody. If it is in use and not `forced`: an error with the numbers of its workers and of its
    /// leased messages.
    fn end(&self, forced: bool) -> Result<QueueReport, (usize, u64)>;
    /// True if the queue has workers, and a thread other than the calling one was given a message last.
    fn is_read_elsewhere(&self) -> bool;
    /// Keeps the number of the queue's last lease, so that a later queue of its name gives higher numbers. Called when its
    /// topic goes.
    fn note_numbers(&self);
    /// The keys to be deleted from the journal, once the queue has ended.
    fn keys(&self) -> Vec<Vec<u8>>;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// Ends all queues of a topic that goes: nothing more is written of them.
pub(crate) fn end_all(queues: &[Arc<dyn Attached>]) {
    queues.iter().for_each(|queue| _ = queue.end(true));
}

/// All groups of an engine. The layer of groups makes this, and casts it back to its own type.
pub(crate) trait AttachedGroups: Any + Send + Sync {
    /// Forgets a topic that was deleted.
    fn forget(&self, topic: TopicId);
}
