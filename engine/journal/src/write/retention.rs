//! Retention by age and size. The start of a partition moves record by record; disk space is freed by whole segments.
//!
//! A record's age is counted from its frame's time, not from the record's own time: an application's time may be wrong
//! or lie in the future, which would keep all later records. Clocks may be set back, so a frame counts as at least as
//! old as every later frame.

use crate::error::{ReplayError, WriteError};
use crate::format::{Extent, FrameBuilder, PartitionId};
use crate::gaps;
use crate::read::record::{Start, Visible};
use crate::segment::Segment;
use crate::write::expiry::ExpiryPoint;
use crate::write::writer::Writer;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The records that a partition keeps. Default: all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The greatest age of a kept record, counted from the time at which it was written; `None` for no limit.
    pub age: Option<Duration>,
    /// The largest total size of kept records in bytes, the newest being kept; `None` for no limit.
    pub bytes: Option<u64>,
}

/// Records that a partition keeps for a holder, such as a bridge that has not copied them yet, although the partition's
/// [`Retention`] would delete them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionFloor {
    /// The first offset that the holder still needs.
    pub offset: u64,
    /// The largest total size in bytes of the records that are kept for the holder, the newest being kept; `None` for
    /// no limit.
    pub bytes: Option<u64>,
}

/// The result of a retention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Freed {
    /// Count of offsets that readers can no longer read.
    pub records: u64,
    /// Count of segments that will be deleted once the retention is durable.
    pub segments: usize,
}

impl Writer {
    /// Applies to each partition the retention that `of` returns for it, at the time `now` (nanoseconds since the
    /// epoch): moves its start, and releases segments that no partition needs. [`collect`](Writer::collect) deletes
    /// these once the retention is durable.
    ///
    /// # Errors
    /// The journal is poisoned. A segment that cannot be read is no error: its records are kept.
    pub fn retain(&mut self, now: u64, of: impl Fn(PartitionId) -> Retention) -> Result<Freed, WriteError> {
        self.retain_above(now, of, |_| Vec::new())
    }

    /// As [`retain`](Self::retain), but keeps the records from each floor on that `floors` returns for a partition.
    ///
    /// # Errors
    /// Those of [`retain`](Self::retain).
    pub fn retain_above(
        &mut self,
        now: u64,
        of: impl Fn(PartitionId) -> Retention,
        floors: impl Fn(PartitionId) -> Vec<RetentionFloor>,
    ) -> Result<Freed, WriteError> {
        let mut freed = Freed::default();
        let mut frame = FrameBuilder::new();
        // Partitions with the same age limit share one search.
        let mut known = std::mem::take(&mut self.expiry);
        let mut expiry = BTreeMap::new();
        for (partition, extent) in self.state().extents().collect::<Vec<_>>() {
            let keep = of(partition);
            if let Some(age) = keep.age
                && !expiry.contains_key(&age)
            {
                let oldest = now.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
                let before = known.remove(&age).unwrap_or_default();
                // If a segment cannot be read, nothing expires by this age.
                expiry.insert(age, before.advance(self.shared(), oldest).unwrap_or_default());
            }
            let expiry = keep.age.and_then(|age| expiry.get(&age));
            let start = self.new_start(partition, extent, keep, expiry);
            let start =
                floors(partition).iter().fold(start, |start, floor| self.floored(partition, extent, start, floor));
            if start > extent.start {
                freed.records += start - extent.start;
                frame.extent(partition, Extent { start, ..extent });
                if frame.len() + 64 > self.frame_limit() {
                    self.append(&mut frame, now)?;
                }
            }
        }
        if !frame.is_empty() {
            self.append(&mut frame, now)?;
        }
        self.expiry = expiry;
        let needless = self.needless();
        if let Some(last) = needless.last() {
            freed.segments = needless.len();
            frame.clear();
            frame.floor(last.header.number + 1);
            for key in gaps::keys_below(self.state(), last.header.first + last.header.size) {
                frame.delete(gaps::GAPS_KIND, &key);
            }
            let position = self.append(&mut frame, now)?;
            // A compaction may have replaced one of them meanwhile. The present ones are removed.
            let needless = self.shared().segments_mut().drain(..needless.len()).collect();
            self.pending_removal.push((position, needless));
        }
        Ok(freed)
    }

    /// The segments before the first one in which a partition keeps a record, but never the segment that is being
    /// written.
    fn needless(&self) -> Vec<Arc<Segment>> {
        let segments = self.shared().segments();
        let elder = &segments[..segments.len().saturating_sub(1)];
        let needless = elder.iter().take_while(|segment| {
            let index = segment.index();
            index.partitions.iter().all(|(partition, indexed)| {
                self.state().extent(*partition).is_none_or(|extent| indexed.end <= extent.start)
            })
        });
        needless.cloned().collect()
    }

    fn new_start(&self, partition: PartitionId, extent: Extent, keep: Retention, expiry: Option<&ExpiryPoint>) -> u64 {
        let mut start = extent.start;
        if let Some(expiry) = expiry {
            start = start.max(expiry.end(self.shared(), partition));
        }
        if let Some(bytes) = keep.bytes {
            start = start.max(self.first_within(partition, extent, bytes).unwrap_or(start));
        }
        start.min(extent.end)
    }

    /// The partition's new start with one floor: `start`, or a lower offset that the floor keeps.
    fn floored(&self, partition: PartitionId, extent: Extent, start: u64, floor: &RetentionFloor) -> u64 {
        if floor.offset >= start {
            return start;
        }
        let within = floor.bytes.map(|bytes| self.first_within(partition, extent, bytes).unwrap_or(floor.offset));
        start.min(within.unwrap_or(0).max(floor.offset)).max(extent.start)
    }

    /// The first offset from which on the partition's records have at most `bytes` bytes in total. Segments that are
    /// kept whole count with their records' lengths and times, the segment with that offset without.
    fn first_within(&self, partition: PartitionId, extent: Extent, bytes: u64) -> Result<u64, ReplayError> {
        let mut left = bytes;
        let mut within = None;
        for segment in self.shared().segments().iter().rev() {
            let Some(indexed) = segment.index().partitions.get(&partition).cloned() else { continue };
            if indexed.end <= extent.start {
                break;
            }
            if indexed.bytes > left {
                within = Some((indexed, left));
                break;
            }
            left -= indexed.bytes;
        }
        let Some((indexed, keep)) = within else { return Ok(extent.start) };
        // In this segment the offset is found record by record, from the partition's start on.
        let first = indexed.first.max(extent.start);
        let mut there = 0;
        self.each(partition, first..indexed.end, |_, cost| {
            there += cost;
            true
        })?;
        let (mut give_up, mut start) = (there.saturating_sub(keep), indexed.end);
        self.each(partition, first..indexed.end, |offset, cost| {
            if give_up == 0 {
                start = offset;
                return false;
            }
            give_up = give_up.saturating_sub(cost);
            true
        })?;
        Ok(start)
    }

    /// Calls `goes_on` with the offset and the size in bytes of each record of a range, until it returns false.
    fn each(
        &self,
        partition: PartitionId,
        range: Range<u64>,
        mut goes_on: impl FnMut(u64, u64) -> bool,
    ) -> Result<(), ReplayError> {
        let reader = self.journal().reader(partition, Start::Offset(range.start), Visible::Written)?;
        let mut reader = reader.pass_gaps();
        while let Some(record) = reader.next()? {
            if record.offset >= range.end || !goes_on(record.offset, record.bytes.len() as u64) {
                break;
            }
        }
        Ok(())
    }
}
