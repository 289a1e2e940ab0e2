//! What a group refuses, each with what was asked and what to do.

use super::assignment::Assignor;
use crate::base::closed::Closed;
use crate::log::gap::Gap;
use crate::log::offsets::commit_right::Fenced;
use crate::read::error::PositionError;
use crate::read::replay::ReplayError;
use crate::text;
use crate::topic::error::{Contradiction, TopicError};
use slipring_ring::pin::PinError;

/// A group refused to let somebody in or to go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The name of the group or of the member is no name.
    #[error("{}", text::line(.0))]
    Name(String),
    /// Its thread would not have the core that it needs.
    #[error("group {group:?}: {cause}")]
    Cores {
        /// The group.
        group: String,
        /// Who, and why.
        cause: crate::base::cores::CoresError,
    },
    /// A member was to read no topic at all.
    #[error("group {group:?}: a member needs at least one topic")]
    NoTopics {
        /// The group.
        group: String,
    },
    /// There is a member of this name, and it has not left.
    #[error(
        "group {group:?} has a member {member:?} already: give each its own name, or wait until that one has left or is past its deadline"
    )]
    NameTaken {
        /// The group.
        group: String,
        /// The name.
        member: String,
    },
    /// The members who are there share by other rules.
    #[error("group {group:?} shares its partitions out by {there}, and {asked} was asked for: all members must agree")]
    Assignor {
        /// The group.
        group: String,
        /// How its members share.
        there: Assignor,
        /// How the newcomer would.
        asked: Assignor,
    },
    /// What the group would read next is not kept any more, or the start that was asked for is not there.
    #[error(
        "group {group:?} cannot read on at {asked} in partition {partition} of topic {topic:?}: it keeps {earliest} up to, not including, {latest}; say where to go on with `reset`"
    )]
    OutOfRange {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The committed offset, or the start that was asked for.
        asked: u64,
        /// The earliest that is kept.
        earliest: u64,
        /// The next to be published.
        latest: u64,
    },
    /// It was to begin where it had committed, and it never committed anything there.
    #[error(
        "group {group:?} has committed nothing in partition {partition} of topic {topic:?}: say with `start` where it is to begin what it never read"
    )]
    NothingCommitted {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },
    /// The journal cannot be read on, where the group is behind the ring.
    #[error("group {group:?}: {cause}")]
    Replay {
        /// The group.
        group: String,
        /// Where, and why.
        cause: Box<ReplayError>,
    },
    /// Events of a partition were lost to damage. The journal says that the group was told, and that it goes on behind them.
    #[error("group {group:?}: {gap}")]
    Gap {
        /// The group.
        group: String,
        /// Which events.
        gap: Gap,
    },
    /// The group's committed offset could not be written to the journal.
    #[error("group {group:?}: where it stands is not in the journal: {}", text::line(.cause))]
    NotWritten {
        /// The group.
        group: String,
        /// Why.
        cause: String,
    },
    /// The topic gives nothing more.
    #[error("group {group:?}: topic {topic:?}: {reason}")]
    Closed {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// Why.
        reason: Closed,
    },
    /// The member was fenced.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The member does not have this partition.
    #[error("this member of group {group:?} does not have partition {partition} of topic {topic:?}: it has {}", text::line(.has))]
    NotAssigned {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// What it has.
        has: String,
    },
    /// The position was refused.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// Only a group without members can be reset.
    #[error("group {group:?} still has members ({members}): let them leave first")]
    HasMembers {
        /// The group.
        group: String,
        /// How many, with those whose place is kept.
        members: usize,
    },
    /// The core was refused.
    #[error("a member of group {group:?}: {cause}")]
    Pin {
        /// The group.
        group: String,
        /// The core that was asked for, and the cores that are allowed.
        cause: PinError,
    },
    /// The system gave no thread, or what the member's thread makes panicked.
    #[error("a member of group {group:?} got no thread: {}", text::line(.cause))]
    Thread {
        /// The group.
        group: String,
        /// The error of the operating system, or the message of the panic.
        cause: String,
    },
    /// What is not the member's handler panicked on its thread: the listener, a waiting strategy, the clock, or what reads
    /// an event back from the journal. The member has left.
    #[error("a member of group {group:?} has ended: {}", text::line(.cause))]
    Panicked {
        /// The group.
        group: String,
        /// The code that panicked, and its message.
        cause: String,
    },
    /// What a handler does besides publishing into its transaction cannot be made to happen exactly once.
    #[error(
        "group {group:?}: exactly once covers what a handler publishes into its transaction: use `run_into`; or take at most or at least once"
    )]
    NotExactlyOnce {
        /// The group.
        group: String,
    },
    /// A group [spills](crate::group::GroupBuilder::spill) into the journal, and this topic has none.
    #[error(
        "group {group:?} cannot spill: topic {topic:?} has no journal to go on from: create it with `durable()`, or join without `spill`"
    )]
    NoJournal {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
    },
    /// The output of a batch was not published.
    #[error("group {group:?}: {}", text::line(.cause))]
    Transaction {
        /// The group.
        group: String,
        /// Why.
        cause: String,
    },
    /// Two settings cannot both be.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// The topic for dead letters does not fit: events that the handler fails on could not be kept.
    #[error("group {group:?}: {}", text::line(.cause))]
    DeadLetters {
        /// The group.
        group: String,
        /// Why.
        cause: String,
    },
    /// Anything else that the core refuses.
    #[error("group {group:?}: topic {topic:?}: {}", text::line(.cause))]
    Refused {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// Why.
        cause: String,
    },
}

impl GroupError {
    pub(crate) fn name(refused: TopicError) -> Self {
        Self::Name(refused.to_string())
    }

    pub(crate) fn join(group: &str, topic: &str, partition: u32, cause: slipring_ring::BuildError) -> Self {
        let (group, topic) = (group.to_owned(), topic.to_owned());
        match cause {
            slipring_ring::BuildError::OutOfRange { asked, earliest, latest, .. } => {
                Self::OutOfRange { group, topic, partition, asked: asked.0, earliest: earliest.0, latest: latest.0 }
            }
            slipring_ring::BuildError::Closed(reason) => Self::Closed { group, topic, reason: reason.into() },
            cause => Self::Refused { group, topic, cause: cause.to_string() },
        }
    }
}

/// A commit was refused, and nothing was committed; or, if it is [`NotDurable`](Self::NotDurable), it may be lost with the
/// process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The member was fenced: its successor reads this batch again.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// It was committed in this process, and it is unknown whether the journal has it: after the end of the process the
    /// group may begin before it.
    #[error("committed, and not known to be durable: {}", text::line(.cause))]
    NotDurable {
        /// Why.
        cause: String,
    },
    /// The offset lies outside of the batch.
    #[error("cannot commit {asked}: this batch covers {first} up to {end}")]
    OutOfBatch {
        /// The offset that was asked for.
        asked: u64,
        /// The first of the batch that is not committed.
        first: u64,
        /// The one after its last.
        end: u64,
    },
}
