//! What a repair did, and why one was refused.

use super::super::error::{DiskError, OpenError, ReplayError, WriteError};
use super::super::format::{Malformed, PartitionId};
use super::super::survey::Torn;
use std::ops::Range;

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// Each place, in the order of positions. None: the journal was not damaged.
    pub mended: Vec<Mended>,
    /// Offsets that are missing now, by partition: their readers are told.
    pub lost: Vec<(PartitionId, Range<u64>)>,
    /// The torn end that the opening behind the repair has cut.
    pub torn: Option<Torn>,
    /// Where partitions stood at the end of the journal is not known exactly: they go on at offsets that no record that was
    /// lost can have had.
    pub skipped_offsets: bool,
}

/// One place that was mended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mended {
    /// The segment's number.
    pub segment: u64,
    /// The byte in its file.
    pub at: u64,
    /// What was wrong.
    pub what: Malformed,
    /// What was done.
    pub how: How,
    /// The file that has what was taken out; none if there was nothing but zeros.
    pub copy: Option<String>,
}

/// What a repair did at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum How {
    /// So many bytes were given up: a gap stands there.
    Gap(u64),
    /// The segment is lost: one without frames stands in its place.
    Lost(u64),
    /// The head of the file was made again. No frame was lost by that.
    Head,
    /// The segment's file had the name of another one, and got its own back. Nothing was lost.
    Name,
    /// So many bytes behind the last frame were cut, which no frame was made of.
    Cut(u64),
}

impl How {
    /// Bytes that were given up.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Gap(bytes) | Self::Lost(bytes) => bytes,
            Self::Head | Self::Name | Self::Cut(_) => 0,
        }
    }
}

/// A repair was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// The journal can't be looked at or opened, for another reason than damage.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The disk fails. What can be read should be copied to another one first.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Reading it again failed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The new end was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// There is nothing to go on with.
    #[error("segment {segment} of the journal cannot be repaired at byte {at}: {why}")]
    Hopeless {
        /// The segment's number.
        segment: u64,
        /// The byte in its file.
        at: u64,
        /// Why not.
        why: &'static str,
    },
}
