//! What a reader is refused, each with what was asked and what to do.

use crate::base::closed::Closed;
use slipring_ring::{SeekError, StageError};

/// A consumer cannot read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("consumer {consumer:?} of topic {topic:?}: {reason}")]
#[non_exhaustive]
pub struct ReadError {
    /// The topic.
    pub topic: String,
    /// The consumer.
    pub consumer: String,
    /// Halted, failed, or evicted.
    pub reason: Closed,
}

/// A consumer was not taken away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CancelError {
    /// The consumer has ended already.
    #[error("topic {topic:?} has no consumer {consumer:?}: it has ended already")]
    Gone {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
    },
    /// Others stand behind it.
    #[error(
        "consumer {consumer:?} of topic {topic:?} cannot go while {behind:?} stands behind it: cancel that one first"
    )]
    StoodBehind {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
        /// One that stands behind it.
        behind: String,
    },
}

impl CancelError {
    pub(crate) fn new(topic: &str, consumer: &str, refused: StageError) -> Self {
        let (topic, consumer) = (topic.to_owned(), consumer.to_owned());
        match refused {
            StageError::StoodBehind { behind, .. } => Self::StoodBehind { topic, consumer, behind },
            _ => Self::Gone { topic, consumer },
        }
    }
}

/// A consumer did not move to where it was told to. It stays where it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PositionError {
    /// The offset is not kept any more, or not published yet.
    #[error(
        "consumer {consumer:?} cannot move to {asked} in partition {partition} of topic {topic:?}: it may be anywhere from {earliest} to {latest}"
    )]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
        /// The partition.
        partition: u32,
        /// The offset to which it was to seek.
        asked: u64,
        /// The earliest that it may move to.
        earliest: u64,
        /// The latest.
        latest: u64,
    },
    /// Others stand behind it: they have read on already.
    #[error("consumer {consumer:?} of topic {topic:?} cannot go back while {behind:?} stands behind it")]
    StoodBehind {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
        /// One that stands behind it.
        behind: String,
    },
    /// There is no such partition.
    #[error("topic {topic:?} has no partition {asked}: it has {partitions}, from 0 on")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The one that was named.
        asked: u32,
        /// How many there are.
        partitions: u32,
    },
    /// The topic has no times.
    #[error("topic {topic:?} keeps no times: create it with `timestamps()`")]
    NoTimestamps {
        /// The topic.
        topic: String,
    },
    /// The system refuses what going back in a topic that was made before needs.
    #[error("consumer {consumer:?} of topic {topic:?} cannot go back: {cause}")]
    Fence {
        /// The topic.
        topic: String,
        /// The consumer.
        consumer: String,
        /// Which fence the system refused, and why.
        cause: slipring_ring::fence::Refused,
    },
    /// The topic takes or gives nothing more.
    #[error("topic {topic:?}: {reason}")]
    Closed {
        /// The topic.
        topic: String,
        /// Why.
        reason: Closed,
    },
}

impl PositionError {
    pub(crate) fn new(topic: &str, consumer: &str, partition: u32, cause: SeekError) -> Self {
        let (topic, consumer) = (topic.to_owned(), consumer.to_owned());
        match cause {
            SeekError::OutOfRange { asked, earliest, latest, .. } => {
                Self::OutOfRange { topic, consumer, partition, asked: asked.0, earliest: earliest.0, latest: latest.0 }
            }
            SeekError::StoodBehind { behind, .. } => Self::StoodBehind { topic, consumer, behind },
            SeekError::Fence { cause, .. } => Self::Fence { topic, consumer, cause },
            SeekError::Closed(reason) => Self::Closed { topic, reason: reason.into() },
            _ => Self::Closed { topic, reason: Closed::Closed },
        }
    }
}
