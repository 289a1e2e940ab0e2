//! The atomic with a committed offset, and the metadata that a commit has left beside it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most bytes of metadata that are kept with a committed offset.
pub const MAX_METADATA: usize = 4096;

/// The error for metadata of a committed offset that is longer than [`MAX_METADATA`]. Nothing was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes of metadata are too many: {MAX_METADATA} are kept with a committed offset")]
#[non_exhaustive]
pub struct MetadataTooLong {
    /// Size of the metadata, in bytes.
    pub len: usize,
}

/// The metadata of a commit: at least one byte, at most [`MAX_METADATA`].
pub(crate) type Metadata = Arc<[u8]>;

/// Checks the size of metadata. `None` for no bytes, which are no metadata.
pub(crate) fn checked(metadata: &[u8]) -> Result<Option<Metadata>, MetadataTooLong> {
    match metadata.len() {
        0 => Ok(None),
        1..=MAX_METADATA => Ok(Some(metadata.into())),
        len => Err(MetadataTooLong { len }),
    }
}

/// This bit of [`CommitWord::word`], the highest, is set once the member was fenced and may no longer commit. Offsets
/// never reach 2^63.
pub(super) const FENCED: u64 = 1 << 63;

/// The committed offset of one partition.
#[derive(Debug, Default)]
pub(crate) struct CommitWord {
    /// The committed offset in the lower 63 bits, and [`FENCED`].
    pub(super) word: AtomicU64,
    /// The metadata of the last commit that had some, and the offset that it committed. A commit without metadata does not
    /// touch this: metadata counts only while its offset is the committed one. A commit with metadata changes `word` under
    /// this lock, so that a reader under the lock finds both or neither.
    metadata: Mutex<Option<(u64, Metadata)>>,
}

impl CommitWord {
    pub(super) fn new(offset: u64, metadata: Option<Metadata>) -> Self {
        let offset = offset & !FENCED;
        Self { word: AtomicU64::new(offset), metadata: Mutex::new(metadata.map(|metadata| (offset, metadata))) }
    }

    fn metadata(&self) -> MutexGuard<'_, Option<(u64, Metadata)>> {
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The committed offset, without the [`FENCED`] bit.
    pub(super) fn offset(&self) -> u64 {
        self.word.load(Ordering::Acquire) & !FENCED
    }

    /// The committed offset with the metadata that it was committed with, of one moment.
    pub(super) fn offset_with_metadata(&self) -> (u64, Option<Metadata>) {
        let metadata = self.metadata();
        let offset = self.offset();
        let its = metadata.as_ref().filter(|(of, _)| *of == offset);
        (offset, its.map(|(_, metadata)| Arc::clone(metadata)))
    }

    /// Calls `commit`, which commits `offset` and returns whether it did, and keeps `metadata` with that offset if so.
    pub(super) fn commit_with(&self, offset: u64, metadata: Option<Metadata>, commit: impl FnOnce() -> bool) -> bool {
        let mut kept = self.metadata();
        let committed = commit();
        if committed {
            *kept = metadata.map(|metadata| (offset, metadata));
        }
        committed
    }

    /// Calls `commit`, which moves the offset to `to` over offsets without an event and returns whether it did. If so, the
    /// metadata goes along.
    pub(super) fn pass_over(&self, to: u64, commit: impl FnOnce() -> bool) -> bool {
        let mut kept = self.metadata();
        let before = self.offset();
        let committed = commit();
        if committed && let Some((of, _)) = kept.as_mut().filter(|(of, _)| *of == before) {
            *of = to;
        }
        committed
    }
}
