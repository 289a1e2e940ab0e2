//! What can be refused, each with what was asked and what to do.

mod publish;
mod subscribe;

pub use publish::{PublishError, Rejected};
pub use subscribe::{DeadLetterError, SubscribeError};

use crate::base::closed::Closed;
use crate::base::ids::{MAX_NAME, MAX_PARTITIONS};
use crate::text;
use slipring_ring::BuildError;

/// Two settings of one builder cannot both be. Whichever was said last does not win: it is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{of:?}: {one} and {other} contradict one another: say one of them")]
#[non_exhaustive]
pub struct Contradiction {
    /// The name of the topic, group or queue that was to be made.
    pub of: String,
    /// One setting.
    pub one: &'static str,
    /// The other one.
    pub other: &'static str,
}

impl Contradiction {
    pub(crate) fn new(of: &str, one: &'static str, other: &'static str) -> Self {
        Self { of: of.to_owned(), one, other }
    }
}

/// A topic was not created or not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The name is empty, too long, or has other characters.
    #[error("{name:?} is no name for a topic or consumer: take 1 to {MAX_NAME} letters, digits, '.', '_' or '-'")]
    Name {
        /// The name.
        name: String,
    },
    /// The topic's own factory, or what makes a handler for a new partition, asked for more partitions while it was called for
    /// that.
    #[error("topic {name:?} is being given partitions by this very thread: add others when that has returned")]
    Growing {
        /// The topic.
        name: String,
    },
    /// What must be done at a time could not be: the engine's timer has no thread.
    #[error("topic {name:?}: {}", text::line(.cause))]
    Timer {
        /// The topic.
        name: String,
        /// The error of the operating system.
        cause: String,
    },
    /// There is a topic of this name.
    #[error(
        "there is a topic {name:?} already, as {}; asked for was {}: take it with `get`, or another name", text::line(.there), text::line(.asked)
    )]
    Exists {
        /// The name.
        name: String,
        /// Its shape.
        there: String,
        /// The shape asked for.
        asked: String,
    },
    /// There is no topic of this name.
    #[error("there is no topic {name:?} (there are {known:?}): create it first")]
    Unknown {
        /// The name.
        name: String,
        /// The topics there are.
        known: Vec<String>,
    },
    /// The topic carries other events.
    #[error("topic {name:?} is {}; asked for was {}", text::line(.there), text::line(.asked))]
    OtherShape {
        /// The name.
        name: String,
        /// Its shape.
        there: String,
        /// The shape asked for.
        asked: String,
    },
    /// No partition at all, or too many.
    #[error("topic {name:?} cannot have {asked} partitions: take 1 to {MAX_PARTITIONS}")]
    Partitions {
        /// The name.
        name: String,
        /// How many it would have had.
        asked: usize,
    },
    /// The messages would take more memory than the topic may have.
    #[error(
        "topic {name:?} would take {asked} bytes ({partitions} partitions of {capacity} slots of {slot} bytes), more than its limit of {limit}: take fewer or smaller slots, or raise `memory_limit`"
    )]
    Memory {
        /// The name.
        name: String,
        /// The bytes that it would take.
        asked: u64,
        /// The limit in bytes.
        limit: u64,
        /// How many partitions.
        partitions: usize,
        /// Slots of each.
        capacity: usize,
        /// Bytes of each slot, with what it needs beside itself.
        slot: u64,
    },
    /// A largest message that is too large.
    #[error("topic {name:?} cannot have messages of {asked} bytes: take {MAX_MESSAGE} at most")]
    MaxMessage {
        /// The name.
        name: String,
        /// What it would have had.
        asked: usize,
    },
    /// A time to live or a retention by age where no times are noted.
    #[error(
        "topic {name:?} has a time to live or a retention by age, and no times: create it with `timestamps()` as well"
    )]
    NoTimestamps {
        /// The name.
        name: String,
    },
    /// There are consumers on it.
    #[error("topic {name:?} is read by {consumers:?}: cancel or drop them first, or delete it with `delete_forced`")]
    InUse {
        /// The name.
        name: String,
        /// Its consumers.
        consumers: Vec<String>,
    },
    /// The engine has no journal.
    #[error("topic {name:?} is to be durable, and the engine has no journal: take `Engine::open`")]
    NoJournal {
        /// The name.
        name: String,
    },
    /// The journal knows this topic as another one.
    #[error(
        "topic {name:?} stands in the journal as {}; asked for was {}: ask for that, or take another name", text::line(.there), text::line(.asked)
    )]
    Recorded {
        /// The name.
        name: String,
        /// Its shape in the journal.
        there: String,
        /// The shape asked for.
        asked: String,
    },
    /// The journal refused the topic.
    #[error("topic {name:?} cannot be written down: {}", text::line(.cause))]
    Journal {
        /// The name.
        name: String,
        /// Why.
        cause: String,
    },
    /// The size was refused.
    #[error("topic {name:?}: {cause}")]
    Ring {
        /// The name.
        name: String,
        /// Why the ring was refused.
        cause: BuildError,
    },
    /// A consumer could not be given the new partition.
    #[error("topic {name:?} got no new partition: {cause}")]
    Consumer {
        /// The name.
        name: String,
        /// Which consumer, and why.
        cause: Box<SubscribeError>,
    },
    /// The topic takes nothing more.
    #[error("topic {name:?}: {reason}")]
    Closed {
        /// The name.
        name: String,
        /// Why.
        reason: Closed,
    },
    /// The engine was shut down.
    #[error("the engine was shut down: build another one")]
    ShutDown,
    /// Two settings cannot both be.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
}

