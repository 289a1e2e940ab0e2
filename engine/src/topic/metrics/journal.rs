//! Metrics of the engine's journal.

use slipring_journal::Journal;
use std::time::Duration;

/// The metrics of an engine's journal. Positions count the bytes of all frames since the journal was created.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "observe", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct JournalMetrics {
    /// The position after the last written frame, in bytes.
    pub written: u64,
    /// The position below which all frames are durable, in bytes.
    pub durable: u64,
    /// How many syncs have succeeded since the engine was built.
    pub syncs: u64,
    /// The sum of their durations.
    #[cfg_attr(feature = "observe", serde(with = "super::seconds"))]
    pub sync_time: Duration,
    /// The duration of the longest one.
    #[cfg_attr(feature = "observe", serde(with = "super::seconds"))]
    pub longest_sync: Duration,
    /// How many passes of compaction have come to their end since the engine was built.
    #[cfg_attr(feature = "observe", serde(default))]
    pub compactions: u64,
    /// How many bytes smaller they have made the journal's segments.
    #[cfg_attr(feature = "observe", serde(default))]
    pub compacted_bytes: u64,
    /// The error of the disk after which the journal refuses every write; `None` while it accepts writes.
    pub failed: Option<String>,
}

impl From<&Journal> for JournalMetrics {
    fn from(journal: &Journal) -> Self {
        let (syncs, compactions) = (journal.syncs(), journal.compactions());
        Self {
            // In this order, so that no more is durable than written.
            durable: journal.durable(),
            written: journal.written(),
            syncs: syncs.count,
            sync_time: syncs.total,
            longest_sync: syncs.longest,
            compactions: compactions.passes,
            compacted_bytes: compactions.freed,
            failed: journal.poisoned().map(ToString::to_string),
        }
    }
}
