//! The offset at which a reader begins.

use crate::base::clock::Timestamp;
use slipring_ring::{Sequence, Start};

/// Where a reader begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartAt {
    /// At the earliest event that is still kept, because a slower consumer has not read it or the topic retains it. If
    /// no event is kept, at the next event to be published.
    #[default]
    Earliest,
    /// At the next event to be published.
    Latest,
    /// At this offset in every partition. Refused with the range if it is no longer kept or not yet published.
    Offset(u64),
    /// At these offsets, by partition. Each is refused with the range if it is no longer kept or not yet published.
    /// Partitions beyond the list begin at their earliest event.
    Offsets(Vec<u64>),
    /// At the first kept event that was published at this time or later; if there is none, at the next event to be
    /// published. Needs [`timestamps`](crate::TopicBuilder::timestamps).
    Timestamp(Timestamp),
    /// Groups only: at the committed offset; a partition without one is an error. With the other starts, too, a group
    /// continues at its committed offsets, and the start applies only to partitions without one.
    Committed,
}

impl StartAt {
    /// The start's offset in this partition; `None` if the start names none.
    pub(crate) fn offset(&self, partition: u32) -> Option<u64> {
        match self {
            Self::Offset(offset) => Some(*offset),
            Self::Offsets(offsets) => offsets.get(partition as usize).copied(),
            Self::Earliest | Self::Latest | Self::Timestamp(_) | Self::Committed => None,
        }
    }

    /// The start with which a consumer joins the ring of this partition. For a timestamp that is the earliest event,
    /// and the subscriber then moves forward to the first event of that time.
    pub(crate) fn in_ring(&self, partition: u32) -> Start {
        match self {
            Self::Latest => Start::Latest,
            Self::Earliest | Self::Timestamp(_) | Self::Committed => Start::Earliest,
            Self::Offset(_) | Self::Offsets(_) => {
                self.offset(partition).map_or(Start::Earliest, |offset| Start::At(Sequence(offset)))
            }
        }
    }
}
