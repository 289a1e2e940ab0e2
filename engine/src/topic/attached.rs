//! The traits through which topics use queues and groups. The layers of queues and groups, above topics, implement
//! them.

use crate::base::ids::TopicId;
use crate::log::committer::Committer;
use crate::topic::metrics::QueueMetrics;
use crate::topic::report::{ConsumerReport, QueueReport};
use slipring_journal::{Journal, PartitionId};
use std::any::Any;
use std::collections::BTreeMap;
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
    /// Stops the workers of the queue's runs, each after the message that it has in hand, if messages are left.
    fn stop_runs(&self);
    /// Records the queue's last lease number in the engine, so that a later queue of this name gives higher numbers.
    /// Called when the queue's topic is deleted.
    fn note_numbers(&self);
    /// The name of the topic in which the queue's dead letters are, and for each of its partitions in the journal the
    /// offset of the first letter that is neither purged nor sent back.
    fn dead_letters(&self) -> (String, BTreeMap<u32, u64>);
    /// The keys of the queue's state in the journal, which are deleted when the queue has ended.
    fn keys(&self) -> Vec<Vec<u8>>;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// The dead letters that a queue has in a topic.
pub(crate) struct DeadLetters {
    /// The name of the queue's own topic.
    pub(crate) topic: String,
    pub(crate) queue: String,
    /// For each partition in the journal, the offset of the first letter that is neither purged nor sent back; 0 for a
    /// partition that is missing. Empty for a topic in memory.
    pub(crate) next: BTreeMap<u32, u64>,
}

impl DeadLetters {
    /// Returns a report for each partition of the topic for dead letters, as for a consumer with the name
    /// `dead.TOPIC.QUEUE`: the letters that are neither purged nor sent back are the events that it has not read. `of`
    /// is the number of the topic for dead letters in the journal.
    pub(crate) fn report(&self, journal: &Journal, of: u32) -> Vec<ConsumerReport> {
        let partitions = (0..).map(|partition| PartitionId { topic: of, partition });
        let extents = partitions.map_while(|id| Some((id, journal.extent(id)?)));
        let report = extents.map(|(id, extent)| {
            let consumed = self.next.get(&id.partition).copied().unwrap_or(0).clamp(extent.start, extent.end);
            ConsumerReport {
                name: format!("dead.{}.{}", self.topic, self.queue),
                partition: id.partition,
                consumed,
                left: journal.records_in(id, consumed..extent.end),
                skipped: 0,
                ending: None,
                running: false,
            }
        });
        report.collect()
    }
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
    /// Adds a topic that was created to the members of groups whose patterns find it. `topic` is a
    /// [`TopicCore`](super::TopicCore) of any type of events. Called without a lock, because patterns are user code: before
    /// the engine lists the topic, and once more after that.
    fn announce(&self, topic: &Arc<dyn Any + Send + Sync>);
    /// Called when the engine creates no more topics.
    fn end_patterns(&self);
}
