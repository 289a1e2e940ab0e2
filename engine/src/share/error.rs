//! The errors of links with shared rings.

use crate::base::level::WaitError;
use crate::produce::idempotent::IdempotenceError;
use crate::read::error::ReadError;
use crate::read::replay::ReplayError;
use crate::text;
use crate::topic::error::{ProducerError, SubscribeError};
use slipring_ring::shared::{Ended, SharedError};
use std::fmt;

/// Why a link with a shared ring was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingLinkError {
    /// The ring cannot be created, opened or joined: for example another process shares a topic to it, its events have
    /// another layout, or this system is not Linux.
    #[error("shared ring {ring:?}: {cause}")]
    Ring {
        /// The ring's name.
        ring: String,
        /// The ring's error.
        #[source]
        cause: SharedError,
    },
    /// The link's name as a consumer of the topic is invalid or taken, its thread could not be started, or the topic is
    /// closed.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// The journal of a durable topic does not have the events with which the link goes on, or cannot be read. Where
    /// retention has deleted them, [remove](slipring_ring::shared::SharedRing::remove) the ring: a new one begins where
    /// [`start`](super::ShareBuilder::start) says.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The topic gives the link no producer.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// A durable topic with several partitions is not shared, because no position of the ring would say how far each of
    /// them was read.
    #[error(
        "topic {topic:?} has {partitions} partitions, and a durable topic is shared if it has one: let a transform merge them into such a topic"
    )]
    Partitions {
        /// The topic's name.
        topic: String,
        /// The number of its partitions.
        partitions: u32,
    },
    /// The ring has events of an offset that the topic has not reached: it was shared to by another topic or journal.
    #[error(
        "the shared ring {ring:?} goes on at offset {offset}, and topic {topic:?} has published up to {published}: the ring is of another journal, remove it"
    )]
    Ahead {
        /// The ring's name.
        ring: String,
        /// The topic's name.
        topic: String,
        /// The offset that comes next in the ring.
        offset: u64,
        /// The offset of the topic's next event.
        published: u64,
    },
    /// The thread was not started.
    #[error("no thread for the link of topic {topic:?} with the shared ring {ring:?}: {}", text::line(.cause))]
    Thread {
        /// The topic's name.
        topic: String,
        /// The ring's name.
        ring: String,
        /// Why, as text.
        cause: String,
    },
}

/// Why a link with a shared ring has failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingLinkFailure {
    /// The topic was halted or has failed, or the link was evicted from it.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The journal of a durable topic cannot be read, has a gap, or the topic was halted or has failed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The ring was closed, removed or damaged by another process.
    #[error("shared ring {ring:?}: {cause}")]
    Ring {
        /// The ring's name.
        ring: String,
        /// Why it has ended.
        cause: Ended,
    },
    /// The topic has refused an event of the ring. The event stays in the ring.
    #[error(transparent)]
    Publish(#[from] IdempotenceError),
    /// An event did not reach the link's level. It stays in the ring, and is not published twice.
    #[error("topic {topic:?} has not confirmed an event of a shared ring: {cause}")]
    Unconfirmed {
        /// The topic's name.
        topic: String,
        /// Why.
        cause: WaitError,
    },
    /// A partition was added to a durable topic that is shared.
    #[error("a partition was added to topic {topic:?}, and a durable topic is shared if it has one")]
    Partitions {
        /// The topic's name.
        topic: String,
    },
    /// Code of the program that the link calls has panicked: a wait strategy or the clock.
    #[error("the link of topic {topic:?} with a shared ring panicked: {}", text::line(.cause))]
    Panicked {
        /// The topic's name.
        topic: String,
        /// The panic's message.
        cause: String,
    },
}

/// How a link with a shared ring has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingLinkEnd {
    /// The topic that is shared was closed, and all of it is in the ring; or the ring that feeds a topic was closed, and
    /// all of it is in the topic.
    Finished,
    /// [`RingLink::stop`](super::RingLink::stop) was called, or the topic that is fed was closed.
    Stopped,
    /// The link cannot go on.
    Failed(RingLinkFailure),
}

impl fmt::Display for RingLinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("all events were handed on"),
            Self::Stopped => f.write_str("it was stopped"),
            Self::Failed(cause) => write!(f, "it failed: {cause}"),
        }
    }
}
