//! Who reads what a producer publishes, and what a publish does while nobody does.

use super::Producer;
use crate::base::kind::Producers;
use crate::base::when_full::{WhenFull, nap};
use crate::topic::Overflow;
use crate::topic::error::PublishError;
use std::time::{Duration, Instant};

/// What a publish does while nobody reads the topic: see
/// [`ProducerBuilder::when_unread`](crate::producer::ProducerBuilder::when_unread).
///
/// A topic is read while [`Producer::readers`](crate::Producer::readers) is not empty, whatever the partition: by a
/// subscriber, also one that is paused or never polled, until it is dropped or evicted; by a group while it has members,
/// including a named member that is away, or while it [holds](crate::group::GroupBuilder::hold) producers; by a queue until
/// it is deleted; by a replay until it is dropped; by a transform while it is open or runs. The journal is no reader, nor are
/// events that a topic [retains](crate::TopicBuilder::retain).
///
/// A publish finds a reader before it publishes. A reader that leaves after that, or while the publish waits for room, has
/// the event not read, as one that leaves later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenUnread {
    /// Publishes. In a topic in memory nobody will read the event, unless the topic retains it.
    #[default]
    Publish,
    /// Returns [`PublishError::NoReaders`](crate::producer::PublishError::NoReaders).
    Refuse,
    /// Waits for a reader where the topic's [overflow policy](crate::TopicBuilder::overflow) waits for room, and sees one that
    /// comes within some milliseconds. `try_` methods, a passed deadline, and topics with another policy return
    /// [`PublishError::NoReaders`](crate::producer::PublishError::NoReaders). If the topic ends meanwhile, that is the error.
    Wait,
}

/// The time between two checks for a reader, while a publish waits for one.
const READER_CHECK: Duration = Duration::from_millis(5);

impl<E: Send + Sync + 'static, K: Producers> Producer<E, K> {
    /// The names of the topic's readers: its subscribers and queues, its groups as `group:NAME`, its replays, and its
    /// transforms as `transform:NAME`. Empty if nobody reads what is published now, except the journal. A subscriber is a
    /// reader until it is dropped, a queue until it is deleted. Not for each event: it takes locks and allocates. To be told
    /// by the publish itself, see [`when_unread`](crate::producer::ProducerBuilder::when_unread).
    ///
    /// ```
    /// # let engine = slipring::Engine::builder().build()?;
    /// let ticks = engine.topic::<u64>("ticks").create()?;
    /// let producer = ticks.producer().create()?;
    /// let tape = ticks.subscribe("tape").poll()?;
    /// assert_eq!(producer.readers(), ["tape"]);
    /// drop(tape);
    /// assert!(producer.readers().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn readers(&self) -> Vec<String> {
        self.topic.reader_names()
    }

    /// True if both producers are of one topic of one engine.
    pub fn same_topic(&self, other: &Self) -> bool {
        self.topic().id == other.topic().id
    }
}

impl<E, K: Producers> Producer<E, K> {
    /// Returns once the topic has a reader, or an error if it has none and this call may not wait for one.
    pub(super) fn find_reader(&self, full: WhenFull<'_>) -> Result<(), PublishError> {
        let waits = match self.when_unread {
            WhenUnread::Publish => return Ok(()),
            WhenUnread::Refuse => false,
            WhenUnread::Wait => true,
        };
        let begun = Instant::now();
        while !self.topic.is_read() {
            let name = || self.topic.name.clone();
            if let Some(reason) = self.topic.closed() {
                return Err(PublishError::Closed { topic: name(), reason });
            }
            let until = match (full, self.topic.settings.overflow) {
                (WhenFull::Until(deadline), _) => Some(Some(deadline)),
                (WhenFull::Policy, Overflow::Block) => Some(None),
                (WhenFull::Policy, Overflow::BlockFor(limit)) => Some(begun.checked_add(limit)),
                (WhenFull::Arm(task), Overflow::Block | Overflow::BlockFor(_)) if waits => {
                    task.wake_after(&self.topic.host.timer, READER_CHECK);
                    None
                }
                _ => None,
            };
            let left =
                until.map(|until| until.map_or(READER_CHECK, |until| until.saturating_duration_since(Instant::now())));
            match left {
                Some(left) if waits && !left.is_zero() => nap(left.min(READER_CHECK)),
                _ => return Err(PublishError::NoReaders { topic: name(), waits }),
            }
        }
        Ok(())
    }
}
