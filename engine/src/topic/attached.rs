//! Queues and groups, as topics see them.

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
    /// Ends it for everybody, unless it is in use: by so many workers, with so many messages leased.
    fn end(&self, forced: bool) -> Result<QueueReport, (usize, u64)>;
    /// Whether it has workers, and another thread than the calling one was given a message last.
    fn is_read_elsewhere(&self) -> bool;
    /// Its topic goes: the next queue of its name numbers its leases from behind its last on.
    fn note_numbers(&self);
    /// Once it has ended: what is to be taken out of the journal.
    fn keys(&self) -> Vec<Vec<u8>>;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// The topic goes, and with it all its queues: nothing more is written of them.
pub(crate) fn end_all(queues: &[Arc<dyn Attached>]) {
    queues.iter().for_each(|queue| _ = queue.end(true));
}

/// All groups of an engine. The layer of groups makes it, and knows its type again.
pub(crate) trait AttachedGroups: Any + Send + Sync {
    /// A topic was deleted.
    fn forget(&self, topic: TopicId);
}
