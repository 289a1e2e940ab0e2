//! The errors of topics and producers. Each says what was refused, the values that were asked for, and what to do.

mod out_of_range;
mod publish;
mod subscribe;

pub use out_of_range::OutOfRange;
pub use publish::{PublishError, Rejected};
pub use subscribe::{DeadLetterError, SubscribeError};

use crate::base::closed::Closed;
use crate::base::ids::{MAX_NAME, MAX_PARTITIONS};
use crate::text;
use crate::topic::report::TopicReport;
use slipring_ring::BuildError;

/// Two settings of one builder that exclude one another. The builder refuses both, whatever the order of the calls.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{of:?}: {one} and {other} contradict one another: set only one of the two")]
#[non_exhaustive]
pub struct Contradiction {
    /// The name of the topic, group or queue that was to be created.
    pub of: String,
    /// The first of the two settings.
    pub one: &'static str,
    /// The second of the two settings.
    pub other: &'static str,
}

impl Contradiction {
    pub(crate) fn new(of: &str, one: &'static str, other: &'static str) -> Self {
        Self { of: of.to_owned(), one, other }
    }
}

/// Why a topic was not created, changed, deleted or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The name is empty, longer than [`MAX_NAME`] bytes, `.` or `..`, or has characters other than ASCII letters,
    /// digits, `.`, `_` and `-`.
    #[error("{name:?} is no name for a topic or consumer: take 1 to {MAX_NAME} letters, digits, '.', '_' or '-'")]
    Name {
        /// The refused name.
        name: String,
    },
    /// The calling thread is adding partitions to the topic already: the factory of events, or a subscriber's factory
    /// of handlers, has called for more partitions.
    #[error("topic {name:?}: this thread is adding partitions already: add others after that call has returned")]
    Growing {
        /// The topic's name.
        name: String,
    },
    /// The timer's thread, which a setting of the topic needs, could not be started.
    #[error("topic {name:?}: {}", text::line(.cause))]
    Timer {
        /// The topic's name.
        name: String,
        /// The error of the operating system, as text.
        cause: String,
    },
    /// The engine has a topic of this name already.
    #[error(
        "there is a topic {name:?} already, as {}; asked for was {}: take it with `get`, or another name", text::line(.there), text::line(.asked)
    )]
    Exists {
        /// The topic's name.
        name: String,
        /// The existing topic's shape.
        there: String,
        /// The shape of the topic that was to be created.
        asked: String,
    },
    /// The engine has no topic of this name.
    #[error("there is no topic {name:?} (there are {known:?}): create it first")]
    Unknown {
        /// The topic's name.
        name: String,
        /// The names of the engine's topics.
        known: Vec<String>,
    },
    /// The topic exists, but its events are of another type than asked for, or it has a single producer and several
    /// were asked for, or the reverse.
    #[error("topic {name:?} is {}; asked for was {}", text::line(.there), text::line(.asked))]
    OtherShape {
        /// The topic's name.
        name: String,
        /// The existing topic's shape.
        there: String,
        /// The shape that the caller has asked for.
        asked: String,
    },
    /// The number of partitions is 0 or above [`MAX_PARTITIONS`].
    #[error("topic {name:?} cannot have {asked} partitions: take 1 to {MAX_PARTITIONS}")]
    Partitions {
        /// The topic's name.
        name: String,
        /// The number of partitions that the topic would have.
        asked: usize,
    },
    /// The slots would take more memory than the topic's [`memory_limit`](crate::TopicBuilder::memory_limit).
    #[error(
        "topic {name:?} would take {asked} bytes ({partitions} partitions of {capacity} slots of {slot} bytes), more than its limit of {limit}: take fewer or smaller slots, or raise `memory_limit`"
    )]
    Memory {
        /// The topic's name.
        name: String,
        /// The size of all slots, in bytes.
        asked: u64,
        /// The topic's limit in bytes.
        limit: u64,
        /// The number of partitions that the topic would have.
        partitions: usize,
        /// The number of slots of each partition.
        capacity: usize,
        /// The size of one slot in bytes, as [`memory_limit`](crate::TopicBuilder::memory_limit) counts it.
        slot: u64,
    },
    /// The topic's [`max_message`](crate::TopicBuilder::max_message) is above the limit, [`MAX_MESSAGE`].
    #[error("topic {name:?} cannot have messages of {asked} bytes: take {MAX_MESSAGE} at most")]
    MaxMessage {
        /// The topic's name.
        name: String,
        /// The size that was set, in bytes.
        asked: usize,
    },
    /// The topic has a time to live or a retention by age, but does not store timestamps.
    #[error(
        "topic {name:?} has a time to live or a retention by age, but stores no timestamps: create it with `timestamps()` as well"
    )]
    NoTimestamps {
        /// The topic's name.
        name: String,
    },
    /// The topic still has consumers.
    #[error("topic {name:?} is read by {consumers:?}: cancel or drop them first, or delete it with `delete_forced`")]
    InUse {
        /// The topic's name.
        name: String,
        /// The names of the topic's consumers.
        consumers: Vec<String>,
    },
    /// The topic has the dead letters of a queue.
    #[error(
        "topic {name:?} keeps the dead letters of queue {queue:?} of topic {topic:?}: delete the queue first (`delete_queue`), or the topic with `delete_forced`"
    )]
    KeepsDeadLetters {
        /// The topic's name.
        name: String,
        /// The name of the topic whose messages have become dead letters. If there are several queues, the error names
        /// one of them.
        topic: String,
        /// The queue's name.
        queue: String,
    },
    /// The topic was to be durable, but its engine was built without a journal.
    #[error("topic {name:?} is to be durable, and the engine has no journal: take `Engine::open`")]
    NoJournal {
        /// The topic's name.
        name: String,
    },
    /// The journal has a durable topic of this name whose type, number of partitions or message size does not fit the
    /// topic that was asked for, or a topic in memory was asked for.
    #[error(
        "the journal has topic {name:?} as {}; asked for was {}: ask for the recorded one, or take another name", text::line(.there), text::line(.asked)
    )]
    Recorded {
        /// The topic's name.
        name: String,
        /// The shape that the journal has recorded.
        there: String,
        /// The shape that was asked for.
        asked: String,
    },
    /// The journal has a topic of this name whose events have a newer layout: this program is the older one. Nothing was
    /// changed.
    #[error(
        "the events of topic {name:?} have the newer layout {:?}; this program has the older one {:?}: start the newer program, or add the step back by `upgrade`", text::line(.there).to_string(), text::line(.asked).to_string()
    )]
    NewerLayout {
        /// The topic's name.
        name: String,
        /// The layout that the topic's events have now.
        there: String,
        /// The layout of this program, which the topic's events had before.
        asked: String,
    },
    /// The journal has records of the topic in an older layout, and the topic's
    /// [`upgrade`](crate::TopicBuilder::upgrade)s do not lead from it to the layout that was asked for. Nothing was changed.
    #[error(
        "topic {name:?} has records of the older layout {:?}, and no `upgrade` leads from it to {:?}: add the step that is missing", text::line(.there).to_string(), text::line(.asked).to_string()
    )]
    NoUpgrade {
        /// The topic's name.
        name: String,
        /// The older layout.
        there: String,
        /// The layout that was asked for.
        asked: String,
    },
    /// The journal refused the topic, or has failed or ended, or the calling thread is one of the journal's own, which
    /// must not wait for the journal.
    #[error("topic {name:?} cannot be written to the journal: {}", text::line(.cause))]
    Journal {
        /// The topic's name. From [`Engine::retain`](crate::Engine::retain), which concerns all topics, `any`; from
        /// [`Engine::acknowledge_gaps`](crate::Engine::acknowledge_gaps), the reader's name.
        name: String,
        /// The journal's error, as text.
        cause: String,
    },
    /// The journal has failed while the topic was deleted. The topic is gone from the engine. The journal may still have
    /// it when it is opened again.
    #[error(
        "topic {name:?} is gone from the engine, and the journal may still have it: {}: open the journal again and delete the topic there", text::line(.cause)
    )]
    NotForgotten {
        /// The topic's name.
        name: String,
        /// The journal's error, as text.
        cause: String,
        /// The report of the topic's end, as a deletion returns it.
        report: Box<TopicReport>,
    },
    /// The ring refused the topic's capacity, its retention or the journal's stage, or the operating system gave no
    /// memory for the slots or the publish times.
    #[error("topic {name:?}: {cause}")]
    Ring {
        /// The topic's name.
        name: String,
        /// Why the ring was refused.
        cause: BuildError,
    },
    /// A consumer of the topic could not join a new partition, so no partition was added.
    #[error("topic {name:?} got no new partition: {cause}")]
    Consumer {
        /// The topic's name.
        name: String,
        /// The error of the consumer.
        cause: Box<SubscribeError>,
    },
    /// The topic is closed.
    #[error("topic {name:?}: {reason}")]
    Closed {
        /// The topic's name.
        name: String,
        /// Why the topic is closed.
        reason: Closed,
    },
    /// The engine was shut down.
    #[error("the engine was shut down: build another one")]
    ShutDown,
    /// Two settings of the topic exclude one another.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
}

