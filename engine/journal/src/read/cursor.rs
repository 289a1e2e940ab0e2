//! A cursor: the position of a reader in one partition. It takes records from the blocks of a [`SharedScan`].

use crate::error::ReplayError;
use crate::format::{Malformed, PartitionId};
use crate::gaps::GapCursor;
use crate::index::IndexEntry;
use crate::read::block::{FilePlace, PendingRun, RecordSpan};
use crate::read::record::{Record, Start};
use crate::read::scan::SharedScan;
use crate::segment::Segment;
use crate::shared::Shared;
use std::ops::Range;
use std::sync::Arc;

/// The position of a reader in one partition. The frames are held by the scan, so a cursor is small.
#[doc(hidden)]
pub struct Cursor {
    partition: PartitionId,
    /// The next offset that may be returned.
    next: u64,
    /// Records with an earlier time than this (nanoseconds since the epoch) are skipped.
    from: u64,
    /// Records with this offset or a later one are returned whatever their time.
    until: u64,
    /// The gaps to report.
    gap_cursor: GapCursor,
    /// The offset after the last examined record, returned or not.
    looked: u64,
    /// The number of the scan that the cursor joined, and the cursor's slot there. The number is 0 before the first
    /// read.
    scan: u64,
    slot: usize,
    _alive: Arc<()>,
    /// Blocks with this load number or a lower one have no records for the cursor.
    since: u64,
    /// The place before which the cursor needs no frame; `None` if that must be looked up. If a compaction has replaced
    /// that segment's file since, the cursor looks in the whole segment for its next offset.
    after: Option<FilePlace>,
    /// The index of the block that records are taken from, and the number of its load.
    block: usize,
    made: u64,
    /// The run that records are taken from, and the indexes of the runs after it.
    run: PendingRun,
    runs: Range<usize>,
    /// True if the last call returned nothing because other cursors must read first.
    waits: bool,
    /// True if the reader also has a gating position in a ring, so that producers may have to wait for it.
    has_gate: bool,
}

impl Cursor {
    /// Creates a cursor.
    ///
    /// # Errors
    /// The journal does not know the partition, or the start lies outside its kept offsets.
    pub(crate) fn new(shared: &Shared, partition: PartitionId, start: Start) -> Result<Self, ReplayError> {
        let extent = shared.extents().get(&partition).copied().ok_or(ReplayError::Unknown(partition))?;
        let (next, from) = match start {
            Start::Earliest => (extent.start, 0),
            Start::Latest => (extent.end, 0),
            Start::Offset(asked) if asked < extent.start || asked > extent.end.max(extent.reserved) => {
                return Err(ReplayError::OutOfRange { asked, earliest: extent.start, latest: extent.end });
            }
            Start::Offset(asked) => (asked, 0),
            Start::Time(time) => (extent.start, time),
        };
        let mut cursor = Self {
            partition,
            next,
            from,
            until: u64::MAX,
            gap_cursor: shared.gaps.gap_cursor(partition),
            looked: next,
            scan: 0,
            slot: 0,
            _alive: Arc::default(),
            since: 0,
            after: None,
            block: 0,
            made: 0,
            run: PendingRun::default(),
            runs: 0..0,
            waits: false,
            has_gate: false,
        };
        if matches!(start, Start::Time(_)) {
            let segments = shared.segments();
            let (found, offset) = find_start(shared, &segments, partition, from);
            cursor.looked = next.max(offset);
            cursor.after = found.or_else(|| segments.last().map(|last| FilePlace::in_segment(last, last.end())));
        }
        Ok(cursor)
    }

    /// The next offset that may be returned: the offset after the last returned record.
    pub fn position(&self) -> u64 {
        self.next
    }

    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Searches for the start time only among the offsets below `until`.
    pub fn set_until(&mut self, until: u64) {
        self.until = until;
    }

    /// Skips gaps without reporting them.
    pub fn pass_gaps(&mut self) {
        self.gap_cursor = GapCursor::default();
    }

    /// True if the last call returned nothing because other cursors must read first. There may be more records.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// `yes` is true if the reader has a gating position in a ring, so that producers may have to wait for it.
    pub fn set_gate(&mut self, yes: bool) {
        self.has_gate = yes;
    }

