//! Compaction by key: of the records with one key, the last one stays.
//!
//! # What goes and what stays
//! A pass looks at the sealed segments: complete, durable, with an index. It notes for each key of a compacted partition the
//! offset of the last record there ([`latest`]). Then it goes through these segments from the oldest on, and writes each that is
//! worth it anew without the records that have a later one ([`rewrite`]). Offsets, order and times of the others stay, as
//! do the segment's number and positions. So readers see offsets that no record has, as after a crash.
//!
//! - The record that supersedes another one is durable, and stands in a sealed segment. No crash brings the older one back as
//!   the last of its key.
//! - A *tombstone* says that its key has no value any more. It goes once it is old enough, and only if no older record of
//!   its key is left: the segments before it were rewritten, durably, in this pass or an earlier one. If one of them keeps a
//!   superseded record, because it was not worth it or could not be read, the tombstone stays.
//! - A record without a key stays, and so does every record at or above the offset below which its partition may be
//!   compacted.
//!
//! # Crashes
//! The new file is written under a temporary name, synced, and renamed over the old one. A crash leaves the old segment or the
//! new one, and perhaps a file under the temporary name, which the next opening removes. Both have the same first and last
//! frame checksums as far as their neighbours see them ([`closing_mark`]), so the chain of frames holds either way. The
//! index of the old file does not match the new one: between the renames of the segment and of its index, a crash makes the next
//! opening read the segments from there on once.
//!
//! # Readers
//! A replaced [`Segment`](crate::segment::Segment) keeps its open file as long as a reader has it. A reader's place in it is
//! bound to the file's generation; in a new file the reader looks for its next offset.
//!
//! # Work
//! All of it is done by the helper thread in steps of about 1 MiB, between which it creates segments and does what else the
//! writer needs, and with no more bytes a second than the journal's options allow.

mod closing_mark;
mod compactor;
mod counters;
mod filter;
mod latest;
mod new_file;
mod pass;
mod rewrite;
mod segment_frames;

use crate::error::{DiskError, WriteError};
use crate::format::PartitionId;
pub(crate) use compactor::{CompactionOrder, Compactor};
pub(crate) use counters::CompactionCounters;
pub use counters::CompactionStats;

/// Which partitions are compacted, and how. The helper thread of the journal calls it for each record, so it must be fast
/// and must not panic.
pub trait CompactionRules: Send + Sync {
    /// The rule of a partition; `None` if all its records stay. Called once in a pass.
    fn rule(&self, partition: PartitionId) -> Option<CompactionRule>;

    /// The key of the record with this offset and these bytes; `None` if it has none, and stays.
    fn key<'r>(&self, partition: PartitionId, offset: u64, bytes: &'r [u8]) -> Option<RecordKey<'r>>;
}

/// How a partition is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionRule {
    /// The offset from which on all records stay.
    pub below: u64,
    /// Tombstones go if they were written before this time, in nanoseconds since the epoch.
    pub tombstones_before: u64,
}

/// The key of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordKey<'r> {
    /// The key's bytes. Records of one partition with equal bytes have one key.
    pub bytes: &'r [u8],
    /// True if the record says that the key has no value any more.
    pub is_tombstone: bool,
}

/// The result of a pass of compaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Count of the segments that the pass looked at.
    pub segments: usize,
    /// Count of the segments that were written anew.
    pub rewritten: usize,
    /// Count of the records that were removed.
    pub removed: u64,
    /// Count of those that were tombstones.
    pub tombstones: u64,
    /// Count of the bytes by which the segments' files became smaller.
    pub freed: u64,
    /// Count of the segments that were left as they are because they have a gap of a repair or cannot be read.
    pub left: usize,
}

/// Why a pass of compaction ended early. What it did until then stays done, and the journal is sound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// A new segment could not be written, for example because the disk is full.
    #[error("a segment was not compacted: {0}")]
    Disk(#[from] DiskError),
    /// The journal was poisoned.
    #[error(transparent)]
    Journal(#[from] WriteError),
}
