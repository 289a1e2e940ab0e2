//! An open journal as its readers see it.

use super::cursor::Cursor;
use super::error::{DiskError, ReplayError};
use super::format::{Extent, JournalId, PartitionId};
use super::limits::frame_limit;
use super::options::Sabotage;
use super::reader::Reader;
use super::record::{Start, Visible};
use super::scan::SharedScan;
use super::shared::{Shared, Syncs};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What writer, readers and helper share. Cheap to clone.
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
    /// The faults that are turned on.
    #[doc(hidden)]
    pub fn sabotage(&self) -> Sabotage {
        self.shared.options.sabotage()
    }

    /// Bytes written so far, as a position: it only grows.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Acquire)
    }

    /// The position below which all is durable.
    pub fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// How often it was synced since it was opened, and what that took. Counted one after the other while syncs go on.
    pub fn syncs(&self) -> Syncs {
        self.shared.synced.report()
    }

    /// Why the journal takes nothing more; none while it does.
    pub fn poisoned(&self) -> Option<&DiskError> {
        self.shared.poison.get()
    }

    /// Where a partition stands.
    pub fn extent(&self, partition: PartitionId) -> Option<Extent> {
        self.shared.extents().get(&partition).copied()
    }

    /// All partitions, and where they stand.
    pub fn extents(&self) -> Vec<(PartitionId, Extent)> {
        self.shared.extents().iter().map(|(partition, extent)| (*partition, *extent)).collect()
    }

    /// Offsets of a partition whose records a repair could not save, in order. None comes while the journal is open.
    pub fn gaps(&self, partition: PartitionId) -> &[Range<u64>] {
        self.shared.gaps.of_partition(partition)
    }

    /// How many records of a partition have these offsets. Looked up, not read: where a segment leaves out a few
    /// offsets and begins before or ends after them, it may count some more, never fewer.
    pub fn records_in(&self, partition: PartitionId, offsets: Range<u64>) -> u64 {
        let start = self.extent(partition).map_or(offsets.end, |extent| extent.start.max(offsets.start));
        let (mut count, segments) = (0, self.shared.segments());
        for segment in segments.iter().rev() {
            let index = segment.index();
            let Some(place) = index.partitions.get(&partition) else { continue };
            count += place.records_in(&(start..offsets.end));
            if place.first <= start {
                break;
            }
        }
        count
    }

    /// The offset of a partition's first record whose time is `time` (nanoseconds since the epoch) or later, or of the gap
    /// before it, which may have had an earlier one. None if there is neither.
    ///
    /// # Errors
    /// There is no such partition, a frame is damaged, or the disk fails.
    pub fn first_since(&self, partition: PartitionId, time: u64) -> Result<Option<u64>, ReplayError> {
        let mut reader = self.reader(partition, Start::Time(time), Visible::Written)?;
        match reader.next() {
            Ok(record) => Ok(record.map(|record| record.offset)),
            Err(ReplayError::Gap { offsets, .. }) => Ok(Some(offsets.start)),
            Err(cause) => Err(cause),
        }
    }

    /// The first offset of a partition in the eldest segment that has a record of `time` (nanoseconds since the epoch) or
    /// later. None if no segment has one.
    #[doc(hidden)]
    pub fn reaches(&self, partition: PartitionId, time: u64) -> Option<u64> {
        let segments = self.shared.segments();
        segments.iter().find_map(|segment| {
            let index = segment.index();
            index.partitions.get(&partition).filter(|place| place.latest >= time).map(|place| place.first)
        })
    }

    /// The largest payload of one frame.
    pub fn frame_limit(&self) -> usize {
        frame_limit(self.shared.options.segment_size)
    }

    /// The journal's own number, random at its creation.
    pub fn id(&self) -> JournalId {
        self.shared.id
    }

    /// Raised at each opening.
    pub fn incarnation(&self) -> u32 {
        self.shared.incarnation
    }

    /// Reads the records of a partition.
    ///
    /// # Errors
    /// There is no such partition, or the start is out of the range that is kept.
    pub fn reader(&self, partition: PartitionId, start: Start, visible: Visible) -> Result<Reader, ReplayError> {
        Reader::new(Arc::clone(&self.shared), partition, start, visible)
    }

    /// Where a reader of many partitions stands in one of them.
    #[doc(hidden)]
    pub fn cursor(&self, partition: PartitionId, start: Start) -> Result<Cursor, ReplayError> {
        Cursor::new(&self.shared, partition, start)
    }

    /// What cursors read through.
    #[doc(hidden)]
    pub fn scan(&self, visible: Visible) -> SharedScan {
        SharedScan::new(Arc::clone(&self.shared), visible)
    }
}
