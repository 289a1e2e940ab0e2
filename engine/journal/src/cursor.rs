//! Where a reader stands in one partition: what it takes out of the blocks of a [`SharedScan`].

use super::block::{Found, Pending};
use super::error::ReplayError;
use super::format::{Malformed, PartitionId};
use super::gaps::Untold;
use super::index::Mark;
use super::record::{Record, Start};
use super::scan::SharedScan;
use super::segment::Segment;
use super::shared::Shared;
use std::ops::Range;
use std::sync::Arc;

/// A place in a partition. It costs an offset and a few words; what it reads is in the scan.
#[doc(hidden)]
pub struct Cursor {
    partition: PartitionId,
    /// The next offset that may be given.
    next: u64,
    /// Nothing earlier than this is given.
    from: u64,
    /// From this offset on times do not count any more.
    until: u64,
    /// What it is to be told of.
    untold: Untold,
    /// The offset after the last record that it has looked at, given or not.
    looked: u64,
    /// The scan that knows it, and its place there; none while it has not begun.
    scan: u64,
    place: usize,
    _alive: Arc<()>,
    /// No block that was made before has something for it.
    since: u64,
    /// A segment, and a place in it: all frames before are done with. None where that is to be looked up.
    after: Option<(u64, u64)>,
    /// The block that it is in.
    block: usize,
    made: u64,
    /// The part of the block that is being given, and the numbers of those that come then.
    run: Pending,
    runs: Range<usize>,
    /// Whether the last call gave nothing because others are to be waited for.
    waits: bool,
    /// It holds a place in a ring.
    has_gate: bool,
}

