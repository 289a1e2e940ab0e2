//! The offset at which a reader begins.

use crate::base::clock::Timestamp;
use slipring_ring::{Sequence, Start};

/// Where a subscriber begins to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAt {
    /// At the earliest event that is still kept: what slower consumers have not read, and what the topic retains.
    /// If no consumer and no retention keeps an event, reading starts at the next event to be published.
    #[default]
    Earliest,
    /// At what is published next.
    Latest,
    /// At this offset of every partition; refused with the range if it is not kept any more or not published yet.
    Offset(u64),
    /// At these offsets, by partition; each is refused with the range if it is not kept any more or not published yet.
    /// Partitions beyond the list are begun at their earliest event.
    Offsets(Vec<u64>),
    /// At the first event that is kept and was published at this time or later; with none, at what is published next.
    /// Needs [`timestamps`](crate::TopicBuilder::timestamps).
    Timestamp(Timestamp),
    /// Where the group has committed, and nowhere else: a partition in which it has committed nothing is an error. For
    /// groups, which go on where they committed whatever is said here: the other starts are for what they never read.
    Committed,
}

impl StartAt {
    /// The offset to begin at, where one is named.
    pub(crate) fn offset(&self, partition: u32) -> Option<u64> {
        match self {
            Self::Offset(offset) => Some(*offset),
            Self::Offsets(offsets) => offsets.get(partition as usize).copied(),
            _ => None,
        }
    }

    /// What the ring is told. For a timestamp the subscriber moves on from there.
    pub(crate) fn in_ring(&self, partition: u32) -> Start {
        match self.offset(partition) {
            Some(offset) => Start::At(Sequence(offset)),
            None if *self == Self::Latest => Start::Latest,
            None => Start::Earliest,
        }
    }
}
