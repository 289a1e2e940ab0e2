//! Counts of compactions.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of the compactions since the journal was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionStats {
    /// Count of the passes that came to their end.
    pub passes: u64,
    /// Count of the records that were removed.
    pub removed: u64,
    /// Count of the bytes by which segments became smaller.
    pub freed: u64,
}

/// Counters of compactions, to which only the compactor adds.
#[derive(Default)]
pub(crate) struct CompactionCounters {
    passes: AtomicU64,
    removed: AtomicU64,
    freed: AtomicU64,
}

impl CompactionCounters {
    /// Counts a pass that has removed so many records, and made segments so many bytes smaller.
    pub fn add(&self, removed: u64, freed: u64) {
        self.passes.fetch_add(1, Ordering::Relaxed);
        self.removed.fetch_add(removed, Ordering::Relaxed);
        self.freed.fetch_add(freed, Ordering::Relaxed);
    }

    /// The counters, which are read one after the other.
    pub fn report(&self) -> CompactionStats {
        let Self { passes, removed, freed } = self;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CompactionStats { passes: read(passes), removed: read(removed), freed: read(freed) }
    }
}
