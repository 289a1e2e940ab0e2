//! Forgetting by age and size: the start of a partition moves exactly, space is freed in whole segments.
//!
//! The age of a record is the age of its frame, whatever time the record bears itself: a time of the user's may be wrong or in
//! the future, and would keep all that comes behind it. Clocks are set back, too: a frame is at least as old as the ones behind it.

use super::aged::Aged;
use super::error::{ReplayError, WriteError};
use super::format::{Extent, FrameBuilder, PartitionId};
use super::gaps;
use super::record::{Start, Visible};
use super::segment::Segment;
use super::writer::Writer;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// What a partition keeps; everything unless told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Records that were written longer ago than this go, whatever time they bear.
    pub age: Option<Duration>,
    /// Of the newest records, no more bytes than this stay.
    pub bytes: Option<u64>,
}

/// What was freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Freed {
    /// Records that can't be read any more.
    pub records: u64,
    /// Segments that will be deleted once that is durable.
    pub segments: usize,
}

impl Writer {
    /// Moves the starts of partitions up, as `of` says for each at `now` (nanoseconds since the epoch), and gives up
    /// segments that no partition needs. They are deleted by [`collect`](Writer::collect) after the next sync.
    ///
    /// # Errors
    /// The journal is poisoned. A segment that can't be read stays, and so does what it has.
    pub fn retain(&mut self, now: u64, of: impl Fn(PartitionId) -> Retention) -> Result<Freed, WriteError> {
        let mut freed = Freed::default();
        let mut frame = FrameBuilder::new();
        // One look for each age, however many partitions have it.
        let mut known = std::mem::take(&mut self.aged);
        let mut aged = BTreeMap::new();
        for (partition, extent) in self.state().extents().collect::<Vec<_>>() {
            let keep = of(partition);
            if let Some(age) = keep.age
                && !aged.contains_key(&age)
            {
                let oldest = now.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
                let before = known.remove(&age).unwrap_or_default();
                // A segment that can't be read stays.
                aged.insert(age, before.go_on(self.shared(), oldest).unwrap_or_default());
            }
            let aged = keep.age.and_then(|age| aged.get(&age));
            let start = self.new_start(partition, extent, keep, aged);
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
        self.aged = aged;
        let needless = self.needless();
        if let Some(last) = needless.last() {
            freed.segments = needless.len();
            frame.clear();
            frame.floor(last.header.number + 1);
            for key in gaps::keys_below(self.state(), last.header.first + last.header.size) {
                frame.delete(gaps::WHAT, &key);
            }
            let position = self.append(&mut frame, now)?;
            self.shared().segments_mut().drain(..needless.len());
            self.condemned.push((position, needless));
        }
        Ok(freed)
    }

    /// The eldest segments of which no partition keeps a record; never the one that is written.
    fn needless(&self) -> Vec<Arc<Segment>> {
        let segments = self.shared().segments();
        let elder = &segments[..segments.len().saturating_sub(1)];
        let needless = elder.iter().take_while(|segment| {
            let index = segment.index();
            index.partitions.iter().all(|(partition, place)| {
                self.state().extent(*partition).is_none_or(|extent| place.end <= extent.start)
            })
        });
        needless.cloned().collect()
    }

    fn new_start(&self, partition: PartitionId, extent: Extent, keep: Retention, aged: Option<&Aged>) -> u64 {
        let mut start = extent.start;
        if let Some(aged) = aged {
            start = start.max(aged.end(self.shared(), partition));
        }
        if let Some(bytes) = keep.bytes {
            start = start.max(self.first_within(partition, extent, bytes).unwrap_or(start));
        }
        start.min(extent.end)
    }

    /// The first record of the newest that have no more than `bytes` together.
    fn first_within(&self, partition: PartitionId, extent: Extent, bytes: u64) -> Result<u64, ReplayError> {
        let mut left = bytes;
        let mut within = None;
        for segment in self.shared().segments().iter().rev() {
            let Some(place) = segment.index().partitions.get(&partition).cloned() else { continue };
            if place.end <= extent.start {
                break;
            }
            if place.bytes > left {
                within = Some((place, left));
                break;
            }
            left -= place.bytes;
        }
        let Some((place, keep)) = within else { return Ok(extent.start) };
        // In this segment the boundary is found record by record, among those that an earlier call has left.
        let first = place.first.max(extent.start);
        let mut there = 0;
        self.each(partition, first..place.end, |_, cost| {
            there += cost;
            true
        })?;
        let (mut give_up, mut start) = (there.saturating_sub(keep), place.end);
        self.each(partition, first..place.end, |offset, cost| {
            if give_up == 0 {
                start = offset;
                return false;
            }
            give_up = give_up.saturating_sub(cost);
            true
        })?;
        Ok(start)
    }

    /// Offset and bytes of each record of a range, until `goes_on` says no.
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
