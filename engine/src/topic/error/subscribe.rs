//! The errors of creating a consumer, and of refusing a topic for dead letters.

use super::{Contradiction, OutOfRange, ProducerError, TopicError};
use crate::base::closed::Closed;
use crate::text;
use slipring_ring::BuildError;
use slipring_ring::pin::PinError;

/// Why a consumer was not created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The consumer's name is invalid.
    #[error(transparent)]
    Name(TopicError),
    /// Two settings contradict each other.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// The topic has a consumer of this name already.
    #[error("topic {topic:?} has a consumer called {consumer:?} already: give each its own name")]
    NameTaken {
        /// The topic's name.
        topic: String,
        /// The consumer's name.
        consumer: String,
    },
    /// The builder's `after` names a consumer that the topic does not have.
    #[error(
        "consumer {consumer:?} was to read after {after:?}, which topic {topic:?} does not have (its consumers are {known:?})"
    )]
    Unknown {
        /// The topic's name.
        topic: String,
        /// The consumer's name.
        consumer: String,
        /// The missing consumer's name, as given to `after`.
        after: String,
        /// The names of the topic's consumers.
        known: Vec<String>,
    },
    /// The start offset is below the earliest offset in the ring, or above the next offset to be published. The journal of
    /// a durable topic may have older events: see [`StartAt`](crate::subscriber::StartAt).
    #[error(
        "consumer {consumer:?} cannot start in the ring: {refused}; older events of a durable topic are read by a `replay` or a `group`"
    )]
    OutOfRange {
        /// The consumer's name.
        consumer: String,
        /// The refused offset, with the range of the kept offsets.
        refused: OutOfRange,
    },
    /// The consumer was to start at a time, but the topic was created without
    /// [`timestamps`](crate::TopicBuilder::timestamps).
    #[error("consumer {consumer:?} cannot start at a time: topic {topic:?} keeps none; create it with `timestamps()`")]
    NoTimestamps {
        /// The topic's name.
        topic: String,
        /// The consumer's name.
        consumer: String,
    },
    /// The consumer was to start at its committed offset, but only groups commit offsets.
    #[error(
        "consumer {consumer:?} of topic {topic:?} cannot start at a committed offset: only groups have any; use `group`"
    )]
    NoGroup {
        /// The topic's name.
        topic: String,
        /// The consumer's name.
        consumer: String,
    },
    /// The consumer was to read events only after they are written or durable, but the topic is in memory.
    #[error("consumer {consumer:?} cannot wait for a journal: topic {topic:?} has none; create it with `durable()`")]
    NotDurable {
        /// The topic's name.
        topic: String,
        /// The consumer's name.
        consumer: String,
    },
    /// The consumer's thread cannot be pinned to the core. Take another core, or none.
    #[error("consumer {consumer:?} of topic {topic:?}: {cause}")]
    Pin {
        /// The topic's name.
        topic: String,
        /// The consumer's name.
        consumer: String,
        /// Why the core was refused, with the cores that are allowed.
        cause: PinError,
    },
    /// The operating system could not start the consumer's thread.
    #[error("consumer {consumer:?} of topic {topic:?} got no thread: {cause}")]
    Thread {
        /// The topic's name.
        topic: String,
        /// The consumer's name.
        consumer: String,
        /// The error of the operating system.
        cause: std::io::Error,
    },
    /// The handler, or the function that makes it, panicked before the first event.
    #[error("the handler of consumer {consumer:?} of topic {topic:?} panicked while it was made: {}", text::line(.cause))]
    Handler {
        /// The topic's name.
        topic: String,
        /// The consumer's name.
        consumer: String,
        /// The panic's message.
        cause: String,
    },
    /// The engine's [core plan](crate::cores) does not allow the consumer's thread.
    #[error("topic {topic:?}: {cause}")]
    Cores {
        /// The topic's name.
        topic: String,
        /// Why the thread is not allowed, with the consumer's name.
        cause: crate::base::cores::CoresError,
    },
    /// The topic for dead letters is not suitable, so events on which the handler fails could not be kept.
    #[error("consumer {consumer:?} of topic {topic:?}: {cause}")]
    DeadLetters {
        /// The topic's name.
        topic: String,
        /// The consumer's name.
        consumer: String,
        /// Why the topic is not suitable.
        cause: Box<DeadLetterError>,
    },
    /// The topic is closed.
    #[error("topic {topic:?}: {reason}")]
    Closed {
        /// The topic's name.
        topic: String,
        /// Why the topic is closed.
        reason: Closed,
    },
    /// The ring refused the consumer for another reason.
    #[error("topic {topic:?}: {cause}")]
    Refused {
        /// The topic's name.
        topic: String,
        /// The ring's error.
        cause: BuildError,
    },
}

impl SubscribeError {
    pub(crate) fn new(topic: &str, partition: u32, cause: BuildError) -> Self {
        let topic = topic.to_owned();
        match cause {
            BuildError::NameTaken { name } => Self::NameTaken { topic, consumer: name },
            BuildError::UnknownStage { stage, after, known } => Self::Unknown { topic, consumer: stage, after, known },
            BuildError::OutOfRange { stage, asked, earliest, latest } => {
                let refused = OutOfRange { topic, partition, asked: asked.0, earliest: earliest.0, latest: latest.0 };
                Self::OutOfRange { consumer: stage, refused }
            }
            BuildError::Pin { stage, cause } => Self::Pin { topic, consumer: stage, cause },
            BuildError::Thread { stage, cause } => Self::Thread { topic, consumer: stage, cause },
            BuildError::Handler { stage, cause } => Self::Handler { topic, consumer: stage, cause },
            BuildError::Closed(reason) => Self::Closed { topic, reason: reason.into() },
            cause => Self::Refused { topic, cause },
        }
    }
}

/// Why a topic cannot be used for dead letters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// The topic for dead letters is the topic whose failed messages it would get.
    #[error("topic {topic:?} cannot take the dead letters of its own messages: name another topic")]
    Circle {
        /// The topic's name.
        topic: String,
    },
    /// The topic for dead letters allows no message as large as the largest possible dead letter: a failed message, its
    /// origin and the reason of its failure.
    #[error(
        "topic {topic:?} takes messages of up to {largest} bytes, and a dead letter may need {needed}: create it with a larger `max_message`"
    )]
    TooSmall {
        /// The name of the topic for dead letters.
        topic: String,
        /// The size of the largest possible dead letter, in bytes.
        needed: usize,
        /// The largest message that the topic allows, in bytes.
        largest: usize,
    },
    /// The topic for dead letters has events of another type, or cannot be created.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The topic for dead letters is in memory, but the messages are durable.
    #[error(
        "topic {topic:?} is in memory and cannot take the dead letters of a durable topic: create it with `durable()`"
    )]
    InMemory {
        /// The name of the topic for dead letters.
        topic: String,
    },
    /// No producer could be created for the topic for dead letters.
    #[error("topic {topic:?} takes no dead letters: {cause}")]
    Producer {
        /// The name of the topic for dead letters.
        topic: String,
        /// Why no producer could be created.
        cause: ProducerError,
    },
    /// The queue's own subscriber of the topic for dead letters, which keeps the dead letters in a topic in memory from
    /// being overwritten, could not be created.
    #[error("the dead letters of topic {topic:?} cannot be kept: {cause}")]
    Reader {
        /// The name of the topic for dead letters.
        topic: String,
        /// Why the consumer could not be created.
        cause: Box<SubscribeError>,
    },
}
