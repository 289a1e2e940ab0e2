//! The errors of a publish.

use crate::base::closed::Closed;
use crate::text;
use slipring_ring::ClaimError;

/// Why an event was not published; no consumer can see any part of it. The exception is [`Unknown`](Self::Unknown):
/// that event was published, but may not have reached the acknowledgement level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The event was published, but the journal failed before the event reached its acknowledgement level. When the
    /// journal is opened again, it may or may not have the event.
    #[error("partition {partition} of topic {topic:?}: offset {offset} was published: {}", text::line(.cause))]
    Unknown {
        /// The topic's name.
        topic: String,
        /// The partition's number, from 0.
        partition: u32,
        /// The event's offset.
        offset: u64,
        /// The journal's error, as text.
        cause: String,
    },
    /// The partition is full. Returned only by `try_` methods and `offer`, and on topics with
    /// [`Overflow::Fail`](crate::topic::Overflow::Fail).
    #[error("partition {partition} of topic {topic:?} is full{}: {}", lacks(*.missing), held_by(.by))]
    Full {
        /// The topic's name.
        topic: String,
        /// The partition's number, from 0.
        partition: u32,
        /// The consumer that is furthest behind; `None` if the partition is full because of another producer's
        /// unpublished claim.
        by: Option<String>,
        /// Count of slots that are missing for the refused events; 0 if it is not known, as in a transaction.
        missing: usize,
    },
    /// The partition was still full when the deadline passed.
    #[error("partition {partition} of topic {topic:?} had no room until the deadline{}: {}", lacks(*.missing), held_by(.by))]
    TimedOut {
        /// The topic's name.
        topic: String,
        /// The partition's number, from 0.
        partition: u32,
        /// The consumer that is furthest behind; `None` if the partition is full because of another producer's
        /// unpublished claim.
        by: Option<String>,
        /// Count of slots that are missing for the refused events; 0 if it is not known, as in a transaction.
        missing: usize,
    },
    /// The partition is full, and the consumer that is furthest behind is the one whose handler makes this call, so the
    /// call would wait for itself. See [publishing in a handler](crate::subscriber::SubscriberBuilder::run).
    #[error(
        "topic {topic:?}: partition {partition} is full and waits for the consumer {consumer:?}, whose handler makes this call: publish with `try_publish` or from another thread, or give the topic more capacity"
    )]
    OwnConsumer {
        /// The topic's name.
        topic: String,
        /// The partition's number, from 0.
        partition: u32,
        /// The consumer's name.
        consumer: String,
    },
    /// The message has an id and the topic deduplicates, but this kind of producer does not check ids.
    #[error(
        "topic {topic:?} deduplicates by id, which gathering producers, idempotent producers and transactions do not support: send the message with `Producer::send`, or without an id"
    )]
    IdNotLookedAt {
        /// The topic's name.
        topic: String,
    },
    /// Another publish of a message with the same id has begun and not ended: see
    /// [`TopicBuilder::deduplicate`](crate::TopicBuilder::deduplicate). It was waited for as long as the call and the
    /// topic's [`Overflow`](crate::topic::Overflow) allow. It is not waited for where it is further out on the calling
    /// thread, for example if the partitioner has made this call, nor on the journal's own threads.
    #[error(
        "topic {topic:?}: another publish of a message with this id has begun and not ended: send the message again to get the receipt of the one that was published"
    )]
    IdClaimed {
        /// The topic's name.
        topic: String,
    },
    /// User code that a producer calls, such as its partitioner, has itself used that producer.
    #[error(
        "topic {topic:?}: a producer was used by code that it was calling, such as its partitioner: use another producer there"
    )]
    Nested {
        /// The topic's name.
        topic: String,
    },
    /// The rate limit of the topic or of the producer is reached.
    #[error("topic {topic:?}: the rate limit of {} is reached: try again in {wait:?}", if *.of_topic { "the topic" } else { "this producer" })]
    RateLimited {
        /// The topic's name.
        topic: String,
        /// True if the topic's rate limit is reached; false if the producer's is.
        of_topic: bool,
        /// The time after which a publish may succeed again.
        wait: std::time::Duration,
    },
    /// Nobody reads the topic, and the producer [needs a reader](crate::producer::ProducerBuilder::when_unread).
    #[error(
        "nobody reads topic {topic:?}, and this producer publishes only what is read: start a reader first, or create the producer without `when_unread`"
    )]
    NoReaders {
        /// The topic's name.
        topic: String,
        /// True if the producer waits for a reader where the call allows it, so that the publish may be tried again.
        waits: bool,
    },
    /// The batch has no events.
    #[error("topic {topic:?}: a batch of 0 events is refused: publish at least 1")]
    Nothing {
        /// The topic's name.
        topic: String,
    },
    /// The batch has more events than the partition can ever hold.
    #[error(
        "topic {topic:?}: a batch of {asked} events never fits a partition that holds {largest}: publish fewer at a time"
    )]
    BatchTooLarge {
        /// The topic's name.
        topic: String,
        /// The number of events in the batch.
        asked: usize,
        /// The number of events of the largest batch that the partition can hold: its capacity minus the retained
        /// events.
        largest: usize,
    },
    /// The message is larger than the topic's [`max_message`](crate::TopicBuilder::max_message).
    #[error(
        "topic {topic:?}: a message of {size} bytes is larger than the {largest} that `max_message` allows (key, value, and each header's name and value and {} more)",
        crate::event::record::Record::HEADER
    )]
    MessageTooLarge {
        /// The topic's name.
        topic: String,
        /// The message's size in bytes, as [`Record::size`](crate::Record::size) counts it.
        size: usize,
        /// The largest message that the topic allows, in bytes.
        largest: usize,
    },
    /// The message is larger than what the topic's [bridge](crate::replication) can copy to other machines, so it would be on
    /// this machine only.
    #[error(
        "topic {topic:?}: the message takes {size} bytes in the copy that the bridge {bridge:?} makes, which takes at most {limit}: send a smaller one, or raise the limit of the bridge's servers"
    )]
    TooLargeForBridge {
        /// The topic's name.
        topic: String,
        /// The name of the bridge, which has set the limit.
        bridge: String,
        /// The message's size in the copy in bytes, as the bridge counts it.
        size: usize,
        /// The largest size in the copy, in bytes.
        limit: usize,
    },
    /// The name of one of the message's headers is longer than
    /// [`Record::MAX_HEADER_NAME`](crate::Record::MAX_HEADER_NAME) bytes.
    #[error(
        "topic {topic:?}: a header's name of {len} bytes is longer than {}",
        crate::event::record::Record::MAX_HEADER_NAME
    )]
    HeaderName {
        /// The topic's name.
        topic: String,
        /// The length of the header's name, in bytes.
        len: usize,
    },
    /// The partitioner is [`Explicit`](crate::producer::Partitioner::Explicit), and the publish named no partition.
    #[error("topic {topic:?}: no partition was named: name one, or take another partitioner than Explicit")]
    NoPartition {
        /// The topic's name.
        topic: String,
    },
    /// The topic has no partition of the number that the publish or the partitioner has named.
    #[error("topic {topic:?} has no partition {asked}: it has {partitions}, from 0 on")]
    UnknownPartition {
        /// The topic's name.
        topic: String,
        /// The partition's number, from the caller or from the partitioner.
        asked: u32,
        /// The number of the topic's partitions.
        partitions: u32,
    },
    /// The topic is closed.
    #[error("topic {topic:?}: {reason}")]
    Closed {
        /// The topic's name.
        topic: String,
        /// Why the topic is closed.
        reason: Closed,
    },
}

