//! The errors of groups. Each says what was refused, the values that were asked for, and what to do.

use super::assignment::Assignor;
use crate::base::closed::Closed;
use crate::log::gap::Gap;
use crate::log::offsets::commit_right::Fenced;
use crate::log::offsets::commit_word::MetadataTooLong;
use crate::read::error::PositionError;
use crate::read::replay::ReplayError;
use crate::text;
use crate::topic::error::{Contradiction, OutOfRange, TopicError};
use slipring_ring::pin::PinError;

/// Why a group has refused a member, or a member cannot continue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The name of the group or of the member is not valid.
    #[error("{}", text::line(.0))]
    Name(String),
    /// The engine's [core plan](crate::cores) does not allow the member's thread.
    #[error("group {group:?}: {cause}")]
    Cores {
        /// The group's name.
        group: String,
        /// Why the thread is not allowed, with the name of the group.
        cause: crate::base::cores::CoresError,
    },
    /// The member was to join without any topic, or to give up its last one, and has no pattern that may find others.
    #[error("group {group:?}: a member needs at least one topic, or a pattern: to read none, let it leave")]
    NoTopics {
        /// The group's name.
        group: String,
    },
    /// The managed member is not in the group now: it has ended, or it was fenced and joins again once its handler has
    /// returned.
    #[error(
        "this member of group {group:?} has ended, or was fenced and has not joined again yet: try again, unless it has ended"
    )]
    NotMember {
        /// The group's name.
        group: String,
    },
    /// The group has a member of this name that has not left and is not past its deadline.
    #[error(
        "group {group:?} has a member {member:?} already: give each its own name, or wait until that one has left or is past its deadline"
    )]
    NameTaken {
        /// The group's name.
        group: String,
        /// The member's name.
        member: String,
    },
    /// The group's members use another assignor than the member that was to join.
    #[error("group {group:?} shares its partitions out by {there}, and {asked} was asked for: all members must agree")]
    Assignor {
        /// The group's name.
        group: String,
        /// The assignor of the group's members.
        there: Assignor,
        /// The assignor of the member that was to join.
        asked: Assignor,
    },
    /// The event at the group's committed offset is no longer kept, or the start offset is not kept or not published
    /// yet.
    #[error("group {group:?} cannot read on: {refused}; set the next offset with `reset`")]
    OutOfRange {
        /// The group's name.
        group: String,
        /// The refused offset: the committed one, or the start offset of the builder.
        refused: OutOfRange,
    },
    /// The member was to start at the committed offset, but the group has committed nothing in this partition.
    #[error(
        "group {group:?} has committed nothing in partition {partition} of topic {topic:?}: set with `start` where it begins partitions that it never read"
    )]
    NothingCommitted {
        /// The group's name.
        group: String,
        /// The topic's name.
        topic: String,
        /// The partition's number, from 0.
        partition: u32,
    },
    /// The journal cannot be read for a partition whose next event is no longer in the ring.
    #[error("group {group:?}: {cause}")]
    Replay {
        /// The group's name.
        group: String,
        /// The error of the read, with the partition and offset.
        cause: Box<ReplayError>,
    },
    /// The events at these offsets of a partition were lost to damage. The journal has recorded that this was reported
    /// to the group, which continues after them.
    #[error("group {group:?}: {gap}")]
    Gap {
        /// The group's name.
        group: String,
        /// The lost events.
        gap: Gap,
    },
    /// The group's committed offset could not be written to the journal. If the disk has failed, the journal may have that
    /// offset all the same when it is opened again.
    #[error("group {group:?}: its committed offset could not be written to the journal: {}", text::line(.cause))]
    NotWritten {
        /// The group's name.
        group: String,
        /// The journal's error, as text.
        cause: String,
    },
    /// The disk failed while the group's committed offset was written. After the journal is opened again, it may or may
    /// not have that offset.
    #[error("group {group:?}: it is unknown whether its committed offset is in the journal: {}", text::line(.cause))]
    CommitUnknown {
        /// The group's name.
        group: String,
        /// The disk's error, as text.
        cause: String,
    },
    /// The topic is closed.
    #[error("group {group:?}: topic {topic:?}: {reason}")]
    Closed {
        /// The group's name.
        group: String,
        /// The topic's name.
        topic: String,
        /// Why the topic is closed.
        reason: Closed,
    },
    /// The member was fenced.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The partition is not assigned to the member.
    #[error("this member of group {group:?} does not have partition {partition} of topic {topic:?}: it has {}", text::line(.has))]
    NotAssigned {
        /// The group's name.
        group: String,
        /// The topic's name.
        topic: String,
        /// The partition's number, from 0.
        partition: u32,
        /// The partitions that are assigned to the member.
        has: String,
    },
    /// The position is not possible.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// A member has the partition, so only that member commits in it. A member that was dropped and has a name keeps its
    /// partitions until its deadline has passed.
    #[error(
        "partition {partition} of topic {topic:?} is read by {} of group {group:?}: let it leave first, or seek there",
        .member.map_or_else(|| "a member".to_owned(), |member| format!("member {member}"))
    )]
    Owned {
        /// The group's name.
        group: String,
        /// The topic's name.
        topic: String,
        /// The partition's number, from 0.
        partition: u32,
        /// The member's number; `None` for a member that is releasing the partition.
        member: Option<u64>,
    },
    /// The topic has no such partition, or the topic is not among those that were named.
    #[error("group {group:?}: topic {topic:?} has no partition {partition} here: it has {partitions}, from 0")]
    NoPartition {
        /// The group's name.
        group: String,
        /// The topic's name.
        topic: String,
        /// The partition's number, from 0.
        partition: u32,
        /// The number of the topic's partitions; 0 for a topic that was not named.
        partitions: usize,
    },
    /// The metadata is too long.
    #[error(transparent)]
    Metadata(#[from] MetadataTooLong),
    /// The group has members, so it cannot be reset or forgotten. A member that was dropped and has a name keeps its place until
    /// its deadline has passed.
    #[error("group {group:?} still has members ({members}): let them leave first")]
    HasMembers {
        /// The group's name.
        group: String,
        /// The number of members, including those that have left and whose partitions are reserved.
        members: usize,
    },
    /// There is no group of this name, neither in the program nor in the journal.
    #[error("there is no group {group:?}: `Engine::groups` lists those that there are")]
    Unknown {
        /// The name.
        group: String,
    },
    /// The group was forgotten in the program, and it is unknown whether the journal has forgotten it: it may be there again
    /// when the journal is opened the next time.
    #[error("group {group:?}: it is unknown whether the journal has forgotten it: {}", text::line(.cause))]
    NotForgotten {
        /// The group.
        group: String,
        /// Why.
        cause: String,
    },
    /// The member's thread cannot be pinned to the core.
    #[error("a member of group {group:?}: {cause}")]
    Pin {
        /// The group's name.
        group: String,
        /// Why the core was refused, with the cores that are allowed.
        cause: PinError,
    },
    /// The operating system could not start the member's thread, or the thread panicked before the first event.
    #[error("a member of group {group:?} got no thread: {}", text::line(.cause))]
    Thread {
        /// The group's name.
        group: String,
        /// The error of the operating system, or the panic's message.
        cause: String,
    },
    /// User code other than the handler panicked: the listener, a wait strategy, the clock, or the decoding of an event
    /// from the journal, on the thread of a managed member, which has left the group; or a member's
    /// [pattern](crate::group::GroupBuilder::matching), which then has not found the topic.
    #[error("a member of group {group:?} has failed: {}", text::line(.cause))]
    Panicked {
        /// The group's name.
        group: String,
        /// The code that panicked, and the panic's message.
        cause: String,
    },
    /// Exactly once was asked for, but the handler does not publish into a transaction, and its other effects cannot be
    /// exactly once.
    #[error(
        "group {group:?}: exactly once covers what a handler publishes into its transaction: use `run_into`; or take at most or at least once"
    )]
    NotExactlyOnce {
        /// The group's name.
        group: String,
    },
    /// The group is to [spill](crate::group::GroupBuilder::spill), but this topic is not durable.
    #[error(
        "group {group:?} cannot spill: topic {topic:?} has no journal to continue from: create it with `durable()`, or join without `spill`"
    )]
    NoJournal {
        /// The group's name.
        group: String,
        /// The topic's name.
        topic: String,
    },
    /// The outputs of a batch could not be published, or the transaction was refused.
    #[error("group {group:?}: {}", text::line(.cause))]
    Transaction {
        /// The group's name.
        group: String,
        /// The transaction's error, as text.
        cause: String,
    },
    /// Two settings of the group exclude one another.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// The topic for dead letters is not suitable, so events on which the handler fails could not be kept.
    #[error("group {group:?}: {}", text::line(.cause))]
    DeadLetters {
        /// The group's name.
        group: String,
        /// Why the topic is not suitable, as text.
        cause: String,
    },
    /// The member was refused for another reason.
    #[error("group {group:?}: topic {topic:?}: {}", text::line(.cause))]
    Refused {
        /// The group's name.
        group: String,
        /// The topic's name.
        topic: String,
        /// The reason, as text.
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
                let refused = OutOfRange { topic, partition, asked: asked.0, earliest: earliest.0, latest: latest.0 };
                Self::OutOfRange { group, refused }
            }
            slipring_ring::BuildError::Closed(reason) => Self::Closed { group, topic, reason: reason.into() },
            cause => Self::Refused { group, topic, cause: cause.to_string() },
        }
    }
}

/// Why a commit of a batch failed. Nothing was committed, except with [`NotDurable`](Self::NotDurable): the commit then
/// holds in this process, but may be missing after a restart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The member was fenced. Its successor reads this batch again.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The metadata is too long.
    #[error(transparent)]
    Metadata(#[from] MetadataTooLong),
    /// The batch is committed in this process, but the journal may not have the commit. After a restart the group may
    /// read the batch again.
    #[error("committed, and not known to be durable: {}", text::line(.cause))]
    NotDurable {
        /// The journal's error, as text.
        cause: String,
    },
    /// The offset to commit is outside of the batch.
    #[error("cannot commit {asked}: this batch covers {first} up to {end}")]
    OutOfBatch {
        /// The offset below which the events were to be committed.
        asked: u64,
        /// The first uncommitted offset of the batch.
        first: u64,
        /// The offset after the batch's last event: the greatest that can be committed.
        end: u64,
    },
}
