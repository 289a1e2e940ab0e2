//! The traits through which topics use queues and groups. The layers of queues and groups, above topics, implement
//! them.

use crate::base::ids::TopicId;
use crate::log::committer::Committer;
use crate::topic::metrics::QueueMetrics;
use crate::topic::report::QueueReport;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// A queue, with the operations that its input topic calls.
pub(crate) trait Attached: Send + Sync {
    fn name(&self) -> &str;
    fn metrics(&self) -> QueueMetrics;
    fn report(&self) -> QueueReport;
    /// Ends the queue. If the queue is in use and `forced` is false, leaves it open, and returns as the error the count
    /// of its workers and the count of its leased messages.
    fn end(&self, forced: bool) -> Result<QueueReport, (usize, u64)>;
    /// True if the queue has workers and the last message was leased to another thread than the calling one.
    fn is_read_elsewhere(&self) -> bool;
    /// Records the queue's last lease number in the engine, so that a later queue of this name gives higher numbers.
    /// Called when the queue's topic is deleted.
    fn note_numbers(&self);
    /// The keys of the queue's state in the journal, which are deleted when the queue has ended.
    fn keys(&self) -> Vec<Vec<u8>>;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// Ends all queues of a topic that is being deleted, even if they are in use. No more of their changes are written.
pub(crate) fn end_all(queues: &[Arc<dyn Attached>]) {
    queues.iter().for_each(|queue| _ = queue.end(true));
}

/// All groups of an engine, with the operations that topics and the timer call. The group layer implements this trait,
/// and downcasts the value to its own type.
pub(crate) trait AttachedGroups: Any + Send + Sync {
    /// Removes the state that groups have of a deleted topic.
    fn forget(&self, topic: TopicId);
    /// Forgets the groups that have had no member for `limit` or longer at the time `now`. A group that only the
    /// journal has, because no member has joined it since the engine was opened at the time `opened`, is forgotten if
    /// that is `limit` ago or longer. `now` and `opened` are times of the engine's clock. `committer` is `None` without
    /// a journal.
    fn expire(&self, now: Duration, limit: Duration, opened: Duration, committer: Option<&Committer>);
}