impl PublishError {
    /// Converts a ring's error. `missing` is the count of slots that a full ring lacks. `slowest` returns the name of
    /// the consumer that is furthest behind; it is called only if the ring's error needs that name and does not have it.
    #[cold]
    pub(crate) fn new(
        topic: &str,
        partition: u32,
        reason: impl Into<ClaimError>,
        missing: usize,
        slowest: impl FnOnce() -> Option<String>,
    ) -> Self {
        let topic = topic.to_owned();
        match reason.into() {
            ClaimError::Nothing => Self::Nothing { topic },
            ClaimError::TooLarge { asked, largest } => Self::BatchTooLarge { topic, asked, largest },
            ClaimError::Full => Self::Full { topic, partition, by: slowest(), missing },
            ClaimError::TimedOut { by } => Self::TimedOut { topic, partition, by, missing },
            ClaimError::Closed(reason) => Self::Closed { topic, reason: reason.into() },
            // Errors that a later version of the ring may add. In each such case nothing was published.
            _ => Self::Closed { topic, reason: Closed::Closed },
        }
    }

    /// True if the partition was full, a rate limit was reached, another publish of a message with the same id has not
    /// ended, or a producer that waits for readers had none, so that the publish may succeed if it is tried again.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } | Self::TimedOut { .. } | Self::RateLimited { .. } | Self::IdClaimed { .. } => true,
            Self::NoReaders { waits, .. } => *waits,
            _ => false,
        }
    }
}

/// The error of a publish by value: the value that was not published, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejected<E> {
    /// The value that was not published.
    pub value: E,
    /// Why the value was not published.
    pub reason: PublishError,
}

fn held_by(consumer: &Option<String>) -> String {
    match consumer {
        Some(consumer) => format!("consumer {consumer:?} is the furthest behind"),
        None => "another producer's claim is not committed yet".to_owned(),
    }
}

fn lacks(missing: usize) -> String {
    match missing {
        0 => String::new(),
        1 => ", 1 slot is missing".to_owned(),
        several => format!(", {several} slots are missing"),
    }
}
