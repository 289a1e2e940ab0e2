//! What can go wrong with a journal, each with where and what to do.

use super::format::{MAJOR, Malformed, PartitionId};
use std::io;
use std::ops::Range;

/// A call to the disk failed. Kept as text, so that it can be told to many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// What was tried.
    pub doing: &'static str,
    /// On which file.
    pub file: String,
    /// The system's kind of error.
    pub kind: io::ErrorKind,
    /// The system's words.
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

/// The limit of this process that an error speaks of, if it is one.
fn limit(cause: &io::Error) -> String {
    #[cfg(unix)]
    if cause.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) {
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        return format!(" (this process may have {most} files open: raise the limit, `ulimit -n`)");
    }
    let _ = cause;
    String::new()
}

/// A journal was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A call to the disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Somebody has it open.
    #[error("the journal {journal:?} is open in {}: end that first, or take another directory", .holder.escape_debug())]
    Locked {
        /// The directory.
        journal: String,
        /// Who has it.
        holder: String,
    },
    /// Written by a newer program.
    #[error("{file:?} of the journal has the format version {found}, and this program reads {MAJOR}: take a newer one")]
    Newer {
        /// The file.
        file: String,
        /// Its version.
        found: u16,
    },
    /// What was acknowledged as durable is damaged. Nothing was changed.
    #[error(
        "segment {segment} is damaged at byte {at} (position {position}): {what}. What is there was durable (all below \
         {durable} was), so this is no torn end: restore the file, or see what `slipring journal repair` would give up"
    )]
    Damaged {
        /// The segment's number.
        segment: u64,
        /// The byte in its file.
        at: u64,
        /// The same as a position of the journal.
        position: u64,
        /// The highest durable mark that was found.
        durable: u64,
        /// What is wrong.
        what: Malformed,
    },
    /// It was opened as often as can be counted, or so its files say. No journal gets there by being used.
    #[error("the journal's count of openings is as high as it can be: it can be read, and not be opened to be written")]
    Exhausted,
    /// A setting that cannot be.
    #[error("{0}")]
    Setting(String),
}

/// A frame was not written, or not made durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A write or a sync failed, now or before: the journal takes nothing more, and what was not yet acknowledged may or
    /// may not be there when it is opened again.
    #[error("the journal takes nothing more: {0}")]
    Poisoned(DiskError),
    /// A frame that no segment can hold.
    #[error("{len} bytes in one frame are too many, {limit} are possible: take less at once or larger segments")]
    TooLarge {
        /// Its bytes.
        len: usize,
        /// The most that can be.
        limit: usize,
    },
    /// What must stand at each segment's head is too much for it.
    #[error("state of {len} bytes is too much for each segment's head, {limit} are possible: take larger segments")]
    StateTooLarge {
        /// Its bytes.
        len: usize,
        /// The most that can be.
        limit: usize,
    },
    /// Offsets of a partition must go up.
    #[error("offset {offset} of {partition:?} was given after {end} had been reached")]
    OffsetGoesBack {
        /// The partition.
        partition: PartitionId,
        /// The offset.
        offset: u64,
        /// The end before it.
        end: u64,
    },
    /// An entry that was not built by [`FrameBuilder`](super::format::FrameBuilder).
    #[error("the frame cannot be read back: {0}")]
    Malformed(Malformed),
}

/// A reader cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The journal has no such partition.
    #[error("the journal has no partition {} of topic {}", .0.partition, .0.topic)]
    Unknown(PartitionId),
    /// The offset is not kept, or not there yet.
    #[error("offset {asked} is not in the journal: the earliest is {earliest}, the next one will be {latest}")]
    OutOfRange {
        /// The offset asked for.
        asked: u64,
        /// The first that is kept.
        earliest: u64,
        /// The next after the last.
        latest: u64,
    },
    /// A segment is damaged.
    #[error("segment {segment} is damaged at byte {at}: {what}. `slipring journal repair` shows what can be saved")]
    Damaged {
        /// The segment's number.
        segment: u64,
        /// The byte in its file.
        at: u64,
        /// What is wrong.
        what: Malformed,
    },
    /// Records of this partition were lost to damage that a repair could not undo. Told once, where they would have come: the
    /// next call goes on behind them.
    #[error(
        "partition {} of topic {}: the records at offsets {} up to, not including, {} were lost to damage and could not be \
         repaired; reading on goes on behind them", .partition.partition, .partition.topic, .offsets.start, .offsets.end
    )]
    Gap {
        /// The partition.
        partition: PartitionId,
        /// The offsets: at least those of all lost records.
        offsets: Range<u64>,
    },
    /// A call to the disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
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
