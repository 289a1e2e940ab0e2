//! What can be refused, each with what was asked and what to do.

use slipring_ring::pin::PinError;
use slipring_ring::{BuildError, ClaimError, Closed};

/// A topic was not created or not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// The name is empty, too long, or has other characters.
    #[error("{name:?} is no name for a topic or subscriber: take 1 to {MAX_NAME} letters, digits, '.', '_' or '-'")]
    Name {
        /// The name.
        name: String,
    },
    /// There is a topic of this name.
    #[error(
        "there is a topic {name:?} already, as {there}; asked for was {asked}: take it with `get`, or another name"
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
    #[error("topic {name:?} is {there}; asked for was {asked}")]
    OtherShape {
        /// The name.
        name: String,
        /// Its shape.
        there: String,
        /// The shape asked for.
        asked: String,
    },
    /// The size was refused.
    #[error("topic {name:?}: {cause}")]
    Ring {
        /// The name.
        name: String,
        /// What was refused.
        cause: BuildError,
    },
    /// The engine was shut down.
    #[error("the engine was shut down: build another one")]
    ShutDown,
}

/// The longest name.
pub const MAX_NAME: usize = 249;

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
    /// The topic takes nothing more.
    #[error("topic {topic:?}: {reason}")]
    Closed {
        /// The topic.
        topic: String,
        /// Why.
        reason: Closed,
    },
}

/// A subscriber was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The name of the subscriber is no name.
    #[error(transparent)]
    Name(TopicError),
    /// The core was refused. Ask for another one, or for none.
    #[error("subscriber {subscriber:?} of topic {topic:?}: {cause}")]
    Pin {
        /// The topic.
        topic: String,
        /// The subscriber.
        subscriber: String,
        /// What was asked, and what is allowed.
        cause: PinError,
    },
    /// Its place among the others, its start, or its thread was refused.
    #[error("topic {topic:?}: {cause}")]
    Refused {
        /// The topic.
        topic: String,
        /// Why.
        cause: BuildError,
    },
}

impl SubscribeError {
    pub(crate) fn new(topic: &str, cause: BuildError) -> Self {
        let topic = topic.to_owned();
        match cause {
            BuildError::Pin { stage, cause } => Self::Pin { topic, subscriber: stage, cause },
            cause => Self::Refused { topic, cause },
        }
    }
}

/// An event was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("topic {topic:?}: {reason}")]
#[non_exhaustive]
pub struct PublishError {
    /// The topic.
    pub topic: String,
    /// Full, timed out, closed, or a batch of a size that never fits.
    pub reason: ClaimError,
}

impl PublishError {
    #[cold]
    pub(crate) fn new(topic: &str, reason: impl Into<ClaimError>) -> Self {
        Self { topic: topic.to_owned(), reason: reason.into() }
    }
}

/// A subscriber cannot read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("subscriber {subscriber:?} of topic {topic:?}: {reason}")]
#[non_exhaustive]
pub struct ReadError {
    /// The topic.
    pub topic: String,
    /// The subscriber.
    pub subscriber: String,
    /// Halted, failed, or evicted.
    pub reason: Closed,
}
