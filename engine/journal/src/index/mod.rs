//! The index of a segment: where the records of each partition stand. It is derived from the frames, kept in a file beside
//! the sealed segment, and believed only if its checksums tie it to that segment.

mod codec;

use crate::format::{Entry, JournalId, PartitionId, Run};
use std::collections::BTreeMap;
use std::ops::Range;

/// A partition gets an index entry each time this many bytes of its records have passed.
const STRIDE: u64 = 256 << 10;

/// The time index has an entry for each stretch of this many bytes.
const TIMES: u64 = 1 << 20;

/// A partition also gets an index entry where its records come again after this many bytes of the segment without one: a
/// reader skips those bytes. The distance doubles after each [`ABSENCES`] of such entries, so that the index stays small.
const ABSENCE: u64 = 64 << 10;
const ABSENCES: u32 = 4096;

/// The index of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// The index of each partition.
    pub partitions: BTreeMap<PartitionId, PartitionIndex>,
    /// The byte at which the last frame begins, and its checksum.
    pub last: (u64, u32),
    /// The byte at which the last frame ends.
    pub end: u64,
    /// Count of entries that were made because a partition came again after an absence.
    absences: u32,
    /// True if it was decoded from version 1.
    is_old: bool,
    /// The time index, in the order of the file. Empty if it was decoded from version 1.
    pub times: Vec<TimeEntry>,
}

/// An entry of the time index: when the frames of a stretch were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    /// The byte at which the stretch begins; it ends where the next one begins.
    pub at: u64,
    /// The earliest time of a frame in the stretch: nanoseconds since the epoch.
    pub earliest: u64,
}

/// The index of one partition in one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionIndex {
    /// The first offset.
    pub first: u64,
    /// The offset after the last one.
    pub end: u64,
    /// Count of the records.
    pub records: u64,
    /// Bytes of the records, with their lengths and times.
    pub bytes: u64,
    /// The latest time of a record in the segment: nanoseconds since the epoch.
    pub latest: u64,
    /// Ranges of offsets without records. Behind a crash a partition skips its reserved offsets.
    pub jumps: Vec<Jump>,
    /// Sparse entries in the order of the file, one for each stretch of frames.
    pub entries: Vec<IndexEntry>,
    since: u64,
}

/// A range of offsets that no record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// The first of the offsets.
    pub from: u64,
    /// The offset after the last of them.
    pub to: u64,
    /// Count of the partition's records in the segment before the jump.
    pub records: u64,
}

/// The fewest offsets that are noted as a jump, and the most jumps that are noted for a partition.
const WIDE: u64 = 64;
const MOST_JUMPS: usize = 256;

impl PartitionIndex {
    /// Count of the records with these offsets. It may be too high, never too low, where ranges too short for a jump have no
    /// records.
    pub fn records_in(&self, offsets: &Range<u64>) -> u64 {
        let last = Jump { from: self.end, to: self.end, records: self.records };
        let (mut begin, mut before, mut count) = (self.first, 0, 0);
        for jump in self.jumps.iter().chain([&last]) {
            let overlap = jump.from.min(offsets.end).saturating_sub(begin.max(offsets.start));
            count += overlap.min(jump.records.saturating_sub(before));
            (begin, before) = (jump.to, jump.records);
        }
        count
    }
}

/// An index entry: a stretch of frames that begins and ends with one that has records of the partition. No record of the
/// partition stands between two stretches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The first offset in the first frame of the stretch.
    pub offset: u64,
    /// The byte at which the stretch begins.
    pub at: u64,
    /// The byte at which the stretch ends.
    pub until: u64,
    /// The latest time of all records before the stretch: nanoseconds since the epoch.
    pub latest_before: u64,
}