/// The largest that [`max_message`](crate::TopicBuilder::max_message) can be, in bytes: 1 GiB.
pub const MAX_MESSAGE: usize = 1 << 30;

/// Names may one day be part of a path: letters, digits, and three signs, and neither `.` nor `..`.
pub(crate) fn check_name(name: &str) -> Result<(), TopicError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if plain && (1..=MAX_NAME).contains(&name.len()) && name != "." && name != ".." {
        Ok(())
    } else {
        Err(TopicError::Name { name: name.to_owned() })
    }
}

/// No producer was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProducerError {
    /// The topic has a single producer, and somebody has it.
    #[error(
        "topic {topic:?} has a single producer, and it is taken: drop that one, or create the topic without `single_producer`"
    )]
    Taken {
        /// The topic.
        topic: String,
    },
    /// The name of an idempotent producer is no name.
    #[error(
        "topic {topic:?}: {name:?} is no name for a producer: take 1 to {MAX_NAME} letters, digits, '.', '_' or '-'"
    )]
    Name {
        /// The topic.
        topic: String,
        /// The name.
        name: String,
    },
    /// As many names of idempotent producers as a topic knows, or as the journal's segments have room for, are in use: see
    /// [`IdempotentProducer`](crate::producer::IdempotentProducer).
    #[error(
        "topic {topic:?} has {limit} names of producers, which is all that it or the journal takes, so {name:?} is refused: use fewer, take larger segments, or wait until some expire"
    )]
    TooManyNames {
        /// The topic.
        topic: String,
        /// The name.
        name: String,
        /// The most.
        limit: usize,
    },
    /// The journal refused the name of an idempotent producer.
    #[error("topic {topic:?}: the producer {name:?} cannot be written down: {}", text::line(.cause))]
    Journal {
        /// The topic.
        topic: String,
        /// The name.
        name: String,
        /// Why.
        cause: String,
    },
    /// What must be done at a time could not be: the engine's timer has no thread.
    #[error("a producer of topic {topic:?}: {}", text::line(.cause))]
    Timer {
        /// The topic.
        topic: String,
        /// The error of the operating system.
        cause: String,
    },
    /// The topic cannot acknowledge so much.
    #[error("topic {topic:?} cannot acknowledge what is published as {level}: {reason}")]
    Unsupported {
        /// The topic.
        topic: String,
        /// The level asked for.
        level: crate::base::level::Level,
        /// Why.
        reason: &'static str,
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
