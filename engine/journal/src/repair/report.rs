//! What a repair did, and why one was refused.

use crate::error::{DiskError, OpenError, ReplayError, WriteError};
use crate::format::{Malformed, PartitionId};
use crate::survey::TornTail;
use std::ops::Range;

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairReport {
    /// The repaired places in the order of positions. Empty if the journal was not damaged.
    pub places: Vec<RepairedPlace>,
    /// The offsets that are lost, by partition. Readers of the partition are told of them.
    pub lost: Vec<(PartitionId, Range<u64>)>,
    /// The torn tail that the opening after the repair has cut.
    pub torn: Option<TornTail>,
    /// True if it is unknown which offsets had been issued last. The partitions go on at offsets that no lost record can have
    /// had.
    pub skipped_offsets: bool,
}

/// A place that was repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairedPlace {
    /// The segment's number.
    pub segment: u64,
    /// The byte in the segment's file.
    pub at: u64,
    /// What was wrong.
    pub what: Malformed,
    /// What was done.
    pub action: RepairAction,
    /// The file with the bytes that were taken out; none if all of them were zero.
    pub copy: Option<String>,
}

/// What a repair did at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepairAction {
    /// This many bytes were given up: a gap stands there.
    Gap(u64),
    /// A segment of this many bytes is lost: one without frames stands in its place.
    Lost(u64),
    /// The header of the file was written anew. No frame was lost by that.
    Head,
    /// The segment's file had the name of another segment, and got its own back. Nothing was lost.
    Name,
    /// This many bytes behind the last frame were cut. No frame was lost.
    Cut(u64),
}

impl RepairAction {
    /// Bytes that were given up.
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
    /// The journal cannot be inspected or opened, for another reason than damage.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The disk fails. Copy what can be read to another disk first.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The repaired journal cannot be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The new end of the journal cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Nothing can be put in the place of the damage.
    #[error("segment {segment} of the journal cannot be repaired at byte {at}: {why}")]
    Irreparable {
        /// The segment's number.
        segment: u64,
        /// The byte in the segment's file.
        at: u64,
        /// Why not.
        why: &'static str,
    },
}