    /// Moves to another offset. The next read checks whether that offset is kept.
    pub fn seek(&mut self, next: u64) {
        (self.next, self.from, self.looked) = (next, 0, next);
        self.gap_cursor.begin_again();
        self.after = None;
        self.leave_block();
    }

    /// Must be called before [`next`](Self::next) if another cursor of the scan may have read since this cursor's last
    /// call.
    pub fn resume(&mut self, scan: &mut SharedScan) {
        if self.scan != scan.number() {
            (self.slot, self._alive, self.since) = scan.join(self.partition);
            self.scan = scan.number();
            self.made = 0;
            // From now on the scan waits for this cursor, even if another cursor reads first.
            if let Some((segment, at, _)) = self.find_stretch(&scan.shared) {
                scan.expect(self.slot, segment.position(at));
            }
        }
        if self.run.count == 0 && self.runs.is_empty() {
            return;
        }
        if self.made == scan.blocks[self.block].made && self.made > 0 {
            scan.enter(self.slot, self.block);
        } else {
            // The scan stopped waiting for this cursor, and has since loaded other frames into its block.
            self.after = None;
            self.leave_block();
        }
    }

    /// Lets the scan continue without this cursor.
    pub fn pause(&mut self, scan: &mut SharedScan) {
        if self.scan == scan.number() {
            scan.leave(self.slot);
        }
    }

