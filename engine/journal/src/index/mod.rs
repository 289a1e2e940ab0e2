//! The index of a segment: where the records of each partition are. It is computed from the frames and stored in a file
//! beside a complete segment. It is used only if its checksums match that segment.

mod codec;

use crate::format::{Entry, JournalId, PartitionId, Run};
use std::collections::BTreeMap;
use std::ops::Range;

/// After this many bytes of its records a partition gets another index entry.
const STRIDE: u64 = 256 << 10;

/// The least distance between entries of the time index, in bytes of the segment.
const TIMES: u64 = 1 << 20;

/// A partition also gets an index entry where its records resume after this many bytes of the segment without any, so
/// that a reader skips those bytes. The distance doubles after each [`ABSENCES`] such entries, which bounds the index.
const ABSENCE: u64 = 64 << 10;
const ABSENCES: u32 = 4096;

/// The index of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// The index of each partition.
    pub partitions: BTreeMap<PartitionId, PartitionIndex>,
    /// Offset of the last frame in the file, in bytes, and the frame's checksum.
    pub last: (u64, u32),
    /// Offset in the file at which the last frame ends, in bytes.
    pub end: u64,
    /// Count of entries that were made because a partition's records resumed after an absence.
    absences: u32,
    /// True if the index was decoded from version 1.
    is_old: bool,
    /// The time index in file order; empty if the index was decoded from version 1.
    pub times: Vec<TimeEntry>,
}

/// An entry of the time index: the time at which the frames of a stretch were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    /// Offset in the file at which the stretch begins, in bytes. It ends where the next one begins.
    pub at: u64,
    /// The earliest time of a frame in the stretch, in nanoseconds since the epoch.
    pub earliest: u64,
}

/// The index of one partition in one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionIndex {
    /// The first record's offset.
    pub first: u64,
    /// The offset after the last record's.
    pub end: u64,
    /// Count of the records.
    pub records: u64,
    /// Size of the records with their lengths and times, in bytes.
    pub bytes: u64,
    /// The latest time of the partition's records in the segment, in nanoseconds since the epoch.
    pub latest: u64,
    /// The first 256 ranges of at least 64 offsets without records, in ascending order. For example, after a crash a
    /// partition skips its reserved offsets. Empty if the index was decoded from version 1.
    pub jumps: Vec<Jump>,
    /// Sparse entries in file order, one for each stretch of frames.
    pub entries: Vec<IndexEntry>,
    since: u64,
}

/// A range of a partition's offsets that no record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// The first offset of the range.
    pub from: u64,
    /// The offset after the range.
    pub to: u64,
    /// Count of the partition's records in the segment before the jump.
    pub records: u64,
}

/// `WIDE` is the shortest range of offsets that is noted as a jump, `MOST_JUMPS` the most jumps noted for a partition.
const WIDE: u64 = 64;
const MOST_JUMPS: usize = 256;

impl PartitionIndex {
    /// Count of the records with offsets in this range. It is never too low. It may be too high if ranges that are not
    /// among the `jumps` have no records.
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

/// An index entry: a stretch of frames. Its first and last frame have records of the partition. Between two stretches
/// the partition has no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The first of the partition's offsets in the stretch.
    pub offset: u64,
    /// Offset in the file at which the stretch begins, in bytes.
    pub at: u64,
    /// Offset in the file at which the stretch ends, in bytes.
    pub until: u64,
    /// The latest time of the partition's records in the segment before the stretch, in nanoseconds since the epoch; 0
    /// if there are none.
    pub latest_before: u64,
}

impl Index {
    /// Adds the frame at the bytes `at..end` of the file, which was written at `time` (nanoseconds since the epoch).
    pub fn frame(&mut self, at: u64, end: u64, checksum: u32, time: u64) {
        (self.last, self.end) = ((at, checksum), end);
        match self.times.last_mut() {
            Some(part) if at - part.at < TIMES => part.earliest = part.earliest.min(time),
            _ => self.times.push(TimeEntry { at, earliest: time }),
        }
    }

    /// Adds an entry of the frame at the bytes `at..end`, which was written at `time`. Only runs of records are
    /// indexed.
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

    /// Finds the partition's records with offset `offset` or later, in frames at or after byte `from`. Returns the byte
    /// to read from, and the byte at which that stretch ends. `None` if the segment has no such records.
    pub fn seek(&self, partition: PartitionId, offset: u64, from: u64) -> Option<(u64, u64)> {
        let indexed = self.partitions.get(&partition).filter(|indexed| indexed.end > offset)?;
        let after = indexed.entries.partition_point(|entry| entry.offset <= offset);
        let mut left = indexed.entries[after.saturating_sub(1)..].iter();
        left.find(|entry| entry.until > from).map(|entry| (entry.at.max(from), entry.until))
    }

    /// The last entry before which all records are earlier than `time`: a search for the first record of `time` or
    /// later begins there. `None` if the segment has no records of the partition.
    pub fn seek_time(&self, partition: PartitionId, time: u64) -> Option<IndexEntry> {
        let indexed = self.partitions.get(&partition)?;
        let after = indexed.entries.partition_point(|entry| entry.latest_before < time);
        indexed.entries.get(after.saturating_sub(1)).copied()
    }

    /// True if this index contradicts `rebuilt`, which was computed from the frames. Of an index of version 1 the
    /// entries are not compared.
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

    /// The largest size in bytes that the index of a segment file of `file` bytes can have. A compressed run may need
    /// less space in the segment than in the index.
    pub fn most(file: u64) -> u64 {
        file.saturating_mul(256).min(64 << 20)
    }
}