/// The upper limit of [`max_message`](crate::TopicBuilder::max_message) in bytes: 1 GiB.
pub const MAX_MESSAGE: usize = 1 << 30;

/// Checks the name of a topic, queue or group. Names may become parts of paths, so only plain file names are allowed: 1
/// to [`MAX_NAME`] ASCII letters, digits, `.`, `_` and `-`, but neither `.` nor `..`.
pub(crate) fn check_name(name: &str) -> Result<(), TopicError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if plain && (1..=MAX_NAME).contains(&name.len()) && name != "." && name != ".." {
        Ok(())
    } else {
        Err(TopicError::Name { name: name.to_owned() })
    }
}

/// Why a producer was not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProducerError {
    /// The topic has a single producer, which exists already.
    #[error(
        "topic {topic:?} has a single producer, and it is taken: drop that one, or create the topic without `single_producer`"
    )]
    Taken {
        /// The topic's name.
        topic: String,
    },
    /// The name of an idempotent producer is empty, too long, or has a character that is not allowed.
    #[error(
        "topic {topic:?}: {name:?} is no name for a producer: take 1 to {MAX_NAME} letters, digits, '.', '_' or '-'"
    )]
    Name {
        /// The topic's name.
        topic: String,
        /// The refused name.
        name: String,
    },
    /// The topic or the journal has no room for another name of an idempotent producer: see
    /// [`IdempotentProducer`](crate::producer::IdempotentProducer).
    #[error(
        "topic {topic:?} has {limit} names of producers, the most that it or the journal allows, so {name:?} is refused: use fewer names, take larger segments, or wait until some expire"
    )]
    TooManyNames {
        /// The topic's name.
        topic: String,
        /// The refused name.
        name: String,
        /// The number of names that the topic or the journal allows.
        limit: usize,
    },
    /// The journal refused the name of an idempotent producer.
    #[error("topic {topic:?}: the producer {name:?} cannot be written to the journal: {}", text::line(.cause))]
    Journal {
        /// The topic's name.
        topic: String,
        /// The producer's name.
        name: String,
        /// The reason for which the journal refused the name.
        cause: String,
    },
    /// The topic's next offsets could not be reserved in the journal. A producer may publish only at reserved offsets.
    #[error("topic {topic:?}: its next offsets cannot be reserved in the journal: {}", text::line(.cause))]
    NotReserved {
        /// The topic's name.
        topic: String,
        /// The journal's error, as text.
        cause: String,
    },
    /// The timer's thread, which the producer needs, could not be started.
    #[error("a producer of topic {topic:?}: {}", text::line(.cause))]
    Timer {
        /// The topic's name.
        topic: String,
        /// The error of the operating system, as text.
        cause: String,
    },
    /// The topic cannot reach the acknowledgement level for which the producer was to wait.
    #[error("topic {topic:?} cannot acknowledge events as {level}: {reason}")]
    Unsupported {
        /// The topic's name.
        topic: String,
        /// The level that was asked for.
        level: crate::base::level::Level,
        /// Why the topic cannot reach the level.
        reason: &'static str,
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