    /// Returns the next record with an offset below `before`. `None` if no such record is visible, or if the cursor
    /// [waits](Self::waits).
    ///
    /// # Errors
    /// Retention deleted the offset, a frame is damaged, a gap comes next, or the disk fails.
    #[inline(always)]
    pub fn next<'s>(&mut self, scan: &'s mut SharedScan, before: u64) -> Result<Option<Record<'s>>, ReplayError> {
        let found = match self.next_in_run(scan, before) {
            Some(found) => found,
            None => match self.find_next(scan, before).map_err(|damage| damage.at_offset(self.next))? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        let (offset, written) = (self.run.next - 1, self.run.time);
        (self.next, self.from) = (offset + 1, 0);
        let bytes = &scan.blocks[self.block].held()[found.begin..found.end];
        Ok(Some(Record { offset, time: found.time, written, bytes }))
    }

    /// The next record of the current run if it may be returned; otherwise `None`.
    #[inline(always)]
    fn next_in_run(&mut self, scan: &SharedScan, before: u64) -> Option<RecordSpan> {
        if self.run.count == 0 {
            return None;
        }
        let found = self.run.next_record(scan.blocks[self.block].held())?;
        if self.run.next < self.next || self.run.next >= before || found.time < self.from {
            return None;
        }
        // A gap before this record is not reported yet: `find_next` does that.
        if self.gap_cursor.begins_below(self.run.next) {
            return None;
        }
        self.run.pass(found);
        Some(found)
    }

    /// Finds the next record to return, in the current run, another run, or a later block.
    #[inline(never)]
    fn find_next(&mut self, scan: &mut SharedScan, before: u64) -> Result<Option<RecordSpan>, ReplayError> {
        loop {
            while self.run.count > 0 {
                let offset = self.run.next;
                if offset >= before {
                    self.waits = false;
                    self.report_gap(before)?;
                    return Ok(None);
                }
                let Some(found) = self.run.next_record(scan.blocks[self.block].held()) else {
                    return Err(self.short_run());
                };
                let is_wanted = offset >= self.next && (found.time >= self.from || offset >= self.until);
                if is_wanted && self.gap_cursor.begins_below(offset) {
                    self.report_gap(offset)?;
                }
                self.run.pass(found);
                self.looked = self.looked.max(offset + 1);
                if is_wanted {
                    return Ok(Some(found));
                }
            }
            if !self.next_run(scan)? {
                if !self.waits {
                    // No record is left, so the unreported gaps lie after the last one.
                    self.report_gap(u64::MAX)?;
                }
                return Ok(None);
            }
        }
    }

    /// Returns the next gap below `offset`, the next record's offset, as an error; `Ok` if there is none.
    fn report_gap(&mut self, offset: u64) -> Result<(), ReplayError> {
        let Some(offsets) = self.gap_cursor.before(self.looked.max(self.next), offset) else { return Ok(()) };
        self.next = self.next.max(offsets.end);
        self.looked = self.looked.max(offsets.end);
        Err(ReplayError::Gap { partition: self.partition, offsets })
    }

    /// Takes several records at once, if each has `size` bytes and no time of its own: at most `most` records, with
    /// offsets below `before`. Returns the first offset, and the bytes of all. `None` if [`next`](Self::next) must be
    /// called instead.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_of_size<'s>(
        &mut self,
        scan: &'s mut SharedScan,
        size: usize,
        most: usize,
        before: u64,
    ) -> Result<Option<(u64, &'s [u8])>, ReplayError> {
        if self.run.count == 0 && !self.next_run(scan).map_err(|damage| damage.at_offset(self.next))? {
            return Ok(None);
        }
        if self.gap_cursor.begins_below(self.run.next) {
            // The run is put back: `next` reports the gap, then continues with the run.
            self.runs.start -= 1;
            self.run = PendingRun::default();
            return Ok(None);
        }
        let run = self.run;
        let is_alike = run.fixed.is_some_and(|fixed| fixed as usize == size) && !run.timed;
        if !is_alike || size == 0 || run.next < self.next || run.time < self.from {
            return Ok(None);
        }
        let count = u64::from(run.count).min(most as u64).min(before.saturating_sub(run.next)) as usize;
        let end = count.checked_mul(size).and_then(|len| run.at.checked_add(len)).filter(|end| *end <= run.end);
        let held = scan.blocks[self.block].held();
        let Some(end) = end.filter(|end| *end > run.at && *end <= held.len()) else { return Ok(None) };
        (self.run.at, self.run.next, self.run.count) = (end, run.next + count as u64, run.count - count as u32);
        (self.next, self.from) = (self.run.next, 0);
        Ok(Some((run.next, &held[run.at..end])))
    }

    /// The error for a run that is shorter than it states.
    #[cold]
    fn short_run(&mut self) -> ReplayError {
        let (segment, at) = (self.after.map_or(0, |after| after.segment), self.run.frame);
        self.leave_block();
        ReplayError::Damaged { segment, at, what: Malformed::Entry, next: None }
    }

    /// Drops the remaining records of the block.
    fn leave_block(&mut self) {
        self.run.count = 0;
        self.runs = 0..0;
    }

    /// Moves to the next run. False if none is visible, or if the cursor waits.
    fn next_run(&mut self, scan: &mut SharedScan) -> Result<bool, ReplayError> {
        loop {
            while let Some(run) = self.runs.next().map(|run| scan.blocks[self.block].run(run)) {
                if run.last() > self.next {
                    self.run = run;
                    return Ok(true);
                }
            }
            if !self.advance(scan)? {
                return Ok(false);
            }
        }
    }

    /// Moves to the next block with records of the partition. False if none is visible, or if the cursor waits.
    fn advance(&mut self, scan: &mut SharedScan) -> Result<bool, ReplayError> {
        self.waits = false;
        // If the topic was deleted since the last call, the partition is unknown.
        let extent = scan.shared.extents().get(&self.partition).copied();
        let extent = extent.ok_or(ReplayError::Unknown(self.partition))?;
        if self.next < extent.start {
            scan.leave(self.slot);
            let (asked, earliest, latest) = (self.next, extent.start, extent.end);
            // A reader of the earliest records can continue at the new earliest offset, which the error names.
            return Err(ReplayError::OutOfRange { asked, earliest, latest });
        }
        let Some((segment, at, until)) = self.find_stretch(&scan.shared) else {
            scan.leave(self.slot);
            return Ok(false);
        };
        let limit = scan.limit(&segment);
        let block = match scan.find(&segment, at, self.since) {
            Some(block) => block,
            None if at >= limit => {
                scan.leave(self.slot);
                return Ok(false);
            }
            None if !scan.may_load(self.slot, segment.position(at), self.has_gate) => {
                self.waits = true;
                return Ok(false);
            }
            None => scan.load(&segment, at, until, limit)?,
        };
        let there = &scan.blocks[block];
        (self.block, self.made, self.after) = (block, there.made, there.after());
        self.runs = there.runs_of(self.partition);
        scan.enter(self.slot, block);
        Ok(true)
    }

    /// Finds the segment with the partition's next frames, the offset in its file to read from, and the offset at which
    /// that stretch ends. `None` if there are none yet.
    fn find_stretch(&mut self, shared: &Shared) -> Option<(Arc<Segment>, u64, u64)> {
        let segments = shared.segments();
        let first = segments.first()?.header.number;
        // If no segment has such a record, later frames lie after this point, and the next search begins there.
        let last = segments.last().map(|last| FilePlace::in_segment(last, last.end()));
        let begin = match self.after {
            Some(after) => usize::try_from(after.segment.saturating_sub(first)).unwrap_or(usize::MAX),
            None => first_beyond(&segments, self.partition, self.next),
        };
        for segment in segments.get(begin..).unwrap_or(&[]) {
            let is_there = |after: &FilePlace| *after == FilePlace::in_segment(segment, after.at);
            let from = self.after.filter(is_there).map_or(0, |after| after.at);
            if let Some((at, until)) = segment.index().seek(self.partition, self.next, from) {
                return Some((Arc::clone(segment), at, until));
            }
        }
        self.after = self.after.max(last);
        None
    }
}