impl Index {
    /// Adds the frame from byte `at` to byte `end`, written at `time`.
    pub fn frame(&mut self, at: u64, end: u64, checksum: u32, time: u64) {
        (self.last, self.end) = ((at, checksum), end);
        match self.times.last_mut() {
            Some(part) if at - part.at < TIMES => part.earliest = part.earliest.min(time),
            _ => self.times.push(TimeEntry { at, earliest: time }),
        }
    }

    /// Adds an entry of the frame from byte `at` to byte `end`, written at `time`.
    pub fn entry(&mut self, at: u64, end: u64, time: u64, entry: &Entry<'_>) {
        if let Entry::Run(run) = entry {
            self.run(at, end, time, run);
        }
    }

    fn run(&mut self, at: u64, end: u64, time: u64, run: &Run<'_>) {
        let indexed = self.partitions.entry(run.partition).or_insert_with(|| PartitionIndex {
            first: run.first,
            end: run.first,
            records: 0,
            bytes: 0,
            latest: 0,
            jumps: Vec::new(),
            entries: Vec::new(),
            since: STRIDE,
        });
        let absence = ABSENCE.saturating_mul(1 << (self.absences / ABSENCES).min(32));
        let was_absent = indexed.entries.last().is_some_and(|last| at > last.until && at - last.until >= absence);
        if indexed.since >= STRIDE || was_absent {
            self.absences += u32::from(was_absent);
            indexed.entries.push(IndexEntry { offset: run.first, at, until: end, latest_before: indexed.latest });
            indexed.since = 0;
        }
        if let Some(last) = indexed.entries.last_mut() {
            last.until = end;
        }
        indexed.since += run.bytes();
        if run.first >= indexed.end + WIDE && indexed.jumps.len() < MOST_JUMPS {
            indexed.jumps.push(Jump { from: indexed.end, to: run.first, records: indexed.records });
        }
        indexed.end = run.end();
        indexed.records += u64::from(run.count);
        indexed.bytes += run.bytes();
        let latest = if run.timed() { run.records().filter_map(|record| record.time).max() } else { Some(time) };
        indexed.latest = indexed.latest.max(latest.unwrap_or(0));
    }

    /// Where records of a partition from `offset` on stand, in frames from byte `from` on: the byte to read from, and the
    /// byte at which that stretch ends. None if the segment has none.
    pub fn seek(&self, partition: PartitionId, offset: u64, from: u64) -> Option<(u64, u64)> {
        let indexed = self.partitions.get(&partition).filter(|indexed| indexed.end > offset)?;
        let after = indexed.entries.partition_point(|entry| entry.offset <= offset);
        let mut left = indexed.entries[after.saturating_sub(1)..].iter();
        left.find(|entry| entry.until > from).map(|entry| (entry.at.max(from), entry.until))
    }

    /// The entry from which on to search for the first record of `time` or later.
    pub fn seek_time(&self, partition: PartitionId, time: u64) -> Option<IndexEntry> {
        let indexed = self.partitions.get(&partition)?;
        let after = indexed.entries.partition_point(|entry| entry.latest_before < time);
        indexed.entries.get(after.saturating_sub(1)).copied()
    }

    /// True if this index contradicts `rebuilt`, which was made from the frames.
    pub fn is_stale(&self, rebuilt: &Self, id: &JournalId, number: u64) -> bool {
        let as_old = |rebuilt: &Self| {
            let mut rebuilt = rebuilt.clone();
            rebuilt
                .partitions
                .values_mut()
                .for_each(|indexed| (indexed.entries, indexed.jumps) = (Vec::new(), Vec::new()));
            rebuilt.times.clear();
            rebuilt
        };
        if self.is_old {
            return as_old(self).encode(id, number, 0) != as_old(rebuilt).encode(id, number, 0);
        }
        self.encode(id, number, 0) != rebuilt.encode(id, number, 0)
    }

    /// The most bytes that the index of a segment file of `file` bytes can have. A compressed run may take much less in the
    /// segment than in the index.
    pub fn most(file: u64) -> u64 {
        file.saturating_mul(256).min(64 << 20)
    }
}
