//! The handle of an open journal.

use crate::compact::CompactionStats;
use crate::error::{DiskError, ReplayError};
use crate::format::{Extent, JournalId, PartitionId};
use crate::limits::frame_limit;
use crate::options::Sabotage;
use crate::read::cursor::Cursor;
use crate::read::reader::Reader;
use crate::read::record::{Start, Visible};
use crate::read::scan::SharedScan;
use crate::shared::{Shared, SyncStats};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A handle of an open journal, for reading. Clones share the journal.
#[derive(Clone)]
pub struct Journal {
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, written, durable) = (self.shared.storage.name(), self.written(), self.durable());
        write!(f, "Journal({name:?}, written {written}, durable {durable})")
    }
}

impl Journal {
    /// The faults that are switched on for tests.
    #[doc(hidden)]
    pub fn sabotage(&self) -> Sabotage {
        self.shared.options.sabotage()
    }

    /// The position after the last written frame, in bytes. It never decreases.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Acquire)
    }

    /// The position below which all frames are durable, in bytes. It never decreases.
    pub fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// Count and durations of the syncs since the journal was opened. The values are read one after the other, so a
    /// sync that ends in between may be in one value and not yet in another.
    pub fn syncs(&self) -> SyncStats {
        self.shared.synced.report()
    }

    /// Counts of the compactions since the journal was opened.
    pub fn compactions(&self) -> CompactionStats {
        self.shared.compacted.report()
    }

    /// The disk error that has poisoned the journal; `None` while the journal accepts writes.
    pub fn poisoned(&self) -> Option<&DiskError> {
        self.shared.poison.get()
    }

    /// The extent of a partition: its first, next and reserved offsets. `None` if the journal does not know the
    /// partition.
    pub fn extent(&self, partition: PartitionId) -> Option<Extent> {
        self.shared.extents().get(&partition).copied()
    }

    /// All partitions with their extents, in ascending order.
    pub fn extents(&self) -> Vec<(PartitionId, Extent)> {
        self.shared.extents().iter().map(|(partition, extent)| (*partition, *extent)).collect()
    }

    /// Ranges of a partition's offsets whose records a repair could not save, in ascending order; empty if there are
    /// none. They do not change while the journal is open.
    pub fn gaps(&self, partition: PartitionId) -> &[Range<u64>] {
        self.shared.gaps.of_partition(partition)
    }

    /// Count of a partition's records with offsets in this range, taken from the indexes. It is never too low. It may
    /// be too high if a segment has ranges without records that are too short or too many for its index
    /// (`PartitionIndex::jumps`). 0 if the journal does not know the partition.
    pub fn records_in(&self, partition: PartitionId, offsets: Range<u64>) -> u64 {
        let start = self.extent(partition).map_or(offsets.end, |extent| extent.start.max(offsets.start));
        let (mut count, segments) = (0, self.shared.segments());
        for segment in segments.iter().rev() {
            let index = segment.index();
            let Some(indexed) = index.partitions.get(&partition) else { continue };
            count += indexed.records_in(&(start..offsets.end));
            if indexed.first <= start {
                break;
            }
        }
        count
    }

    /// The offset of a partition's first record with a time of `time` (nanoseconds since the epoch) or later. If a gap
    /// lies directly before that record, or after the last record if there is no such record, the gap's first offset,
    /// because a lost record may have had such a time. `None` if there is neither.
    ///
    /// # Errors
    /// The journal does not know the partition, a frame is damaged, or the disk fails.
    pub fn first_since(&self, partition: PartitionId, time: u64) -> Result<Option<u64>, ReplayError> {
        let mut reader = self.reader(partition, Start::Time(time), Visible::Written)?;
        match reader.next() {
            Ok(record) => Ok(record.map(|record| record.offset)),
            Err(ReplayError::Gap { offsets, .. }) => Ok(Some(offsets.start)),
            Err(cause) => Err(cause),
        }
    }

    /// The offset of a partition's first record in the oldest segment in which the partition has a record of `time`
    /// (nanoseconds since the epoch) or later. `None` if there is no such segment.
    #[doc(hidden)]
    pub fn first_since_by_index(&self, partition: PartitionId, time: u64) -> Option<u64> {
        let segments = self.shared.segments();
        segments.iter().find_map(|segment| {
            let index = segment.index();
            index.partitions.get(&partition).filter(|indexed| indexed.latest >= time).map(|indexed| indexed.first)
        })
    }

    /// The largest payload of a frame, in bytes.
    pub fn frame_limit(&self) -> usize {
        frame_limit(self.shared.options.segment_size)
    }

    /// The journal's id, random at its creation.
    pub fn id(&self) -> JournalId {
        self.shared.id
    }

    /// The number of this opening. Each opening has a higher number than all before it.
    pub fn incarnation(&self) -> u32 {
        self.shared.incarnation
    }

    /// Creates a reader of a partition's records.
    ///
    /// # Errors
    /// The journal does not know the partition, or the start lies outside its kept offsets.
    pub fn reader(&self, partition: PartitionId, start: Start, visible: Visible) -> Result<Reader, ReplayError> {
        Reader::new(Arc::clone(&self.shared), partition, start, visible)
    }

    /// Creates a cursor in a partition, for a reader of many partitions.
    #[doc(hidden)]
    pub fn cursor(&self, partition: PartitionId, start: Start) -> Result<Cursor, ReplayError> {
        Cursor::new(&self.shared, partition, start)
    }

    /// Creates the scan that the cursors of a reader share.
    #[doc(hidden)]
    pub fn scan(&self, visible: Visible) -> SharedScan {
        SharedScan::new(Arc::clone(&self.shared), visible)
    }
}
