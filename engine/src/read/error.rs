//! Errors of readers.

use crate::base::closed::Closed;
use crate::topic::error::OutOfRange;
use slipring_ring::{SeekError, StageError};

/// The error of a consumer that cannot continue to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("consumer {consumer:?} of topic {topic:?}: {reason}")]
#[non_exhaustive]
pub struct ReadError {
    /// The topic's name.
    pub topic: String,
    /// The consumer's name.
    pub consumer: String,
    /// The topic was halted or has failed, or the consumer was evicted.
    pub reason: Closed,
}

/// The reason why a [`Deadline`](crate::subscriber::Deadline) or an [`Interval`](crate::subscriber::Interval) was not
/// created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TimerError {
    /// The thread of the engine's timer could not be started: the error of the operating system.
    #[error("no thread for what is awaited at a time: {0}")]
    NoThread(std::io::Error),
    /// The period of an interval is zero.
    #[error("an interval's period is zero: take a longer one")]
    NoPeriod,
}

/// The reason why a consumer was not cancelled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CancelError {
    /// The consumer has ended already.
    #[error("topic {topic:?} has no consumer {consumer:?}: it has ended already")]
    Gone {
        /// The topic's name.
        topic: String,
        /// The consumer's name.
        consumer: String,
    },
    /// Other consumers are ordered after this one.
    #[error(
        "consumer {consumer:?} of topic {topic:?} cannot go while {behind:?} stands behind it: cancel that one first"
    )]
    StoodBehind {
        /// The topic's name.
        topic: String,
        /// The consumer's name.
        consumer: String,
        /// One of the consumers that are ordered after this one.
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

/// The reason why a consumer was not moved. The consumer keeps its position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PositionError {
    /// The offset is no longer kept, or is not published yet.
    #[error("consumer {consumer:?} cannot move: {refused}")]
    OutOfRange {
        /// The consumer's name.
        consumer: String,
        /// The refused offset.
        refused: OutOfRange,
    },
    /// Other consumers are ordered after this one, so it cannot move back.
    #[error("consumer {consumer:?} of topic {topic:?} cannot go back while {behind:?} stands behind it")]
    StoodBehind {
        /// The topic's name.
        topic: String,
        /// The consumer's name.
        consumer: String,
        /// One of the consumers that are ordered after this one.
        behind: String,
    },
    /// The topic has no partition with that number.
    #[error("topic {topic:?} has no partition {asked}: it has {partitions}, from 0 on")]
    UnknownPartition {
        /// The topic's name.
        topic: String,
        /// The partition that was asked for.
        asked: u32,
        /// Count of the topic's partitions.
        partitions: u32,
    },
    /// The topic does not record publish times.
    #[error("topic {topic:?} keeps no times: create it with `timestamps()`")]
    NoTimestamps {
        /// The topic's name.
        topic: String,
    },
    /// The operating system refused a memory fence that moving back needs.
    #[error("consumer {consumer:?} of topic {topic:?} cannot go back: {cause}")]
    Fence {
        /// The topic's name.
        topic: String,
        /// The consumer's name.
        consumer: String,
        /// Which fence was refused, and why.
        cause: slipring_ring::fence::Refused,
    },
    /// The topic is closed, halted or failed.
    #[error("topic {topic:?}: {reason}")]
    Closed {
        /// The topic's name.
        topic: String,
        /// The reason.
        reason: Closed,
    },
}

impl PositionError {
    pub(crate) fn new(topic: &str, consumer: &str, partition: u32, cause: SeekError) -> Self {
        let (topic, consumer) = (topic.to_owned(), consumer.to_owned());
        match cause {
            SeekError::OutOfRange { asked, earliest, latest, .. } => {
                let refused = OutOfRange { topic, partition, asked: asked.0, earliest: earliest.0, latest: latest.0 };
                Self::OutOfRange { consumer, refused }
            }
            SeekError::StoodBehind { behind, .. } => Self::StoodBehind { topic, consumer, behind },
            SeekError::Fence { cause, .. } => Self::Fence { topic, consumer, cause },
            SeekError::Closed(reason) => Self::Closed { topic, reason: reason.into() },
            _ => Self::Closed { topic, reason: Closed::Closed },
        }
    }
}