impl Cursor {
    /// # Errors
    /// There is no such partition, or the start is out of the range that is kept.
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
            untold: shared.gaps.untold(partition),
            looked: next,
            scan: 0,
            place: 0,
            _alive: Arc::default(),
            since: 0,
            after: None,
            block: 0,
            made: 0,
            run: Pending::default(),
            runs: 0..0,
            waits: false,
            has_gate: false,
        };
        if matches!(start, Start::Time(_)) {
            let segments = shared.segments();
            let (found, offset) = find_time(&segments, partition, from, shared.gaps.of_partition(partition));
            cursor.looked = next.max(offset);
            cursor.after = found.or_else(|| segments.last().map(|last| (last.header.number, last.end())));
        }
        Ok(cursor)
    }

    /// The next offset that may be given: one after the last.
    pub fn position(&self) -> u64 {
        self.next
    }

    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Looks for the time it was opened for among the offsets below `until` only.
    pub fn set_until(&mut self, until: u64) {
        self.until = until;
    }

    /// Goes on behind gaps without a word.
    pub fn pass_gaps(&mut self) {
        self.untold = Untold::default();
    }

    /// Whether the last call that gave nothing did so only because others are to be waited for: more may be there.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Whether it holds a place in a ring, so that a producer may wait for it.
    pub fn set_gate(&mut self, yes: bool) {
        self.has_gate = yes;
    }

    /// Goes to another offset. Whether that is there is found out by the next read.
    pub fn seek(&mut self, next: u64) {
        (self.next, self.from, self.looked) = (next, 0, next);
        self.untold.begin_again();
        self.after = None;
        self.forget();
    }

    /// To be called before others are, if another cursor of the scan may have been read since the last call.
    pub fn begin(&mut self, scan: &mut SharedScan) {
        if self.scan != scan.number() {
            (self.place, self._alive, self.since) = scan.join(self.partition);
            self.scan = scan.number();
            self.made = 0;
            // Others wait for it from now on, whether or not it is read first.
            if let Some((segment, at, _)) = self.find(&scan.shared) {
                scan.expect(self.place, segment.position(at));
            }
        }
        if self.run.count == 0 && self.runs.is_empty() {
            return;
        }
        if self.made == scan.blocks[self.block].made && self.made > 0 {
            scan.enter(self.place, self.block);
        } else {
            // Others did not wait for it any longer, and its block has gone.
            self.after = None;
            self.forget();
        }
    }

    /// Has nobody wait for it.
    pub fn rest(&mut self, scan: &mut SharedScan) {
        if self.scan == scan.number() {
            scan.leave(self.place);
        }
    }

    /// The next record below `before`; none if there is none that is visible yet, or it [waits](Self::waits).
    ///
    /// # Errors
    /// Retention has taken the position away, a frame is damaged, or the disk fails.
    #[inline(always)]
    pub fn next<'s>(&mut self, scan: &'s mut SharedScan, before: u64) -> Result<Option<Record<'s>>, ReplayError> {
        let found = match self.step(scan, before) {
            Some(found) => found,
            None => match self.look(scan, before)? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        let (offset, written) = (self.run.next - 1, self.run.time);
        (self.next, self.from) = (offset + 1, 0);
        let bytes = &scan.blocks[self.block].held()[found.begin..found.end];
        Ok(Some(Record { offset, time: found.time, written, bytes }))
    }

    /// Takes the next record of the run, if it has one that is to be given.
    #[inline(always)]
    fn step(&mut self, scan: &SharedScan, before: u64) -> Option<Found> {
        if self.run.count == 0 {
            return None;
        }
        let found = self.run.place(scan.blocks[self.block].held())?;
        if self.run.next < self.next || self.run.next >= before || found.time < self.from {
            return None;
        }
        self.run.pass(found);
        Some(found)
    }

    /// The next record that is to be given, wherever it stands: of this run, of another one, in a later block.
    #[inline(never)]
    fn look(&mut self, scan: &mut SharedScan, before: u64) -> Result<Option<Found>, ReplayError> {
        loop {
            while self.run.count > 0 {
                let offset = self.run.next;
                if offset >= before {
                    self.waits = false;
                    self.tell(before)?;
                    return Ok(None);
                }
                let Some(found) = self.run.place(scan.blocks[self.block].held()) else {
                    return Err(self.broken());
                };
                let is_wanted = offset >= self.next && (found.time >= self.from || offset >= self.until);
                if is_wanted && self.untold.begins_below(offset) {
                    self.tell(offset)?;
                }
                self.run.pass(found);
                self.looked = self.looked.max(offset + 1);
                if is_wanted {
                    return Ok(Some(found));
                }
            }
            if !self.next_run(scan)? {
                if !self.waits {
                    // Behind the last record: every gap stands below what was written since the journal was opened.
                    self.tell(u64::MAX)?;
                }
                return Ok(None);
            }
        }
    }

    /// Tells of the next gap below `offset`, that of the record which comes next.
    fn tell(&mut self, offset: u64) -> Result<(), ReplayError> {
        let Some(offsets) = self.untold.before(self.looked.max(self.next), offset) else { return Ok(()) };
        self.next = self.next.max(offsets.end);
        self.looked = self.looked.max(offsets.end);
        Err(ReplayError::Gap { partition: self.partition, offsets })
    }

    /// The records that come next, at most so many and all below `before`, if each has `size` bytes and no time: the
    /// first one's offset, and all bytes. None where [`next`](Self::next) must be asked.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn alike<'s>(
        &mut self,
        scan: &'s mut SharedScan,
        size: usize,
        most: usize,
        before: u64,
    ) -> Result<Option<(u64, &'s [u8])>, ReplayError> {
        if self.run.count == 0 && !self.next_run(scan)? {
            return Ok(None);
        }
        if self.untold.begins_below(self.run.next) {
            // Looked at by the other way, which tells.
            self.runs.start -= 1;
            self.run = Pending::default();
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

    /// What is left of a run that is not as long as it says.
    #[cold]
    fn broken(&mut self) -> ReplayError {
        let (segment, at) = (self.after.map_or(0, |(segment, _)| segment), self.run.frame);
        self.forget();
        ReplayError::Damaged { segment, at, what: Malformed::Entry }
    }

    /// Nothing more is given of the block that it is in.
    fn forget(&mut self) {
        self.run.count = 0;
        self.runs = 0..0;
    }

    /// Begins the next run; false if there is none that is visible yet, or it waits.
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

    /// Goes to the next block that has records of the partition.
    fn advance(&mut self, scan: &mut SharedScan) -> Result<bool, ReplayError> {
        self.waits = false;
        // A topic that was deleted since is not known any more.
        let extent = scan.shared.extents().get(&self.partition).copied();
        let extent = extent.ok_or(ReplayError::Unknown(self.partition))?;
        if self.next < extent.start {
            scan.leave(self.place);
            let (asked, earliest, latest) = (self.next, extent.start, extent.end);
            // One that began at the earliest goes on with it only when told to.
            return Err(ReplayError::OutOfRange { asked, earliest, latest });
        }
        let Some((segment, at, until)) = self.find(&scan.shared) else {
            scan.leave(self.place);
            return Ok(false);
        };
        let (number, limit) = (segment.header.number, scan.limit(&segment));
        let block = match scan.find(number, at, self.since) {
            Some(block) => block,
            None if at >= limit => {
                scan.leave(self.place);
                return Ok(false);
            }
            None if !scan.may_load(self.place, segment.position(at), self.has_gate) => {
                self.waits = true;
                return Ok(false);
            }
            None => scan.load(&segment, at, until, limit)?,
        };
        let there = &scan.blocks[block];
        (self.block, self.made, self.after) = (block, there.made, there.after());
        self.runs = there.runs_of(self.partition);
        scan.enter(self.place, block);
        Ok(true)
    }

    /// Where the next frames stand that have records of the partition, and where a stretch of them ends.
    fn find(&mut self, shared: &Shared) -> Option<(Arc<Segment>, u64, u64)> {
        let segments = shared.segments();
        let first = segments.first()?.header.number;
        let (number, from) = self.after.unwrap_or((first, 0));
        // What comes later stands behind that.
        let last = segments.last().map(|last| (last.header.number, last.end()));
        let begin = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
        for segment in segments.get(begin..).unwrap_or(&[]) {
            let from = if segment.header.number == number { from } else { 0 };
            if let Some((at, until)) = segment.index().seek(self.partition, self.next, from) {
                return Some((Arc::clone(segment), at, until));
            }
        }
        self.after = self.after.max(last);
        None
    }
}

/// Where to begin to look for the first record at or after `time`, and an offset that no record before has reached. A record
/// that stands before a gap is looked at too: so it is seen whether the gap lies right before the one that is found.
fn find_time(
    segments: &[Arc<Segment>],
    partition: PartitionId,
    time: u64,
    gaps: &[Range<u64>],
) -> (Option<(u64, u64)>, u64) {
    let mut before: Option<(u64, Mark)> = None;
    let mut end = 0;
    for segment in segments {
        let (index, number) = (segment.index(), segment.header.number);
        let Some(place) = index.partitions.get(&partition) else { continue };
        end = place.end;
        let Some(mark) = (place.latest >= time).then(|| index.seek_time(partition, time)).flatten() else {
            before = place.marks.last().map(|mark| (number, *mark));
            continue;
        };
        let earlier = place.marks.iter().rfind(|it| it.at < mark.at).map(|mark| (number, *mark));
        let earlier = earlier.or(before);
        let from = earlier.as_ref().map_or(0, |(_, mark)| mark.offset);
        return match earlier {
            _ if !gaps.iter().any(|gap| gap.end > from && gap.end <= mark.offset) => {
                (Some((number, mark.at)), mark.offset)
            }
            Some((number, mark)) => (Some((number, mark.at)), mark.offset),
            None => (Some((number, mark.at)), 0),
        };
    }
    (None, end)
}
