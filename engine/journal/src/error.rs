//! The errors of a journal. Each says what was refused, and what to do.

use crate::format::{MAJOR, Malformed, PartitionId};
use std::io;
use std::ops::Range;

/// A call to the disk failed. The system's error is kept as text, so that the error can be cloned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// The failed operation, as a verb.
    pub doing: &'static str,
    /// The name of the file or of the directory.
    pub file: String,
    /// The kind of the system's error.
    pub kind: io::ErrorKind,
    /// The system's message, with the process limit that it is about, if any.
    pub cause: String,
}

impl DiskError {
    #[cold]
    #[doc(hidden)]
    pub fn new(doing: &'static str, file: impl Into<String>, cause: &io::Error) -> Self {
        Self { doing, file: file.into(), kind: cause.kind(), cause: format!("{cause}{}", limit(cause)) }
    }
}

impl std::fmt::Display for DiskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { doing, file, kind, cause } = self;
        write!(f, "cannot {doing} {file:?}: {cause}")?;
        match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => write!(f, " (the disk is full: make room)"),
            io::ErrorKind::FileTooLarge => write!(f, " (raise the limit, `ulimit -f`, or take smaller segments)"),
            io::ErrorKind::PermissionDenied if ["read", "list"].contains(doing) => {
                write!(f, " (the journal's directory and files must be readable by this process)")
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                write!(f, " (the journal's directory must be writable by this process)")
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for DiskError {}

/// The process limit that a system error is about, as text; empty if the error is about no limit.
fn limit(cause: &io::Error) -> String {
    #[cfg(unix)]
    if cause.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) {
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        return format!(" (this process may have {most} files open: raise the limit, `ulimit -n`)");
    }
    let _ = cause;
    String::new()
}

/// Why a journal was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A call to the disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Another program, or another opening in this process, has the journal open.
    #[error("the journal {journal:?} is open in {}: end that first, or take another directory", .holder.escape_debug())]
    Locked {
        /// The journal's directory.
        journal: String,
        /// The process that has it open.
        holder: String,
    },
    /// A newer program wrote the journal.
    #[error("{file:?} of the journal has the format version {found}, and this program reads {MAJOR}: take a newer one")]
    Newer {
        /// The file with the newer version.
        file: String,
        /// The file's format version.
        found: u16,
    },
    /// Damage that no crash causes: data that was acknowledged as durable is damaged or missing, the first segment's
    /// header is damaged, or a segment file has another segment's name. No segment was changed.
    #[error(
        "segment {segment} is damaged at byte {at} (position {position}): {what}. It was durable, as all data below \
         position {durable} was, so this is no torn end: restore the file, or see what `slipring journal repair --dry-run` would \
         give up"
    )]
    Damaged {
        /// The segment's number.
        segment: u64,
        /// The offset of the damage in the segment's file, in bytes.
        at: u64,
        /// The position of the damage in the journal, in bytes.
        position: u64,
        /// The highest durable mark that was found, as a position in bytes.
        durable: u64,
        /// The kind of damage.
        what: Malformed,
    },
    /// The count of openings is at its limit. Ordinary use cannot reach the limit; damaged or forged files can state
    /// it.
    #[error("the journal's count of openings has reached its limit: it can be read, and not be opened for writing")]
    Exhausted,
    /// A setting is out of range or does not fit the journal, the build lacks the feature `zstd`, or the records that a
    /// repair gave up cannot be determined.
    #[error("{0}")]
    Setting(String),
}

/// Why a frame was not written or not made durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A write or a sync failed, in this call or in an earlier one, and the journal accepts no more frames. Frames that
    /// were not acknowledged before may or may not survive.
    #[error("the journal takes nothing more: {0}")]
    Poisoned(DiskError),
    /// The frame's payload is larger than a segment allows.
    #[error("{len} bytes in one frame are too many, {limit} are possible: take less at once or larger segments")]
    TooLarge {
        /// Size of the payload, in bytes.
        len: usize,
        /// The largest payload, in bytes.
        limit: usize,
    },
    /// The state does not fit into the snapshot that each segment begins with.
    #[error(
        "a state of {len} bytes does not fit into the snapshot at each segment's head, {limit} do: take larger segments"
    )]
    StateTooLarge {
        /// Size of the state, in bytes.
        len: usize,
        /// The largest state, in bytes.
        limit: usize,
    },
    /// An offset is below the partition's end. The offsets of a partition must ascend.
    #[error("offset {offset} of {partition:?} is below {end}, the one after the last record")]
    OffsetGoesBack {
        /// The partition.
        partition: PartitionId,
        /// The given offset.
        offset: u64,
        /// The offset after the partition's last record.
        end: u64,
    },
    /// The payload could not be read back: a function that appends records panicked or appended a wrong size, or an
    /// offset or extent is invalid.
    #[error("the frame cannot be read back: {0}")]
    Malformed(Malformed),
}

/// Why a reader cannot continue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The journal has no such partition.
    #[error("the journal has no partition {} of topic {}", .0.partition, .0.topic)]
    Unknown(PartitionId),
    /// The offset was deleted by retention, or is not written yet.
    #[error("offset {asked} is not in the journal: the earliest is {earliest}, the next one will be {latest}")]
    OutOfRange {
        /// The requested offset.
        asked: u64,
        /// The first kept offset.
        earliest: u64,
        /// The offset after the last record.
        latest: u64,
    },
    /// A segment is damaged.
    #[error(
        "segment {segment} is damaged at byte {at}: {what}{}. `slipring journal repair --dry-run` shows what can be saved",
        .next.map(|next| format!("; the partition was read up to offset {next}")).unwrap_or_default()
    )]
    Damaged {
        /// The segment's number.
        segment: u64,
        /// The offset of the damage in the segment's file, in bytes.
        at: u64,
        /// The kind of damage.
        what: Malformed,
        /// The next offset of the reader's partition: all before it were read. `None` if no partition was read.
        next: Option<u64>,
    },
    /// Records of the partition were damaged, and a repair could not save them. The reader reports a gap once, in the
    /// place of the lost records; its next call continues after them.
    #[error(
        "partition {} of topic {}: the records at offsets {} up to, not including, {} were lost to damage and could not be \
         repaired; reading on goes on behind them", .partition.partition, .partition.topic, .offsets.start, .offsets.end
    )]
    Gap {
        /// The partition.
        partition: PartitionId,
        /// Range of offsets. It covers all lost records, and may cover offsets that no record had.
        offsets: Range<u64>,
    },
    /// A call to the disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl ReplayError {
    /// Notes that the reader's next offset is `next`.
    #[cold]
    pub(crate) fn at_offset(mut self, offset: u64) -> Self {
        if let Self::Damaged { next, .. } = &mut self {
            *next = Some(offset);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_read_is_not_told_to_write() {
        let denied = io::ErrorKind::PermissionDenied.into();
        for (doing, says) in [("read", "readable"), ("list", "readable"), ("make", "writable"), ("lock", "writable")] {
            let told = DiskError::new(doing, "checkpoint", &denied).to_string();
            assert!(told.contains(&format!("must be {says}")), "{told}");
        }
    }
}
