//! Why a topic gives no consumer, and takes no dead letters.

use super::ProducerError;
use super::TopicError;
use crate::base::closed::Closed;
use crate::text;
use slipring_ring::BuildError;
use slipring_ring::pin::PinError;

/// A consumer was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The name of the consumer is no name.
    #[error(transparent)]
    Name(TopicError),
    /// There is a consumer of this name.
    #[error("topic {topic:?} has a consumer called {consumer:?} already: give each its own name")]
    NameTaken {
        /// The topic.
        topic: String,
        /// The name.
        consumer: String,
    },
    /// A consumer that is named in `after` does not exist.
    #[error(
        "consumer {consumer:?} was to stand behind {after:?}, which topic {topic:?} does not have (it has {known:?})"
    )]
    Unknown {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
        /// Whom it was to stand behind.
        after: String,
        /// The consumers there are.
        known: Vec<String>,
    },
    /// The start is not kept any more, or not published yet.
    #[error(
        "consumer {consumer:?} cannot start at {asked}: partition {partition} of topic {topic:?} keeps {earliest} up to, not including, {latest}"
    )]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
        /// The partition.
        partition: u32,
        /// The offset at which it was to start.
        asked: u64,
        /// The earliest offset that it could have had.
        earliest: u64,
        /// The next to be published.
        latest: u64,
    },
    /// It was to start at a time, and the topic keeps no timestamps.
    #[error("consumer {consumer:?} cannot start at a time: topic {topic:?} keeps none; create it with `timestamps()`")]
    NoTimestamps {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
    },
    /// It was to start at its committed offset, and only groups commit.
    #[error(
        "consumer {consumer:?} of topic {topic:?} cannot start at a committed offset: only groups have any; use `group`"
    )]
    NoGroup {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
    },
    /// It was to wait for the journal, and the topic is not durable.
    #[error("consumer {consumer:?} cannot wait for a journal: topic {topic:?} has none; create it with `durable()`")]
    NotDurable {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
    },
    /// The core was refused. Ask for another one, or for none.
    #[error("consumer {consumer:?} of topic {topic:?}: {cause}")]
    Pin {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
        /// The core that was asked for, and the cores that are allowed.
        cause: PinError,
    },
    /// The system gave no thread.
    #[error("consumer {consumer:?} of topic {topic:?} got no thread: {cause}")]
    Thread {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
        /// The error of the operating system.
        cause: std::io::Error,
    },
    /// Its handler or state panicked while it was made.
    #[error("the handler of consumer {consumer:?} of topic {topic:?} panicked while it was made: {}", text::line(.cause))]
    Handler {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
        /// The panic's message.
        cause: String,
    },
    /// Its thread would not have the core that it needs.
    #[error("topic {topic:?}: {cause}")]
    Cores {
        /// The topic.
        topic: String,
        /// Who, and why.
        cause: crate::base::cores::CoresError,
    },
    /// The topic for dead letters does not fit: events that the handler fails on could not be kept.
    #[error("consumer {consumer:?} of topic {topic:?}: {cause}")]
    DeadLetters {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
        /// Why.
        cause: Box<DeadLetterError>,
    },
    /// The topic takes nothing more.
    #[error("topic {topic:?}: {reason}")]
    Closed {
        /// The topic.
        topic: String,
        /// Why.
        reason: Closed,
    },
    /// Anything else that the core refuses.
    #[error("topic {topic:?}: {cause}")]
    Refused {
        /// The topic.
        topic: String,
        /// Why.
        cause: BuildError,
    },
}

impl SubscribeError {
    pub(crate) fn new(topic: &str, partition: u32, cause: BuildError) -> Self {
        let topic = topic.to_owned();
        match cause {
            BuildError::NameTaken { name } => Self::NameTaken { topic, consumer: name },
            BuildError::UnknownStage { stage, after, known } => Self::Unknown { topic, consumer: stage, after, known },
            BuildError::OutOfRange { stage, asked, earliest, latest } => Self::OutOfRange {
                topic,
                consumer: stage,
                partition,
                asked: asked.0,
                earliest: earliest.0,
                latest: latest.0,
            },
            BuildError::Pin { stage, cause } => Self::Pin { topic, consumer: stage, cause },
            BuildError::Thread { stage, cause } => Self::Thread { topic, consumer: stage, cause },
            BuildError::Handler { stage, cause } => Self::Handler { topic, consumer: stage, cause },
            BuildError::Closed(reason) => Self::Closed { topic, reason: reason.into() },
            cause => Self::Refused { topic, cause },
        }
    }
}

/// A topic cannot take dead letters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// The messages would come back to where they failed.
    #[error("topic {topic:?} cannot be the dead letters of its own messages: name another topic")]
    Circle {
        /// The topic.
        topic: String,
    },
    /// Its messages are too small for the message and the reason.
    #[error(
        "topic {topic:?} takes messages of up to {largest} bytes, and a dead letter may need {needed}: create it with a larger `max_message`"
    )]
    TooSmall {
        /// The topic of the dead letters.
        topic: String,
        /// The most bytes that a dead letter may need.
        needed: usize,
        /// The most bytes that the topic takes.
        largest: usize,
    },
    /// The topic for dead letters carries another type, or could not be created.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The messages are durable and their letters would not be.
    #[error(
        "topic {topic:?} is in memory and cannot take the dead letters of a durable topic: create it with `durable()`"
    )]
    InMemory {
        /// The topic of the dead letters.
        topic: String,
    },
    /// The topic for dead letters gives no producer.
    #[error("topic {topic:?} takes no dead letters: {cause}")]
    Producer {
        /// The topic.
        topic: String,
        /// Why.
        cause: ProducerError,
    },
    /// Its letters could not be kept.
    #[error("the dead letters of topic {topic:?} cannot be kept: {cause}")]
    Reader {
        /// The topic.
        topic: String,
        /// Why.
        cause: Box<SubscribeError>,
    },
}
