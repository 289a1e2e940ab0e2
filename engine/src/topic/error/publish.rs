//! Why an event was not published.

use crate::base::closed::Closed;
use crate::text;
use slipring_ring::ClaimError;

/// An event was not published, and nothing of it can be seen by anybody; or, if it is [`Unknown`](Self::Unknown), it was, and
/// is perhaps not as safe as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// It was published, and then the journal failed before it was as safe as asked: it may be there when the journal is
    /// opened again, or not.
    #[error("partition {partition} of topic {topic:?}: offset {offset} was published, but {}", text::line(.cause))]
    Unknown {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Its offset.
        offset: u64,
        /// The cause, as text.
        cause: String,
    },
    /// There is no room. Only from the forms that try.
    #[error("partition {partition} of topic {topic:?} is full: {}", held_by(.by))]
    Full {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The consumer that is the furthest behind; none if it is a claim that another producer has not committed.
        by: Option<String>,
    },
    /// There was no room until the deadline.
    #[error("partition {partition} of topic {topic:?} had no room until the deadline: {}", held_by(.by))]
    TimedOut {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The consumer that is the furthest behind; none if it is a claim that another producer has not committed.
        by: Option<String>,
    },
    /// The partition is full, and the calling thread runs the handler of the consumer that it would wait for. See
    /// [publishing in a handler](crate::subscriber::SubscriberBuilder::run).
    #[error(
        "topic {topic:?}: partition {partition} is full and waits for the consumer {consumer:?}, whose own handler this is: publish with `try_publish` or from another thread, or give the topic more capacity"
    )]
    OwnConsumer {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The consumer.
        consumer: String,
    },
    /// It has an id, and the topic deduplicates: that is done for producers that publish at once and by themselves.
    #[error(
        "topic {topic:?} looks at ids, which a producer that gathers, one with sequences and a transaction do not: send it with `Producer::send`, or without an id"
    )]
    IdNotLookedAt {
        /// The topic.
        topic: String,
    },
    /// A producer was used by the code that it calls, such as its partitioner.
    #[error(
        "topic {topic:?}: a producer was used by code that it calls itself, such as its partitioner: use another one there"
    )]
    Nested {
        /// The topic.
        topic: String,
    },
    /// A rate limit is reached.
    #[error("topic {topic:?}: the rate limit of {} is reached: come again in {wait:?}", if *.of_topic { "the topic" } else { "this producer" })]
    RateLimited {
        /// The topic.
        topic: String,
        /// Whether the limit is the topic's; else it is the producer's own.
        of_topic: bool,
        /// After which time it may be tried again.
        wait: std::time::Duration,
    },
    /// A batch of no events.
    #[error("topic {topic:?}: a batch of 0 events is refused: publish at least 1")]
    Nothing {
        /// The topic.
        topic: String,
    },
    /// A batch that never fits.
    #[error(
        "topic {topic:?}: a batch of {asked} events never fits a partition that holds {largest}: publish fewer at a time"
    )]
    BatchTooLarge {
        /// The topic.
        topic: String,
        /// How many events.
        asked: usize,
        /// The most that ever fits: the capacity, less what is retained.
        largest: usize,
    },
    /// A message that never fits.
    #[error(
        "topic {topic:?}: a message of {size} bytes is larger than the {largest} that `max_message` allows (key, value, and each header's name and value and {} more)",
        crate::event::record::Record::HEADER
    )]
    MessageTooLarge {
        /// The topic.
        topic: String,
        /// Its size, as [`Record::size`](crate::Record::size) counts it.
        size: usize,
        /// The largest.
        largest: usize,
    },
    /// A header's name that is too long.
    #[error(
        "topic {topic:?}: a header's name of {len} bytes is longer than {}",
        crate::event::record::Record::MAX_HEADER_NAME
    )]
    HeaderName {
        /// The topic.
        topic: String,
        /// Its length.
        len: usize,
    },
    /// The partitioner is [`Explicit`](crate::producer::Partitioner::Explicit), and no partition was named.
    #[error("topic {topic:?}: no partition was named: name one, or take another partitioner than Explicit")]
    NoPartition {
        /// The topic.
        topic: String,
    },
    /// There is no such partition.
    #[error("topic {topic:?} has no partition {asked}: it has {partitions}, from 0 on")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The one that was named, by the caller or by the partitioner.
        asked: u32,
        /// How many there are.
        partitions: u32,
    },
    /// The topic takes nothing more.
    #[error("topic {topic:?}: {reason}")]
    Closed {
        /// The topic.
        topic: String,
        /// Why.
        reason: Closed,
    },
}

impl PublishError {
    /// `slowest` is asked only where the ring itself does not say who is in the way.
    #[cold]
    pub(crate) fn new(
        topic: &str,
        partition: u32,
        reason: impl Into<ClaimError>,
        slowest: impl FnOnce() -> Option<String>,
    ) -> Self {
        let topic = topic.to_owned();
        match reason.into() {
            ClaimError::Nothing => Self::Nothing { topic },
            ClaimError::TooLarge { asked, largest } => Self::BatchTooLarge { topic, asked, largest },
            ClaimError::Full => Self::Full { topic, partition, by: slowest() },
            ClaimError::TimedOut { by } => Self::TimedOut { topic, partition, by },
            ClaimError::Closed(reason) => Self::Closed { topic, reason: reason.into() },
            // Whatever the ring may learn to refuse, nothing was published.
            _ => Self::Closed { topic, reason: Closed::Closed },
        }
    }

    /// Whether there was no room, or it came too early: the same may go through later.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::TimedOut { .. } | Self::RateLimited { .. })
    }
}

/// A value was not published; here it is again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejected<E> {
    /// The value that was not published.
    pub value: E,
    /// Why it was not.
    pub reason: PublishError,
}

fn held_by(consumer: &Option<String>) -> String {
    match consumer {
        Some(consumer) => format!("consumer {consumer:?} is the furthest behind"),
        None => "another producer's claim is not committed yet".to_owned(),
    }
}
