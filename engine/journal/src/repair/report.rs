//! The report of a repair, and the errors that refuse one.

use crate::error::{DiskError, OpenError, ReplayError, WriteError};
use crate::format::{Malformed, PartitionId};
use crate::survey::TornTail;
use std::ops::Range;

/// The result of a repair.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairReport {
    /// The repaired places in the order of their repair; empty if the journal was not damaged.
    pub places: Vec<RepairedPlace>,
    /// The lost offsets by partition. Readers of the partition report them as gaps.
    pub lost: Vec<(PartitionId, Range<u64>)>,
    /// The torn tail that the opening after the repair cut; `None` if there was none.
    pub torn: Option<TornTail>,
    /// True if the last issued offsets are unknown. The partitions then continue at offsets higher than any lost record
    /// can have had.
    pub skipped_offsets: bool,
}

/// A repaired place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairedPlace {
    /// The segment's number.
    pub segment: u64,
    /// The offset in the segment's file, in bytes.
    pub at: u64,
    /// The kind of damage.
    pub what: Malformed,
    /// The action taken.
    pub action: RepairAction,
    /// The name of the file with the removed bytes; `None` if no byte except zeros was removed.
    pub copy: Option<String>,
}

/// The action of a repair at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepairAction {
    /// This many bytes were lost; a gap takes their place.
    Gap(u64),
    /// A segment of this many bytes was lost; a segment without frames takes its place.
    Lost(u64),
    /// The header of the file was rewritten, or a file without a valid frame was renamed to the name of a copy. No
    /// frame was lost.
    Head,
    /// The segment's file had another segment's name, and was renamed. No frame was lost.
    Name,
    /// This many bytes after the last frame were cut. No frame was lost.
    Cut(u64),
}

impl RepairAction {
    /// Count of the lost bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Gap(bytes) | Self::Lost(bytes) => bytes,
            Self::Head | Self::Name | Self::Cut(_) => 0,
        }
    }
}

/// Why a repair was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// The journal cannot be inspected or opened for a reason other than damage.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The disk fails. Copy the readable files to another disk first.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The repaired journal cannot be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The new end of the journal cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The damage cannot be covered.
    #[error("segment {segment} of the journal cannot be repaired at byte {at}: {why}")]
    Irreparable {
        /// The segment's number.
        segment: u64,
        /// The offset in the segment's file, in bytes.
        at: u64,
        /// The reason.
        why: &'static str,
    },
}