/// The index in `segments` of the first segment that has a record of the partition with offset `next` or later;
/// `segments.len()` if none has. A binary search: each step reads the index of the middle segment and, while those have
/// no records of the partition, of the segments after it.
fn first_beyond(segments: &[Arc<Segment>], partition: PartitionId, next: u64) -> usize {
    let end = |place: usize| segments[place].index().partitions.get(&partition).map(|indexed| indexed.end);
    let (mut low, mut high) = (0, segments.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let known = (middle..high).find_map(|place| Some((place, end(place)?)));
        match known {
            Some((place, end)) if end <= next => low = place + 1,
            // The segments from the middle to `place` have no records of the partition, and those below only records
            // before `next`.
            Some((place, _)) if middle == low => return place,
            _ => high = middle,
        }
    }
    low
}

/// Returns where the search for the first record of `time` or later begins (`None` if no segment has such a record), and
/// a partition offset below which no record has such a time. If a gap lies directly before the record to be found, the
/// search begins before the gap, so that the gap is reported.
fn find_start(
    shared: &Shared,
    segments: &[Arc<Segment>],
    partition: PartitionId,
    time: u64,
) -> (Option<FilePlace>, u64) {
    let gaps = shared.gaps.of_partition(partition);
    let (old, young) = segments.split_at(shared.first_since(segments, time));
    // The place and the first offset of an index entry.
    let start_of =
        |segment: &Arc<Segment>, entry: &IndexEntry| (FilePlace::in_segment(segment, entry.at), entry.offset);
    // The partition's end and last index entry in the newest skipped segment that has records of it.
    let last = old.iter().rev().find_map(|segment| {
        let index = segment.index();
        let indexed = index.partitions.get(&partition)?;
        Some((indexed.end, indexed.entries.last().map(|entry| start_of(segment, entry))))
    });
    let (mut end, mut before) = last.unwrap_or_default();
    for segment in young {
        let index = segment.index();
        let Some(indexed) = index.partitions.get(&partition) else { continue };
        end = indexed.end;
        let Some(entry) = (indexed.latest >= time).then(|| index.seek_time(partition, time)).flatten() else {
            before = indexed.entries.last().map(|entry| start_of(segment, entry));
            continue;
        };
        let earlier = indexed.entries.iter().rfind(|it| it.at < entry.at).map(|entry| start_of(segment, entry));
        let earlier = earlier.or(before);
        let from = earlier.map_or(0, |(_, offset)| offset);
        return match earlier {
            _ if !gaps.iter().any(|gap| gap.end > from && gap.end <= entry.offset) => {
                (Some(FilePlace::in_segment(segment, entry.at)), entry.offset)
            }
            Some((place, offset)) => (Some(place), offset),
            None => (Some(FilePlace::in_segment(segment, entry.at)), 0),
        };
    }
    (None, end)
}
